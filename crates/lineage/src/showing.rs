//! Models that are too large for one message: their pieces stand at the broker, as long as they
//! are among the newest or somebody has asked for them; what they consist of stands there always.
//!
//! One model is sent at a time, a few pieces at once, and only when all its pieces are with the
//! broker is it said that it is there.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    Envelope, Manifest, ModelLine, ModelUri, ModelVersion, Output, Timestamp, Topic,
    message::ModelBlob,
};
use transfer::{Offer, OfferRules};

use crate::{Effect, Piece, record};

/// How long the pieces of an older model stay when somebody has asked for them.
const LINGER: Duration = Duration::from_secs(600);
/// Who lacks pieces again so soon will get them without our doing.
const PAUSE: Duration = Duration::from_secs(30);

/// What of a model is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What it consists of.
    Manifest,
    /// That, and its pieces before.
    Pieces,
}

#[derive(Clone, Debug)]
pub(crate) struct Showing {
    line: ModelLine,
    todo: VecDeque<(ModelVersion, Extent)>,
    current: Option<Current>,
    /// Whose pieces are with the broker.
    shown: BTreeMap<ModelVersion, Shown>,
    /// Until when the pieces of a model stay that somebody has asked for.
    asked: BTreeMap<ModelVersion, Timestamp>,
    /// Whose pieces were deleted there, which is to be done again if the process ends soon.
    cleared: Vec<ModelVersion>,
}

#[derive(Clone, Debug)]
struct Current {
    version: ModelVersion,
    extent: Extent,
    /// Nothing as long as the file is looked at.
    offer: Option<Offer>,
}

#[derive(Clone, Copy, Debug)]
struct Shown {
    count: u32,
    at: Timestamp,
}

type Outputs = Vec<Output<Effect>>;

impl Showing {
    pub(crate) const fn of(line: ModelLine) -> Self {
        Self {
            line,
            todo: VecDeque::new(),
            current: None,
            shown: BTreeMap::new(),
            asked: BTreeMap::new(),
            cleared: vec![],
        }
    }

    /// Whose pieces an earlier life of the process may have left with the broker.
    pub(crate) fn restore(&mut self, version: ModelVersion, count: u32) {
        self.shown.insert(version, Shown { count, at: Timestamp::ZERO });
    }

    /// Shows a model, after those that are to be shown already.
    pub(crate) fn push(&mut self, version: ModelVersion, extent: Extent) {
        let current = self.current.as_ref().map(|current| (current.version, current.extent));
        let mut waiting = self.todo.iter().copied().chain(current);
        if !waiting.any(|(it, of)| it == version && (of == extent || of == Extent::Pieces)) {
            self.todo.push_back((version, extent));
        }
    }

    /// Somebody lacks the pieces of this model.
    pub(crate) fn wanted(&mut self, version: ModelVersion, now: Timestamp) {
        self.asked.insert(version, now + LINGER);
        if self.shown.get(&version).is_some_and(|shown| now < shown.at + PAUSE) {
            return;
        }
        self.push(version, Extent::Pieces);
    }

    /// The broker has lost what was sent.
    pub(crate) fn forget(&mut self) {
        self.todo.clear();
        self.current = None;
    }

    /// The file was looked at.
    pub(crate) fn surveyed(
        &mut self,
        version: ModelVersion,
        manifest: &Manifest,
        now: Timestamp,
        out: &mut Outputs,
    ) {
        let Some(current) = self.current.as_mut().filter(|it| it.version == version) else {
            return;
        };
        let mut offer = Offer::new(manifest.clone(), OfferRules::default());
        if current.extent == Extent::Pieces {
            let count = manifest.count();
            out.push(Output::Keep(record::show(version, count)));
            self.shown.insert(version, Shown { count, at: now });
            read(version, manifest, offer.everything(now), out);
        }
        current.offer = Some(offer);
    }

    /// A piece was read; it goes to the broker.
    pub(crate) fn piece(&mut self, piece: Piece, now: Timestamp, out: &mut Outputs) {
        let Piece { version, index, bytes } = piece;
        let current = self.current.as_mut().filter(|it| it.version == version);
        let Some(offer) = current.and_then(|it| it.offer.as_mut()) else { return };
        let topic = chunk(&self.line, version, index);
        out.push(Output::Publish(Envelope { topic, payload: bytes }));
        let next = offer.sent(index, now);
        read(version, &offer.manifest().clone(), next, out);
    }

    /// This model cannot be shown: its file is damaged.
    pub(crate) fn drop_version(&mut self, version: ModelVersion) {
        self.todo.retain(|(it, _)| *it != version);
        self.current.take_if(|current| current.version == version);
    }

    /// What is shown as a whole now, if anything is; else begins what is next.
    pub(crate) fn go_on(&mut self, out: &mut Outputs) -> Option<ModelVersion> {
        let done = self.current.take_if(|it| it.offer.as_ref().is_some_and(Offer::is_idle));
        let shown = done.and_then(|current| {
            let blob = current.offer?.manifest().clone();
            let version = current.version;
            out.push(Output::Publish(ModelBlob { version, blob }.shown(&self.line)));
            Some(version)
        });
        if self.current.is_none()
            && let Some((version, extent)) = self.todo.pop_front()
        {
            self.current = Some(Current { version, extent, offer: None });
            out.push(Output::Effect(Effect::Survey { version }));
        }
        shown
    }

    /// Deletes the pieces of models that are neither in `newest` nor were asked for lately.
    pub(crate) fn clear(
        &mut self,
        newest: &BTreeSet<ModelVersion>,
        now: Timestamp,
        out: &mut Outputs,
    ) {
        self.asked.retain(|_, until| now < *until);
        let stale = self.shown.iter().filter(|(version, _)| {
            !newest.contains(version)
                && !self.asked.contains_key(version)
                && !self.is_under_way(**version)
        });
        let stale: Vec<_> = stale.map(|(version, shown)| (*version, shown.count)).collect();
        if stale.is_empty() {
            return;
        }
        // By now the broker has long had what deleted them.
        for version in self.cleared.drain(..) {
            if !self.shown.contains_key(&version) {
                out.push(Output::Keep(record::hide(version)));
            }
        }
        for (version, count) in stale {
            self.shown.remove(&version);
            self.cleared.push(version);
            out.extend((0..count).map(|index| {
                let topic = chunk(&self.line, version, index);
                Output::Publish(Envelope { topic, payload: Bytes::new() })
            }));
        }
    }

    /// When the pieces of something that was asked for are to go.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.asked.values().min().copied()
    }

    /// Whether nobody's pieces are with the broker.
    pub(crate) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    fn is_under_way(&self, version: ModelVersion) -> bool {
        let current = self.current.as_ref().map(|current| current.version);
        self.todo.iter().map(|(version, _)| *version).chain(current).any(|it| it == version)
    }
}

fn chunk(line: &ModelLine, version: ModelVersion, index: u32) -> Topic {
    Topic::ModelChunk { uri: ModelUri { line: line.clone(), version }, index }
}

fn read(version: ModelVersion, manifest: &Manifest, indexes: Vec<u32>, out: &mut Outputs) {
    out.extend(indexes.into_iter().map(|index| {
        Output::Effect(Effect::ReadChunk { version, manifest: manifest.clone(), index })
    }));
}
