//! Who wants what, found by topic.

use std::collections::BTreeMap;

use protocol::{Filter, PropletId, Topic};

use super::{Address, Want};

#[derive(Debug, Default)]
pub(super) struct Routes {
    exact: BTreeMap<Topic, Vec<u32>>,
    acks: BTreeMap<PropletId, Vec<u32>>,
    /// Wildcards; there are few.
    wide: Vec<(Want, u32)>,
    /// Shared subscriptions: whose turn it is.
    groups: BTreeMap<(String, String), Group>,
}

#[derive(Debug, Default)]
struct Group {
    members: Vec<u32>,
    turn: usize,
}

impl Routes {
    pub(super) fn add(&mut self, node: u32, want: &Want) {
        match want {
            Want::Ours(Filter::Exactly(topic)) => insert(&mut self.exact, topic, node),
            Want::Ours(Filter::AcksOf(proplet)) => insert(&mut self.acks, proplet, node),
            Want::Ours(
                Filter::AnyUpdate
                | Filter::AnyAbsent
                | Filter::AnyOpened
                | Filter::AnyComplete
                | Filter::AnyFailed
                | Filter::AnyModel
                | Filter::Everything,
            )
            | Want::Text { group: None, .. } => {
                if !self.wide.iter().any(|(wide, owner)| wide == want && *owner == node) {
                    self.wide.push((want.clone(), node));
                }
            }
            Want::Text { group: Some(group), pattern } => {
                let group = self.groups.entry((group.clone(), pattern.clone())).or_default();
                if !group.members.contains(&node) {
                    group.members.push(node);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, node: u32, want: &Want) {
        match want {
            Want::Ours(Filter::Exactly(topic)) => withdraw(&mut self.exact, topic, node),
            Want::Ours(Filter::AcksOf(proplet)) => withdraw(&mut self.acks, proplet, node),
            Want::Ours(
                Filter::AnyUpdate
                | Filter::AnyAbsent
                | Filter::AnyOpened
                | Filter::AnyComplete
                | Filter::AnyFailed
                | Filter::AnyModel
                | Filter::Everything,
            )
            | Want::Text { group: None, .. } => {
                self.wide.retain(|(wide, owner)| wide != want || *owner != node);
            }
            Want::Text { group: Some(group), pattern } => {
                if let Some(group) = self.groups.get_mut(&(group.clone(), pattern.clone())) {
                    group.members.retain(|member| *member != node);
                }
            }
        }
    }

    /// The nodes that get a message on `address`, each once, in the order of their numbers.
    pub(super) fn find(
        &mut self,
        address: &Address,
        found: &mut Vec<u32>,
        is_connected: impl Fn(u32) -> bool,
    ) {
        found.clear();
        if let Address::Ours(topic) = address {
            if let Topic::RoundAck { proplet, .. } = topic {
                found.extend(self.acks.get(proplet).into_iter().flatten());
            }
            found.extend(self.exact.get(topic).into_iter().flatten());
        }
        let wide = self.wide.iter().filter(|(want, _)| want.matches(address));
        found.extend(wide.map(|(_, node)| *node));
        found.sort_unstable();
        found.dedup();
        for ((_, pattern), group) in &mut self.groups {
            let want = Want::Text { group: None, pattern: pattern.clone() };
            if want.matches(address) {
                found.extend(group.next(&is_connected));
            }
        }
    }
}

impl Group {
    /// The next member that is there; the next of all, if nobody is.
    fn next(&mut self, is_connected: &impl Fn(u32) -> bool) -> Option<u32> {
        let len = self.members.len();
        let order = (0..len).map(|i| (self.turn + i) % len);
        let place = order.clone().find(|i| is_connected(self.members[*i])).or(order.min())?;
        self.turn = (place + 1) % len;
        Some(self.members[place])
    }
}

fn insert<K: Ord + Clone>(routes: &mut BTreeMap<K, Vec<u32>>, key: &K, node: u32) {
    match routes.get_mut(key) {
        Some(nodes) => {
            if let Err(place) = nodes.binary_search(&node) {
                nodes.insert(place, node);
            }
        }
        None => drop(routes.insert(key.clone(), vec![node])),
    }
}

fn withdraw<K: Ord>(routes: &mut BTreeMap<K, Vec<u32>>, key: &K, node: u32) {
    if let Some(nodes) = routes.get_mut(key) {
        if let Ok(place) = nodes.binary_search(&node) {
            nodes.remove(place);
        }
        if nodes.is_empty() {
            routes.remove(key);
        }
    }
}
