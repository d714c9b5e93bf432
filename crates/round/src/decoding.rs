//! Encoded updates: what they say, once their round's encoding is undone. Nothing that comes after
//! knows of encodings.

use std::io::Read as _;

use bytes::Bytes;
use encoding::{DecodeError, Encoding, Inflate, Reader};
use protocol::{
    Digest, PropletId, Rejection, RoundId, Tensors,
    message::{Update, UpdateError, is_zlib, read_update_address, read_update_encoding},
    tensor::safetensors::{Header, Metadata},
};

use crate::{Base, Objection};

/// Longest name of an encoding that is repeated to whoever sent it, in characters.
const SHOWN_MAX: usize = 80;

/// As a payload says it, where it can be read.
pub(crate) type Address = (Option<RoundId>, Option<PropletId>);

/// An update that only its round can read.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    payload: Bytes,
    /// Equal for an update that is said again.
    fingerprint: Digest,
}

impl Encoded {
    /// Takes a payload that is compressed, or says that it is encoded; with its address as it says
    /// it itself, where that can be read.
    pub(crate) fn of(payload: &Bytes) -> Option<(Self, Address)> {
        let is_stream = is_zlib(payload);
        if !is_stream {
            read_update_encoding(payload)?;
        }
        let (address, data_start) = if is_stream {
            ((None, None), 0)
        } else {
            // Forwarding writes the header anew, so the same update may come with another.
            let header = Header::read(payload, payload.len() as u64).ok();
            (read_update_address(payload), header.map_or(0, |header| header.data_start()))
        };
        let fingerprint = Digest::of_parts([b"encoded", &payload[data_start..]]);
        Some((Self { payload: payload.clone(), fingerprint }, address))
    }

    pub(crate) const fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The update of `sender`, in a round that asks for this encoding; at most `len_max` bytes of
    /// numbers.
    pub(crate) fn decode(
        &self,
        asked: Option<&Encoding>,
        (base, sender): (&Base, &PropletId),
        len_max: usize,
    ) -> Result<Update, Objection> {
        let Some(asked) = asked else {
            let found = read_update_encoding(&self.payload);
            let shown = found.map(|found| found.chars().take(SHOWN_MAX).collect::<String>());
            let what = format!("the round asks for no encoding, the update is in {shown:?}");
            return Err(Objection::new(Rejection::Malformed, what));
        };
        let len = base.schema.byte_len();
        if len > len_max {
            let what = format!("it stands for {len} bytes, at most {len_max} are taken like this");
            return Err(Objection::new(Rejection::TooLarge, what));
        }
        let (metadata, tensors) =
            open(asked, base, &self.payload).map_err(|why| objection(&why))?;
        let said = Update::read_metadata(&metadata, Some(sender));
        let said = said.map_err(|UpdateError { reason, what, .. }| Objection { reason, what })?;
        Ok(Update { update: tensors, ..said })
    }
}

fn open(
    encoding: &Encoding,
    base: &Base,
    payload: &Bytes,
) -> Result<(Metadata, Tensors), DecodeError> {
    let file = if encoding.is_compressed() {
        let mut inflate = Inflate::new(&payload[..], encoding.file_bytes_max(&base.schema));
        let mut file = vec![];
        inflate.read_to_end(&mut file)?;
        if !inflate.finish()?.is_empty() {
            return Err(DecodeError::Zlib("something stands behind its end"));
        }
        file.into()
    } else {
        payload.clone()
    };
    let len = file.len() as u64;
    let reader = Reader::open(encoding, &base.schema, file, len)?;
    let tensors = reader.decode(&base.tensors())?;
    Ok((reader.metadata().clone(), tensors))
}

/// What to say of an update that cannot be decoded.
pub fn objection(why: &DecodeError) -> Objection {
    Objection::new(why.reason().unwrap_or(Rejection::Malformed), why.to_string())
}

impl Base {
    /// Its tensors, if they are in memory; none where only their kinds are known.
    fn tensors(&self) -> Tensors {
        let values = self.values.as_ref().and_then(|values| values.tensors(&self.schema));
        values.and_then(Result::ok).unwrap_or_default()
    }
}
