//! What is listened to, and how far the broker knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::Filter;

/// Most filters in one SUBSCRIBE.
const BATCH_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The broker's session does not have it, or it is to be asked for once more.
    New,
    Asked,
    /// In the broker's session.
    Held,
}

#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    wanted: BTreeMap<Filter, Standing>,
    /// Handed to the client, without a packet id so far.
    asked: VecDeque<Vec<Filter>>,
    numbered: BTreeMap<u16, Vec<Filter>>,
    /// No longer wanted, but perhaps in the broker's session.
    unwanted: BTreeSet<Filter>,
}

impl Subscriptions {
    pub(super) fn listen(&mut self, filter: Filter) {
        self.unwanted.remove(&filter);
        self.wanted.insert(filter, Standing::New);
    }

    pub(super) fn unlisten(&mut self, filter: &Filter) {
        if self.wanted.remove(filter).is_some() {
            self.unwanted.insert(filter.clone());
        }
    }

    /// A new connection. Without a session the broker knows nothing; with one, it may still have
    /// forgotten what was subscribed lately (a broker that was killed remembers what it had last
    /// written to its disk), so everything is asked for again.
    pub(super) fn connected(&mut self, resumed: bool) {
        if !resumed {
            self.unwanted.clear();
        }
        self.wanted.values_mut().for_each(|standing| *standing = Standing::New);
    }

    pub(super) fn lost(&mut self) {
        self.asked.clear();
        self.numbered.clear();
        for standing in self.wanted.values_mut().filter(|s| **s == Standing::Asked) {
            *standing = Standing::New;
        }
    }

    /// The next filters to subscribe to, in one packet.
    pub(super) fn ask(&mut self) -> Option<Vec<Filter>> {
        let mut batch = vec![];
        for (filter, standing) in &mut self.wanted {
            if *standing == Standing::New && batch.len() < BATCH_MAX {
                *standing = Standing::Asked;
                batch.push(filter.clone());
            }
        }
        if batch.is_empty() {
            return None;
        }
        self.asked.push_back(batch.clone());
        Some(batch)
    }

    /// The next filter to unsubscribe from.
    pub(super) fn retract(&mut self) -> Option<Filter> {
        self.unwanted.pop_first()
    }

    /// The SUBSCRIBE that was handed over first has got its packet id.
    pub(super) fn sent(&mut self, pkid: u16) {
        if let Some(batch) = self.asked.pop_front() {
            self.numbered.insert(pkid, batch);
        }
    }

    /// The broker has answered; returns the filters that it refused. `refused` has one entry a
    /// filter.
    pub(super) fn answered(&mut self, pkid: u16, refused: &[bool]) -> Vec<Filter> {
        let batch = self.numbered.remove(&pkid).unwrap_or_default();
        for filter in &batch {
            let again = self.asked.iter().chain(self.numbered.values()).any(|b| b.contains(filter));
            if let Some(standing) = self.wanted.get_mut(filter)
                && *standing == Standing::Asked
                && !again
            {
                *standing = Standing::Held;
            }
        }
        batch.into_iter().zip(refused).filter(|(_, no)| **no).map(|(filter, _)| filter).collect()
    }

    /// Whether the broker has answered everything that it was asked.
    pub(super) fn is_settled(&self) -> bool {
        self.asked.is_empty() && self.numbered.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_asked_for_everything_since_a_killed_broker_may_have_forgotten_it() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.listen(Filter::AnyModel);
        subscriptions.connected(true);
        assert_eq!(subscriptions.ask(), Some(vec![Filter::AnyModel]), "first of this process");
        assert!(!subscriptions.is_settled());
        subscriptions.sent(3);
        assert_eq!(subscriptions.answered(3, &[false]), []);
        assert!(subscriptions.is_settled());
        assert_eq!(subscriptions.ask(), None, "once a connection");

        for resumed in [true, false] {
            subscriptions.lost();
            subscriptions.listen(Filter::AnyUpdate);
            subscriptions.connected(resumed);
            let all = vec![Filter::AnyUpdate, Filter::AnyModel];
            assert_eq!(subscriptions.ask(), Some(all), "resumed: {resumed}");
            assert_eq!(subscriptions.ask(), None);
        }
    }

    #[test]
    fn listening_again_asks_again_even_before_the_answer() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.connected(false);
        subscriptions.listen(Filter::AnyModel);
        assert!(subscriptions.ask().is_some());
        subscriptions.listen(Filter::AnyModel);
        assert!(subscriptions.ask().is_some());
        subscriptions.sent(1);
        subscriptions.sent(2);
        subscriptions.answered(1, &[false]);

        subscriptions.lost();
        subscriptions.connected(true);
        assert!(subscriptions.ask().is_some(), "the second answer never came");
    }

    #[test]
    fn what_was_unlistened_while_away_is_retracted() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.listen(Filter::AnyModel);
        subscriptions.unlisten(&Filter::AnyModel);
        subscriptions.unlisten(&Filter::AnyUpdate);
        subscriptions.connected(true);
        assert_eq!(subscriptions.ask(), None);
        assert_eq!(subscriptions.retract(), Some(Filter::AnyModel));
        assert_eq!(subscriptions.retract(), None);
    }

    #[test]
    fn refusals_are_named() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.listen(Filter::AnyUpdate);
        subscriptions.listen(Filter::AnyModel);
        subscriptions.ask();
        subscriptions.sent(1);
        assert_eq!(subscriptions.answered(1, &[false, true]), [Filter::AnyModel]);
    }
}
