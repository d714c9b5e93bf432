//! What a proplet writes behind a zlib stream, which has no fields: a short object in JSON.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// No object is longer.
const LEN_MAX: usize = 512;
/// How it begins.
const STARTS: [&[u8]; 3] = [b"{\"base_model_sha256\":", b"{\"signature\":", b"{\"traceparent\":"];

/// Empty if nothing stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::message) struct Tail {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::message) base_model_sha256: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::message) signature: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::message) traceparent: Option<String>,
}

impl Tail {
    /// The stream, and what stands behind it.
    pub(in crate::message) fn split(payload: &[u8]) -> (&[u8], Self) {
        let from = payload.len().saturating_sub(LEN_MAX);
        let last = &payload[from..];
        let starts = STARTS
            .iter()
            .filter_map(|start| last.windows(start.len()).position(|window| window == *start));
        let Some(at) = starts.min().map(|at| from + at) else { return (payload, Self::default()) };
        match serde_json::from_slice(&payload[at..]) {
            Ok(tail) => (&payload[..at], tail),
            // Bytes of the stream, that happen to look like it.
            Err(_) => (payload, Self::default()),
        }
    }

    /// The stream with this behind it.
    pub(in crate::message) fn behind(&self, stream: &[u8]) -> Bytes {
        let text = serde_json::to_vec(self).expect("three texts serialize");
        [stream, &text].concat().into()
    }
}
