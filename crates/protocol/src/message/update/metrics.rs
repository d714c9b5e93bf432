//! The metrics of an update: numbers by name, as many as are worth keeping.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserializer as _,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Most metrics that are kept of one update.
pub const METRICS_MAX: usize = 64;

const NAME_LEN_MAX: usize = 64;

/// Numbers stay, everything else is dropped, whatever it is: a poisoned metric does not cost an
/// honest update, and however many there are, no more than are kept take memory.
pub(super) fn read(given: Option<&str>) -> BTreeMap<String, f64> {
    let read = given.map(|text| serde_json::Deserializer::from_str(text).deserialize_map(Numbers));
    read.and_then(Result::ok).unwrap_or_default()
}

struct Numbers;

impl<'de> Visitor<'de> for Numbers {
    type Value = BTreeMap<String, f64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of numbers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut numbers = BTreeMap::new();
        while let Some((name, raw)) = map.next_entry::<String, &RawValue>()? {
            if name.len() > NAME_LEN_MAX || numbers.len() == METRICS_MAX {
                continue;
            }
            if let Ok(number) = serde_json::from_str::<f64>(raw.get()) {
                numbers.insert(name, number);
            }
        }
        Ok(numbers)
    }
}
