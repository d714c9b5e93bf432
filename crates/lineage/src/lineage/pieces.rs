//! Models that are too large for one message, on their way in and out.

use std::collections::BTreeSet;

use bytes::Bytes;
use protocol::{ModelVersion, Output, Timestamp, message::ModelBlob};

use super::{Lineage, Link, Outputs, Phase, note, refuse};
use crate::{
    Effect, Note, Piece, Refusal, Report,
    record::{self, Stored},
    showing::Extent,
};

impl Lineage {
    /// As [`Lineage::judge`], for a model in pieces; there is no room for more than one.
    pub(super) fn blob_offered(&mut self, offer: ModelBlob, out: &mut Outputs) {
        let ModelBlob { version, blob } = offer;
        if !matches!(self.phase, Phase::Ready) {
            return refuse(version, Refusal::Busy, out);
        }
        let (len, len_max) = (blob.bytes(), self.rules.model_len_max);
        if len > len_max {
            return refuse(version, Refusal::TooLarge { len, len_max }, out);
        }
        let stored = self.records.get(&version).map(|stored| stored.digest);
        let queued = self.writing.find(version).map(|queued| queued.digest);
        let coming = self.incoming.expected();
        let fetching = coming.filter(|(coming, _)| *coming == version).map(|(_, digest)| digest);
        match stored.or(queued).or(fetching) {
            Some(digest) if digest != blob.sha256() => refuse(version, Refusal::Conflict, out),
            // It is on its way, or will be shown when it is written.
            Some(_) if fetching.is_some() || queued.is_some() => {}
            Some(_) if !self.damaged.contains(&version) => {
                self.showing.push(version, Extent::Manifest);
            }
            Some(_) | None if coming.is_some() || self.writing.newest().is_some() => {
                refuse(version, Refusal::Busy, out);
            }
            None if version != self.expected() => {
                refuse(version, Refusal::Gap { expected: self.expected() }, out);
            }
            Some(_) | None => {
                let chunks = blob.count();
                out.push(Output::Keep(record::fetch(version, &blob)));
                note(out, Note::Fetching { version, len, chunks });
                self.incoming.start(version, blob);
            }
        }
    }

    /// The version after the newest that is there or on its way to the disk.
    pub(super) fn expected(&self) -> ModelVersion {
        let newest = self.records.last_key_value().map(|(newest, _)| *newest);
        let newest = newest.max(self.writing.newest());
        newest.map_or(ModelVersion(0), ModelVersion::next)
    }

    /// A version that was coming when the process ended may have arrived some other way.
    pub(super) fn drop_stale_fetch(&mut self, out: &mut Outputs) {
        let Some((version, _)) = self.incoming.expected() else { return };
        let healed = self.records.contains_key(&version) && !self.damaged.contains(&version);
        if healed || (!self.records.contains_key(&version) && version != self.expected()) {
            if let Some(manifest) = self.incoming.finished(version) {
                out.push(Output::Effect(Effect::DropBlob { manifest }));
            }
            out.push(Output::Keep(record::fetched()));
        }
    }

    pub(super) fn piece(&mut self, piece: Piece, now: Timestamp, out: &mut Outputs) {
        let (version, index) = (piece.version, piece.index);
        if let Err(why) = self.incoming.piece(piece, now, out) {
            note(out, Note::ChunkRefused { version, index, why });
        }
    }

    pub(super) fn wanted(&mut self, version: ModelVersion, now: Timestamp) {
        if self.is_large(version) && !self.damaged.contains(&version) {
            self.showing.wanted(version, now);
        }
    }

    /// Publishes a version whose bytes are at hand, in one message if they fit.
    pub(super) fn show(&mut self, version: ModelVersion, payload: Bytes, out: &mut Outputs) {
        if self.is_large(version) {
            self.showing.push(version, Extent::Pieces);
        } else {
            out.push(Output::Publish(self.model(version, payload)));
            self.show_latest(out);
        }
    }

    pub(super) fn is_large(&self, version: ModelVersion) -> bool {
        let max = self.rules.message_len_max as u64;
        self.records.get(&version).is_some_and(|stored| stored.len > max)
    }

