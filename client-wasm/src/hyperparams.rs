//! What the operator may set for a training step, checked once.

use serde_json::{Map, Value};

use crate::{Kind, TrainError};

/// Hidden units of the MLP and of the GRU when `hidden` does not say.
pub const HIDDEN_DEFAULT: usize = 32;
/// Channels of the CNN's first layer when `channels` does not say.
pub(crate) const CHANNELS_DEFAULT: usize = 8;

const HIDDEN_MAX: u64 = 1 << 16;
const CHANNELS_MAX: u64 = 1 << 10;

/// The settings of one training step.
///
/// | key | takes | default |
/// |---|---|---|
/// | `model` | `"softmax"`, `"mlp"`, `"cnn"`, `"bigram"`, `"gru"` or `"linear"` | `"softmax"` |
/// | `hidden` | hidden units of the MLP and of the GRU, 1..=65536 | 32 |
/// | `channels` | channels of the CNN's first layer, 1..=1024 | 8 |
/// | `epochs` | passes over the rows, at least 1 | 1 |
/// | `lr` | step size, above 0 | 0.1 |
/// | `batch_size` | rows a step, at least 1 | 16 |
/// | `seed` | of the split and of the order of the rows | 0 |
/// | `l2` | weight decay (never on biases), at least 0 | 0 |
/// | `mu` | pull towards the base model (FedProx), at least 0 | 0 |
/// | `holdout` | part of the rows never trained on, 0 up to below 1 | 0.2 |
/// | `scale` | what features are divided by, above 0 | 16; 1 for `"linear"`, `"bigram"`, `"gru"` |
///
/// Other keys are for other guests and are ignored.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparams {
    pub kind: Kind,
    pub epochs: u64,
    pub lr: f64,
    pub batch_size: usize,
    pub seed: u64,
    pub l2: f64,
    pub mu: f64,
    pub holdout: f64,
    pub scale: f64,
}

impl Hyperparams {
    pub fn from_json(text: &str) -> Result<Self, TrainError> {
        Self::from_keys(guest::Hyperparams::from_json(text)?.keys())
    }

    pub(crate) fn from_keys(keys: &Map<String, Value>) -> Result<Self, TrainError> {
        let kind = kind(keys)?;
        let scale_default = match kind {
            Kind::Linear | Kind::Bigram | Kind::Gru { .. } => 1.0,
            Kind::Softmax | Kind::Mlp { .. } | Kind::Cnn { .. } => 16.0,
        };
        let at_least_1 = "a whole number of at least 1";
        let above_0 = "a number above 0";
        Ok(Self {
            kind,
            epochs: whole(keys, "epochs", 1, 1..=u64::MAX, at_least_1)?,
            lr: real(keys, "lr", 0.1, above_0, |lr| lr > 0.0)?,
            batch_size: size(whole(keys, "batch_size", 16, 1..=u64::MAX, at_least_1)?),
            seed: whole(keys, "seed", 0, 0..=u64::MAX, "a whole number of at least 0")?,
            l2: real(keys, "l2", 0.0, "a number of at least 0", |l2| l2 >= 0.0)?,
            mu: real(keys, "mu", 0.0, "a number of at least 0", |mu| mu >= 0.0)?,
            holdout: real(keys, "holdout", 0.2, "a number from 0 to below 1", |part| {
                (0.0..1.0).contains(&part)
            })?,
            scale: real(keys, "scale", scale_default, above_0, |scale| scale > 0.0)?,
        })
    }
}

fn kind(keys: &Map<String, Value>) -> Result<Kind, TrainError> {
    let takes = "a whole number from 1 to 65536";
    let hidden = size(whole(keys, "hidden", HIDDEN_DEFAULT as u64, 1..=HIDDEN_MAX, takes)?);
    let takes = "a whole number from 1 to 1024";
    let channels = whole(keys, "channels", CHANNELS_DEFAULT as u64, 1..=CHANNELS_MAX, takes)?;
    let Some(value) = keys.get("model") else { return Ok(Kind::Softmax) };
    match value.as_str() {
        Some("softmax") => Ok(Kind::Softmax),
        Some("mlp") => Ok(Kind::Mlp { hidden }),
        Some("cnn") => Ok(Kind::Cnn { channels: size(channels) }),
        Some("bigram") => Ok(Kind::Bigram),
        Some("gru") => Ok(Kind::Gru { hidden }),
        Some("linear") => Ok(Kind::Linear),
        Some(_) | None => {
            let takes = r#""softmax", "mlp", "cnn", "bigram", "gru" or "linear""#;
            Err(refused("model", value, takes))
        }
    }
}

