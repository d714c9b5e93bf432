//! What a start may set beside its strategy: how far one update may pull, how much it may count
//! for, and what else the workload is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::STRATEGY_ENV;

/// The environment that a round gives every task; a start names none of it.
pub const RESERVED_ENV: [&str; 11] = [
    "ROUND_ID",
    "MODEL_URI",
    "HYPERPARAMS",
    "PROPLET_ID",
    "MODEL_PATH",
    "DATA_DIR",
    "UPDATE_PATH",
    STRATEGY_ENV,
    "CONTROL_PATH",
    "STATE_PATH",
    "STATE_OUT_PATH",
];

/// A bound on the distance of an update from the base model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipSpec {
    /// The greatest Euclidean distance, above 0.
    #[serde(deserialize_with = "norm")]
    pub norm: f64,
    /// What is done with an update that is farther away; `clip` by default.
    #[serde(default)]
    pub mode: ClipMode,
}

/// What is done with an update that is too far from the base model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipMode {
    /// It is drawn towards the base model until it is near enough.
    #[default]
    Clip,
    /// It is left out, when the round is averaged.
    Reject,
}

/// Checks a norm, from a start or from a setting.
pub fn check_norm(norm: f64) -> Result<f64, String> {
    if norm.is_finite() && norm >= f64::MIN_POSITIVE {
        return Ok(norm);
    }
    Err(format!("norm takes a number above 0, not {norm}"))
}

/// Checks the greatest share of all samples that one update counts for.
pub fn check_share(share: f64) -> Result<f64, String> {
    if share > 0.0 && share < 1.0 {
        return Ok(share);
    }
    Err(format!("share_max takes a number above 0 and below 1, not {share}"))
}

fn norm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    check_norm(f64::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn share_max<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<f64>, D::Error> {
    let share = Option::<f64>::deserialize(deserializer)?;
    share.map(check_share).transpose().map_err(D::Error::custom)
}

pub(super) fn env<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let env = BTreeMap::<String, String>::deserialize(deserializer)?;
    match env.keys().find(|name| RESERVED_ENV.contains(&name.as_str())) {
        Some(name) => Err(D::Error::custom(format!("env may not name {name:?}"))),
        None => Ok(env),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::message::RoundStart;

    fn start(extra: serde_json::Value) -> Result<RoundStart, String> {
        let mut start = json!({
            "round_id": "r", "model_uri": crate::ModelUri::global(crate::ModelVersion(0)).to_string(),
            "participants": ["p"],
        });
        start.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value::<RoundStart>(start).map_err(|why| why.to_string())
    }

    #[test]
    fn a_start_that_sets_none_of_it_stays_as_it_was() {
        let text = serde_json::to_string(&start(json!({})).unwrap()).unwrap();
        assert!(!text.contains("clip") && !text.contains("share") && !text.contains("env"));
    }

    #[test]
    fn bounds_and_environment_are_checked_where_they_are_read() {
        let fine = json!({
            "clip": {"norm": 2.5, "mode": "reject"}, "share_max": 0.3, "env": {"TASK": "digits"},
        });
        let fine = start(fine).unwrap();
        assert_eq!(fine.clip.unwrap().norm, 2.5);
        assert_eq!(fine.env["TASK"], "digits");
        for (wrong, named) in [
            (json!({"clip": {"norm": 0}}), "not 0"),
            (json!({"clip": {"norm": -1.5}}), "not -1.5"),
            (json!({"clip": {"norm": 1, "mode": "maim"}}), "maim"),
            (json!({"clip": {"norm": 1, "nrom": 2}}), "nrom"),
            (json!({"share_max": 1.0}), "not 1"),
            (json!({"share_max": 0}), "not 0"),
            (json!({"env": {"ROUND_ID": "other"}}), "ROUND_ID"),
            (json!({"env": {"UPDATE_PATH": "/etc"}}), "UPDATE_PATH"),
            (json!({"env": {"A": 1}}), "1"),
        ] {
            let said = start(wrong).unwrap_err();
            assert!(said.contains(named), "{said}");
        }
    }
}
