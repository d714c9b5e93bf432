//! Who wants what, found by topic.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Filter, PropletId, Topic};

use super::{Address, Want};

#[derive(Debug, Default)]
pub(super) struct Routes {
    exact: BTreeMap<Topic, BTreeSet<u32>>,
    /// What concerns one proplet alone: there are as many as there are proplets.
    own: OfProplets,
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

/// What concerns one proplet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Own {
    Start,
    Stop,
    Ack,
    Wants,
}

/// What one node wants of that, a bit for each.
type Wishes = u8;

impl Own {
    const fn bit(self) -> Wishes {
        1 << self as u8
    }
}

/// Where a subscription stands.
enum Place<'a> {
    Exact(&'a Topic),
    Own(&'a PropletId, Own),
    Wide,
    Shared(&'a str, &'a str),
}

impl<'a> Place<'a> {
    fn of(want: &'a Want) -> Self {
        match want {
            Want::Ours(Filter::Exactly(Topic::DirectStart { proplet })) => {
                Self::Own(proplet, Own::Start)
            }
            Want::Ours(Filter::Exactly(Topic::DirectStop { proplet })) => {
                Self::Own(proplet, Own::Stop)
            }
            Want::Ours(Filter::Exactly(topic)) => Self::Exact(topic),
            Want::Ours(Filter::AcksOf(proplet)) => Self::Own(proplet, Own::Ack),
            Want::Ours(Filter::UpdateWantsOf(proplet)) => Self::Own(proplet, Own::Wants),
            Want::Ours(
                Filter::AnyUpdate
                | Filter::AnyAbsent
                | Filter::AnyOpened
                | Filter::AnyComplete
                | Filter::AnyFailed
                | Filter::AnyModel
                | Filter::AnyModelPublish
                | Filter::AnyModelPublishWants
                | Filter::AnyModelLatest
                | Filter::AnyModelWants
                | Filter::AnyLinePublishChunk
                | Filter::AnyUpdateChunk
                | Filter::AnyModelPublishChunk
                | Filter::AnySessionCommand
                | Filter::AnySessionStatus
                | Filter::Everything,
            )
            | Want::Text { group: None, .. } => Self::Wide,
            Want::Text { group: Some(group), pattern } => Self::Shared(group, pattern),
        }
    }
}

impl Routes {
    pub(super) fn add(&mut self, node: u32, want: &Want) {
        match Place::of(want) {
            Place::Exact(topic) => match self.exact.get_mut(topic) {
                Some(nodes) => drop(nodes.insert(node)),
                None => drop(self.exact.insert(topic.clone(), [node].into())),
            },
            Place::Own(proplet, own) => insert(&mut self.own, proplet, (node, own)),
            Place::Wide => {
                if !self.wide.iter().any(|(wide, owner)| wide == want && *owner == node) {
                    self.wide.push((want.clone(), node));
                }
            }
            Place::Shared(group, pattern) => {
                let name = (group.to_owned(), pattern.to_owned());
                let group = self.groups.entry(name).or_default();
                if !group.members.contains(&node) {
                    group.members.push(node);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, node: u32, want: &Want) {
        match Place::of(want) {
            Place::Exact(topic) => {
                if let Some(nodes) = self.exact.get_mut(topic)
                    && nodes.remove(&node)
                    && nodes.is_empty()
                {
                    self.exact.remove(topic);
                }
            }
            Place::Own(proplet, own) => withdraw(&mut self.own, proplet, (node, own)),
            Place::Wide => self.wide.retain(|(wide, owner)| wide != want || *owner != node),
            Place::Shared(group, pattern) => {
                if let Some(group) = self.groups.get_mut(&(group.to_owned(), pattern.to_owned())) {
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
            match topic {
                Topic::RoundAck { proplet, .. } => self.concerned(proplet, Own::Ack, found),
                Topic::UpdateWants { proplet, .. } => self.concerned(proplet, Own::Wants, found),
                Topic::DirectStart { proplet } => self.concerned(proplet, Own::Start, found),
                Topic::DirectStop { proplet } => self.concerned(proplet, Own::Stop, found),
                Topic::RoundStart
                | Topic::RoundOpened { .. }
                | Topic::RoundUpdate { .. }
                | Topic::RoundAbsent { .. }
                | Topic::RoundComplete { .. }
                | Topic::RoundFailed { .. }
                | Topic::RoundVariate { .. }
                | Topic::ForwardedUpdate
                | Topic::ModelPublish { .. }
                | Topic::Model { .. }
                | Topic::ModelLatest { .. }
                | Topic::PropletCreate
                | Topic::PropletAlive
                | Topic::PropletMetrics
                | Topic::TaskMetrics
                | Topic::TaskResults
                | Topic::TaskStart
                | Topic::TaskStop
                | Topic::UpdateChunk { .. }
                | Topic::ModelPublishWants { .. }
                | Topic::ModelPublishChunk { .. }
                | Topic::ModelWants { .. }
                | Topic::ModelChunk { .. }
                | Topic::ModuleWants
                | Topic::ModuleChunk { .. }
                | Topic::SessionStart
                | Topic::SessionCommand { .. }
                | Topic::SessionStatus { .. } => {}
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

impl Routes {
    fn concerned(&self, proplet: &PropletId, own: Own, found: &mut Vec<u32>) {
        let all = self.own.get(proplet).into_iter().flatten();
        found.extend(all.filter(|(_, wishes)| wishes & own.bit() != 0).map(|(node, _)| *node));
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

type OfProplets = BTreeMap<PropletId, Vec<(u32, Wishes)>>;

fn insert(routes: &mut OfProplets, proplet: &PropletId, (node, own): (u32, Own)) {
    let Some(nodes) = routes.get_mut(proplet) else {
        // Mostly it stays the only one.
        return drop(routes.insert(proplet.clone(), [(node, own.bit())].into()));
    };
    match nodes.iter_mut().find(|(known, _)| *known == node) {
        Some((_, wishes)) => *wishes |= own.bit(),
        None => nodes.push((node, own.bit())),
    }
}

fn withdraw(routes: &mut OfProplets, proplet: &PropletId, (node, own): (u32, Own)) {
    let Some(nodes) = routes.get_mut(proplet) else { return };
    if let Some((_, wishes)) = nodes.iter_mut().find(|(known, _)| *known == node) {
        *wishes &= !own.bit();
    }
    nodes.retain(|(_, wishes)| *wishes != 0);
    if nodes.is_empty() {
        routes.remove(proplet);
    }
}
