//! Handing an update on without reading it.
//!
//! The manager appends `"forwarded_at"` as the last field and changes nothing else. It looks only
//! at the address: where the payload does not itself say, at its top level, the round and the
//! sender that the topic names, the topic's are appended before it as `"forwarded_from"`, so that
//! the coordinator can hold the one against the other. In a safetensors file both are strings of
//! the metadata: its header is written anew, its data stay as they are. A zlib stream is not looked
//! into: an object of the two stands behind it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Form, PropletId, RoundId, Timestamp,
    tensor::safetensors::{HEADER_LEN_MAX, Header},
};

/// Longest text that forwarding adds, in bytes.
pub const FORWARD_TAIL_LEN_MAX: usize = 512;

const ORIGIN_KEY: &str = ",\"forwarded_from\":";
/// How what stands behind a stream begins.
const STREAM_ORIGIN_KEY: &str = "{\"forwarded_from\":";
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
    if is_zlib(payload) {
        return forward_stream(payload, origin, at);
    }
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
    let says_so = says_so && find_origin(body, ORIGIN_KEY).is_none();
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

/// Whether a payload is a zlib stream, by its first bytes (RFC 1950, section 2.2): they are those
/// of no text, and of no file of a sensible header.
pub fn is_zlib(payload: &[u8]) -> bool {
    let Some(first @ [method, _]) = payload.first_chunk() else { return false };
    let is_method = method & 0x0f == 8 && method >> 4 <= 7;
    is_method && u16::from_be_bytes(*first).is_multiple_of(31) && payload.get(3..8) != Some(&[0; 5])
}

fn forward_stream(payload: &[u8], origin: &Origin, at: Timestamp) -> Bytes {
    let tail = assemble(b"", Some(origin), at);
    // The comma between a body and the origin has nothing before it here.
    [payload, b"{", &tail[2..]].concat().into()
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
    /// leaves no word of a sender in: a sender cannot forge it from inside. What stands behind a
    /// stream is taken off.
    pub fn read(payload: Bytes) -> Self {
        if is_zlib(&payload) {
            return Self::read_stream(payload);
        }
        let origin = match Form::of(&payload) {
            Form::Json => read_origin(&payload),
            Form::Safetensors => Header::metadata_of(&payload)
                .and_then(|metadata| serde_json::from_str(metadata.get(ORIGIN_FIELD)?).ok()),
        };
        Self { origin, payload }
    }

    fn read_stream(payload: Bytes) -> Self {
        let Some(at) = find_origin(&payload, STREAM_ORIGIN_KEY) else {
            return Self { origin: None, payload };
        };
        match serde_json::from_slice::<Tail>(&payload[at..]) {
            Ok(tail) => Self { origin: Some(tail.forwarded_from), payload: payload.slice(..at) },
            Err(_) => Self { origin: None, payload },
        }
    }
}

fn read_origin(payload: &[u8]) -> Option<Origin> {
    let at = find_origin(payload, ORIGIN_KEY)?;
    let mut object = vec![b'{'];
    object.extend_from_slice(&payload[at + 1..]);
    serde_json::from_slice::<Tail>(&object).ok().map(|tail| tail.forwarded_from)
}

/// Where the last origin stands, if one stands at the very end.
fn find_origin(payload: &[u8], key: &str) -> Option<usize> {
    let from = payload.len().saturating_sub(FORWARD_TAIL_LEN_MAX);
    rfind(&payload[from..], key.as_bytes()).map(|at| from + at)
}

fn rfind(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // Most places differ in their first byte, which is quickly seen.
    let is_needle = |window: &[u8]| window.first() == needle.first() && window == needle;
    haystack.windows(needle.len()).rposition(is_needle)
}
