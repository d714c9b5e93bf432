//! Base models that come in pieces: which are under way, and how far.
//!
//! ```text
//! Beginning --> Coming --> Finishing --> the tasks that wait for it run
//! what is on    pieces     the whole
//! the disk?                is checked
//! ```
//!
//! Nothing here is kept: what has come is on the disk, and is looked at again after a restart.

use std::collections::BTreeMap;

use protocol::{Digest, Manifest, ModelUri, Timestamp};
use transfer::Assembly;

/// The models under way.
#[derive(Debug, Default)]
pub(crate) struct Fetches(BTreeMap<ModelUri, Fetch>);

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
    pub(crate) fn insert(&mut self, model: ModelUri, blob: Manifest) {
        self.0.insert(model, Fetch { blob, stage: Stage::Beginning });
    }

    pub(crate) fn remove(&mut self, model: &ModelUri) -> Option<Fetch> {
        self.0.remove(model)
    }

    pub(crate) fn get_mut(&mut self, model: &ModelUri) -> Option<&mut Fetch> {
        self.0.get_mut(model)
    }

    pub(crate) fn contains(&self, model: &ModelUri) -> bool {
        self.0.contains_key(model)
    }

    pub(crate) fn models(&self) -> Vec<ModelUri> {
        self.0.keys().cloned().collect()
    }

    pub(crate) fn coming(&mut self, model: &ModelUri) -> Option<&mut Assembly> {
        match &mut self.0.get_mut(model)?.stage {
            Stage::Coming(assembly) => Some(assembly),
            Stage::Beginning | Stage::Finishing { .. } => None,
        }
    }

    /// The first one of this blob in such a stage; two models may be one blob.
    pub(crate) fn find(
        &self,
        sha256: Digest,
        is_meant: impl Fn(&Stage) -> bool,
    ) -> Option<ModelUri> {
        let mut fetches = self.0.iter();
        let found = fetches.find(|(_, it)| it.blob.sha256() == sha256 && is_meant(&it.stage));
        found.map(|(model, _)| model.clone())
    }

    /// Whether it waits for this device's own disk, and not for anybody else.
    pub(crate) fn is_local(&self, model: &ModelUri) -> bool {
        self.0.get(model).is_some_and(|fetch| match fetch.stage {
            Stage::Beginning | Stage::Finishing { .. } => true,
            Stage::Coming(_) => false,
        })
    }

    pub(crate) fn disconnected(&mut self) {
        for model in &self.models() {
            if let Some(assembly) = self.coming(model) {
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
