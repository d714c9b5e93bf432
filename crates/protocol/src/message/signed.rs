//! What a proplet signs of its update, and where the signature travels.
//!
//! Signed is everything that the update says, so every form and encoding of it: of a JSON object
//! the text of each field, of a safetensors file its header and data, of a zlib stream its bytes.
//! With it goes the digest of the base model as the proplet has it, `base_model_sha256`. Left out
//! is what forwarding adds, and the signature itself, `signature`. Both are fields of the object,
//! strings of the metadata, or stand in an object of their own behind the stream.

mod tail;

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

pub(super) use self::tail::Tail;
use super::forward::{ORIGIN_FIELD, TIME_FIELD, is_zlib};
use crate::{Digest, Form, PropletId, RoundId, json::may_say, tensor::safetensors::Header};

/// Under this name a signature travels.
const SIGNATURE_FIELD: &str = "signature";
/// Under this name an update says which bytes it calls its base model.
const BASE_FIELD: &str = "base_model_sha256";
/// Under this name the coordinator's shell tells its core of a signature that does not hold.
const REFUSED_FIELD: &str = "signature_refused";
/// Begins every statement, so that no other signature can be taken for one of an update.
const DOMAIN: &str = "aileron update 1";
/// No signature is longer.
const SIGNATURE_LEN_MAX: usize = 256;

/// An update as it is signed, and the signature that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedFacts {
    /// What is signed: the round, the proplet and the digest of everything that the update says.
    pub statement: Vec<u8>,
    pub signature: Option<String>,
}

/// What is signed of the update that `proplet` sends, or sent, to `round`.
///
/// # Errors
/// In words, for bytes that are neither an object in JSON, with no name twice, nor a safetensors
/// file, nor a zlib stream.
pub fn signed_facts(
    payload: &[u8],
    round: &RoundId,
    proplet: &PropletId,
) -> Result<SignedFacts, String> {
    let (digest, signature) = if is_zlib(payload) {
        stream_facts(payload)
    } else {
        match Form::of(payload) {
            Form::Json => text_facts(payload)?,
            Form::Safetensors => file_facts(payload)?,
        }
    };
    if signature.as_ref().is_some_and(|signature| signature.len() > SIGNATURE_LEN_MAX) {
        return Err("the signature is too long".to_owned());
    }
    let statement = format!("{DOMAIN}\n{round}\n{proplet}\n{digest}\n").into_bytes();
    Ok(SignedFacts { statement, signature })
}

/// The update with its signature; nothing for bytes that cannot take one.
pub fn with_signature(payload: &[u8], signature: &str) -> Option<Bytes> {
    if is_zlib(payload) {
        let (stream, tail) = Tail::split(payload);
        return Some(Tail { signature: Some(signature.to_owned()), ..tail }.behind(stream));
    }
    with_field(payload, SIGNATURE_FIELD, signature)
}

/// The update with the digest of the model that it starts from, as the proplet has it; nothing for
/// bytes that cannot take one. Signed afterwards, it cannot pass for one that starts from others.
pub fn with_base_digest(payload: &[u8], base: Digest) -> Option<Bytes> {
    if is_zlib(payload) {
        let (stream, tail) = Tail::split(payload);
        return Some(Tail { base_model_sha256: Some(base), ..tail }.behind(stream));
    }
    with_field(payload, BASE_FIELD, &base.to_string())
}

/// Takes an update apart: which bytes it calls its base model, if it says so, and the rest of it,
/// of which only a zlib stream is another than before.
///
/// # Errors
/// In words, for a digest that is none.
pub fn split_base_digest(payload: Bytes) -> Result<(Option<Digest>, Bytes), String> {
    if is_zlib(&payload) {
        let (stream, tail) = Tail::split(&payload);
        let len = stream.len();
        return Ok((tail.base_model_sha256, payload.slice(..len)));
    }
    let said = match Form::of(&payload) {
        Form::Json => base_in_text(&payload),
        Form::Safetensors => Header::metadata_of(&payload).and_then(|mut it| it.remove(BASE_FIELD)),
    };
    let said = said.map(|text| {
        text.parse().map_err(|_| {
            let shown: String = text.chars().take(80).collect();
            format!("{BASE_FIELD} takes 64 hexadecimal digits, not {shown:?}")
        })
    });
    Ok((said.transpose()?, payload))
}

/// Most updates do not say it, and are not read twice for that.
fn base_in_text(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        base_model_sha256: String,
    }
    let name = BASE_FIELD.as_bytes();
    payload.windows(name.len()).rev().find(|window| *window == name)?;
    serde_json::from_slice::<Said>(payload).ok().map(|said| said.base_model_sha256)
}

