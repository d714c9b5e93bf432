//! The receiver's side: asks for pieces, checks what comes, and has it stored.

use std::time::Duration;

use bytes::Bytes;
use protocol::{Manifest, Timestamp, manifest::ChunkError};

use crate::{
    Bitmap, Counts, Refusal, Rules, Way, Window,
    flight::{Flights, Stage},
};

/// How soon a damaged piece is asked for again, the first time.
const SPOILED_PAUSE: Duration = Duration::from_millis(500);
/// How soon after a reconnect what was asked for before is asked for again.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);

/// One blob on its way in.
///
/// It holds no bytes: a piece that is taken leaves at once with [`Step::Store`], and has its place
/// in the window until [`Assembly::stored`].
#[derive(Clone, Debug)]
pub struct Assembly {
    manifest: Manifest,
    way: Way,
    rules: Rules,
    have: Bitmap,
    flights: Flights,
    /// How many pieces may be under way now; shrinks when they are lost.
    width: usize,
    /// When a good piece last came.
    heard_at: Timestamp,
    /// When one was last stored.
    progress_at: Timestamp,
    phase: Phase,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not begun, or the connection is lost.
    Waiting,
    Going,
    Ended,
}

/// What is to be done next, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tell the sender that these pieces are wanted; at most [`protocol::message::WANTS_MAX`] of
    /// them. Where pieces are retained: they do not come, so tell the holder.
    Ask(Vec<u32>),
    /// Listen to the topic of this piece, also if it is listened to already: it comes again then.
    Subscribe(u32),
    Unsubscribe(u32),
    /// Write this piece in its place, then say [`Assembly::stored`] or [`Assembly::store_failed`].
    Store {
        index: u32,
        bytes: Bytes,
    },
    /// All pieces are stored. Said once.
    Done,
    /// It will not go on. Said once.
    Failed {
        reason: Failure,
    },
}

/// Why a transfer has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("nothing has come for {after_s} s; {have} of {count} chunks are there")]
    Stalled { after_s: u64, have: u32, count: u32 },
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub have: u32,
    pub count: u32,
    /// Pieces that were asked for or are being stored.
    pub under_way: usize,
    pub bytes_under_way: u64,
}

impl Assembly {
    /// A transfer that has not begun; [`Assembly::connected`] begins it.
    pub fn new(manifest: Manifest, way: Way, rules: Rules) -> Self {
        let have = Bitmap::empty(manifest.count());
        Self {
            manifest,
            way,
            rules,
            have,
            flights: Flights::default(),
            width: rules.window.chunks.max(1),
            heard_at: Timestamp::ZERO,
            progress_at: Timestamp::ZERO,
            phase: Phase::Waiting,
            counts: Counts::default(),
        }
    }

    /// Takes over what the disk holds already, before the transfer begins.
    pub fn restore(&mut self, have: &Bitmap) {
        assert!(self.flights.is_empty(), "what is there is known before anything is asked for");
        assert_eq!(have.len(), self.have.len(), "the bitmap is of this manifest");
        self.have = have.clone();
    }

    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn progress(&self) -> Progress {
        Progress {
            have: self.have.count(),
            count: self.have.len(),
            under_way: self.flights.len(),
            bytes_under_way: self.flights.bytes(),
        }
    }

    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Begins, or goes on after the connection was lost.
    pub fn connected(&mut self, now: Timestamp) -> Vec<Step> {
        let mut out = vec![];
        if self.phase != Phase::Ended {
            self.phase = Phase::Going;
            self.heard_at = now;
            self.progress_at = now;
            self.flights.doubt(now + DOUBT_PAUSE);
            self.go_on(now, &mut out);
        }
        out
    }

    /// Nothing is asked for, and silence says nothing, until [`Assembly::connected`].
    pub fn disconnected(&mut self) {
        if self.phase == Phase::Going {
            self.phase = Phase::Waiting;
        }
    }

    /// Takes a piece, or says why not; that is counted.
    pub fn chunk(
        &mut self,
        index: u32,
        bytes: Bytes,
        now: Timestamp,
    ) -> Result<Vec<Step>, Refusal> {
        if let Err(refusal) = self.judge(index, &bytes) {
            *self.counts.refused.entry(refusal).or_default() += 1;
            match refusal {
                Refusal::Length | Refusal::Corrupt => {
                    self.flights.spoiled(index, SPOILED_PAUSE, now);
                }
                Refusal::OutOfRange
                | Refusal::Repeated
                | Refusal::Unasked
                | Refusal::Empty
                | Refusal::Ended => {}
            }
            return Err(refusal);
        }
        self.counts.accepted += 1;
        self.heard_at = now;
        self.flights.arrived(index, self.rules.window.chunks, now);
        self.width = (self.width + 1).min(self.rules.window.chunks.max(1));
        let mut out = vec![];
        if self.way == Way::Retained {
            out.push(Step::Unsubscribe(index));
        }
        out.push(Step::Store { index, bytes });
        Ok(out)
    }

    /// A piece is on the disk.
    pub fn stored(&mut self, index: u32, now: Timestamp) -> Vec<Step> {
        let mut out = vec![];
        if self.flights.stage(index) == Some(Stage::Storing) {
            self.flights.remove(index);
            self.have.insert(index);
            self.progress_at = now;
        }
        self.go_on(now, &mut out);
        out
    }

