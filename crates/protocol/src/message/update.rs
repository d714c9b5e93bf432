//! A proplet's update: what it learned, from how much data, starting from which model; as JSON or
//! as a safetensors file.

mod binary;
mod json;
mod metrics;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::{
    Digest, Envelope, Form, Letter, ModelUri, PropletId, Rejection, RoundId, Tensors, Topic,
    tensor::safetensors::Metadata,
};

pub use metrics::METRICS_MAX;

/// One proplet's contribution to a round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Update {
    pub round_id: RoundId,
    pub proplet_id: PropletId,
    pub base_model_uri: ModelUri,
    pub num_samples: u64,
    pub metrics: BTreeMap<String, f64>,
    pub update: Tensors,
    /// How it came, and goes on.
    #[serde(skip)]
    pub form: Form,
}

/// Why some bytes are not an update, with as much of the address as could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {what}")]
pub struct UpdateError {
    pub reason: Rejection,
    pub what: String,
    pub round_id: Option<RoundId>,
    pub proplet_id: Option<PropletId>,
}

/// What the file of a guest need not say, because its task did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateAsked<'a> {
    pub round_id: &'a RoundId,
    pub proplet_id: &'a PropletId,
    pub base_model_uri: &'a ModelUri,
}

impl Update {
    /// Reads an update of either form; tensors of a safetensors file are slices of `payload`.
    ///
    /// `sender` is who is known to have sent it (from the topic), if anyone is; it stands in for a
    /// `proplet_id` that the payload leaves out, and a payload that names another is
    /// [`Rejection::SenderMismatch`].
    pub fn read(payload: &Bytes, sender: Option<&PropletId>) -> Result<Self, UpdateError> {
        match Form::of(payload) {
            Form::Json => json::read(payload, sender),
            Form::Safetensors => binary::read(payload, sender),
        }
    }

    /// Reads the safetensors file that a guest has left behind; what it does not say of itself is
    /// taken from what was asked.
    pub fn read_file(file: &Bytes, asked: &UpdateAsked<'_>) -> Result<Self, UpdateError> {
        binary::read_file(file, asked)
    }

    /// What the metadata of an encoded update says, whose tensors only the round's encoding can
    /// tell: it has none. `sender` as in [`Update::read`].
    pub fn read_metadata(
        metadata: &Metadata,
        sender: Option<&PropletId>,
    ) -> Result<Self, UpdateError> {
        binary::read_metadata(metadata, sender)
    }

    /// All but the tensors, as a safetensors file says it.
    pub fn metadata(&self) -> Metadata {
        binary::metadata(self)
    }

    /// The update as it travels, in its form.
    pub fn write(&self) -> Bytes {
        match self.form {
            Form::Json => serde_json::to_vec(self).expect("an update of JSON serializes").into(),
            Form::Safetensors => binary::write(self),
        }
    }

    /// The digest of what is counted: equal for a repeated update, whatever its metrics and path.
    pub fn fingerprint(&self) -> Digest {
        let base = self.base_model_uri.to_string();
        let samples = self.num_samples.to_le_bytes();
        let tensors = self.update.digest().to_string();
        Digest::of_parts([base.as_bytes(), &samples, tensors.as_bytes()])
    }
}

impl Letter for Update {
    fn topic(&self) -> Topic {
        Topic::RoundUpdate { round: self.round_id.clone(), proplet: self.proplet_id.clone() }
    }

    fn seal(&self) -> Envelope {
        Envelope { topic: self.topic(), payload: self.write() }
    }
}

/// [`Update::read`] of bytes that are not shared: the numbers of a safetensors file are copied.
pub fn read_update(payload: &[u8], sender: Option<&PropletId>) -> Result<Update, UpdateError> {
    match Form::of(payload) {
        Form::Json => json::read(payload, sender),
        Form::Safetensors => binary::read(&Bytes::copy_from_slice(payload), sender),
    }
}

/// The encoding that a payload says it is in, if it is a file that says so.
pub fn read_update_encoding(payload: &[u8]) -> Option<String> {
    match Form::of(payload) {
        Form::Json => None,
        Form::Safetensors => binary::encoding(payload),
    }
}

/// As much of an update's address as can be read, whatever else is wrong with it.
pub fn read_update_address(payload: &[u8]) -> (Option<RoundId>, Option<PropletId>) {
    match Form::of(payload) {
        Form::Json => json::address(payload),
        Form::Safetensors => binary::address(payload),
    }
}

/// Who sent it: as the topic says, or as the payload says where there is no topic.
fn sent_by(
    sender: Option<&PropletId>,
    named: Option<&PropletId>,
) -> Result<PropletId, (Rejection, String)> {
    match (sender, named) {
        (Some(sender), Some(named)) if sender != named => {
            let what = format!("the payload names {named}, but {sender} sent it");
            Err((Rejection::SenderMismatch, what))
        }
        (Some(sender), _) => Ok(sender.clone()),
        (None, Some(named)) => Ok(named.clone()),
        (None, None) => Err((Rejection::Malformed, "proplet_id is missing".into())),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}
