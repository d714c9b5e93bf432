//! What the operator of a scenario asks for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Span;

/// One round, or several in a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RoundSpec {
    /// With `repeat`, the rounds are called `{id}-1`, `{id}-2`, ...
    pub id: String,
    /// When it is asked for at the earliest; never before the round before it has ended.
    pub at: Span,
    /// How many rounds of this kind follow each other.
    pub repeat: u32,
    /// How long after the end of the round before.
    pub pause: Span,
    pub model: RoundModel,
    pub participants: Participants,
    /// All participants by default.
    pub k_of_n: Option<usize>,
    pub timeout: Span,
    pub min_updates: Option<usize>,
    pub hyperparams: Map<String, Value>,
    /// What proplets run; the built-in FL client by default.
    pub image: Option<String>,
}

/// The base model of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoundModel {
    /// The newest that the operator has heard of.
    #[default]
    Latest,
    Version(u64),
}

/// Who is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Participants {
    /// Every proplet of the scenario.
    #[default]
    All,
    /// These; a `*` at the end of a name fits any rest.
    Named(Vec<String>),
    /// So many, drawn anew for every round.
    Sample(usize),
    /// This share of all, drawn anew for every round.
    Fraction(f64),
}

impl Default for RoundSpec {
    fn default() -> Self {
        Self {
            id: "round".to_owned(),
            at: Span::secs(2),
            repeat: 1,
            pause: Span::ZERO,
            model: RoundModel::default(),
            participants: Participants::default(),
            k_of_n: None,
            timeout: Span::secs(30),
            min_updates: None,
            hyperparams: Map::new(),
            image: None,
        }
    }
}
