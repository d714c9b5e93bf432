//! What a task is for, as its environment says.

use std::{collections::BTreeMap, str::FromStr};

use encoding::Encoding;
use protocol::{
    ModelUri, RoundId,
    message::{STRATEGY_ENV, StrategySpec},
};

use crate::Failure;

/// Makes a task a federated one: the round that its output goes to.
pub const ENV_ROUND_ID: &str = "ROUND_ID";
/// The base model that the task is given.
pub const ENV_MODEL_URI: &str = "MODEL_URI";
/// How the update is written that its round asks for, if it asks for anything.
pub const ENV_ENCODING: &str = "ENCODING";
/// Who runs the task.
pub const ENV_PROPLET_ID: &str = "PROPLET_ID";

/// What a task is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Purpose {
    /// Its output is its result.
    Plain { model: Option<ModelUri> },
    /// Its output is an update to a round.
    Federated(Contribution),
}

/// Where an update belongs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contribution {
    pub(crate) round: RoundId,
    pub(crate) base: ModelUri,
    pub(crate) encoding: Option<Encoding>,
    /// It brings the change of a control variate, too.
    pub(crate) has_control: bool,
}

impl Purpose {
    pub(crate) fn of(env: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let round: Option<RoundId> = read(env, ENV_ROUND_ID)?;
        let model: Option<ModelUri> = read(env, ENV_MODEL_URI)?;
        match (round, model) {
            (None, model) => Ok(Self::Plain { model }),
            (Some(round), Some(base)) => {
                let encoding = read(env, ENV_ENCODING)?;
                let strategy = env.get(STRATEGY_ENV).map(String::as_str);
                let has_control = strategy == Some(StrategySpec::SCAFFOLD);
                if has_control && encoding.is_some() {
                    let what = format!("{ENV_ENCODING}: control variates are not encoded");
                    return Err(Failure::new("environment", what));
                }
                Ok(Self::Federated(Contribution { round, base, encoding, has_control }))
            }
            (Some(round), None) => Err(Failure::new(
                "environment",
                format!("{ENV_ROUND_ID} is {round}, but {ENV_MODEL_URI} is missing"),
            )),
        }
    }

    /// The round, if it is one with control variates.
    pub(crate) fn control_of(&self) -> Option<&RoundId> {
        match self {
            Self::Federated(asked) if asked.has_control => Some(&asked.round),
            Self::Federated(_) | Self::Plain { .. } => None,
        }
    }

    pub(crate) const fn model(&self) -> Option<&ModelUri> {
        match self {
            Self::Plain { model } => model.as_ref(),
            Self::Federated(contribution) => Some(&contribution.base),
        }
    }
}

fn read<T>(env: &BTreeMap<String, String>, name: &str) -> Result<Option<T>, Failure>
where
    T: FromStr<Err: std::fmt::Display>,
{
    let Some(text) = env.get(name) else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|why| Failure::new("environment", format!("environment variable {name}: {why}")))
}
