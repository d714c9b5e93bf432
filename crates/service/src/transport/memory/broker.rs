//! The broker's side: sessions, retained messages, and who gets what.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::{Envelope, Filter, Topic};
use tokio::sync::Notify;

use super::Memory;

/// A broker that lives as long as somebody holds it.
#[derive(Clone, Debug, Default)]
pub struct Broker(
    // Shared by connections in different tasks; every hold is one short, synchronous call.
    Arc<Mutex<State>>,
);

#[derive(Debug, Default)]
struct State {
    is_down: bool,
    retained: BTreeMap<Topic, Envelope>,
    sessions: BTreeMap<String, Session>,
    wakers: BTreeMap<String, Arc<Notify>>,
    epochs: u64,
}

#[derive(Debug, Default)]
struct Session {
    /// The connection that it is held by.
    epoch: Option<u64>,
    filters: BTreeSet<Filter>,
    waiting: VecDeque<Envelope>,
    unacknowledged: BTreeMap<u16, Envelope>,
    last_pkid: u16,
    last_will: Option<Envelope>,
}

impl Broker {
    /// A participant under `client_id`; an earlier one of that name is thrown out.
    pub fn connect(&self, client_id: &str, last_will: Option<Envelope>) -> Memory {
        let news = Arc::new(Notify::new());
        let mut state = self.state();
        state.cut(client_id);
        if let Some(earlier) = state.wakers.insert(client_id.to_owned(), Arc::clone(&news)) {
            earlier.notify_one();
        }
        drop(state);
        news.notify_one();
        Memory::new(self.clone(), client_id.to_owned(), last_will, news)
    }

    /// Ends every connection and takes no new one; sessions and retained messages stay.
    pub fn stop(&self) {
        let mut state = self.state();
        state.is_down = true;
        state.sessions.values_mut().for_each(Session::lose);
        state.wake_all();
    }

    /// Takes connections again.
    pub fn resume(&self) {
        let mut state = self.state();
        state.is_down = false;
        state.wake_all();
    }

    /// Dies and comes back, having forgotten everything that was not acknowledged to it by its
    /// disk, which is everything.
    pub fn crash(&self) {
        let mut state = self.state();
        state.sessions.clear();
        state.retained.clear();
        state.wake_all();
    }

    /// How many messages wait for `client_id` or were not acknowledged by it.
    pub fn owed(&self, client_id: &str) -> usize {
        let state = self.state();
        state.sessions.get(client_id).map_or(0, |s| s.waiting.len() + s.unacknowledged.len())
    }

    pub(super) fn is_connected(&self, client_id: &str, epoch: u64) -> bool {
        self.state().sessions.get(client_id).is_some_and(|s| s.epoch == Some(epoch))
    }

    /// The new connection's epoch, and whether its session was there; `None` while down.
    pub(super) fn connect_session(
        &self,
        client_id: &str,
        last_will: Option<Envelope>,
    ) -> Option<(u64, bool)> {
        let mut state = self.state();
        if state.is_down {
            return None;
        }
        state.epochs += 1;
        let epoch = state.epochs;
        let resumed = state.sessions.contains_key(client_id);
        let session = state.sessions.entry(client_id.to_owned()).or_default();
        session.epoch = Some(epoch);
        session.last_will = last_will;
        Some((epoch, resumed))
    }

    pub(super) fn subscribe(&self, client_id: &str, filter: Filter) {
        let mut state = self.state();
        let retained: Vec<Envelope> =
            state.retained.values().filter(|e| filter.matches(&e.topic)).cloned().collect();
        if let Some(session) = state.sessions.get_mut(client_id) {
            session.filters.insert(filter);
            session.waiting.extend(retained);
        }
        state.wake(client_id);
    }

    pub(super) fn unsubscribe(&self, client_id: &str, filter: &Filter) {
        if let Some(session) = self.state().sessions.get_mut(client_id) {
            session.filters.remove(filter);
        }
    }

    pub(super) fn publish(&self, envelope: Envelope) {
        self.state().publish(envelope);
    }

    /// What the connection has not seen yet, under packet ids.
    pub(super) fn take(&self, client_id: &str) -> Vec<(u16, Envelope)> {
        let mut state = self.state();
        let Some(session) = state.sessions.get_mut(client_id) else { return vec![] };
        let mut taken = vec![];
        for envelope in mem::take(&mut session.waiting) {
            session.last_pkid = session.last_pkid.checked_add(1).unwrap_or(1);
            session.unacknowledged.insert(session.last_pkid, envelope.clone());
            taken.push((session.last_pkid, envelope));
        }
        taken
    }

    pub(super) fn acknowledge(&self, client_id: &str, epoch: u64, pkid: u16) {
        if let Some(session) = self.state().sessions.get_mut(client_id)
            && session.epoch == Some(epoch)
        {
            session.unacknowledged.remove(&pkid);
        }
    }

    /// The connection ended as it should.
    pub(super) fn disconnect(&self, client_id: &str, epoch: u64) {
        if let Some(session) = self.state().sessions.get_mut(client_id)
            && session.epoch == Some(epoch)
        {
            session.last_will = None;
            session.lose();
        }
    }

    /// The connection ended without a word.
    pub(super) fn cut(&self, client_id: &str, epoch: u64) {
        let mut state = self.state();
        if state.sessions.get(client_id).is_some_and(|s| s.epoch == Some(epoch)) {
            state.cut(client_id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cut(&mut self, client_id: &str) {
        let Some(session) = self.sessions.get_mut(client_id) else { return };
        session.lose();
        if let Some(will) = session.last_will.take() {
            self.publish(will);
        }
    }

    fn publish(&mut self, envelope: Envelope) {
        if envelope.topic.is_retained() {
            if envelope.payload.is_empty() {
                self.retained.remove(&envelope.topic);
            } else {
                self.retained.insert(envelope.topic.clone(), envelope.clone());
            }
        }
        let hearing: Vec<String> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.filters.iter().any(|f| f.matches(&envelope.topic)))
            .map(|(client_id, _)| client_id.clone())
            .collect();
        for client_id in hearing {
            if let Some(session) = self.sessions.get_mut(&client_id) {
                session.waiting.push_back(envelope.clone());
            }
            self.wake(&client_id);
        }
    }

    fn wake(&self, client_id: &str) {
        if let Some(waker) = self.wakers.get(client_id) {
            waker.notify_one();
        }
    }

    fn wake_all(&self) {
        self.wakers.values().for_each(|waker| waker.notify_one());
    }
}

impl Session {
    /// What was not acknowledged comes again, before everything else.
    fn lose(&mut self) {
        self.epoch = None;
        for (_, envelope) in mem::take(&mut self.unacknowledged).into_iter().rev() {
            self.waiting.push_front(envelope);
        }
    }
}
