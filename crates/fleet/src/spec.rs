//! What a task is to do, as somebody asked for it.

use std::sync::Arc;

use protocol::{Digest, PropletId, RoundId};
use serde_json::Value;

use crate::limits::{NAME_LEN_MAX, RETRIES_MAX, SPEC_LEN_MAX};

/// The environment variable that makes a task a federated one.
const ROUND_ID: &str = "ROUND_ID";
const RETRIES_DEFAULT: u32 = 1;

/// A task's wording: changes only while the task does not run.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub name: String,
    pub image_url: Option<String>,
    /// Boxed, since a round's hundred thousand tasks mostly have none.
    pub(crate) file: Option<Box<FileRef>>,
    pub cli_args: Vec<String>,
    pub inputs: Vec<Value>,
    pub env: Env,
    pub daemon: bool,
    pub placed: Placed,
    /// How often a run that was cut off is begun again.
    pub retries: u32,
}

/// Environment variables in the order of their names. What many tasks say alike, they share.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// Both in order.
    common: Arc<[Variable]>,
    own: Box<[Variable]>,
}

type Variable = (Arc<str>, Arc<str>);

impl Env {
    /// One of many that have the variables of `common`, which are not looked at again.
    pub(crate) fn alike(common: &Self, own: impl IntoIterator<Item = Variable>) -> Self {
        let Self { own, .. } = own.into_iter().collect();
        Self { common: Arc::clone(&common.common), own }
    }

    /// What tasks can have in common.
    pub(crate) fn common(variables: impl IntoIterator<Item = Variable>) -> Self {
        let Self { own, .. } = variables.into_iter().collect();
        Self { common: own.into(), own: Box::default() }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let (mut common, mut own) = (self.common.iter().peekable(), self.own.iter().peekable());
        let next = move || match (common.peek(), own.peek()) {
            (Some(one), Some(other)) if other < one => own.next(),
            (Some(_), _) => common.next(),
            (None, _) => own.next(),
        };
        std::iter::from_fn(next).map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl FromIterator<Variable> for Env {
    fn from_iter<I: IntoIterator<Item = Variable>>(pairs: I) -> Self {
        let mut own: Box<[_]> = pairs.into_iter().collect();
        own.sort_unstable();
        Self { common: Arc::default(), own }
    }
}

impl PartialEq for Env {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Env {}

/// Where a task may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// On any one proplet.
    Anywhere,
    /// On this one only.
    Pinned(PropletId),
    /// On every proplet that is alive when it starts.
    Everywhere,
}

/// An uploaded module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRef {
    pub digest: Digest,
    pub len: usize,
}

/// Why a wording is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("name is missing")]
    NoName,
    #[error("name has {0} bytes, at most {NAME_LEN_MAX} are taken")]
    NameTooLong(usize),
    #[error("cli_args, inputs, env and image_url have {0} bytes, at most {SPEC_LEN_MAX} are taken")]
    TooLong(usize),
    #[error("retries takes 0 to {RETRIES_MAX}, not {0}")]
    Retries(u32),
    #[error("env ROUND_ID {value:?}: {why}")]
    RoundId { value: String, why: protocol::IdError },
    #[error("env {0:?} is not a name of an environment variable")]
    EnvName(String),
    #[error("env {0:?} has a value with a NUL")]
    EnvValue(String),
    #[error("broadcast and proplet_id {0} exclude each other")]
    BroadcastPinned(PropletId),
}

impl Spec {
    /// A task of that name that does nothing yet.
    pub(crate) fn named(name: String) -> Self {
        Self {
            name,
            image_url: None,
            file: None,
            cli_args: vec![],
            inputs: vec![],
            env: Env::default(),
            daemon: false,
            placed: Placed::Anywhere,
            retries: RETRIES_DEFAULT,
        }
    }

    /// The module that was uploaded for it.
    pub fn file(&self) -> Option<FileRef> {
        self.file.as_deref().copied()
    }

    /// The round that waits for this task, if it is federated.
    pub(crate) fn round(&self) -> Option<RoundId> {
        self.env.get(ROUND_ID).and_then(|text| text.parse().ok())
    }

    /// Whether a round waits for this task.
    pub(crate) fn is_federated(&self) -> bool {
        self.env.get(ROUND_ID).is_some()
    }

    /// The proplet that alone may run it.
    pub fn pinned(&self) -> Option<&PropletId> {
        match &self.placed {
            Placed::Pinned(proplet) => Some(proplet),
            Placed::Anywhere | Placed::Everywhere => None,
        }
    }

    /// Whether it runs on every proplet.
    pub const fn is_broadcast(&self) -> bool {
        matches!(self.placed, Placed::Everywhere)
    }

    /// Refuses what cannot be meant, or is too much.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        if self.name.is_empty() {
            return Err(SpecError::NoName);
        }
        if self.name.len() > NAME_LEN_MAX {
            return Err(SpecError::NameTooLong(self.name.len()));
        }
        let len = self.len();
        if len > SPEC_LEN_MAX {
            return Err(SpecError::TooLong(len));
        }
        if self.retries > RETRIES_MAX {
            return Err(SpecError::Retries(self.retries));
        }
        self.env.iter().try_for_each(|(name, value)| check_env(name, value))
    }

    pub(crate) fn len(&self) -> usize {
        let env: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        let args: usize = self.cli_args.iter().map(|arg| arg.len() + 1).sum();
        let inputs = match &self.inputs[..] {
            [] => "[]".len(),
            inputs => serde_json::to_vec(inputs).expect("JSON serializes").len(),
        };
        env + args + inputs + self.image_url.as_ref().map_or(0, String::len)
    }
}

fn check_env(name: &str, value: &str) -> Result<(), SpecError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(SpecError::EnvName(name.chars().take(80).collect()));
    }
    if value.contains('\0') {
        return Err(SpecError::EnvValue(name.to_owned()));
    }
    if name == ROUND_ID {
        value
            .parse::<RoundId>()
            .map_err(|why| SpecError::RoundId { value: value.chars().take(140).collect(), why })?;
    }
    Ok(())
}
