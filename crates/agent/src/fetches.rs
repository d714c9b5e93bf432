//! Base models and modules that come in pieces: which are under way, and how far.
//!
//! ```text
//! Beginning --> Coming --> Finishing --> the tasks that wait for it run
//! what is on    pieces     the whole
//! the disk?                is checked
//! ```
//!
//! Nothing here is kept: what has come is on the disk, and is looked at again after a restart.

use std::{collections::BTreeMap, fmt};

use protocol::{Digest, Manifest, ModelUri, RoundId, Timestamp};
use transfer::Assembly;

/// What a task may lack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    Model(ModelUri),
    /// Its program, by digest.
    Module(Digest),
    /// The server's control variate for its round; it comes in one message.
    Variate(RoundId),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(uri) => write!(f, "base model {uri}"),
            Self::Module(sha256) => write!(f, "module {sha256}"),
            Self::Variate(round) => write!(f, "control variate of round {round}"),
        }
    }
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Fetches(BTreeMap<Need, Fetch>);

#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) blob: Manifest,
    pub(crate) stage: Stage,
}

#[derive(Debug)]
pub(crate) enum Stage {
    Beginning,
    Coming(Box<Assembly>),
    /// `refused` counts what came beside the pieces.
    Finishing {
        refused: u64,
    },
}

impl Fetches {
    pub(crate) fn insert(&mut self, need: Need, blob: Manifest) {
        self.0.insert(need, Fetch { blob, stage: Stage::Beginning });
    }

    pub(crate) fn remove(&mut self, need: &Need) -> Option<Fetch> {
        self.0.remove(need)
    }

    pub(crate) fn get_mut(&mut self, need: &Need) -> Option<&mut Fetch> {
        self.0.get_mut(need)
    }

    pub(crate) fn contains(&self, need: &Need) -> bool {
        self.0.contains_key(need)
    }

    pub(crate) fn needs(&self) -> Vec<Need> {
        self.0.keys().cloned().collect()
    }

    pub(crate) fn coming(&mut self, need: &Need) -> Option<&mut Assembly> {
        match &mut self.0.get_mut(need)?.stage {
            Stage::Coming(assembly) => Some(assembly),
            Stage::Beginning | Stage::Finishing { .. } => None,
        }
    }

    /// The first one of this blob in such a stage; two of them may be one blob.
    pub(crate) fn find(&self, sha256: Digest, is_meant: impl Fn(&Stage) -> bool) -> Option<Need> {
        let mut fetches = self.0.iter();
        let found = fetches.find(|(_, it)| it.blob.sha256() == sha256 && is_meant(&it.stage));
        found.map(|(need, _)| need.clone())
    }

    /// Whether it waits for this device's own disk, and not for anybody else.
    pub(crate) fn is_local(&self, need: &Need) -> bool {
        self.0.get(need).is_some_and(|fetch| match fetch.stage {
            Stage::Beginning | Stage::Finishing { .. } => true,
            Stage::Coming(_) => false,
        })
    }

    pub(crate) fn disconnected(&mut self) {
        for need in &self.needs() {
            if let Some(assembly) = self.coming(need) {
                assembly.disconnected();
            }
        }
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let deadline = |fetch: &Fetch| match &fetch.stage {
            Stage::Coming(assembly) => assembly.deadline(),
            Stage::Beginning | Stage::Finishing { .. } => None,
        };
        self.0.values().filter_map(deadline).min()
    }
}
