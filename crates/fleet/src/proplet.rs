//! Which proplets there are, which of them are alive, and how much each has to do.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use protocol::{PropletId, TaskId, Timestamp, message::PropletMetrics};
use serde_json::Value;

use crate::load::Load;

/// What is known of one proplet.
#[derive(Clone, Debug)]
pub(crate) struct Proplet {
    pub(crate) id: PropletId,
    pub(crate) namespace: String,
    pub(crate) metadata: Metadata,
    pub(crate) last_alive_at: Option<Timestamp>,
    /// What of `last_alive_at` is on disk.
    pub(crate) kept_at: Option<Timestamp>,
    /// Whether it says which tasks it holds.
    pub(crate) lists_tasks: bool,
    pub(crate) metrics: Option<Box<PropletMetrics>>,
    alive: bool,
    /// When its silence ends its being alive.
    expires_at: Timestamp,
    /// Where the index of expiries has it: never later than that, and mostly where its first word
    /// put it, since it is only moved when it has become the first.
    indexed_at: Timestamp,
    active: Load,
}

/// What a proplet says of itself, by name, in order; in a list, which for one or two names takes
/// far less memory than a map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metadata(Box<[(String, Value)]>);

impl Metadata {
    fn none() -> Self {
        Self(Box::default())
    }

    pub(crate) fn of(metadata: BTreeMap<String, Value>) -> Self {
        Self(metadata.into_iter().collect())
    }

