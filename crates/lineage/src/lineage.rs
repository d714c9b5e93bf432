//! The machine: takes offers, writes them, publishes what is written.

mod pieces;
mod voice;

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Entry, EntryError, Filter, Input, Machine, ModelLine, ModelVersion, Output, Timestamp, Topic,
};

use crate::{
    Effect, Found, News, Note, Offer, Refusal, Report,
    incoming::Incoming,
    record::{self, Stored},
    replay::Replay,
    scan,
    showing::{Extent, Showing},
    writing::Writing,
};

/// Offers that are held until the files have been read.
const EARLY_MAX: usize = 16;
/// Models that are said again when a session goes on.
const RECENT_MAX: usize = 16;

/// Limits of one model server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Longest model that is taken, in bytes.
    pub model_len_max: u64,
    /// Longest model that goes in one message; longer ones go in pieces.
    pub message_len_max: usize,
    /// Of how many such models the pieces stand at the broker; at least one.
    pub shown_max: usize,
}

/// The model server's core.
#[derive(Clone, Debug)]
pub struct Lineage {
    line: ModelLine,
    rules: Rules,
    /// What version 0 is, if there is none yet; without it, somebody else brings it.
    initial: Option<Offer>,
    phase: Phase,
    records: BTreeMap<ModelVersion, Stored>,
    /// Recorded versions whose file is missing or not what was recorded.
    damaged: BTreeSet<ModelVersion>,
    writing: Writing,
    replay: Replay,
    incoming: Incoming,
    showing: Showing,
    link: Link,
}

#[derive(Clone, Debug)]
enum Phase {
    Unread,
    /// The files are being read; what is offered meanwhile waits.
    Reading {
        early: Vec<Offer>,
    },
    /// The files could not be read.
    ReadAgain {
        at: Timestamp,
    },
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// The broker has not been there yet.
    Awaited,
    Had,
}

type Outputs = Vec<Output<Effect>>;

impl Lineage {
    /// A line that begins with `initial`, which is version 0; or with what is published as that.
    pub fn new(line: ModelLine, rules: Rules, initial: Option<Offer>) -> Self {
        let first = initial.as_ref().map_or(ModelVersion(0), Offer::version);
        assert_eq!(first, ModelVersion(0), "the initial model is version 0");
        Self {
            rules,
            initial,
            phase: Phase::Unread,
            records: BTreeMap::new(),
            damaged: BTreeSet::new(),
            writing: Writing::default(),
            replay: Replay::default(),
            incoming: Incoming::of(line.clone()),
            showing: Showing::of(line.clone()),
            link: Link::Awaited,
            line,
        }
    }
}

impl Machine for Lineage {
    type News = News;
    type Effect = Effect;
    type Report = Report;

    fn filters(&self) -> Vec<Filter> {
        vec![
            Filter::Exactly(Topic::ModelPublish { line: self.line.clone() }),
            Filter::Exactly(Topic::ModelLatest { line: self.line.clone() }),
            Filter::Exactly(Topic::ModelWants { line: self.line.clone() }),
            if self.line.is_default() {
                Filter::AnyModelPublishChunk
            } else {
                Filter::AnyLinePublishChunk
            },
        ]
    }

    fn restore(&mut self, entries: Vec<Entry>) -> Result<(), EntryError> {
        for entry in entries {
            self.records.extend(record::read(&entry)?);
            if let Some((version, manifest)) = record::read_incoming(&entry)? {
                self.incoming.start(version, manifest);
            }
            if let Some((version, count)) = record::read_shown(&entry)? {
                self.showing.restore(version, count);
            }
        }
        Ok(())
    }

    fn step(&mut self, input: Input<News, Report>, now: Timestamp) -> Outputs {
        let mut out = vec![];
        self.begin(now, &mut out);
        match input {
            Input::Tick => {}
            Input::Connected { resumed } => {
                self.connected(resumed, &mut out);
                self.incoming.connected(now, &mut out);
            }
            Input::News(News::Publish(offer)) => self.offered(offer, &mut out),
            Input::News(News::PublishBlob(blob)) => self.blob_offered(blob, &mut out),
            Input::News(News::Piece(piece)) => self.piece(piece, now, &mut out),
            Input::News(News::Wants(wants)) => self.wanted(wants.version, now),
            Input::News(News::Latest(_)) => self.replay.echoed(),
            Input::Report(report) => self.reported(report, now, &mut out),
        }
        self.go_on(now, &mut out);
        out
    }