    /// A piece could not be written; it is asked for again in a while.
    pub fn store_failed(&mut self, index: u32, now: Timestamp) {
        if self.flights.stage(index) == Some(Stage::Storing) {
            self.flights.spoiled(index, self.rules.patience, now);
        }
    }

    /// More or less may be under way from now on; what is, stays.
    pub fn resize(&mut self, window: Window, now: Timestamp) -> Vec<Step> {
        let mut out = vec![];
        self.rules.window = window;
        self.width = window.chunks.max(1);
        self.go_on(now, &mut out);
        out
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Step> {
        let mut out = vec![];
        if self.phase != Phase::Going {
            return out;
        }
        if now >= self.progress_at + self.rules.stall_max {
            self.abandon_into(&mut out);
            let after_s = self.rules.stall_max.as_secs();
            let (have, count) = (self.have.count(), self.have.len());
            out.push(Step::Failed { reason: Failure::Stalled { after_s, have, count } });
            return out;
        }
        let lost = self.flights.expire(&self.rules, self.heard_at, now);
        if !lost.is_empty() {
            self.counts.repeated_asks += lost.len() as u64;
            self.width = (self.width / 2).max(1);
            if self.way == Way::Retained {
                out.extend(lost.iter().copied().map(Step::Subscribe));
            }
            ask(lost, &mut out);
        }
        out
    }

    /// When to say [`Assembly::tick`] next.
    pub fn deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Waiting | Phase::Ended => None,
            Phase::Going => {
                let stall = self.progress_at + self.rules.stall_max;
                let next = self.flights.deadline(&self.rules, self.heard_at);
                Some(next.map_or(stall, |next| next.min(stall)))
            }
        }
    }

    /// Gives it up: what is to be undone, and nothing ever after.
    pub fn abandon(&mut self) -> Vec<Step> {
        let mut out = vec![];
        self.abandon_into(&mut out);
        out
    }

    fn abandon_into(&mut self, out: &mut Vec<Step>) {
        if self.way == Way::Retained && self.phase != Phase::Ended {
            out.extend(self.flights.asked().map(Step::Unsubscribe));
        }
        self.flights = Flights::default();
        self.phase = Phase::Ended;
    }

    fn judge(&self, index: u32, bytes: &[u8]) -> Result<(), Refusal> {
        if self.phase == Phase::Ended {
            return Err(Refusal::Ended);
        }
        if index >= self.have.len() {
            return Err(Refusal::OutOfRange);
        }
        match self.flights.stage(index) {
            Some(Stage::Storing) => return Err(Refusal::Repeated),
            None if self.have.contains(index) => return Err(Refusal::Repeated),
            None => return Err(Refusal::Unasked),
            Some(Stage::Asked) => {}
        }
        if bytes.is_empty() {
            return Err(Refusal::Empty);
        }
        self.manifest.check(index, bytes).map_err(|why| match why {
            ChunkError::OutOfRange { .. } => Refusal::OutOfRange,
            ChunkError::Length { .. } => Refusal::Length,
            ChunkError::Digest { .. } => Refusal::Corrupt,
        })
    }

    /// Asks for what there is room for, a few at a time, or is done.
    fn go_on(&mut self, now: Timestamp, out: &mut Vec<Step>) {
        if self.phase != Phase::Going {
            return;
        }
        if self.have.is_full() {
            self.phase = Phase::Ended;
            out.push(Step::Done);
            return;
        }
        let room = self.room();
        // One message for several pieces, unless these are the last ones or nothing is under way.
        let few = self.way == Way::Pulled && room.len() < self.capacity() / 4;
        let rest = (self.have.len() - self.have.count()) as usize - self.flights.len();
        if few && room.len() < rest && !self.flights.is_empty() {
            return;
        }
        for index in &room {
            self.flights.ask(*index, self.manifest.len_of(*index), now);
        }
        match self.way {
            Way::Pulled => ask(room, out),
            Way::Retained => out.extend(room.into_iter().map(Step::Subscribe)),
        }
    }

    /// How many pieces the window takes when nothing is under way.
    fn capacity(&self) -> usize {
        let fitting = self.rules.window.bytes / u64::from(self.manifest.chunk_bytes());
        self.width.min(usize::try_from(fitting).unwrap_or(usize::MAX))
    }

    /// The next pieces, as many as the window has room for.
    fn room(&self) -> Vec<u32> {
        let (mut chunks, mut bytes) = (self.flights.len(), self.flights.bytes());
        let mut room = vec![];
        for index in self.have.missing().filter(|index| self.flights.stage(*index).is_none()) {
            let len = self.manifest.len_of(index) as u64;
            if chunks >= self.width || (chunks > 0 && bytes + len > self.rules.window.bytes) {
                break;
            }
            chunks += 1;
            bytes += len;
            room.push(index);
        }
        room
    }
}

fn ask(indexes: Vec<u32>, out: &mut Vec<Step>) {
    let asks = indexes.chunks(protocol::message::WANTS_MAX);
    out.extend(asks.map(|indexes| Step::Ask(indexes.to_vec())));
}
