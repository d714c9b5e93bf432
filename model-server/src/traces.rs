//! Spans of models that are kept, from their arrival to the disk. The trace that a model comes with
//! is taken off it first: a model is known by its bytes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use lineage::Note;
use protocol::{
    Digest, Envelope, ModelLine, Topic,
    message::{ModelBlob, is_blob_form, split_traceparent},
};
use service::{Begun, Inspector, Traces};

/// Models under way whose spans are remembered; of further ones nothing is said.
const REMEMBERED_MAX: usize = 1000;

/// The models that are traced.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelTraces {
    traces: Traces,
    // The transport sees which trace a model is of, the effects when it is kept. Held for a look-up.
    begun: Arc<Mutex<BTreeMap<Digest, Begun>>>,
}

impl ModelTraces {
    pub(crate) fn new(traces: Traces) -> Self {
        Self { traces, begun: Arc::default() }
    }

    pub(crate) fn note(&self, line: &ModelLine, note: &Note) {
        let Note::Written { version, len, digest } = note else { return };
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
        if let Some(begun) = begun {
            begun
                .with("aileron.model.line", line.to_string())
                .with("aileron.model.version", version.0)
                .with("aileron.model.bytes", *len)
                .end(None);
        }
    }

    pub(crate) async fn close(self) {
        self.traces.close().await;
    }

    fn arrived(&self, payload: &[u8], parent: protocol::Traceparent) {
        if !self.traces.is_on() || !parent.is_sampled() {
            return;
        }
        let digest = if is_blob_form(payload) {
            let read = serde_json::from_slice::<ModelBlob>(payload);
            let Ok(ModelBlob { blob, .. }) = read else { return };
            blob.sha256()
        } else {
            Digest::of(payload)
        };
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        // Of one that is repeated, the first counts; and one that was never kept makes room.
        if begun.len() >= REMEMBERED_MAX {
            begun.pop_first();
        }
        let sets_apart = digest.to_string();
        begun
            .entry(digest)
            .or_insert_with(|| self.traces.begin_below(parent, "keep model", &sets_apart));
    }
}

impl Inspector for ModelTraces {
    fn inbound(&self, envelope: Envelope) -> Envelope {
        let Topic::ModelPublish { .. } = envelope.topic else { return envelope };
        let (parent, payload) = split_traceparent(envelope.payload);
        if let Some(parent) = parent {
            self.arrived(&payload, parent);
        }
        Envelope { payload, ..envelope }
    }
}
