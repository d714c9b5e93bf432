//! What is said about blobs that go in pieces: who offers one in place of tensors, who lacks which
//! pieces. The pieces themselves are bare bytes on topics of their own.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    Digest, Envelope, Letter, Manifest, ModelLine, ModelUri, ModelVersion, PropletId, Rejection,
    RoundId, Topic,
    envelope::brief,
    json::may_say,
    manifest::{CHUNKS_MAX, MANIFEST_LEN_MAX},
};

use super::{FORWARD_TAIL_LEN_MAX, UpdateError, read_update};

/// Most pieces that are asked for at once.
pub const WANTS_MAX: usize = 256;

/// Longest payload of wants: so many numbers, a digest, and some room.
const WANTS_LEN_MAX: usize = 4096;
/// Stands for the tensors of an offer while its other fields are judged.
const STAND_IN: &str = r#"{"-":0}"#;

/// A model whose tensors go in pieces: to the model server on one topic, from there on another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelBlob {
    pub version: ModelVersion,
    pub blob: Manifest,
}

/// One proplet's contribution to a round, its tensors in pieces.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UpdateOffer {
    pub round_id: RoundId,
    pub proplet_id: PropletId,
    pub base_model_uri: ModelUri,
    pub num_samples: u64,
    pub metrics: BTreeMap<String, f64>,
    pub blob: Manifest,
}

/// Which pieces of a blob somebody lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireWants", into = "WireWants")]
pub struct Wants {
    pub sha256: Digest,
    /// 1 to [`WANTS_MAX`] of them.
    pub indexes: BTreeSet<u32>,
}

/// Why wants are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantsError {
    #[error("{0} indexes are wanted, it takes 1 to {WANTS_MAX}")]
    Count(usize),
    #[error("there is no chunk {0}, indexes go up to {max}", max = CHUNKS_MAX - 1)]
    Index(u32),
    #[error("{0} bytes, at most {WANTS_LEN_MAX} are read")]
    TooLong(usize),
    #[error("{0}")]
    Syntax(String),
}

/// The coordinator lacks these pieces of a proplet's update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateWants {
    /// From the topic.
    pub round_id: RoundId,
    /// From the topic.
    pub proplet_id: PropletId,
    pub wants: Wants,
}

/// The model server lacks these pieces of a new model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPublishWants {
    /// From the topic.
    #[serde(skip)]
    pub line: ModelLine,
    pub version: ModelVersion,
    #[serde(flatten)]
    pub wants: Wants,
}

/// Somebody lacks the pieces of a model that are no longer shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelWants {
    /// From the topic.
    #[serde(skip)]
    pub line: ModelLine,
    pub version: ModelVersion,
}

/// A proplet lacks the pieces of a module, which do not stand at the broker, or did not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleWants {
    pub proplet_id: PropletId,
    pub sha256: Digest,
}

#[derive(Serialize, Deserialize)]
struct WireWants {
    sha256: Digest,
    indexes: Vec<u32>,
}

#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    blob: Option<&'a RawValue>,
}

/// The fields of an offer, still text.
#[derive(Serialize, Deserialize)]
struct Parts<'a> {
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    round_id: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    proplet_id: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    base_model_uri: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    num_samples: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    metrics: Option<&'a RawValue>,
    #[serde(default, borrow)]
    update: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing)]
    blob: Option<&'a RawValue>,
}

/// Whether a payload names a blob rather than carrying tensors. Cheap for large payloads: those do
/// not. A tensor may be called `blob`, too, but it is never an object.
pub fn is_blob_form(payload: &[u8]) -> bool {
    payload.len() <= MANIFEST_LEN_MAX + FORWARD_TAIL_LEN_MAX
        && payload.trim_ascii_start().starts_with(b"{")
        && may_say(payload, b"blob")
        && serde_json::from_slice::<Probe<'_>>(payload)
            .is_ok_and(|probe| probe.blob.is_some_and(|blob| blob.get().starts_with('{')))
}

