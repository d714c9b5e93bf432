//! Where a `traceparent` travels in messages that are tensors: at the end of a JSON object, in the
//! metadata of a safetensors file, or behind a zlib stream. Only while somebody traces: without it,
//! not a byte is added.

use bytes::Bytes;
use serde::Deserialize;

use super::{
    is_blob_form, is_zlib,
    signed::{Tail, with_field},
};
use crate::{
    Form, Traceparent, json::may_say, manifest::MANIFEST_LEN_MAX, tensor::safetensors::Header,
    trace::TRACEPARENT_LEN,
};

/// Under this name it travels.
const FIELD: &str = "traceparent";
/// What stands around it at the end of an object.
const BEFORE: &str = ",\"traceparent\":\"";
const AFTER: &str = "\"}";

/// No message grows by more than this.
pub const TRACEPARENT_ROOM: usize = 128;

/// The message with its trace; nothing for bytes that cannot take one, or have no room for it.
pub fn with_traceparent(payload: &[u8], parent: &Traceparent) -> Option<Bytes> {
    if is_zlib(payload) {
        let (stream, tail) = Tail::split(payload);
        return Some(Tail { traceparent: Some(parent.to_string()), ..tail }.behind(stream));
    }
    if is_blob_form(payload) && payload.len() + TRACEPARENT_ROOM > MANIFEST_LEN_MAX {
        return None;
    }
    with_field(payload, FIELD, &parent.to_string())
}

/// The trace that an update says it belongs to. Most say nothing, and are not read twice for that.
pub fn read_traceparent(payload: &[u8]) -> Option<Traceparent> {
    #[derive(Deserialize)]
    struct Said {
        traceparent: String,
    }
    let text = if is_zlib(payload) {
        Tail::split(payload).1.traceparent?
    } else {
        match Form::of(payload) {
            Form::Json if may_say(payload, FIELD.as_bytes()) => {
                serde_json::from_slice::<Said>(payload).ok()?.traceparent
            }
            Form::Json => return None,
            Form::Safetensors => Header::metadata_of(payload)?.remove(FIELD)?,
        }
    };
    text.parse().ok()
}

/// Takes a model apart: the trace that it came with, and the model as it was made, byte for byte,
/// since its digest is what it is known by.
pub fn split_traceparent(payload: Bytes) -> (Option<Traceparent>, Bytes) {
    let split = match Form::of(&payload) {
        Form::Json => split_text(&payload),
        Form::Safetensors => split_file(&payload),
    };
    split.map_or((None, payload), |(parent, rest)| (Some(parent), rest))
}

fn split_text(payload: &[u8]) -> Option<(Traceparent, Bytes)> {
    let rest = payload.strip_suffix(AFTER.as_bytes())?;
    let (rest, text) = rest.split_at_checked(rest.len().checked_sub(TRACEPARENT_LEN)?)?;
    let rest = rest.strip_suffix(BEFORE.as_bytes())?;
    let parent = str::from_utf8(text).ok()?.parse().ok()?;
    Some((parent, [rest, b"}"].concat().into()))
}

fn split_file(payload: &[u8]) -> Option<(Traceparent, Bytes)> {
    let text = Header::metadata_of(payload)?.remove(FIELD)?;
    let mut header = Header::read(payload, payload.len() as u64).ok()?;
    let data = &payload[header.data_start()..];
    header.metadata.remove(FIELD);
    let mut out = header.write();
    out.extend_from_slice(data);
    Some((text.parse().ok()?, out.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ModelVersion, PropletId, RoundId, Tensor, Tensors, Timestamp,
        message::{
            Forwarded, Model, Origin, forward, read_update_address, signed_facts,
            split_base_digest, with_base_digest, with_signature,
        },
        tensor::safetensors::{self, Metadata},
    };

    const UPDATE: &str = r#"{"round_id":"r","proplet_id":"p","base_model_uri":"v0","num_samples":5,"update":{"w":[1.0]}}"#;

    fn parent() -> Traceparent {
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap()
    }

    fn tensors() -> Tensors {
        let tensor = Tensor::from_f32(vec![2], &[1.0, 2.0]).unwrap();
        [("w".to_owned(), tensor)].into_iter().collect()
    }

    fn file() -> Bytes {
        let metadata: Metadata = [("num_samples".to_owned(), "5".to_owned())].into();
        safetensors::write(&tensors(), &metadata)
    }

    fn stream() -> Bytes {
        Bytes::from_static(&[0x78, 0x9c, 3, 0, 0, 0, 0, 1])
    }

    /// Whatever else is added on the way, before it or after it.
    #[test]
    fn updates_of_every_form_keep_it_on_their_way() {
        let (round, proplet): (RoundId, PropletId) = ("r".parse().unwrap(), "p".parse().unwrap());
        let origin = Origin { round_id: round.clone(), proplet_id: proplet.clone() };
        for plain in [Bytes::from(UPDATE), file(), stream()] {
            assert_eq!(read_traceparent(&plain), None);
            let based = with_base_digest(&plain, crate::Digest::of(b"base")).unwrap();
            let traced = with_traceparent(&based, &parent()).unwrap();
            assert!(traced.len() <= based.len() + TRACEPARENT_ROOM);
            let signed = with_signature(&traced, "c2ln").unwrap();
            let facts = signed_facts(&signed, &round, &proplet).unwrap();
            assert_eq!(facts.statement, signed_facts(&traced, &round, &proplet).unwrap().statement);
            assert_eq!(facts.signature.as_deref(), Some("c2ln"));
            let forwarded = forward(&signed, &origin, Timestamp::from_micros(7));
            let payload = Forwarded::read(forwarded).payload;
            assert_eq!(read_traceparent(&payload), Some(parent()));
            let (base, _) = split_base_digest(payload).unwrap();
            assert_eq!(base, Some(crate::Digest::of(b"base")));
        }
        let traced = with_traceparent(UPDATE.as_bytes(), &parent()).unwrap();
        assert_eq!(read_update_address(&traced), (Some(round), Some(proplet)));
    }

    #[test]
    fn models_are_the_same_bytes_again() {
        let text = Model::new(ModelVersion(1), tensors()).write();
        let binary = Model { form: Form::Safetensors, ..Model::new(ModelVersion(1), tensors()) };
        for plain in [text, binary.write(), Bytes::from_static(b"{\"version\":1,\"blob\":{}}")] {
            assert_eq!(split_traceparent(plain.clone()), (None, plain.clone()));
            let traced = with_traceparent(&plain, &parent()).unwrap();
            assert_ne!(traced, plain);
            assert_eq!(split_traceparent(traced), (Some(parent()), plain));
        }
        for odd in [&b""[..], b"{}", b"\"}", b",\"traceparent\":\"\"}", b"\x01\0\0\0\0\0\0\0"] {
            let odd = Bytes::copy_from_slice(odd);
            assert_eq!(split_traceparent(odd.clone()), (None, odd));
        }
    }

    /// A bad one is as none.
    #[test]
    fn what_is_no_traceparent_is_none() {
        let bad = UPDATE.replacen('{', "{\"traceparent\":\"00-xyz\",", 1);
        assert_eq!(read_traceparent(bad.as_bytes()), None);
        let bad = UPDATE.replacen('{', "{\"traceparent\":7,", 1);
        assert_eq!(read_traceparent(bad.as_bytes()), None);
    }
}
