//! Lengths and points of virtual time as scenarios write them: seconds, or a number with a unit.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Virtual microseconds; in scenarios a number of seconds (`30`, `0.5`) or text with a unit
/// (`250ms`, `10us`, `5min`, `1h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

/// A text that is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time; it takes seconds, or a number with us, ms, s, min, h or d")]
pub struct SpanError(String);

/// By length of the unit's name, so that `ms` is not read as `s`.
const UNITS: &[(&str, f64)] =
    &[("min", 60e6), ("us", 1.0), ("ms", 1e3), ("s", 1e6), ("h", 3_600e6), ("d", 86_400e6)];

/// A thousand years.
const MICROS_MAX: f64 = 3.2e16;

impl Span {
    pub const ZERO: Self = Self(0);

    pub const fn secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    pub const fn millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    pub const fn micros(self) -> u64 {
        self.0
    }

    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0)
    }

    fn of(number: f64, unit_us: f64) -> Option<Self> {
        let micros = (number * unit_us).round();
        (0.0..=MICROS_MAX).contains(&micros).then_some(Self(micros as u64))
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let bad = || SpanError(text.chars().take(40).collect());
        let trimmed = text.trim();
        let unit = UNITS.iter().find(|(name, _)| trimmed.ends_with(name));
        let (number, unit_us) = match unit {
            Some((name, unit_us)) => (trimmed.trim_end_matches(name), *unit_us),
            None => (trimmed, 1e6),
        };
        let number: f64 = number.trim().parse().map_err(|_| bad())?;
        Self::of(number, unit_us).ok_or_else(bad)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(us) = *self;
        if us % 1_000_000 == 0 {
            write!(f, "{}s", us / 1_000_000)
        } else if us % 1_000 == 0 {
            write!(f, "{}ms", us / 1_000)
        } else {
            write!(f, "{us}us")
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Seconds, or a number with us, ms, s, min, h or d.",
            "anyOf": [
                { "type": "number", "minimum": 0 },
                { "type": "string", "pattern": "^ *[0-9.eE+-]+ *(us|ms|s|min|h|d)? *$" },
            ],
        })
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds, or a number with us, ms, s, min, h or d")
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
        self.visit_f64(seconds as f64)
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
        self.visit_f64(seconds as f64)
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
        Span::of(seconds, 1e6).ok_or_else(|| E::custom(SpanError(seconds.to_string())))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_units() {
        for (text, micros) in [
            ("30", 30_000_000),
            ("0.5", 500_000),
            ("250ms", 250_000),
            ("10us", 10),
            ("5min", 300_000_000),
            ("1 h", 3_600_000_000),
            ("1.5s", 1_500_000),
            ("2d", 172_800_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Span(micros)), "{text}");
        }
        for text in ["", "s", "-1", "1e99", "NaN", "ten", "5 weeks", "inf"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        let read: Vec<Span> = serde_json::from_str(r#"[1, 0.25, "5ms"]"#).unwrap();
        assert_eq!(read, [Span(1_000_000), Span(250_000), Span(5_000)]);
        assert!(serde_json::from_str::<Span>("-1").is_err());
        let round_trip = [Span(7), Span(7_000), Span(7_000_000)];
        assert!(round_trip.into_iter().all(|span| span.to_string().parse() == Ok(span)));
    }
}
