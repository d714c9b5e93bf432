//! An update as a safetensors file: its other fields are strings in the metadata.

use bytes::Bytes;

use super::{Update, UpdateAsked, UpdateError, metrics, sent_by, shown};
use crate::{
    Form, ModelUri, PropletId, Rejection, RoundId, Tensors,
    tensor::safetensors::{self, Header, Metadata, Safetensors},
};

const ROUND_ID: &str = "round_id";
const PROPLET_ID: &str = "proplet_id";
const BASE_MODEL_URI: &str = "base_model_uri";
const NUM_SAMPLES: &str = "num_samples";
const METRICS: &str = "metrics";
const ENCODING: &str = "encoding";

/// Why not, as a word and in words.
type Objection = (Rejection, String);

/// See [`Update::read`].
pub(super) fn read(payload: &Bytes, sender: Option<&PropletId>) -> Result<Update, UpdateError> {
    let file = open(payload, sender)?;
    interpret(file, sender)
}

/// See [`Update::read_file`].
pub(super) fn read_file(file: &Bytes, asked: &UpdateAsked<'_>) -> Result<Update, UpdateError> {
    let mut file = open(file, Some(asked.proplet_id))?;
    let known = [
        (ROUND_ID, asked.round_id.to_string()),
        (BASE_MODEL_URI, asked.base_model_uri.to_string()),
    ];
    for (name, value) in known {
        file.metadata.entry(name.to_owned()).or_insert(value);
    }
    interpret(file, Some(asked.proplet_id))
}

/// See [`Update::read_metadata`].
pub(super) fn read_metadata(
    metadata: &Metadata,
    sender: Option<&PropletId>,
) -> Result<Update, UpdateError> {
    let mut metadata = metadata.clone();
    metadata.remove(ENCODING);
    interpret(Safetensors { metadata, tensors: Tensors::default() }, sender)
}

/// See [`super::read_update_encoding`].
pub(super) fn encoding(payload: &[u8]) -> Option<String> {
    Header::metadata_of(payload)?.remove(ENCODING)
}

/// See [`Update::write`].
pub(super) fn write(update: &Update) -> Bytes {
    safetensors::write(&update.update, &metadata(update))
}

/// See [`Update::metadata`].
pub(super) fn metadata(update: &Update) -> Metadata {
    let metrics = serde_json::to_string(&update.metrics).expect("numbers by name serialize");
    let fields = [
        (ROUND_ID, update.round_id.to_string()),
        (PROPLET_ID, update.proplet_id.to_string()),
        (BASE_MODEL_URI, update.base_model_uri.to_string()),
        (NUM_SAMPLES, update.num_samples.to_string()),
        (METRICS, metrics),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// See [`super::read_update_address`].
pub(super) fn address(payload: &[u8]) -> (Option<RoundId>, Option<PropletId>) {
    let metadata = Header::metadata_of(payload).unwrap_or_default();
    let field = |name| metadata.get(name);
    (
        field(ROUND_ID).and_then(|id| id.parse().ok()),
        field(PROPLET_ID).and_then(|id| id.parse().ok()),
    )
}

fn open(payload: &Bytes, sender: Option<&PropletId>) -> Result<Safetensors, UpdateError> {
    safetensors::read(payload).map_err(|why| {
        // What is wrong with the tensors does not make the address unreadable.
        let (round_id, named) = address(payload);
        let what = format!("not a safetensors file: {why}");
        let proplet_id = sender.cloned().or(named);
        UpdateError { reason: Rejection::Malformed, what, round_id, proplet_id }
    })
}

fn interpret(file: Safetensors, sender: Option<&PropletId>) -> Result<Update, UpdateError> {
    let Safetensors { metadata, tensors: update } = file;
    let malformed = |what: String| UpdateError {
        reason: Rejection::Malformed,
        what,
        round_id: None,
        proplet_id: sender.cloned(),
    };
    let missing = |what: &str| malformed(format!("{what} is missing"));
    let round_id: RoundId =
        id(&metadata, ROUND_ID).map_err(malformed)?.ok_or(ROUND_ID).map_err(missing)?;
    let named: Option<PropletId> = id(&metadata, PROPLET_ID).map_err(malformed)?;
    let fail = |(reason, what): Objection| UpdateError {
        reason,
        what,
        round_id: Some(round_id.clone()),
        proplet_id: sender.cloned().or_else(|| named.clone()),
    };
    let proplet_id = sent_by(sender, named.as_ref()).map_err(fail)?;
    let base_model_uri = base(&metadata).map_err(fail)?;
    let num_samples = samples(&metadata).map_err(fail)?;
    if let Some(encoding) = metadata.get(ENCODING) {
        let what = format!("encoding {:?} was not asked for", shown(encoding));
        return Err(fail((Rejection::Malformed, what)));
    }
    if let Some(name) = update.not_finite() {
        return Err(fail((Rejection::NotFinite, format!("tensor {name:?} is not finite"))));
    }
    let metrics = metrics::read(metadata.get(METRICS).map(String::as_str));
    let form = Form::Safetensors;
    Ok(Update { round_id, proplet_id, base_model_uri, num_samples, metrics, update, form })
}

fn id<T: std::str::FromStr<Err = crate::IdError>>(
    metadata: &Metadata,
    field: &str,
) -> Result<Option<T>, String> {
    let read = metadata.get(field).map(|text| text.parse());
    read.transpose().map_err(|why| format!("{field}: {why}"))
}

/// An address of something else than a model of ours is a stale base, not a syntax error.
fn base(metadata: &Metadata) -> Result<ModelUri, Objection> {
    let Some(text) = metadata.get(BASE_MODEL_URI) else {
        return Err((Rejection::Malformed, format!("{BASE_MODEL_URI} is missing")));
    };
    text.parse().map_err(|why: crate::ModelUriError| (Rejection::StaleBase, why.to_string()))
}

fn samples(metadata: &Metadata) -> Result<u64, Objection> {
    let fail = |what| Err((Rejection::NumSamples, what));
    let Some(text) = metadata.get(NUM_SAMPLES) else {
        return fail(format!("{NUM_SAMPLES} is missing"));
    };
    match text.parse::<u64>() {
        Ok(0) => fail(format!("{NUM_SAMPLES} is 0")),
        Ok(n) => Ok(n),
        Err(_) => fail(format!("{NUM_SAMPLES} takes a whole number, not {:?}", shown(text))),
    }
}
