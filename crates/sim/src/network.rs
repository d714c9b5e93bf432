//! How long packets are under way. Packets of a connection arrive once and in order, however long
//! it takes; plain events between nodes may be lost, doubled and overtaken.

mod direct;
mod latency;

use std::{collections::BTreeMap, sync::Arc};

use crate::{Dice, LinkSpec, NetworkModel, NetworkSpec};

/// Every link there is.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    model: NetworkModel,
    seed: u64,
    rules: NetworkSpec,
    /// Kinds of links, and the medium that they share.
    specs: Vec<(LinkSpec, Option<u32>)>,
    media: Vec<Medium>,
    names: Arc<[Arc<str>]>,
    /// By node: what its lines to the broker and from it are like.
    kinds: Arc<[[u32; 2]]>,
    /// To the broker, and from it, by node.
    lines: [Vec<Line>; 2],
    /// Between nodes, made when first used.
    pairs: BTreeMap<(u32, u32), (u32, Line)>,
}

/// Which way on a node's line to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// One direction of one link, in use.
#[derive(Clone, Copy, Debug)]
struct Line {
    dice: Dice,
    /// When what was sent before has left.
    free_us: u64,
    last_us: u64,
    cut_until_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Medium {
    bandwidth_bps: u64,
    free_us: u64,
}

/// Headers of MQTT, TCP and IP of one packet, roughly.
pub(crate) const HEADER_BYTES: u64 = 60;

impl NetworkSpec {
    /// What holds for the link from `src` to `dst`, and the medium that it shares.
    pub fn between(&self, src: &str, dst: &str) -> (LinkSpec, Option<&str>) {
        match self.links.iter().rev().find(|rule| rule.fits(src, dst)) {
            Some(rule) => (rule.spec(), rule.shared.as_deref()),
            None => (self.default.clone(), None),
        }
    }

    /// The shortest time from `src` to any of `others`: what it does cannot be noticed before.
    pub fn lookahead_us<'a>(&self, src: &str, others: impl IntoIterator<Item = &'a str>) -> u64 {
        match self.model {
            NetworkModel::Direct => 0,
            NetworkModel::Latency => {
                let others = others.into_iter().filter(|dst| *dst != src);
                let between = others.map(|dst| self.between(src, dst).0.latency_us);
                between.min().unwrap_or_default()
            }
        }
    }
}

impl Network {
    pub(crate) fn new(rules: NetworkSpec, seed: u64, names: Vec<Arc<str>>) -> Self {
        let media = rules.shared.iter();
        let media = media.map(|it| Medium { bandwidth_bps: it.bandwidth_bps, free_us: 0 });
        let mut network = Self {
            model: rules.model,
            seed,
            specs: vec![],
            media: media.collect(),
            kinds: [].into(),
            lines: [vec![], vec![]],
            pairs: BTreeMap::new(),
            names: names.into(),
            rules,
        };
        let broker = crate::PeerEvent::BROKER;
        let names = Arc::clone(&network.names);
        let mut kinds = Vec::with_capacity(names.len());
        let mut lines = [Vec::with_capacity(names.len()), Vec::with_capacity(names.len())];
        for name in &*names {
            let ways = [network.line(name, broker), network.line(broker, name)];
            kinds.push(ways.map(|(kind, _)| kind));
            lines.iter_mut().zip(ways).for_each(|(lines, (_, line))| lines.push(line));
        }
        (network.kinds, network.lines) = (kinds.into(), lines);
        network
    }

    /// What a half of the world needs in which only nodes from `first` on send; this keeps what
    /// the others send, and all that goes to nodes.
    pub(crate) fn divide(&mut self, first: u32) -> Self {
        let [up, _] = &mut self.lines;
        let own = up[..first as usize].to_vec();
        let up = std::mem::replace(up, own);
        Self {
            model: self.model,
            seed: self.seed,
            rules: self.rules.clone(),
            specs: self.specs.clone(),
            media: self.media.clone(),
            names: Arc::clone(&self.names),
            kinds: Arc::clone(&self.kinds),
            lines: [up, vec![]],
            pairs: BTreeMap::new(),
        }
    }

    /// Takes back what was divided from it.
    pub(crate) fn join(&mut self, other: &mut Self) {
        let own = std::mem::take(&mut self.lines[Way::Up as usize]);
        let mut up = std::mem::take(&mut other.lines[Way::Up as usize]);
        up[..own.len()].copy_from_slice(&own);
        self.lines[Way::Up as usize] = up;
    }

