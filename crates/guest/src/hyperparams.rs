//! The operator's settings for a training step: any JSON object, read key by key.

use serde_json::{Map, Value};

use crate::Error;

const SHOWN_LEN_MAX: usize = 64;

/// What `HYPERPARAMS` holds. Keys that nobody asks for are left alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hyperparams(Map<String, Value>);

impl Hyperparams {
    pub fn from_json(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text)
            .map(Self)
            .map_err(|error| Error::Hyperparams { why: error.to_string() })
    }

    /// All keys, for those who read them in their own way.
    pub const fn keys(&self) -> &Map<String, Value> {
        &self.0
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// A number, or `default` where the key is not there.
    pub fn number(&self, key: &str, default: f64) -> Result<f64, Error> {
        self.read(key, default, "a number", Value::as_f64)
    }

    /// A whole number of at least 0, or `default` where the key is not there.
    pub fn whole(&self, key: &str, default: u64) -> Result<u64, Error> {
        self.read(key, default, "a whole number of at least 0", Value::as_u64)
    }

    /// A text, or `default` where the key is not there.
    pub fn text<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str, Error> {
        self.read(key, default, "a text", Value::as_str)
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        default: T,
        takes: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, Error> {
        let Some(value) = self.0.get(key) else { return Ok(default) };
        read(value).ok_or_else(|| {
            let mut shown = value.to_string();
            if shown.len() > SHOWN_LEN_MAX {
                shown = shown.chars().take(SHOWN_LEN_MAX).chain("...".chars()).collect();
            }
            Error::Hyperparam { key: key.to_owned(), value: shown, takes }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_defaulted_or_refused_by_name() {
        let given =
            Hyperparams::from_json(r#"{"lr":0.5,"epochs":3,"name":"x","bad":[1]}"#).unwrap();
        assert_eq!(given.number("lr", 0.1).unwrap(), 0.5);
        assert_eq!(given.number("momentum", 0.9).unwrap(), 0.9);
        assert_eq!(given.whole("epochs", 1).unwrap(), 3);
        assert_eq!(given.text("name", "y").unwrap(), "x");
        let said = given.number("bad", 0.0).unwrap_err().to_string();
        assert_eq!(said, "hyperparam \"bad\" takes a number, not [1]");
        let said = given.whole("lr", 0).unwrap_err().to_string();
        assert!(said.contains("\"lr\"") && said.contains("0.5"), "{said}");
        for text in ["", "[]", "7", "{\"lr\":1e999}"] {
            let said = Hyperparams::from_json(text).unwrap_err().to_string();
            assert!(said.starts_with("hyperparams are not a JSON object"), "{text}: {said}");
        }
    }
}
