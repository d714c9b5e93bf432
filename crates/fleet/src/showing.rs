//! Modules that go in pieces: their pieces stand at the broker while tasks that name them are sent
//! out, and a while longer, so that any number of proplets fetch them for one publication.
//!
//! One module is shown at a time, a few pieces at once. What stands at the broker is kept, so that
//! it is taken away also after a restart.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    Digest, Entry, Envelope, Output, Timestamp, Topic, manifest::CHUNKS_MAX, message::ModuleWants,
};
use transfer::{Offer, OfferRules};

use crate::{
    act::Acts,
    record::{self, SHOWN},
    state::State,
};

/// How long pieces stay after the last start that named them, or the last word that they lack.
const LINGER: Duration = Duration::from_secs(600);
/// Who lacks pieces again so soon will get them without our doing.
const PAUSE: Duration = Duration::from_secs(5);

/// A piece that is to go out once the transport has room for it; the shell says when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub sha256: Digest,
    pub index: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Showing {
    /// Named by starts of this step.
    named: BTreeSet<Digest>,
    todo: VecDeque<Digest>,
    current: Option<Offer>,
    /// Whose pieces are with the broker, or will be.
    shown: BTreeMap<Digest, Shown>,
    /// What is to wait for room in the transport; the end of the step takes it.
    pub(crate) passing: Vec<Piece>,
}

#[derive(Clone, Copy, Debug)]
struct Shown {
    count: u32,
    /// When the last piece went out.
    at: Timestamp,
    until: Timestamp,
}

impl Showing {
    /// Whose pieces an earlier life of the process may have left with the broker.
    pub(crate) fn restore(&mut self, sha256: Digest, count: u32) {
        let (at, until) = (Timestamp::ZERO, Timestamp::ZERO);
        self.shown.insert(sha256, Shown { count: count.min(CHUNKS_MAX), at, until });
    }

    /// A start that names this module goes out.
    pub(crate) fn name(&mut self, sha256: Digest) {
        self.named.insert(sha256);
    }

    fn push(&mut self, sha256: Digest) {
        let current = self.current.as_ref().map(|offer| offer.manifest().sha256());
        if current != Some(sha256) && !self.todo.contains(&sha256) {
            self.todo.push_back(sha256);
        }
    }

    fn drop_module(&mut self, sha256: Digest) -> Option<u32> {
        self.named.remove(&sha256);
        self.todo.retain(|it| *it != sha256);
        self.current.take_if(|offer| offer.manifest().sha256() == sha256);
        self.shown.remove(&sha256).map(|shown| shown.count)
    }

    /// When the next pieces are to go away.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let settled = self.shown.iter().filter(|(sha256, _)| !self.is_under_way(**sha256));
        settled.map(|(_, shown)| shown.until).min()
    }

    /// Whose pieces have been there for long enough.
    fn over(&self, now: Timestamp) -> Vec<Digest> {
        let settled = self.shown.iter().filter(|(sha256, _)| !self.is_under_way(**sha256));
        settled.filter(|(_, shown)| shown.until <= now).map(|(sha256, _)| *sha256).collect()
    }

    fn is_under_way(&self, sha256: Digest) -> bool {
        let current = self.current.as_ref().map(|offer| offer.manifest().sha256());
        current == Some(sha256) || self.todo.contains(&sha256)
    }

    fn pass(&mut self, sha256: Digest, indexes: Vec<u32>) {
        self.passing.extend(indexes.into_iter().map(|index| Piece { sha256, index }));
    }
}

impl State {
    /// The broker may have lost what was shown, or a process before this one did not show all.
    pub(crate) fn show_again(&mut self, now: Timestamp) {
        self.showing.current = None;
        for (sha256, shown) in &mut self.showing.shown {
            shown.until = shown.until.max(now + LINGER);
            if !self.showing.todo.contains(sha256) {
                self.showing.todo.push_back(*sha256);
            }
        }
    }

    /// A proplet lacks pieces that should stand at the broker.
    pub(crate) fn hear_module_wants(
        &mut self,
        wants: &ModuleWants,
        now: Timestamp,
        out: &mut Acts,
    ) {
        let sha256 = wants.sha256;
        if self.files.manifest(&sha256).is_none() {
            let why = format!("{} lacks {sha256}, which is no module here", wants.proplet_id);
            return self.ignore("module wants", why, out);
        }
        if let Some(shown) = self.showing.shown.get_mut(&sha256) {
            shown.until = now + LINGER;
            if now < shown.at + PAUSE {
                return;
            }
        }
        self.showing.push(sha256);
    }

    /// The transport has room for a piece.
    pub(crate) fn passed(&mut self, piece: Piece, now: Timestamp, out: &mut Acts) {
        let Piece { sha256, index } = piece;
        let current = self.showing.current.as_mut();
        let Some(offer) = current.filter(|it| it.manifest().sha256() == sha256) else { return };
        let Some(payload) = self.files.piece(offer.manifest(), index) else { return };
        let next = offer.sent(index, now);
        self.showing.pass(sha256, next);
        self.counts.module_pieces_sent += 1;
        out.push(Output::Publish(Envelope {
            topic: Topic::ModuleChunk { sha256, index },
            payload,
        }));
    }

    /// Shows what starts have named and is not shown yet, one after the other, and takes away what
    /// nobody has named for long.
    pub(crate) fn go_on_showing(&mut self, now: Timestamp, out: &mut Acts) {
        for sha256 in std::mem::take(&mut self.showing.named) {
            match self.showing.shown.get_mut(&sha256) {
                Some(shown) => shown.until = now + LINGER,
                None => self.showing.push(sha256),
            }
        }
        if let Some(done) = self.showing.current.take_if(|offer| offer.is_idle())
            && let Some(shown) = self.showing.shown.get_mut(&done.manifest().sha256())
        {
            (shown.at, shown.until) = (now, now + LINGER);
        }
        while self.showing.current.is_none()
            && let Some(sha256) = self.showing.todo.pop_front()
        {
            self.begin_showing(sha256, now, out);
        }
        for sha256 in self.showing.over(now) {
            self.hide(sha256, out);
        }
    }

    fn begin_showing(&mut self, sha256: Digest, now: Timestamp, out: &mut Acts) {
        let Some(manifest) = self.files.manifest(&sha256).cloned() else {
            return self.hide(sha256, out);
        };
        let count = manifest.count();
        out.push(Output::Keep(record::shown(&sha256, count)));
        self.showing.shown.insert(sha256, Shown { count, at: now, until: now + LINGER });
        let mut offer = Offer::new(manifest, OfferRules::default());
        let first = offer.everything(now);
        self.showing.current = Some(offer);
        self.showing.pass(sha256, first);
    }

    /// Takes the pieces of a module away from the broker.
    pub(crate) fn hide(&mut self, sha256: Digest, out: &mut Acts) {
        let Some(count) = self.showing.drop_module(sha256) else { return };
        out.push(Output::Keep(Entry::forget(SHOWN, sha256)));
        out.extend((0..count).map(|index| {
            let topic = Topic::ModuleChunk { sha256, index };
            Output::Promise(Envelope { topic, payload: Bytes::new() })
        }));
    }
}
