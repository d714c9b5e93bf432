//! The two plain dialects: a word, what belongs to it, and events as JSON on the next line.

use serde_json::Value;

use super::{
    Advance, Answer, Completed, Dialect, Init, Order, WireError,
    event::{self, Spelled},
    excerpt, json,
};

const ORDERS: &str = "INIT, ADVANCE, SHUTDOWN";
const ANSWERS: &str = "READY, DONE, ERROR";

pub(super) fn write_order(dialect: Dialect, order: &Order) -> Vec<u8> {
    match order {
        Order::Init(init) => {
            let mut config = init.config.clone();
            if let Value::Object(map) = &mut config {
                // Nodes of these dialects look for the seed among their settings.
                map.insert("seed".to_owned(), Value::from(init.seed));
            }
            match dialect {
                Dialect::PlainTcp => format!("INIT {} {config}\n", init.node),
                Dialect::PlainStdio | Dialect::Json => format!("INIT {config}\n"),
            }
        }
        Order::Advance(Advance { to_us, events }) => {
            format!("ADVANCE {to_us}\n{}\n", list(dialect, events))
        }
        Order::Shutdown => "SHUTDOWN\n".to_owned(),
    }
    .into_bytes()
}

pub(super) fn write_answer(dialect: Dialect, answer: &Answer) -> Vec<u8> {
    match answer {
        Answer::Ready => "READY\n".to_owned(),
        Answer::Done(Completed { events, .. }) => {
            format!("DONE\n{}\n", list(dialect, events))
        }
        // The text must stay on its line.
        Answer::Error(message) => format!("ERROR {}\n", message.replace(['\n', '\r'], " ")),
    }
    .into_bytes()
}

pub(super) fn read_order(
    dialect: Dialect,
    begun_us: &mut Option<u64>,
    text: &str,
) -> Result<Option<Order>, WireError> {
    if let Some(to_us) = begun_us.take() {
        return Ok(Some(Order::Advance(Advance { to_us, events: events(text)? })));
    }
    match keyword(text) {
        ("INIT", rest) => init(dialect, rest).map(|init| Some(Order::Init(init))),
        ("ADVANCE", rest) => {
            let (time, rest) = keyword(rest);
            let to_us = time.parse().map_err(|_| WireError::Wrong {
                key: "time",
                expected: "a whole number of microseconds",
                found: excerpt(time),
            })?;
            if rest.is_empty() {
                *begun_us = Some(to_us);
                return Ok(None);
            }
            Ok(Some(Order::Advance(Advance { to_us, events: events(rest)? })))
        }
        ("SHUTDOWN", "") => Ok(Some(Order::Shutdown)),
        _ => Err(WireError::UnknownWord { expected: ORDERS, found: excerpt(text) }),
    }
}

pub(super) fn read_answer(begun: &mut bool, text: &str) -> Result<Option<Answer>, WireError> {
    let done = |events| Ok(Some(Answer::Done(Completed { time_us: None, events, next_us: None })));
    if std::mem::take(begun) {
        return done(events(text)?);
    }
    match keyword(text) {
        ("READY", "") => Ok(Some(Answer::Ready)),
        ("DONE", "") => {
            *begun = true;
            Ok(None)
        }
        ("DONE", rest) => done(events(rest)?),
        ("ERROR", why) => Ok(Some(Answer::Error(why.to_owned()))),
        _ => Err(WireError::UnknownWord { expected: ANSWERS, found: excerpt(text) }),
    }
}

/// The first word, and what follows it.
pub(super) fn keyword(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim_start_matches([' ', '\t'])),
        None => (text, ""),
    }
}

fn init(dialect: Dialect, rest: &str) -> Result<Init, WireError> {
    let (node, config) = match dialect {
        Dialect::PlainTcp => keyword(rest),
        Dialect::PlainStdio | Dialect::Json => ("", rest),
    };
    let config = match config {
        "" => None,
        text => Some(serde_json::from_str(text).map_err(|error| WireError::not_json(&error))?),
    };
    let config = json::config(config)?;
    Ok(Init { node: node.to_owned(), seed: json::seed_of(&config)?, config })
}

/// Events as one line.
fn list(dialect: Dialect, events: &[event::Event]) -> String {
    String::from_utf8_lossy(&json::written(&Spelled(dialect, events))).into_owned()
}

/// Events as one JSON list; an empty line is an empty list.
fn events(text: &str) -> Result<Vec<event::Event>, WireError> {
    if text.is_empty() {
        return Ok(vec![]);
    }
    let list = serde_json::from_str(text).map_err(|error| WireError::not_json(&error))?;
    event::read_all(list)
}
