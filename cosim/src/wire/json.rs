//! The dialect of one JSON object a line.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Advance, Answer, Completed, Dialect, Init, Order, WireError,
    event::{self, Spelled},
    excerpt,
};

const ORDERS: &str = "INIT, ADVANCE, SHUTDOWN";
const ANSWERS: &str = "READY, DONE, ERROR";

/// What either side writes; the word in `type` says which.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "UPPERCASE")]
enum Line<'a> {
    Init {
        time_us: u64,
        node: &'a str,
        seed: u64,
        config: &'a Value,
    },
    Advance {
        time_us: u64,
        events: Spelled<'a>,
    },
    Shutdown,
    Ready {
        time_us: u64,
    },
    Done {
        time_us: Option<u64>,
        events: Spelled<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_us: Option<u64>,
    },
    Error {
        message: &'a str,
    },
}

pub(super) fn write_order(order: &Order) -> Vec<u8> {
    line(&match order {
        Order::Init(Init { node, seed, config }) => {
            Line::Init { time_us: 0, node, seed: *seed, config }
        }
        Order::Advance(Advance { to_us, events }) => {
            Line::Advance { time_us: *to_us, events: Spelled(Dialect::Json, events) }
        }
        Order::Shutdown => Line::Shutdown,
    })
}

pub(super) fn write_answer(answer: &Answer) -> Vec<u8> {
    line(&match answer {
        Answer::Ready => Line::Ready { time_us: 0 },
        Answer::Done(Completed { time_us, events, next_us }) => Line::Done {
            time_us: *time_us,
            events: Spelled(Dialect::Json, events),
            next_us: *next_us,
        },
        Answer::Error(message) => Line::Error { message },
    })
}

pub(super) fn read_order(text: &str) -> Result<Order, WireError> {
    let (kind, mut map) = object(text)?;
    match kind.as_str() {
        "INIT" => {
            let node = match map.remove("node") {
                None => String::new(),
                Some(Value::String(node)) => node,
                Some(other) => return Err(WireError::wrong("node", "a text", &other)),
            };
            let config = config(map.remove("config"))?;
            let seed = match count(&mut map, "seed")? {
                Some(seed) => seed,
                None => seed_of(&config)?,
            };
            Ok(Order::Init(Init { node, seed, config }))
        }
        "ADVANCE" => {
            let to_us = count(&mut map, "time_us")?.ok_or(WireError::Missing { key: "time_us" })?;
            Ok(Order::Advance(Advance { to_us, events: events(&mut map)? }))
        }
        "SHUTDOWN" => Ok(Order::Shutdown),
        _ => Err(WireError::UnknownWord { expected: ORDERS, found: excerpt(&kind) }),
    }
}

pub(super) fn read_answer(text: &str) -> Result<Answer, WireError> {
    let (kind, mut map) = object(text)?;
    match kind.as_str() {
        "READY" => Ok(Answer::Ready),
        "DONE" => {
            let time_us =
                count(&mut map, "time_us")?.ok_or(WireError::Missing { key: "time_us" })?;
            let next_us = count(&mut map, "next_us")?;
            Ok(Answer::Done(Completed {
                time_us: Some(time_us),
                events: events(&mut map)?,
                next_us,
            }))
        }
        "ERROR" => match map.remove("message").or_else(|| map.remove("error")) {
            Some(Value::String(message)) => Ok(Answer::Error(message)),
            None => Err(WireError::Missing { key: "message" }),
            Some(other) => Ok(Answer::Error(excerpt(&other.to_string()))),
        },
        _ => Err(WireError::UnknownWord { expected: ANSWERS, found: excerpt(&kind) }),
    }
}

/// A node's settings: an object, or nothing.
pub(super) fn config(found: Option<Value>) -> Result<Value, WireError> {
    match found {
        None | Some(Value::Null) => Ok(Value::Object(Map::new())),
        Some(config @ Value::Object(_)) => Ok(config),
        Some(other) => Err(WireError::wrong("config", "an object", &other)),
    }
}

/// The seed where it stands among the settings.
pub(super) fn seed_of(config: &Value) -> Result<u64, WireError> {
    match config.get("seed") {
        None | Some(Value::Null) => Ok(0),
        Some(found) => found
            .as_u64()
            .ok_or_else(|| WireError::wrong("seed", "a whole number, 0 or more", found)),
    }
}

fn line(line: &Line<'_>) -> Vec<u8> {
    let mut bytes = written(line);
    bytes.push(b'\n');
    bytes
}

/// The JSON of what always has one: all keys are texts, and nothing is written to but memory.
pub(super) fn written(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and lists have a JSON")
}

fn object(text: &str) -> Result<(String, Map<String, Value>), WireError> {
    let value: Value = serde_json::from_str(text).map_err(|error| WireError::not_json(&error))?;
    let Value::Object(mut map) = value else {
        return Err(WireError::NotA { expected: "object", found: excerpt(text) });
    };
    match map.remove("type") {
        Some(Value::String(kind)) => Ok((kind, map)),
        None => Err(WireError::Missing { key: "type" }),
        Some(other) => Err(WireError::wrong("type", "a text", &other)),
    }
}

fn count(map: &mut Map<String, Value>, key: &'static str) -> Result<Option<u64>, WireError> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(found) => match found.as_u64() {
            Some(count) => Ok(Some(count)),
            None => Err(WireError::wrong(key, "a whole number, 0 or more", &found)),
        },
    }
}

fn events(map: &mut Map<String, Value>) -> Result<Vec<event::Event>, WireError> {
    map.remove("events").map_or(Ok(vec![]), event::read_all)
}
