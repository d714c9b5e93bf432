//! A node's end of its connection to the broker, as the live transport keeps it: what was said is
//! said again until the broker has it, and what is wanted is subscribed to again.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    Span,
    broker::{Message, Want},
};

/// The client of one node.
#[derive(Debug, Default)]
pub(crate) struct Client {
    state: State,
    /// Counts connections, so that packets of earlier ones are told apart.
    conn: u32,
    attempts: u32,
    /// Made when there is something: while nothing breaks a connection, there never is.
    #[expect(clippy::box_collection, reason = "most have none, and there are many")]
    outgoing: Option<Box<VecDeque<Outgoing>>>,
    /// Every subscription, and those that were taken back and the broker may not know of.
    wants: Vec<Wanted>,
    /// Whether this process has been connected before.
    was_there: bool,
}

/// A subscription, or its end.
#[derive(Debug)]
struct Wanted {
    want: Want,
    wish: Wish,
    /// When the broker's acknowledgement is here; it has not been sent, if nothing is said.
    acked_us: Option<u64>,
}

/// What is to be said of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Subscribe,
    Unsubscribe,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Away,
    Connecting,
    There,
}

/// A message that the broker is not known to have.
#[derive(Debug)]
pub(crate) struct Outgoing {
    message: Arc<Message>,
    durability: Durability,
    /// When the broker's acknowledgement is here; it has not been sent, if nothing is said.
    acked_us: Option<u64>,
}

/// Whether a message survives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Promised,
    Said,
}

impl Outgoing {
    /// Sends the message if it is not on its way; `send` says when its acknowledgement will be
    /// here.
    pub(crate) fn send(&mut self, send: impl FnOnce(&Arc<Message>) -> u64) {
        if self.acked_us.is_none() {
            self.acked_us = Some(send(&self.message));
        }
    }
}

impl Client {
    pub(crate) const fn state(&self) -> State {
        self.state
    }

    pub(crate) const fn conn(&self) -> u32 {
        self.conn
    }

    pub(crate) fn is_there(&self, conn: u32) -> bool {
        self.state == State::There && self.conn == conn
    }

    /// Begins a new connection.
    pub(crate) const fn connect(&mut self) -> u32 {
        self.conn += 1;
        self.state = State::Connecting;
        self.conn
    }

    /// The broker is there. A new process tells it what it wants whatever the session knows, since
    /// retained messages come with subscriptions only.
    pub(crate) fn connected(&mut self, resumed: bool) {
        self.state = State::There;
        self.attempts = 0;
        if !resumed {
            self.wants.retain(|wanted| wanted.wish == Wish::Subscribe);
        }
        if !(resumed && self.was_there) {
            self.wants.iter_mut().for_each(|wanted| wanted.acked_us = None);
        }
        self.was_there = true;
    }

    /// What the broker is not known to have is to be sent again; `acked_us` is when the last
    /// acknowledgement came.
    pub(crate) fn lost(&mut self, acked_us: u64) {
        self.state = State::Away;
        self.forget_acknowledged(acked_us);
        for outgoing in self.outgoing.iter_mut().flat_map(|all| &mut **all) {
            outgoing.acked_us = None;
        }
        for wanted in &mut self.wants {
            wanted.acked_us = wanted.acked_us.filter(|at| *at <= acked_us);
        }
    }

    /// The process died: only promises are left.
    pub(crate) fn died(&mut self, acked_us: u64) {
        self.lost(acked_us);
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.retain(|it| it.durability == Durability::Promised);
        }
        self.wants.clear();
        self.was_there = false;
        self.attempts = 0;
    }

    /// The disk is gone, too.
    pub(crate) fn wiped(&mut self) {
        self.outgoing = None;
    }

    /// How long to wait before the next attempt, without the random part.
    pub(crate) fn patience(&mut self, first: Span) -> u64 {
        let doublings = self.attempts.min(5);
        self.attempts = self.attempts.saturating_add(1);
        first.micros().saturating_mul(1 << doublings).min(first.micros().saturating_mul(30))
    }

    /// Notes a subscription or its end, to be sent by [`Client::next_wish`].
    pub(crate) fn wish(&mut self, want: Want, wish: Wish, acked_us: u64) {
        let is_done = |it: &Wanted| it.acked_us.is_some_and(|at| at <= acked_us);
        self.wants.retain(|it| it.want != want && !(it.wish == Wish::Unsubscribe && is_done(it)));
        self.wants.push(Wanted { want, wish, acked_us: None });
    }

    /// The next subscription, or end of one, that the broker has to be told; to be followed by
    /// [`Client::wish_sent`].
    pub(crate) fn next_wish(&self) -> Option<(usize, Want, Wish)> {
        let place = self.wants.iter().position(|it| it.acked_us.is_none())?;
        let Wanted { want, wish, .. } = &self.wants[place];
        Some((place, want.clone(), *wish))
    }

    pub(crate) fn wish_sent(&mut self, place: usize, acked_us: u64) {
        self.wants[place].acked_us = Some(acked_us);
    }

    /// The broker has been told everything, and will never forget it.
    pub(crate) fn forget_wishes(&mut self) {
        self.wants = vec![];
    }

    /// Takes a message to be sent; `acked_us` if it is on its way already. What was acknowledged
    /// by `heard_us` is forgotten.
    pub(crate) fn push(
        &mut self,
        message: Arc<Message>,
        durability: Durability,
        acked_us: Option<u64>,
        heard_us: u64,
    ) {
        self.forget_acknowledged(heard_us);
        self.outgoing.get_or_insert_default().push_back(Outgoing { message, durability, acked_us });
    }

    /// Everything that waits, so that it can be sent; to be put back.
    pub(crate) fn take_outgoing(&mut self) -> VecDeque<Outgoing> {
        self.outgoing.take().map(|all| *all).unwrap_or_default()
    }

    pub(crate) fn put_outgoing(&mut self, outgoing: VecDeque<Outgoing>) {
        self.outgoing = (!outgoing.is_empty()).then(|| Box::new(outgoing));
    }

    fn forget_acknowledged(&mut self, now_us: u64) {
        let Some(outgoing) = &mut self.outgoing else { return };
        while outgoing.front().is_some_and(|it| it.acked_us.is_some_and(|at| at <= now_us)) {
            outgoing.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Address;

    #[test]
    fn what_the_broker_does_not_have_is_sent_again_and_promises_survive() {
        let message = |text: &str| {
            Arc::new(Message {
                address: Address::Other(text.into()),
                payload: bytes::Bytes::new(),
                retain: false,
                read: None,
            })
        };
        let mut client = Client::default();
        client.push(message("early"), Durability::Said, Some(10), 0);
        client.push(message("said"), Durability::Said, Some(30), 5);
        client.push(message("promised"), Durability::Promised, Some(31), 5);
        client.push(message("waits"), Durability::Said, None, 6);
        let flush = |client: &mut Client| {
            let mut sent = vec![];
            let mut outgoing = client.take_outgoing();
            for waiting in &mut outgoing {
                waiting.send(|message| {
                    sent.push(message.address.text());
                    99
                });
            }
            client.put_outgoing(outgoing);
            sent
        };
        client.lost(20);
        assert_eq!(flush(&mut client), ["said", "promised", "waits"]);
        assert!(flush(&mut client).is_empty());
        client.died(50);
        assert_eq!(flush(&mut client), ["promised"]);
        client.lost(100);
        assert!(flush(&mut client).is_empty());
    }
}
