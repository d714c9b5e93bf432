//! Versions on their way to the disk: in order, one at a time, tried again until the disk takes
//! them.

use std::{collections::VecDeque, time::Duration};

use protocol::{ModelVersion, Timestamp};

use crate::Offer;

const QUEUE_MAX: usize = 16;
const RETRY: Duration = Duration::from_secs(2);

/// The queue; its front is being written, or waits to be tried again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writing {
    queue: VecDeque<Offer>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    UnderWay,
    RetryAt(Timestamp),
}

impl Writing {
    pub(crate) fn push(&mut self, offer: Offer) {
        self.queue.push_back(offer);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_MAX
    }

    pub(crate) fn find(&self, version: ModelVersion) -> Option<&Offer> {
        self.queue.iter().find(|offer| offer.version == version)
    }

    pub(crate) fn newest(&self) -> Option<ModelVersion> {
        self.queue.iter().map(|offer| offer.version).max()
    }

    /// What to begin to write now.
    pub(crate) fn next(&mut self, now: Timestamp) -> Option<Offer> {
        match self.state {
            State::UnderWay => return None,
            State::RetryAt(at) if now < at => return None,
            State::Idle | State::RetryAt(_) => {}
        }
        let offer = self.queue.front()?.clone();
        self.state = State::UnderWay;
        Some(offer)
    }

    /// The front was written; here it is.
    pub(crate) fn written(&mut self, version: ModelVersion) -> Option<Offer> {
        if self.queue.front()?.version != version {
            return None;
        }
        self.state = State::Idle;
        self.queue.pop_front()
    }

    pub(crate) fn failed(&mut self, now: Timestamp) {
        self.state = State::RetryAt(now + RETRY);
    }

    pub(crate) const fn deadline(&self) -> Option<Timestamp> {
        match self.state {
            State::RetryAt(at) => Some(at),
            State::Idle | State::UnderWay => None,
        }
    }
}
