//! Handing an update on without reading it.
//!
//! The manager appends `"forwarded_at"` as the last field and changes nothing else. It looks only
//! at the address: where the payload does not itself say, at its top level, the round and the
//! sender that the topic names, the topic's are appended before it as `"forwarded_from"`, so that
//! the coordinator can hold the one against the other. In a safetensors file both are strings of
//! the metadata: its header is written anew, its data stay as they are.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Form, PropletId, RoundId, Timestamp,
    tensor::safetensors::{HEADER_LEN_MAX, Header},
};

/// Longest text that forwarding adds, in bytes.
pub const FORWARD_TAIL_LEN_MAX: usize = 512;

const ORIGIN_KEY: &str = ",\"forwarded_from\":";
const TIME_KEY: &str = "\"forwarded_at\":";
pub(super) const ORIGIN_FIELD: &str = "forwarded_from";
pub(super) const TIME_FIELD: &str = "forwarded_at";

/// The address that an update came in on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub round_id: RoundId,
    pub proplet_id: PropletId,
}

/// A forwarded update, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Present where the payload did not say the same of itself.
    pub origin: Option<Origin>,
    pub payload: Bytes,
}

#[derive(Deserialize)]
struct Address {
    round_id: Option<String>,
    proplet_id: Option<String>,
}

#[derive(Deserialize)]
struct Tail {
    forwarded_from: Origin,
}

/// The payload with `forwarded_at` as its last field. Bytes that cannot take a field, because they
/// are neither a JSON object nor a safetensors file: an object that says so goes on in their place.
pub fn forward(payload: &[u8], origin: &Origin, at: Timestamp) -> Bytes {
    let forwarded = match Form::of(payload) {
        Form::Json => forward_text(payload, origin, at),
        Form::Safetensors => forward_binary(payload, origin, at),
    };
    forwarded.unwrap_or_else(|what| {
        let error = serde_json::to_string(&what).expect("text serializes");
        let body = format!("\"error\":{error}");
        assemble(body.as_bytes(), Some(origin), at)
    })
}

fn forward_text(payload: &[u8], origin: &Origin, at: Timestamp) -> Result<Bytes, String> {
    let trimmed = payload.trim_ascii();
    let Some(body) = trimmed.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")) else {
        return Err(format!("not a JSON object ({} bytes)", payload.len()));
    };
    let says_so = serde_json::from_slice::<Address>(trimmed).is_ok_and(|address| {
        address.round_id.as_deref() == Some(origin.round_id.as_str())
            && address.proplet_id.as_deref() == Some(origin.proplet_id.as_str())
    });
    // A payload that ends like a forwarded one must not speak for another: the topic's word follows.
    let says_so = says_so && find_origin(body).is_none();
    let forwarded = assemble(body, (!says_so).then_some(origin), at);
    // Nor may one turn into a file, whose own metadata would be believed.
    match Form::of(&forwarded) {
        Form::Json => Ok(forwarded),
        Form::Safetensors => Err(format!("not a JSON object ({} bytes)", payload.len())),
    }
}

fn forward_binary(payload: &[u8], origin: &Origin, at: Timestamp) -> Result<Bytes, String> {
    let said = |why: &dyn std::fmt::Display| format!("not a safetensors file: {why}");
    let mut header = Header::read(payload, payload.len() as u64).map_err(|why| said(&why))?;
    let data = &payload[header.data_start()..];
    let field = |name: &str| header.metadata.get(name).map(String::as_str);
    let says_so = field("round_id") == Some(origin.round_id.as_str())
        && field("proplet_id") == Some(origin.proplet_id.as_str());
    header.metadata.remove(ORIGIN_FIELD);
    if !says_so {
        let text = serde_json::to_string(origin).expect("ids serialize");
        header.metadata.insert(ORIGIN_FIELD.to_owned(), text);
    }
    header.metadata.insert(TIME_FIELD.to_owned(), at.to_string());
    let mut out = header.write();
    if out.len() > HEADER_LEN_MAX {
        return Err(said(&format!("its header leaves no room in {HEADER_LEN_MAX} bytes")));
    }
    out.reserve_exact(data.len());
    out.extend_from_slice(data);
    Ok(out.into())
}

fn assemble(body: &[u8], origin: Option<&Origin>, at: Timestamp) -> Bytes {
    let mut out = Vec::with_capacity(body.len() + FORWARD_TAIL_LEN_MAX);
    out.push(b'{');
    out.extend_from_slice(body);
    if let Some(origin) = origin {
        let text = serde_json::to_string(origin).expect("ids serialize");
        out.extend_from_slice(ORIGIN_KEY.as_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    if origin.is_some() || !body.trim_ascii().is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(format!("{TIME_KEY}\"{at}\"}}").as_bytes());
    out.into()
}

impl Forwarded {
    /// Finds the origin that [`forward`] added, if it did, also behind a payload that is not JSON.
    /// Of a text only the very end is searched, of a file only the metadata, which forwarding
    /// leaves no word of a sender in: a sender cannot forge it from inside.
    pub fn read(payload: Bytes) -> Self {
        let origin = match Form::of(&payload) {
            Form::Json => read_origin(&payload),
            Form::Safetensors => Header::metadata_of(&payload)
                .and_then(|metadata| serde_json::from_str(metadata.get(ORIGIN_FIELD)?).ok()),
        };
        Self { origin, payload }
    }
}

fn read_origin(payload: &[u8]) -> Option<Origin> {
    let at = find_origin(payload)?;
    let mut object = vec![b'{'];
    object.extend_from_slice(&payload[at + 1..]);
    serde_json::from_slice::<Tail>(&object).ok().map(|tail| tail.forwarded_from)
}

/// Where the last origin stands, if one stands at the very end.
fn find_origin(payload: &[u8]) -> Option<usize> {
    let from = payload.len().saturating_sub(FORWARD_TAIL_LEN_MAX);
    rfind(&payload[from..], ORIGIN_KEY.as_bytes()).map(|at| from + at)
}

fn rfind(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).rposition(|window| window == needle)
}
