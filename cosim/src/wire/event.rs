//! One event between nodes, as the dialects spell it.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use super::{Dialect, WireError, excerpt};

/// Something that happens at one virtual time, from one node to another.
///
/// What a node may leave out is `None` or empty here; the peer fills it in, or refuses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    pub time_us: Option<u64>,
    pub kind: String,
    pub src: Option<String>,
    pub dst: Option<String>,
    pub payload: Value,
    /// The size on the wire that it stands for; 0 where it is not said.
    pub size_bytes: u64,
}

/// Every key that an event may have, by the two spellings in use.
const TIME: [&str; 2] = ["time_us", "timestamp_us"];
const KIND: [&str; 2] = ["type", "event_type"];
const SRC: [&str; 2] = ["src", "source"];
const DST: [&str; 2] = ["dst", "destination"];

/// Reads a list of events. Both spellings are understood, whatever the dialect.
pub(super) fn read_all(list: Value) -> Result<Vec<Event>, WireError> {
    let Value::Array(list) = list else {
        return Err(WireError::NotA {
            expected: "list of events",
            found: excerpt(&list.to_string()),
        });
    };
    let each = list.into_iter().enumerate();
    each.map(|(index, event)| {
        read(event).map_err(|source| WireError::InEvent { index, source: Box::new(source) })
    })
    .collect()
}

/// Events in the spelling of a dialect, to be written.
pub(super) struct Spelled<'a>(pub(super) Dialect, pub(super) &'a [Event]);

impl Serialize for Spelled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let spelling = match self.0 {
            Dialect::Json | Dialect::PlainTcp => 0,
            Dialect::PlainStdio => 1,
        };
        serializer.collect_seq(self.1.iter().map(|event| One { spelling, event }))
    }
}

struct One<'a> {
    spelling: usize,
    event: &'a Event,
}

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { spelling, event } = *self;
        let mut map = serializer.serialize_map(None)?;
        if let Some(time_us) = event.time_us {
            map.serialize_entry(TIME[spelling], &time_us)?;
        }
        map.serialize_entry(KIND[spelling], &event.kind)?;
        if let Some(src) = &event.src {
            map.serialize_entry(SRC[spelling], src)?;
        }
        if let Some(dst) = &event.dst {
            map.serialize_entry(DST[spelling], dst)?;
        }
        map.serialize_entry("payload", &event.payload)?;
        // The second spelling has no size.
        if spelling == 0 {
            map.serialize_entry("size_bytes", &event.size_bytes)?;
        }
        map.end()
    }
}

fn read(event: Value) -> Result<Event, WireError> {
    let Value::Object(mut map) = event else {
        return Err(WireError::NotA { expected: "object", found: excerpt(&event.to_string()) });
    };
    let kind = word(&mut map, KIND)?.ok_or(WireError::Missing { key: KIND[0] })?;
    let (src, dst) = (word(&mut map, SRC)?, word(&mut map, DST)?);
    let time_us = count(&mut map, TIME)?;
    let size_bytes = count(&mut map, ["size_bytes", "size_bytes"])?.unwrap_or(0);
    let payload = payload(map);
    Ok(Event { time_us, kind, src, dst, payload, size_bytes })
}

/// The payload; or, where further keys stand beside it, an object of all of them.
///
/// So `{"type": "mqtt_message", "topic": "a", "payload": "25.3"}` carries `{"topic": "a", "payload": "25.3"}`.
fn payload(mut rest: Map<String, Value>) -> Value {
    match rest.len() {
        0 => Value::Null,
        1 if rest.contains_key("payload") => rest.remove("payload").unwrap_or_default(),
        _ => Value::Object(rest),
    }
}

/// Takes a text out of an object, under either of its keys; `null` counts as left out.
fn word(
    map: &mut Map<String, Value>,
    keys: [&'static str; 2],
) -> Result<Option<String>, WireError> {
    match take(map, keys) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) => Ok(Some(word)),
        Some(other) => Err(WireError::wrong(keys[0], "a text", &other)),
    }
}

fn count(map: &mut Map<String, Value>, keys: [&'static str; 2]) -> Result<Option<u64>, WireError> {
    match take(map, keys) {
        None | Some(Value::Null) => Ok(None),
        Some(found) => match found.as_u64() {
            Some(count) => Ok(Some(count)),
            None => Err(WireError::wrong(keys[0], "a whole number, 0 or more", &found)),
        },
    }
}

fn take(map: &mut Map<String, Value>, keys: [&'static str; 2]) -> Option<Value> {
    map.remove(keys[0]).or_else(|| map.remove(keys[1]))
}