    pub(crate) fn to_map(&self) -> BTreeMap<String, Value> {
        self.0.iter().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

impl Proplet {
    /// One that nobody has heard anything of yet.
    pub(crate) fn new(id: PropletId) -> Self {
        Self {
            id,
            namespace: String::new(),
            metadata: Metadata::none(),
            last_alive_at: None,
            kept_at: None,
            lists_tasks: false,
            metrics: None,
            alive: false,
            expires_at: Timestamp::ZERO,
            indexed_at: Timestamp::ZERO,
            active: Load::default(),
        }
    }

    pub(crate) const fn is_alive(&self) -> bool {
        self.alive
    }

    /// Whether it wants what concerns it on topics of its own.
    pub(crate) fn is_directed(&self) -> bool {
        self.metadata.get("directed").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Whether it knows what to do with a module in pieces.
    pub(crate) fn takes_pieces(&self) -> bool {
        let said = self.metadata.get("module_pieces").and_then(Value::as_bool);
        said.unwrap_or_else(|| self.was_before_us())
    }

    /// Whether it gets modules out of registries itself. Where that is not known, it is handed them.
    pub(crate) fn pulls(&self) -> bool {
        self.may_pull() && !self.was_before_us()
    }

    /// Whether it has not said that it gets no modules out of registries.
    pub(crate) fn may_pull(&self) -> bool {
        self.metadata.get("image_pull").and_then(Value::as_bool).unwrap_or(true)
    }

    /// Whether it is one of ours whose introduction was not heard, because it was there before us:
    /// only those say what they hold, and all of them say more of themselves than nothing.
    fn was_before_us(&self) -> bool {
        self.metadata.0.is_empty() && self.lists_tasks
    }

    /// What to call it.
    pub(crate) fn name(&self) -> &str {
        self.metadata.get("name").and_then(Value::as_str).unwrap_or_else(|| self.id.as_str())
    }

    /// The tasks that were sent to it and have not ended there.
    pub(crate) const fn active(&self) -> &Load {
        &self.active
    }
}

/// All proplets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proplets {
    by_id: BTreeMap<PropletId, Box<Proplet>>,
    /// Those alive, by when they would be given up at the earliest; of the first it is the time.
    by_expiry: BTreeSet<(Timestamp, PropletId)>,
    /// Those alive, the least busy first; made when somebody asks, since rounds do not.
    by_load: OnceCell<BTreeSet<(usize, PropletId)>>,
}

impl Proplets {
    pub(crate) fn get(&self, id: &PropletId) -> Option<&Proplet> {
        self.by_id.get(id).map(|proplet| &**proplet)
    }

    pub(crate) fn is_alive(&self, id: &PropletId) -> bool {
        self.get(id).is_some_and(Proplet::is_alive)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Proplet> {
        self.by_id.values().map(|proplet| &**proplet)
    }

    pub(crate) fn alive(&self) -> impl Iterator<Item = &Proplet> {
        self.loads().iter().filter_map(|(_, id)| self.get(id))
    }

    pub(crate) fn alive_len(&self) -> usize {
        self.by_expiry.len()
    }

    /// Changes what is known of a proplet; a new one is made.
    pub(crate) fn know(&mut self, id: &PropletId) -> &mut Proplet {
        self.by_id.entry(id.clone()).or_insert_with(|| Box::new(Proplet::new(id.clone())))
    }

    /// It is alive until `expires_at`.
    pub(crate) fn mark_alive(&mut self, id: &PropletId, expires_at: Timestamp) {
        self.heard(id, expires_at, |_, _| ());
    }

    /// Changes what is known of a proplet that is alive until `expires_at`; a new one is made.
    /// `learn` is also told whether it was alive before.
    pub(crate) fn heard(
        &mut self,
        id: &PropletId,
        expires_at: Timestamp,
        learn: impl FnOnce(&mut Proplet, bool),
    ) {
        let known = self.by_id.entry(id.clone());
        let proplet = known.or_insert_with(|| Box::new(Proplet::new(id.clone())));
        let was_alive = std::mem::replace(&mut proplet.alive, true);
        proplet.expires_at = expires_at;
        learn(proplet, was_alive);
        if !was_alive && let Some(by_load) = self.by_load.get_mut() {
            by_load.insert((proplet.active.len(), id.clone()));
        }
        if !was_alive || expires_at < proplet.indexed_at {
            if was_alive {
                self.by_expiry.remove(&(proplet.indexed_at, id.clone()));
            }
            proplet.indexed_at = expires_at;
            self.by_expiry.insert((expires_at, id.clone()));
        }
        if self.by_expiry.first().is_some_and(|(_, first)| first == id) {
            self.put_first_right();
        }
    }

    /// The first of the index of expiries is the first to expire.
    fn put_first_right(&mut self) {
        while let Some((at, id)) = self.by_expiry.first() {
            let proplet = self.by_id.get_mut(id).expect("who is alive is known");
            if proplet.expires_at == *at {
                return;
            }
            proplet.indexed_at = proplet.expires_at;
            let Some((_, id)) = self.by_expiry.pop_first() else { return };
            self.by_expiry.insert((proplet.indexed_at, id));
        }
    }

    pub(crate) fn mark_offline(&mut self, id: &PropletId) {
        self.unindex(id);
        if let Some(proplet) = self.by_id.get_mut(id) {
            proplet.alive = false;
        }
    }

    /// Nobody could be heard until now: silence counts from here.
    pub(crate) fn grant(&mut self, expires_at: Timestamp) {
        let alive: Vec<_> = self.by_expiry.iter().map(|(_, id)| id.clone()).collect();
        for id in alive {
            self.mark_alive(&id, expires_at);
        }
    }

    /// One that has been silent for too long.
    pub(crate) fn expired(&self, now: Timestamp) -> Option<PropletId> {
        self.by_expiry.first().filter(|(at, _)| *at <= now).map(|(_, id)| id.clone())
    }

    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.by_expiry.first().map(|(at, _)| *at)
    }

    pub(crate) fn remove(&mut self, id: &PropletId) {
        self.unindex(id);
        self.by_id.remove(id);
    }

    /// The alive proplet with the least to do, of two alike the first by name.
    pub(crate) fn least_busy(&self, but: Option<&PropletId>) -> Option<PropletId> {
        self.loads().iter().map(|(_, id)| id).find(|id| Some(*id) != but).cloned()
    }

    /// `task` has become active on these proplets, and is no longer on those; both in order.
    pub(crate) fn move_task(&mut self, task: &TaskId, from: &[PropletId], to: &[PropletId]) {
        for id in from.iter().filter(|id| to.binary_search(id).is_err()) {
            self.load(id, |active| active.remove(task));
        }
        for id in to.iter().filter(|id| from.binary_search(id).is_err()) {
            self.load(id, |active| active.insert(task.clone()));
        }
    }

    /// Changes what a proplet has to do.
    fn load(&mut self, id: &PropletId, change: impl FnOnce(&mut Load) -> bool) {
        let Some(proplet) = self.by_id.get_mut(id) else { return };
        let before = proplet.active.len();
        if change(&mut proplet.active)
            && proplet.alive
            && let Some(by_load) = self.by_load.get_mut()
        {
            by_load.remove(&(before, id.clone()));
            by_load.insert((proplet.active.len(), id.clone()));
        }
    }

    fn loads(&self) -> &BTreeSet<(usize, PropletId)> {
        self.by_load.get_or_init(|| {
            let alive = self.iter().filter(|proplet| proplet.alive);
            alive.map(|proplet| (proplet.active.len(), proplet.id.clone())).collect()
        })
    }

    fn unindex(&mut self, id: &PropletId) {
        if let Some(proplet) = self.by_id.get(id) {
            self.by_expiry.remove(&(proplet.indexed_at, id.clone()));
            if let Some(by_load) = self.by_load.get_mut() {
                by_load.remove(&(proplet.active.len(), id.clone()));
            }
            self.put_first_right();
        }
    }
}