    /// Has the pieces of the newest large models sent.
    pub(super) fn show_newest(&mut self) {
        for version in self.newest_large().into_iter().rev() {
            self.showing.push(version, Extent::Pieces);
        }
    }

    /// Those whose pieces are to stand at the broker.
    fn newest_large(&self) -> BTreeSet<ModelVersion> {
        let intact = self.records.keys().rev().filter(|version| !self.damaged.contains(version));
        let large = intact.filter(|version| self.is_large(**version));
        large.take(self.rules.shown_max.max(1)).copied().collect()
    }

    pub(super) fn pieces_deadline(&self) -> Option<Timestamp> {
        let showing = self.showing.deadline().filter(|_| self.link == Link::Had);
        self.incoming.deadline().into_iter().chain(showing).min()
    }

    pub(super) fn go_on_with_pieces(&mut self, now: Timestamp, out: &mut Outputs) {
        if let Some((version, why)) = self.incoming.go_on(now, out) {
            out.push(Output::Keep(record::fetched()));
            note(out, Note::FetchFailed { version, why });
        }
        if self.link == Link::Awaited {
            return;
        }
        if let Some(version) = self.showing.go_on(out) {
            note(out, Note::Shown { version });
            self.show_latest(out);
        }
        if !self.showing.is_empty() {
            self.showing.clear(&self.newest_large(), now, out);
        }
    }

    pub(super) fn pieces_reported(&mut self, report: Report, now: Timestamp, out: &mut Outputs) {
        let coming = self.incoming.expected().map(|(version, _)| version);
        let failed = |out: &mut Outputs, error| {
            let version = coming.unwrap_or_default();
            note(out, Note::WriteFailed { version, error });
        };
        match report {
            Report::BlobBegun { sha256, content } => {
                if let Err(error) = self.incoming.begun(sha256, content, now, out) {
                    failed(out, error);
                }
            }
            Report::ChunkStored { sha256, index, result } => {
                let result = result.map(|()| index).map_err(|why| (index, why));
                if let Err(error) = self.incoming.stored(sha256, result, now, out) {
                    failed(out, error);
                }
            }
            Report::BlobFinished { version, form } => {
                let Some(blob) = self.incoming.finished(version) else { return };
                self.fetched(
                    version,
                    Stored { digest: blob.sha256(), len: blob.bytes(), form },
                    out,
                );
            }
            Report::FinishFailed { version, error } => {
                self.incoming.finish_failed(version, now);
                note(out, Note::WriteFailed { version, error });
            }
            Report::BlobBad { version, what } => {
                if self.incoming.finished(version).is_some() {
                    out.push(Output::Keep(record::fetched()));
                    note(out, Note::FetchedBad { version, what });
                }
            }
            Report::Surveyed { version, content } => match content {
                Ok(manifest) => match self.records.get(&version) {
                    Some(stored) if stored.digest == manifest.sha256() => {
                        self.showing.surveyed(version, &manifest, now, out);
                    }
                    Some(stored) => {
                        let (found, expected) = (manifest.sha256(), stored.digest);
                        let what = format!("digest {found}, recorded is {expected}");
                        self.spoil(version, what, out);
                    }
                    None => self.showing.drop_version(version),
                },
                Err(what) => self.spoil(version, what, out),
            },
            Report::Unshowable { version, why } => {
                self.showing.drop_version(version);
                note(out, Note::Unshowable { version, why });
            }
            Report::ChunkRead { version, index, content } => match content {
                Ok(bytes) => self.showing.piece(Piece { version, index, bytes }, now, out),
                Err(what) => self.spoil(version, what, out),
            },
            Report::Scanned(_)
            | Report::ScanFailed { .. }
            | Report::Written { .. }
            | Report::WriteFailed { .. }
            | Report::Loaded { .. } => unreachable!("these are not about pieces"),
        }
    }

    /// Only now does the version exist.
    fn fetched(&mut self, version: ModelVersion, stored: Stored, out: &mut Outputs) {
        self.records.insert(version, stored);
        self.damaged.remove(&version);
        out.push(Output::Keep(record::keep(version, stored)));
        out.push(Output::Keep(record::fetched()));
        note(out, Note::Written { version, len: stored.len, digest: stored.digest });
        if self.link == Link::Had {
            self.show(version, Bytes::new(), out);
        }
    }
}
