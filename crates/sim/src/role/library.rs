//! The model server's files, on a virtual disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use lineage::{Effect, Found, FoundContent, Offer, Report};
use protocol::{Digest, ModelVersion};

use super::{Act, Acts, Mail, Notes, note};

/// Files by version.
#[derive(Debug, Default)]
pub(crate) struct Library {
    files: BTreeMap<ModelVersion, Bytes>,
    /// What a write takes.
    write_us: u64,
}

/// What looking at a file takes.
const READ_US: u64 = 200;

impl Library {
    pub(crate) fn new(write_us: u64) -> Self {
        Self { files: BTreeMap::new(), write_us }
    }

    pub(crate) const fn files(&self) -> &BTreeMap<ModelVersion, Bytes> {
        &self.files
    }

    pub(super) fn wipe(&mut self) {
        self.files.clear();
    }

    pub(super) fn perform(&mut self, effect: Effect, notes: Notes, acts: &mut Acts) {
        let (after_us, report) = match effect {
            Effect::Scan { unknown_from } => (READ_US, Report::Scanned(self.scan(unknown_from))),
            Effect::Quarantine { version } => {
                self.files.remove(&version);
                return;
            }
            Effect::Write { version, payload } => {
                self.files.insert(version, payload);
                (self.write_us, Report::Written { version })
            }
            Effect::Load { version } => {
                let file = self.files.get(&version);
                let content = file.map(|bytes| (bytes.clone(), Digest::of(bytes)));
                let content = content.ok_or_else(|| format!("there is no version {version}"));
                (READ_US, Report::Loaded { version, content })
            }
            // Nobody offers a model in pieces here, and none is too large for one message.
            Effect::BeginBlob { .. }
            | Effect::StoreChunk { .. }
            | Effect::FinishBlob { .. }
            | Effect::DropBlob { .. }
            | Effect::Survey { .. }
            | Effect::ReadChunk { .. } => return,
            Effect::Note(said) => return note(notes, acts, || format!("{said:?}")),
        };
        acts.push(Act::Tell { after_us, mail: Mail::Lineage(report) });
    }

    fn scan(&self, unknown_from: ModelVersion) -> Vec<Found> {
        let found = self.files.iter().map(|(version, bytes)| {
            let claims = (*version >= unknown_from).then(|| {
                let offer = Offer::read(bytes.clone());
                offer.map(|offer| offer.version()).map_err(|why| why.to_string())
            });
            let digest = Digest::of(bytes);
            let content = FoundContent {
                digest,
                len: bytes.len() as u64,
                form: protocol::Form::of(bytes),
                claims,
            };
            Found { version: *version, content: Ok(content) }
        });
        found.collect()
    }
}