    /// When a packet of this node's connection arrives at the other end.
    pub(crate) fn send(&mut self, node: u32, way: Way, bytes: u64, now_us: u64) -> u64 {
        let line = &mut self.lines[way as usize][node as usize];
        let departs = now_us.max(line.cut_until_us);
        let arrives = match self.model {
            NetworkModel::Direct => direct::arrival(departs),
            NetworkModel::Latency => {
                let kind = self.kinds[node as usize][way as usize];
                let (spec, medium) = &self.specs[kind as usize];
                let medium = medium.map(|medium| &mut self.media[medium as usize]);
                latency::connection(spec, line, medium, bytes + HEADER_BYTES, departs)
            }
        };
        line.last_us = line.last_us.max(arrives);
        line.last_us
    }

    /// When copies of a plain event arrive; none if it is lost.
    pub(crate) fn post(&mut self, src: u32, dst: u32, bytes: u64, now_us: u64) -> Vec<u64> {
        if !self.pairs.contains_key(&(src, dst)) {
            let [from, to] = [src, dst].map(|node| Arc::clone(&self.names[node as usize]));
            let line = self.line(&from, &to);
            self.pairs.insert((src, dst), line);
        }
        let cut = [src, dst].map(|node| self.cut_until_us(node) > now_us);
        if cut != [false, false] {
            return vec![];
        }
        match self.model {
            NetworkModel::Direct => vec![direct::arrival(now_us)],
            NetworkModel::Latency => {
                let known = self.pairs.get_mut(&(src, dst));
                let (kind, line) = known.expect("it was made above");
                let (spec, medium) = &self.specs[*kind as usize];
                let medium = medium.map(|medium| &mut self.media[medium as usize]);
                latency::datagram(spec, line, medium, bytes, now_us)
            }
        }
    }

    /// A delay that nothing on this line undercuts.
    pub(crate) fn delay_us(&self, node: u32, way: Way) -> u64 {
        match self.model {
            NetworkModel::Direct => 0,
            NetworkModel::Latency => self.latency_us(node, way),
        }
    }

    pub(crate) fn name(&self, node: u32) -> &str {
        &self.names[node as usize]
    }

    /// The shortest time that a packet takes between the broker and any node from `first` on,
    /// either way, or to `listener`; `None` if such lines have something in common.
    pub(crate) fn apart_us(&self, listener: u32, first: u32) -> Option<u64> {
        let crowd = || self.kinds[first as usize..].iter().flatten();
        let alone = crowd().all(|kind| self.specs[*kind as usize].1.is_none());
        let shortest = match self.model {
            NetworkModel::Direct => None,
            NetworkModel::Latency => {
                let crowd = crowd().map(|kind| self.specs[*kind as usize].0.latency_us);
                crowd.chain([self.latency_us(listener, Way::Down)]).min()
            }
        };
        shortest.filter(|_| alone)
    }

    /// The shortest time from `src` to any of `others` or the broker.
    pub(crate) fn lookahead_us(&self, src: u32, others: &[u32]) -> u64 {
        let name = |node: u32| &*self.names[node as usize];
        let all = others.iter().map(|dst| name(*dst)).chain([crate::PeerEvent::BROKER]);
        self.rules.lookahead_us(name(src), all)
    }

    /// Nothing passes from and to this node until then.
    pub(crate) fn cut(&mut self, node: u32, until_us: u64) {
        for lines in &mut self.lines {
            let line = &mut lines[node as usize];
            line.cut_until_us = line.cut_until_us.max(until_us);
        }
    }

    /// When this node can be reached again; the past if it can.
    pub(crate) fn cut_until_us(&self, node: u32) -> u64 {
        self.lines[Way::Up as usize][node as usize].cut_until_us
    }

    /// A new connection keeps no order with the one before.
    pub(crate) fn reset(&mut self, node: u32, now_us: u64) {
        // In a half of the world only one of its lines is known.
        for line in self.lines.iter_mut().filter_map(|lines| lines.get_mut(node as usize)) {
            line.last_us = now_us;
        }
    }

    fn latency_us(&self, node: u32, way: Way) -> u64 {
        self.specs[self.kinds[node as usize][way as usize] as usize].0.latency_us
    }