fn whole(
    keys: &Map<String, Value>,
    key: &'static str,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
    takes: &'static str,
) -> Result<u64, TrainError> {
    let Some(value) = keys.get(key) else { return Ok(default) };
    value.as_u64().filter(|n| range.contains(n)).ok_or_else(|| refused(key, value, takes))
}

fn real(
    keys: &Map<String, Value>,
    key: &'static str,
    default: f64,
    takes: &'static str,
    allowed: fn(f64) -> bool,
) -> Result<f64, TrainError> {
    let Some(value) = keys.get(key) else { return Ok(default) };
    value.as_f64().filter(|n| allowed(*n)).ok_or_else(|| refused(key, value, takes))
}

/// A count beyond the address space means "all of them".
fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn refused(key: &'static str, value: &Value, takes: &'static str) -> TrainError {
    let mut value = value.to_string();
    if value.len() > 64 {
        value = value.chars().take(64).chain("...".chars()).collect();
    }
    TrainError::Hyperparam { key, value, takes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_and_strangers_are_ignored() {
        let given = Hyperparams::from_json(r#"{"optimizer":"adam","epochs":3}"#).unwrap();
        let defaults = Hyperparams::from_json("{}").unwrap();
        assert_eq!(given, Hyperparams { epochs: 3, ..defaults.clone() });
        assert_eq!((defaults.kind, defaults.scale, defaults.holdout), (Kind::Softmax, 16.0, 0.2));
        let linear = Hyperparams::from_json(r#"{"model":"linear"}"#).unwrap();
        assert_eq!(linear.scale, 1.0);
    }

    #[test]
    fn each_wrong_value_is_refused_by_key_and_value() {
        for (key, value) in [
            ("epochs", "0"),
            ("epochs", "-1"),
            ("epochs", "1.5"),
            ("epochs", "\"1\""),
            ("lr", "0"),
            ("lr", "-0.1"),
            ("lr", "null"),
            ("lr", "[1]"),
            ("batch_size", "0"),
            ("batch_size", "true"),
            ("seed", "-7"),
            ("seed", "18446744073709551616"),
            ("l2", "-1e-9"),
            ("mu", "-0.5"),
            ("mu", "\"strong\""),
            ("holdout", "1.0"),
            ("holdout", "-0.1"),
            ("scale", "0"),
            ("model", "\"forest\""),
            ("model", "7"),
            ("hidden", "0"),
            ("hidden", "65537"),
        ] {
            let said = Hyperparams::from_json(&format!("{{\"{key}\":{value}}}"))
                .expect_err(&format!("{key}={value} was accepted"))
                .to_string();
            assert!(said.contains(&format!("\"{key}\"")), "{said}");
            let number_or_text = value.trim_end_matches('0').trim_end_matches('.');
            assert!(said.contains(number_or_text) || value.starts_with("1844"), "{said}");
        }
    }

    #[test]
    fn text_that_is_no_object_is_refused() {
        for text in ["", "[]", "null", "7", "{\"lr\":}", "{\"lr\":1e999}"] {
            let said = Hyperparams::from_json(text).unwrap_err().to_string();
            assert!(said.starts_with("hyperparams are not a JSON object"), "{text}: {said}");
        }
    }

    #[test]
    fn a_huge_value_does_not_flood_the_log() {
        let text = format!("{{\"model\":\"{}\"}}", "x".repeat(1 << 20));
        assert!(Hyperparams::from_json(&text).unwrap_err().to_string().len() < 200);
    }
}