/// Reads an update whose tensors go in pieces, as strictly as [`read_update`] reads one that
/// carries them; `sender` as there.
pub fn read_update_offer(
    payload: &[u8],
    sender: Option<&PropletId>,
) -> Result<UpdateOffer, UpdateError> {
    let len_max = MANIFEST_LEN_MAX + FORWARD_TAIL_LEN_MAX;
    let fail =
        |reason, what| UpdateError { reason, what, round_id: None, proplet_id: sender.cloned() };
    if payload.len() > len_max {
        let what = format!("{} bytes name a blob, at most {len_max} are read", payload.len());
        return Err(fail(Rejection::TooLarge, what));
    }
    let mut parts: Parts<'_> = match serde_json::from_slice(payload) {
        Ok(parts) => parts,
        // What is no JSON for us is none there, and there it is known what to say about it.
        Err(why) => {
            let said = read_update(payload, sender).err();
            return Err(said.unwrap_or_else(|| fail(Rejection::Malformed, brief(&why))));
        }
    };
    let (update, blob) = (parts.update, parts.blob);
    let stand_in: &RawValue = serde_json::from_str(STAND_IN).expect("an object of a number");
    parts.update = Some(stand_in);
    let head = serde_json::to_vec(&parts).expect("what was read can be written");
    let head = read_update(&head, sender)?;
    let malformed = |what: String| UpdateError {
        reason: Rejection::Malformed,
        what,
        round_id: Some(head.round_id.clone()),
        proplet_id: Some(head.proplet_id.clone()),
    };
    if update.is_some() {
        return Err(malformed("update and blob exclude each other".to_owned()));
    }
    let blob = blob.ok_or_else(|| malformed("blob is missing".to_owned()))?;
    let blob = serde_json::from_str(blob.get())
        .map_err(|why| malformed(format!("blob: {}", brief(&why))))?;
    Ok(UpdateOffer {
        round_id: head.round_id,
        proplet_id: head.proplet_id,
        base_model_uri: head.base_model_uri,
        num_samples: head.num_samples,
        metrics: head.metrics,
        blob,
    })
}

impl UpdateOffer {
    /// The digest of what is offered: equal for a repeated offer, whatever its metrics and path.
    pub fn fingerprint(&self) -> Digest {
        let base = self.base_model_uri.to_string();
        let samples = self.num_samples.to_le_bytes();
        let blob = self.blob.fingerprint();
        Digest::of_parts([base.as_bytes(), &samples, blob.as_bytes()])
    }
}

impl ModelBlob {
    /// What the model server shows to everybody.
    pub fn shown(&self, line: &ModelLine) -> Envelope {
        let uri = ModelUri { line: line.clone(), version: self.version };
        Envelope { topic: Topic::Model { uri }, ..self.seal() }
    }
}

impl Wants {
    /// Reads what somebody lacks; never takes much memory, whatever the payload.
    pub fn read(payload: &[u8]) -> Result<Self, WantsError> {
        read(payload)
    }
}

impl UpdateWants {
    /// Reads the payload of wants; whose they are stands in the topic.
    pub fn read(
        round_id: RoundId,
        proplet_id: PropletId,
        payload: &[u8],
    ) -> Result<Self, WantsError> {
        Ok(Self { round_id, proplet_id, wants: read(payload)? })
    }
}

impl ModelPublishWants {
    /// Reads the payload of wants; of which line stands in the topic.
    pub fn read(line: ModelLine, payload: &[u8]) -> Result<Self, WantsError> {
        Ok(Self { line, ..read(payload)? })
    }
}

impl ModelWants {
    /// Reads the payload of wants; of which line stands in the topic.
    pub fn read(line: ModelLine, payload: &[u8]) -> Result<Self, WantsError> {
        Ok(Self { line, ..read(payload)? })
    }
}

impl ModuleWants {
    pub fn read(payload: &[u8]) -> Result<Self, WantsError> {
        read(payload)
    }
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, WantsError> {
    if payload.len() > WANTS_LEN_MAX {
        return Err(WantsError::TooLong(payload.len()));
    }
    serde_json::from_slice(payload).map_err(|why| WantsError::Syntax(brief(&why)))
}

impl TryFrom<WireWants> for Wants {
    type Error = WantsError;

    fn try_from(wire: WireWants) -> Result<Self, WantsError> {
        let count = wire.indexes.len();
        if count == 0 || count > WANTS_MAX {
            return Err(WantsError::Count(count));
        }
        match wire.indexes.iter().find(|index| **index >= CHUNKS_MAX) {
            Some(index) => Err(WantsError::Index(*index)),
            None => Ok(Self { sha256: wire.sha256, indexes: wire.indexes.into_iter().collect() }),
        }
    }
}

impl From<Wants> for WireWants {
    fn from(wants: Wants) -> Self {
        Self { sha256: wants.sha256, indexes: wants.indexes.into_iter().collect() }
    }
}

impl Serialize for UpdateWants {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.wants.serialize(serializer)
    }
}

/// As the next model of the default line.
impl Letter for ModelBlob {
    fn topic(&self) -> Topic {
        Topic::ModelPublish { line: ModelLine::default() }
    }
}

impl Letter for UpdateOffer {
    fn topic(&self) -> Topic {
        Topic::RoundUpdate { round: self.round_id.clone(), proplet: self.proplet_id.clone() }
    }
}

impl Letter for UpdateWants {
    fn topic(&self) -> Topic {
        Topic::UpdateWants { round: self.round_id.clone(), proplet: self.proplet_id.clone() }
    }
}

impl Letter for ModelPublishWants {
    fn topic(&self) -> Topic {
        Topic::ModelPublishWants { line: self.line.clone() }
    }
}

impl Letter for ModuleWants {
    fn topic(&self) -> Topic {
        Topic::ModuleWants
    }
}

impl Letter for ModelWants {
    fn topic(&self) -> Topic {
        Topic::ModelWants { line: self.line.clone() }
    }
}
