//! The proplets that could be asked, as they speak of themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    Entry, PropletId, Timestamp,
    message::{AliveStatus, PropletAlive, PropletCreate, SelectionSpec},
};
use serde_json::Value;

use crate::record;

/// What a proplet says of itself.
pub(crate) type Metadata = BTreeMap<String, Value>;

/// A proplet that was not heard for so long is not asked.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Proplets that are remembered; nobody who comes later is chosen by what it says.
const KNOWN_MAX: usize = 200_000;
/// Longest description of one proplet that is remembered, as JSON, in bytes.
const METADATA_LEN_MAX: usize = 16 << 10;

/// Key of the list of words that a proplet's owner gave it.
const TAGS: &str = "tags";

/// How long after the first connection the fleet may still be incomplete: the signs of life of most
/// proplets have been heard by then.
const SETTLES_AFTER: Duration = Duration::from_secs(12);

/// What is known of the fleet. Who is there is not kept: it is heard again within seconds. What
/// somebody says of itself is: it does so at its own connects only.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    known: BTreeMap<PropletId, Known>,
    /// Nobody's silence counts from before this.
    since: Timestamp,
    /// When the fleet is heard whole for the first time.
    settled_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Known {
    heard_at: Timestamp,
    offline: bool,
    metadata: Metadata,
}

impl Candidates {
    pub(crate) fn connected(&mut self, now: Timestamp) {
        self.since = now;
        self.settled_at.get_or_insert(now + SETTLES_AFTER);
    }

    /// Takes back what was kept; nobody is there before it is heard.
    pub(crate) fn restore(&mut self, proplets: BTreeMap<PropletId, Metadata>) {
        let absent = |metadata| Known { heard_at: Timestamp::ZERO, offline: true, metadata };
        self.known = proplets.into_iter().map(|(id, metadata)| (id, absent(metadata))).collect();
    }

    /// Whether those that are there have had the time to say so.
    pub(crate) fn are_settled(&self, now: Timestamp) -> bool {
        self.settled_at.is_some_and(|at| now >= at)
    }

    /// What is to be kept, if it says something new of itself.
    pub(crate) fn introduced(&mut self, create: PropletCreate, now: Timestamp) -> Option<Entry> {
        let PropletCreate { proplet_id, mut metadata, .. } = create;
        let len = serde_json::to_vec(&metadata).map_or(usize::MAX, |text| text.len());
        if len > METADATA_LEN_MAX {
            metadata.clear();
        }
        let before = self.known.get(&proplet_id);
        if before.is_none() && self.known.len() >= KNOWN_MAX {
            return None;
        }
        let same = match before {
            Some(before) => before.metadata == metadata,
            None => metadata.is_empty(),
        };
        let entry = (!same).then(|| record::keep_proplet(&proplet_id, &metadata));
        self.known.insert(proplet_id, Known { heard_at: now, offline: false, metadata });
        entry
    }

    pub(crate) fn heard(&mut self, alive: PropletAlive, now: Timestamp) {
        let offline = match alive.status {
            AliveStatus::Alive => false,
            AliveStatus::Offline => true,
        };
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&alive.proplet_id) {
            return;
        }
        let metadata = BTreeMap::new();
        let known = self.known.entry(alive.proplet_id);
        let known = known.or_insert(Known { heard_at: now, offline, metadata });
        (known.heard_at, known.offline) = (now, offline);
    }

    /// Who could be asked now, in the order of their ids.
    pub(crate) fn fitting(&self, spec: &SelectionSpec, now: Timestamp) -> Vec<&PropletId> {
        let alive = |known: &Known| {
            !known.offline && now.since(known.heard_at.max(self.since)) <= SILENCE_MAX
        };
        let fitting = self.known.iter().filter(|(_, known)| alive(known) && known.fits(spec));
        fitting.map(|(id, _)| id).collect()
    }

    /// A number that a proplet says of itself.
    pub(crate) fn number(&self, proplet: &PropletId, key: &str) -> Option<f64> {
        self.known.get(proplet)?.metadata.get(key)?.as_f64()
    }
}

impl Known {
    fn fits(&self, spec: &SelectionSpec) -> bool {
        let said = |key: &str| self.metadata.get(key);
        let equal = spec.require.iter().all(|(key, value)| said(key) == Some(value));
        let enough = spec.at_least.iter().all(|(key, least)| {
            said(key).and_then(Value::as_f64).is_some_and(|number| number >= *least)
        });
        let tags: BTreeSet<&str> = match said(TAGS) {
            Some(Value::Array(tags)) => tags.iter().filter_map(Value::as_str).collect(),
            Some(_) | None => BTreeSet::new(),
        };
        equal && enough && spec.tags.iter().all(|tag| tags.contains(tag.as_str()))
    }
}
