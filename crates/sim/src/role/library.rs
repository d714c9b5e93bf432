//! The model server's files, on a virtual disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use lineage::{Effect, Found, FoundContent, OfLine, Offer, Report};
use protocol::{Digest, ModelLine, ModelUri, ModelVersion};

use super::{Act, Acts, Mail, Notes, note};

/// Files by model.
#[derive(Debug, Default)]
pub(crate) struct Library {
    files: BTreeMap<ModelUri, Bytes>,
    /// What a write takes.
    write_us: u64,
}

/// What looking at a file takes.
const READ_US: u64 = 200;

impl Library {
    pub(crate) fn new(write_us: u64) -> Self {
        Self { files: BTreeMap::new(), write_us }
    }

    /// The default line: scenarios know no other.
    pub(crate) fn models(&self) -> BTreeMap<ModelVersion, Bytes> {
        let files = self.files.iter().filter(|(uri, _)| uri.line.is_default());
        files.map(|(uri, bytes)| (uri.version, bytes.clone())).collect()
    }

    pub(super) fn wipe(&mut self) {
        self.files.clear();
    }

    pub(super) fn perform(&mut self, effect: OfLine<Effect>, notes: Notes, acts: &mut Acts) {
        let OfLine { line, it } = effect;
        let uri = |version| ModelUri { line: line.clone(), version };
        let (after_us, report) = match it {
            Effect::Scan { unknown_from } => {
                (READ_US, Report::Scanned(self.scan(&line, unknown_from)))
            }
            Effect::Quarantine { version } => {
                self.files.remove(&uri(version));
                return;
            }
            Effect::Write { version, payload } => {
                self.files.insert(uri(version), payload);
                (self.write_us, Report::Written { version })
            }
            Effect::Load { version } => {
                let file = self.files.get(&uri(version));
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
        let mail = Mail::Lineage(OfLine { line, it: report });
        acts.push(Act::Tell { after_us, mail: Box::new(mail) });
    }

    fn scan(&self, line: &ModelLine, unknown_from: ModelVersion) -> Vec<Found> {
        let files = self.files.iter().filter(|(uri, _)| uri.line == *line);
        let found = files.map(|(uri, bytes)| {
            let claims = (uri.version >= unknown_from).then(|| {
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
            Found { version: uri.version, content: Ok(content) }
        });
        found.collect()
    }
}