    fn disconnected(&mut self) {
        self.incoming.disconnected();
    }

    fn deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Unread => Some(Timestamp::ZERO),
            Phase::Reading { .. } => None,
            Phase::ReadAgain { at } => Some(at),
            Phase::Ready => {
                let work = self.writing.deadline().into_iter().chain(self.replay.deadline());
                work.chain(self.pieces_deadline()).min()
            }
        }
    }
}

impl Lineage {
    /// Has the files read, before anything else.
    fn begin(&mut self, now: Timestamp, out: &mut Outputs) {
        match self.phase {
            Phase::Unread => {}
            Phase::ReadAgain { at } if now >= at => {}
            Phase::ReadAgain { .. } | Phase::Reading { .. } | Phase::Ready => return,
        }
        self.phase = Phase::Reading { early: vec![] };
        let newest = self.records.last_key_value();
        let unknown_from = newest.map_or(ModelVersion(0), |(newest, _)| newest.next());
        out.push(Output::Effect(Effect::Scan { unknown_from }));
    }

    /// A broker that lost the session may have lost the models, too; and whatever it says, at the
    /// start of the process nobody knows what it holds. One that was killed may have an old session
    /// and lack the newest models: those are said again at every connection.
    fn connected(&mut self, resumed: bool, out: &mut Outputs) {
        let first = self.link == Link::Awaited;
        self.link = Link::Had;
        self.replay.echoed();
        if !matches!(self.phase, Phase::Ready) {
            return;
        }
        if !resumed {
            self.showing.forget();
        }
        if first || !resumed || self.replay.is_under_way() {
            self.replay_newest(usize::MAX);
            self.show_newest();
        } else {
            self.replay_newest(RECENT_MAX);
            self.show_latest(out);
        }
    }

    fn offered(&mut self, offer: Offer, out: &mut Outputs) {
        match &mut self.phase {
            Phase::Ready => self.judge(offer, out),
            Phase::Reading { early } if early.len() < EARLY_MAX => early.push(offer),
            Phase::Unread | Phase::Reading { .. } | Phase::ReadAgain { .. } => {
                refuse(offer.version, Refusal::Busy, out);
            }
        }
    }

    /// Takes exactly the next version; a version that is there is said again.
    fn judge(&mut self, offer: Offer, out: &mut Outputs) {
        let version = offer.version;
        let (len, len_max) = (offer.len() as u64, self.rules.model_len_max);
        if len > len_max {
            return refuse(version, Refusal::TooLarge { len, len_max }, out);
        }
        let queued = self.writing.find(version).map(|queued| queued.digest);
        let stored = self.records.get(&version).map(|stored| stored.digest);
        match stored.or(queued) {
            Some(digest) if digest != offer.digest => refuse(version, Refusal::Conflict, out),
            Some(_) if queued.is_some() => {}
            Some(_) if self.damaged.contains(&version) => self.enqueue(offer, out),
            Some(_) => self.show(version, offer.payload, out),
            None => {
                let expected = self.expected();
                if version == expected {
                    self.enqueue(offer, out);
                } else {
                    refuse(version, Refusal::Gap { expected }, out);
                }
            }
        }
    }

    fn enqueue(&mut self, offer: Offer, out: &mut Outputs) {
        if self.writing.is_full() || self.incoming.expected().is_some() {
            refuse(offer.version, Refusal::Busy, out);
        } else {
            self.writing.push(offer);
        }
    }

    fn reported(&mut self, report: Report, now: Timestamp, out: &mut Outputs) {
        match report {
            Report::Scanned(found) => self.scanned(found, out),
            Report::ScanFailed { error } => {
                self.phase = Phase::ReadAgain { at: now + std::time::Duration::from_secs(2) };
                note(out, Note::ScanFailed { error });
            }
            Report::Written { version } => self.written(version, out),
            Report::WriteFailed { version, error } => {
                self.writing.failed(now);
                note(out, Note::WriteFailed { version, error });
            }
            Report::Loaded { version, content } => self.loaded(version, content, now, out),
            report @ (Report::BlobBegun { .. }
            | Report::ChunkStored { .. }
            | Report::BlobFinished { .. }
            | Report::FinishFailed { .. }
            | Report::BlobBad { .. }
            | Report::Surveyed { .. }
            | Report::Unshowable { .. }
            | Report::ChunkRead { .. }) => self.pieces_reported(report, now, out),
        }
    }

