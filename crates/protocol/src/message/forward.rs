//! Handing an update on without reading it.
//!
//! The manager appends `"forwarded_at"` as the last field and changes nothing else. It looks only
//! at the address: where the payload does not itself say, at its top level, the round and the
//! sender that the topic names, the topic's are appended before it as `"forwarded_from"`, so that
//! the coordinator can hold the one against the other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{PropletId, RoundId, Timestamp};

/// Longest text that forwarding adds, in bytes.
pub const FORWARD_TAIL_LEN_MAX: usize = 512;

const ORIGIN_KEY: &str = ",\"forwarded_from\":";
const TIME_KEY: &str = "\"forwarded_at\":";

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

/// The payload with `forwarded_at` as its last field. Bytes that are no JSON object at all cannot
/// take a field: an object that says so goes on in their place.
pub fn forward(payload: &[u8], origin: &Origin, at: Timestamp) -> Bytes {
    let trimmed = payload.trim_ascii();
    let Some(body) = trimmed.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")) else {
        let error = format!("not a JSON object ({} bytes)", payload.len());
        let error = format!("\"error\":\"{error}\"");
        return assemble(error.as_bytes(), Some(origin), at);
    };
    let says_so = serde_json::from_slice::<Address>(trimmed).is_ok_and(|address| {
        address.round_id.as_deref() == Some(origin.round_id.as_str())
            && address.proplet_id.as_deref() == Some(origin.proplet_id.as_str())
    });
    // A payload that ends like a forwarded one must not speak for another: the topic's word follows.
    let says_so = says_so && find_origin(body).is_none();
    assemble(body, (!says_so).then_some(origin), at)
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
    /// Finds the origin that [`forward`] appended, if it did, also behind a payload that is not
    /// JSON. Only the very end is searched: a sender cannot forge it from inside.
    pub fn read(payload: Bytes) -> Self {
        let origin = find_origin(&payload).and_then(|at| {
            let mut object = vec![b'{'];
            object.extend_from_slice(&payload[at + 1..]);
            serde_json::from_slice::<Tail>(&object).ok()
        });
        Self { origin: origin.map(|tail| tail.forwarded_from), payload }
    }
}

/// Where the last origin stands, if one stands at the very end.
fn find_origin(payload: &[u8]) -> Option<usize> {
    let from = payload.len().saturating_sub(FORWARD_TAIL_LEN_MAX);
    rfind(&payload[from..], ORIGIN_KEY.as_bytes()).map(|at| from + at)
}

fn rfind(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).rposition(|window| window == needle)
}
