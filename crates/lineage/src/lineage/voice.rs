//! What the model server says: models, and which is the newest.

use bytes::Bytes;
use protocol::{
    Envelope, Letter as _, ModelUri, ModelVersion, Output, Topic, message::ModelLatest,
};

use super::{Lineage, Outputs};
use crate::record::Stored;

impl Lineage {
    /// The newest first: that is what is waited for.
    pub(super) fn replay_newest(&mut self, count: usize) {
        let intact = self.records.keys().filter(|version| !self.damaged.contains(version));
        self.replay.begin(intact.rev().take(count).copied());
    }

    /// The newest version whose bytes are there.
    pub(super) fn latest(&self) -> Option<(ModelVersion, Stored)> {
        let mut newest_first = self.records.iter().rev();
        newest_first
            .find(|(version, _)| !self.damaged.contains(version))
            .map(|(version, stored)| (*version, *stored))
    }

    pub(super) fn model(&self, version: ModelVersion, payload: Bytes) -> Envelope {
        let uri = ModelUri { line: self.line.clone(), version };
        Envelope { topic: Topic::Model { uri }, payload }
    }

    pub(super) fn show_latest(&self, out: &mut Outputs) {
        let Some((version, stored)) = self.latest() else { return };
        let latest = ModelLatest {
            version,
            topic: ModelUri { line: self.line.clone(), version },
            sha256: stored.digest,
            bytes: stored.len,
            format: stored.form.to_string(),
        };
        out.push(Output::Publish(latest.seal()));
    }
}