pub(super) fn with_field(payload: &[u8], name: &str, value: &str) -> Option<Bytes> {
    match Form::of(payload) {
        Form::Json => {
            let body = payload.trim_ascii().strip_suffix(b"}")?;
            let comma = if body.trim_ascii() == b"{" { "" } else { "," };
            let text = serde_json::to_string(value).expect("text serializes");
            let mut out = body.to_vec();
            out.extend_from_slice(format!("{comma}\"{name}\":{text}}}").as_bytes());
            Some(out.into())
        }
        Form::Safetensors => {
            let mut header = Header::read(payload, payload.len() as u64).ok()?;
            let data = &payload[header.data_start()..];
            header.metadata.insert(name.to_owned(), value.to_owned());
            let mut out = header.write();
            out.extend_from_slice(data);
            Some(out.into())
        }
    }
}

/// Stands for an update whose signature does not hold, and says why.
pub fn signature_refused(round: &RoundId, proplet: &PropletId, what: &str) -> Bytes {
    let said = serde_json::json!({
        "round_id": round, "proplet_id": proplet, REFUSED_FIELD: what,
    });
    said.to_string().into()
}

/// Reads what [`signature_refused`] has written.
pub fn read_signature_refused(payload: &[u8]) -> Option<(RoundId, PropletId, String)> {
    #[derive(Deserialize)]
    struct Refused {
        round_id: RoundId,
        proplet_id: PropletId,
        signature_refused: String,
    }
    if payload.len() > 4096 || !may_say(payload, REFUSED_FIELD.as_bytes()) {
        return None;
    }
    let refused: Refused = serde_json::from_slice(payload).ok()?;
    Some((refused.round_id, refused.proplet_id, refused.signature_refused))
}

/// The fields of an object in their order, each with the text of its value.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = vec![];
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        from.deserialize_map(Collect)
    }
}

fn text_facts(payload: &[u8]) -> Result<(Digest, Option<String>), String> {
    let Fields(mut fields) =
        serde_json::from_slice(payload).map_err(|why| format!("not a JSON object: {why}"))?;
    fields.retain(|(name, _)| name != ORIGIN_FIELD && name != TIME_FIELD);
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    // Of two of a name, readers may take either.
    if let Some(twice) = fields.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let name: String = twice[0].0.chars().take(40).collect();
        return Err(format!("{name:?} stands in it twice"));
    }
    let at = fields.iter().position(|(name, _)| name == SIGNATURE_FIELD);
    let signature = at.map(|at| fields.remove(at).1.get());
    let signature = signature
        .map(|text| serde_json::from_str(text).map_err(|_| "the signature is no text".to_owned()))
        .transpose()?;
    let mut digest = Digest::builder();
    for (name, value) in fields {
        for part in [name.as_str(), value.get()] {
            digest.push(&(part.len() as u64).to_le_bytes());
            digest.push(part.as_bytes());
        }
    }
    Ok((digest.finish(), signature))
}

fn file_facts(payload: &[u8]) -> Result<(Digest, Option<String>), String> {
    let mut header = Header::read(payload, payload.len() as u64)
        .map_err(|why| format!("not a safetensors file: {why}"))?;
    let data = &payload[header.data_start()..];
    header.metadata.remove(ORIGIN_FIELD);
    header.metadata.remove(TIME_FIELD);
    let signature = header.metadata.remove(SIGNATURE_FIELD);
    let mut digest = Digest::builder();
    digest.push(&header.write());
    digest.push(data);
    Ok((digest.finish(), signature))
}

