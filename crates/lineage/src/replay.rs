//! Publishing all versions again, after a connection that may have found an empty broker.
//!
//! Files are loaded a few at a time, and after every few megabytes the model server waits until its
//! own word on the latest model has come back from the broker: by then the broker has what was said
//! before it, so no more than that is ever held here.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use protocol::{ModelVersion, Timestamp};

/// Loads under way at once.
const LOADS_MAX: usize = 4;
/// What is published before the broker must show that it keeps up.
const BURST_LEN_MAX: u64 = 8 << 20;
const BURST_MODELS_MAX: usize = 64;
/// A broker that does not let the model server hear itself slows it down, no more.
const ECHO_WAIT: Duration = Duration::from_secs(2);

/// What is still to be published again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    todo: VecDeque<ModelVersion>,
    loading: BTreeSet<ModelVersion>,
    done: usize,
    burst_len: u64,
    burst_models: usize,
    /// When to go on without having heard the echo; `None` if none is awaited.
    echo_by: Option<Timestamp>,
}

impl Replay {
    /// Begins again, with all of `versions`, in their order.
    pub(crate) fn begin(&mut self, versions: impl Iterator<Item = ModelVersion>) {
        let loading = std::mem::take(&mut self.loading);
        *self = Self { todo: versions.collect(), loading, ..Self::default() };
    }

    pub(crate) fn is_under_way(&self) -> bool {
        !self.todo.is_empty() || !self.loading.is_empty()
    }

    /// The next version to load, if one may be.
    pub(crate) fn next(&mut self) -> Option<ModelVersion> {
        if self.echo_by.is_some() || self.loading.len() >= LOADS_MAX {
            return None;
        }
        let version = self.todo.pop_front()?;
        self.loading.insert(version);
        Some(version)
    }

    /// A version of `len` bytes was published. True if the latest is to be said next, as a marker.
    pub(crate) fn published(&mut self, len: u64, now: Timestamp) -> bool {
        self.done += 1;
        self.burst_len += len;
        self.burst_models += 1;
        let full = self.burst_len >= BURST_LEN_MAX || self.burst_models >= BURST_MODELS_MAX;
        if full {
            self.burst_len = 0;
            self.burst_models = 0;
            self.echo_by = Some(now + ECHO_WAIT);
        }
        full
    }

    /// A load has ended, well or badly.
    pub(crate) fn loaded(&mut self, version: ModelVersion) {
        self.loading.remove(&version);
    }

    /// The marker has come back.
    pub(crate) fn echoed(&mut self) {
        self.echo_by = None;
    }

    pub(crate) fn expire(&mut self, now: Timestamp) {
        if self.echo_by.is_some_and(|by| now >= by) {
            self.echo_by = None;
        }
    }

    pub(crate) const fn deadline(&self) -> Option<Timestamp> {
        self.echo_by
    }

    /// How many were published, once, when none is left.
    pub(crate) fn finish(&mut self) -> Option<usize> {
        if self.todo.is_empty() && self.loading.is_empty() && self.done > 0 {
            return Some(std::mem::take(&mut self.done));
        }
        None
    }
}