    fn scanned(&mut self, found: Vec<Found>, out: &mut Outputs) {
        let survey = scan::survey(&self.records, self.incoming.expected(), found);
        for (version, stored) in survey.adopted {
            self.records.insert(version, stored);
            out.push(Output::Keep(record::keep(version, stored)));
        }
        self.damaged = survey.damaged;
        let quarantine = survey.quarantine.into_iter();
        out.extend(quarantine.map(|version| Output::Effect(Effect::Quarantine { version })));
        out.extend(survey.notes.into_iter().map(|note| Output::Effect(Effect::Note(note))));
        let ready = Note::Ready {
            intact: self.records.len() - self.damaged.len(),
            damaged: self.damaged.len(),
            newest: self.latest().map(|(version, _)| version),
        };
        note(out, ready);
        let first = self.records.get(&ModelVersion(0)).map(|stored| stored.digest);
        if let Some(initial) = &self.initial {
            let heals = first == Some(initial.digest) && self.damaged.contains(&ModelVersion(0));
            if self.records.is_empty() || heals {
                self.writing.push(initial.clone());
            }
        }
        let before = std::mem::replace(&mut self.phase, Phase::Ready);
        self.drop_stale_fetch(out);
        if self.link == Link::Had {
            self.replay_newest(usize::MAX);
            self.show_newest();
        }
        if let Phase::Reading { early } = before {
            early.into_iter().for_each(|offer| self.judge(offer, out));
        }
    }

    /// Only now does the version exist.
    fn written(&mut self, version: ModelVersion, out: &mut Outputs) {
        let Some(offer) = self.writing.written(version) else { return };
        let Offer { digest, form, .. } = offer;
        let stored = Stored { digest, len: offer.payload.len() as u64, form };
        self.records.insert(version, stored);
        self.damaged.remove(&version);
        out.push(Output::Keep(record::keep(version, stored)));
        note(out, Note::Written { version, len: stored.len, digest: stored.digest });
        if self.link == Link::Had {
            self.show(version, offer.payload, out);
        }
    }

    fn loaded(
        &mut self,
        version: ModelVersion,
        content: Result<(bytes::Bytes, protocol::Digest), String>,
        now: Timestamp,
        out: &mut Outputs,
    ) {
        self.replay.loaded(version);
        let Some(stored) = self.records.get(&version).copied() else { return };
        match content {
            Ok((payload, digest)) if digest == stored.digest => {
                out.push(Output::Publish(self.model(version, payload)));
                let is_latest = self.latest().is_some_and(|(latest, _)| latest == version);
                if self.replay.published(stored.len, now) || is_latest {
                    self.show_latest(out);
                }
            }
            Ok((_, digest)) => {
                let what = format!("digest {digest}, recorded is {}", stored.digest);
                self.spoil(version, what, out);
            }
            Err(what) => self.spoil(version, what, out),
        }
    }

    fn spoil(&mut self, version: ModelVersion, what: String, out: &mut Outputs) {
        self.showing.drop_version(version);
        if self.damaged.insert(version) {
            out.push(Output::Effect(Effect::Quarantine { version }));
            note(out, Note::Damaged { version, what });
        }
    }

    /// What can be begun now: the next write, the next loads.
    fn go_on(&mut self, now: Timestamp, out: &mut Outputs) {
        if !matches!(self.phase, Phase::Ready) {
            return;
        }
        if let Some(Offer { version, payload, .. }) = self.writing.next(now) {
            out.push(Output::Effect(Effect::Write { version, payload }));
        }
        self.replay.expire(now);
        while let Some(version) = self.replay.next() {
            if self.is_large(version) {
                self.replay.loaded(version);
                self.showing.push(version, Extent::Manifest);
            } else {
                out.push(Output::Effect(Effect::Load { version }));
            }
        }
        self.go_on_with_pieces(now, out);
        if let Some(versions) = self.replay.finish() {
            note(out, Note::Replayed { versions });
        }
    }
}

fn refuse(version: ModelVersion, why: Refusal, out: &mut Outputs) {
    note(out, Note::Refused { version, why });
}

fn note(out: &mut Outputs, note: Note) {
    out.push(Output::Effect(Effect::Note(note)));
}