fn stream_facts(payload: &[u8]) -> (Digest, Option<String>) {
    let (stream, tail) = Tail::split(payload);
    let base = tail.base_model_sha256.map_or_else(String::new, |base| base.to_string());
    let len = (stream.len() as u64).to_le_bytes();
    (Digest::of_parts([&b"stream"[..], &len, stream, base.as_bytes()]), tail.signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Tensor, Tensors, Timestamp,
        message::{Forwarded, Origin, forward},
        tensor::safetensors::{self, Metadata},
    };

    const TEXT: &str = r#"{"round_id":"r","base_model_uri":"model_v0", "num_samples":5,"update":{"w":[1.0,2.5e0]}}"#;

    fn origin() -> Origin {
        Origin { round_id: "r".parse().unwrap(), proplet_id: "p".parse().unwrap() }
    }

    fn facts(payload: &[u8]) -> SignedFacts {
        signed_facts(payload, &origin().round_id, &origin().proplet_id).unwrap()
    }

    fn file() -> Bytes {
        let tensor = Tensor::from_f32(vec![2], &[1.0, 2.0]).unwrap();
        let tensors: Tensors = [("w".to_owned(), tensor)].into_iter().collect();
        let metadata: Metadata = [("num_samples".to_owned(), "5".to_owned())].into();
        safetensors::write(&tensors, &metadata)
    }

    #[test]
    fn what_is_signed_survives_signing_and_forwarding() {
        let based = |payload: &[u8]| with_base_digest(payload, Digest::of(b"base")).unwrap();
        let plain = [Bytes::from(TEXT), file(), Bytes::from("{}"), stream()];
        let all = plain.iter().cloned().chain(plain.iter().map(|payload| based(payload)));
        for payload in all {
            let plain = facts(&payload);
            assert_eq!(plain.signature, None);
            let signed = with_signature(&payload, "c2ln").unwrap();
            let forwarded = forward(&signed, &origin(), Timestamp::from_micros(7));
            assert!(Forwarded::read(forwarded.clone()).origin.is_some());
            for payload in [signed, forwarded] {
                let payload = Forwarded::read(payload).payload;
                let SignedFacts { statement, signature } = facts(&payload);
                assert_eq!(
                    (statement, signature.as_deref()),
                    (plain.statement.clone(), Some("c2ln"))
                );
            }
        }
    }

    /// A zlib stream of nothing.
    fn stream() -> Bytes {
        Bytes::from_static(&[0x78, 0x9c, 3, 0, 0, 0, 0, 1])
    }

    #[test]
    fn which_base_model_is_meant_is_read_back_from_every_form() {
        let base = Digest::of(b"base");
        for payload in [Bytes::from(TEXT), file(), stream()] {
            assert_eq!(split_base_digest(payload.clone()), Ok((None, payload.clone())));
            let before = facts(&payload).statement;
            let based = with_base_digest(&payload, base).unwrap();
            assert_ne!(facts(&based).statement, before, "it is signed");
            let signed = with_signature(&based, "c2ln").unwrap();
            let (said, rest) = split_base_digest(signed.clone()).unwrap();
            assert_eq!(said, Some(base));
            assert!(rest == signed || rest == stream(), "a stream ends where it ends");
        }
        let wrong = TEXT.replacen('{', "{\"base_model_sha256\":\"x\",", 1);
        assert!(split_base_digest(wrong.into()).unwrap_err().contains("base_model_sha256"));
        let elsewhere = TEXT.replacen("\"w\"", "\"base_model_sha256\"", 1);
        assert_eq!(split_base_digest(elsewhere.into()).map(|(said, _)| said), Ok(None));
    }

    #[test]
    fn what_stands_behind_a_stream_cannot_be_swapped() {
        let based = with_base_digest(&stream(), Digest::of(b"base")).unwrap();
        let signed = facts(&with_signature(&based, "c2ln").unwrap()).statement;
        let other = with_base_digest(&stream(), Digest::of(b"other")).unwrap();
        assert_ne!(facts(&other).statement, signed);
        assert_ne!(facts(&stream()).statement, signed, "nor left out");
        let longer = [&[0x78, 0x9c, 3, 0, 0, 0, 0, 1, b'x'][..], &based[8..]].concat();
        assert_ne!(facts(&longer).statement, signed);
    }

    #[test]
    fn whatever_is_changed_changes_what_is_signed() {
        let plain = facts(TEXT.as_bytes()).statement;
        for (from, to) in
            [("5", "6"), ("2.5e0", "2.5"), ("_v0", "_v1"), ("\"w\"", "\"v\""), ("}}", "},\"x\":1}")]
        {
            let changed = TEXT.replacen(from, to, 1);
            assert_ne!(facts(changed.as_bytes()).statement, plain, "{changed}");
        }
        let (round, proplet) = (origin().round_id, origin().proplet_id);
        let other = signed_facts(TEXT.as_bytes(), &"r2".parse().unwrap(), &proplet).unwrap();
        assert_ne!(other.statement, plain);
        let other = signed_facts(TEXT.as_bytes(), &round, &"p2".parse().unwrap()).unwrap();
        assert_ne!(other.statement, plain);
        let mut bytes = file().to_vec();
        let last = bytes.len() - 1;
        let before = facts(&bytes).statement;
        bytes[last] ^= 1;
        assert_ne!(facts(&bytes).statement, before);
    }

    #[test]
    fn two_fields_of_a_name_are_not_signed() {
        let twice = TEXT.replacen('{', "{\"num_samples\":500,", 1);
        let (round, proplet) = (origin().round_id, origin().proplet_id);
        let why = signed_facts(twice.as_bytes(), &round, &proplet).unwrap_err();
        assert!(why.contains("num_samples"), "{why}");
        for nonsense in [&b""[..], b"[]", b"{", b"{\"signature\":5}", b"\x01\0\0\0\0\0\0\0"] {
            assert!(signed_facts(nonsense, &round, &proplet).is_err());
        }
    }

    #[test]
    fn a_refusal_is_read_back() {
        let Origin { round_id, proplet_id } = origin();
        let said = signature_refused(&round_id, &proplet_id, "why \"so\"");
        let read = read_signature_refused(&said).unwrap();
        assert_eq!(read, (round_id, proplet_id, "why \"so\"".to_owned()));
        assert_eq!(read_signature_refused(TEXT.as_bytes()), None);
    }
}
