//! A round's start: what an operator asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    Digest, Letter, ModelUri, PropletId, RoundId, SessionId, Topic, TraceField, Traceparent,
    message::{
        Purpose,
        bounds::{self, ClipSpec},
    },
};

/// Most participants in one round.
pub const PARTICIPANTS_MAX: usize = 100_000;
/// Longest timeout of a round: thirty days.
pub const TIMEOUT_S_MAX: u64 = 30 * 24 * 3600;

const K_OF_N_DEFAULT: usize = 3;
const TIMEOUT_S_DEFAULT: u64 = 30;

/// Asks for one round of training, or of evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundStart {
    pub round_id: RoundId,
    pub model_uri: ModelUri,
    /// Where proplets get the workload; with neither this nor `file`, the built-in FL client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_wasm_image: Option<String>,
    /// The workload itself, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Nobody only where those of earlier rounds are waited for.
    #[serde(deserialize_with = "participants")]
    pub participants: BTreeSet<PropletId>,
    /// Handed to the workload as it stands.
    #[serde(default)]
    pub hyperparams: Hyperparams,
    /// Updates that close the round; 3 by default.
    #[serde(default = "k_of_n_default")]
    pub k_of_n: usize,
    /// Seconds after which the round closes with what it has.
    #[serde(default = "timeout_s_default", deserialize_with = "timeout_s")]
    pub timeout_s: u64,
    /// Updates without which a closing round fails; the coordinator's setting by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_updates: Option<usize>,
    /// How updates become a model; the coordinator's setting by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategySpec>,
    /// A bound on how far one update may pull; the coordinator's setting by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<ClipSpec>,
    /// The greatest share of all samples that one update counts for, above 0 and below 1; the
    /// coordinator's setting by default.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::share_max"
    )]
    pub share_max: Option<f64>,
    /// More environment of the tasks, handed on unread.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "bounds::env")]
    pub env: BTreeMap<String, String>,
    /// The session that the round belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// How updates are made smaller on the wire, like `delta+int8+deflate`; not at all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// What it is for; training if it does not say.
    #[serde(default, skip_serializing_if = "Purpose::is_train")]
    pub purpose: Purpose,
    /// Versions that an update may be behind: with it, the round also takes updates of those who
    /// were asked in earlier rounds of its session and have not been counted, and who is not in
    /// time for it may count in a later one. Without it, an update counts in its own round or not
    /// at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness_max: Option<u64>,
    /// The span below which the round's are to hang.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceField>,
}

/// A strategy by name, and what it is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrategySpec {
    pub name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, f64>,
}

impl StrategySpec {
    /// The one strategy whose participants keep something from round to round.
    pub const SCAFFOLD: &str = "scaffold";

    /// Whether updates bring the change of a control variate, and participants are given one.
    pub fn has_control(&self) -> bool {
        self.name == Self::SCAFFOLD
    }
}

/// Any JSON object, kept as text.
#[derive(Clone, Debug)]
pub struct Hyperparams(Box<RawValue>);

impl RoundStart {
    /// Whether its participants are given a control variate; an evaluation has no use for one.
    pub fn has_control(&self) -> bool {
        self.purpose.is_train() && self.strategy.as_ref().is_some_and(StrategySpec::has_control)
    }

    /// `k_of_n`, but at least one, and never more than there are participants unless those of
    /// earlier rounds count, too.
    pub fn k_effective(&self) -> usize {
        match self.staleness_max {
            None => self.k_of_n.clamp(1, self.participants.len().max(1)),
            Some(_) => self.k_of_n.max(1),
        }
    }

    /// What is wrong with it, beside what no field allows.
    pub fn check(&self) -> Result<(), String> {
        match (self.staleness_max, &self.session) {
            (None, _) if self.participants.is_empty() => Err("participants is empty".to_owned()),
            (Some(_), None) => {
                Err("staleness_max needs a session, whose earlier rounds are meant".to_owned())
            }
            (Some(most), Some(_)) if !self.purpose.is_train() => {
                Err(format!("staleness_max {most}: an evaluation has no late updates"))
            }
            (None | Some(_), _) => Ok(()),
        }
    }

    /// The digest of what is asked: equal for a repeated start, different for a changed one. Whose
    /// trace it is asked in does not matter.
    pub fn fingerprint(&self) -> Digest {
        match &self.traceparent {
            None => Digest::of(&self.seal().payload),
            Some(_) => Digest::of(&Self { traceparent: None, ..self.clone() }.seal().payload),
        }
    }

    /// The span that it is asked for in, if it says so, and one can read it.
    pub fn parent(&self) -> Option<Traceparent> {
        self.traceparent.as_ref().and_then(TraceField::parent)
    }
}

impl Letter for RoundStart {
    fn topic(&self) -> Topic {
        Topic::RoundStart
    }
}

impl Hyperparams {
    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Takes over the text of a JSON object.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl Default for Hyperparams {
    fn default() -> Self {
        Self::parse("{}").expect("an empty object is an object")
    }
}

impl PartialEq for Hyperparams {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Hyperparams {}

impl Serialize for Hyperparams {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Hyperparams {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if raw.get().starts_with('{') {
            Ok(Self(raw))
        } else {
            let shown: String = raw.get().chars().take(60).collect();
            Err(D::Error::custom(format!("hyperparams takes a JSON object, not {shown}")))
        }
    }
}

fn participants<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeSet<PropletId>, D::Error> {
    deserializer.deserialize_seq(Names)
}

/// Stops at the limit, so that a list of millions is not held before it is refused.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = BTreeSet<PropletId>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of proplet ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = seq.next_element()? {
            names.insert(name);
            if names.len() > PARTICIPANTS_MAX {
                let what = format!("more than {PARTICIPANTS_MAX} participants");
                return Err(A::Error::custom(what));
            }
        }
        Ok(names)
    }
}

fn timeout_s<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        seconds @ 1..=TIMEOUT_S_MAX => Ok(seconds),
        other => {
            Err(D::Error::custom(format!("timeout_s takes 1 to {TIMEOUT_S_MAX}, not {other}")))
        }
    }
}

const fn k_of_n_default() -> usize {
    K_OF_N_DEFAULT
}

const fn timeout_s_default() -> u64 {
    TIMEOUT_S_DEFAULT
}