    /// What the link from `src` to `dst` is like, and its state.
    fn line(&mut self, src: &str, dst: &str) -> (u32, Line) {
        let (spec, shared) = self.rules.between(src, dst);
        let medium =
            shared.and_then(|name| self.rules.shared.iter().position(|it| it.name == name));
        let medium = medium.and_then(|medium| u32::try_from(medium).ok());
        // Most links are alike, and alike to the one before.
        let known = self.specs.iter().rposition(|(known, on)| *known == spec && *on == medium);
        let place = known.unwrap_or_else(|| {
            self.specs.push((spec.clone(), medium));
            self.specs.len() - 1
        });
        let dice = if spec.jitter_us > 0
            || spec.loss_rate > 0.0
            || spec.reorder_rate > 0.0
            || spec.duplicate_rate > 0.0
        {
            Dice::of(self.seed, src, dst)
        } else {
            Dice::of(0, "", "")
        };
        let kind = u32::try_from(place).expect("fewer than 2^32 kinds of links");
        let line = Line { dice, free_us: 0, last_us: 0, cut_until_us: 0 };
        (kind, line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LinkRule, SharedMedium};

    fn network(default: LinkSpec, links: Vec<LinkRule>) -> Network {
        let shared = vec![SharedMedium { name: "cell".into(), bandwidth_bps: 8_000_000 }];
        let rules = NetworkSpec { model: NetworkModel::Latency, default, links, shared };
        Network::new(rules, 1, ["a", "b", "c"].map(Arc::from).into())
    }

    #[test]
    fn a_connection_keeps_its_order_whatever_jitter_and_loss_do() {
        let spec = LinkSpec {
            latency_us: 1_000,
            jitter_us: 50_000,
            loss_rate: 0.3,
            ..LinkSpec::default()
        };
        let mut network = network(spec, vec![]);
        let arrivals: Vec<_> = (0..500).map(|i| network.send(0, Way::Up, 100, i * 10)).collect();
        assert!(arrivals.is_sorted());
        assert!(arrivals.iter().zip(0..).all(|(at, i)| *at >= i * 10 + 1_000));
        assert!(arrivals[0] != network.send(1, Way::Up, 100, 0), "each link has its own dice");
    }

    #[test]
    fn bandwidth_makes_packets_queue_also_on_a_shared_medium() {
        let spec = LinkSpec { bandwidth_bps: Some(8_000_000), ..LinkSpec::default() };
        let mut alone = network(spec, vec![]);
        let bytes = 1_000 - HEADER_BYTES;
        assert_eq!(alone.send(0, Way::Up, bytes, 0), 1_000);
        assert_eq!(alone.send(0, Way::Up, bytes, 0), 2_000);
        assert_eq!(alone.send(1, Way::Up, bytes, 0), 1_000);
        let rule = LinkRule {
            src: "*".into(),
            dst: "broker".into(),
            latency_us: 5,
            jitter_us: 0,
            loss_rate: 0.0,
            duplicate_rate: 0.0,
            reorder_rate: 0.0,
            bandwidth_bps: None,
            shared: Some("cell".into()),
        };
        let mut shared = network(LinkSpec::default(), vec![rule]);
        assert_eq!(shared.send(0, Way::Up, bytes, 0), 1_005);
        assert_eq!(shared.send(1, Way::Up, bytes, 0), 2_005);
    }

    #[test]
    fn a_cut_holds_connections_back_and_swallows_events() {
        let mut network = network(LinkSpec { latency_us: 7, ..LinkSpec::default() }, vec![]);
        network.cut(0, 1_000);
        assert_eq!(network.send(0, Way::Down, 10, 5), 1_007);
        assert_eq!(network.send(1, Way::Down, 10, 5), 12);
        assert!(network.post(1, 0, 10, 5).is_empty());
        assert_eq!(network.post(1, 2, 10, 5), [12]);
        assert_eq!(network.post(1, 0, 10, 1_000), [1_007]);
    }

    #[test]
    fn plain_events_are_lost_doubled_and_overtaken() {
        let spec = LinkSpec {
            latency_us: 10,
            loss_rate: 0.2,
            duplicate_rate: 0.2,
            reorder_rate: 0.2,
            ..LinkSpec::default()
        };
        let mut network = network(spec, vec![]);
        let posts: Vec<Vec<u64>> = (0..1_000).map(|i| network.post(0, 1, 10, i)).collect();
        let copies = |n: usize| posts.iter().filter(|copies| copies.len() == n).count();
        assert!((100..300).contains(&copies(0)), "{} lost", copies(0));
        assert!((80..300).contains(&copies(2)), "{} doubled", copies(2));
        assert!(!posts.concat().is_sorted());
    }
}
