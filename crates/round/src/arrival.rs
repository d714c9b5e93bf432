//! Opening a forwarded update: who speaks of which round, and what they say.

use bytes::Bytes;
use protocol::{
    Digest, ModelUri, PropletId, Rejection, RoundId,
    message::{
        FORWARD_TAIL_LEN_MAX, Forwarded, Origin, Update, UpdateError, UpdateOffer, is_blob_form,
        read_signature_refused, read_update_address, read_update_offer, split_base_digest,
    },
};

use crate::{
    PAYLOAD_LEN_MAX,
    decoding::{Address, Encoded},
};

/// A forwarded payload, opened.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// Not worth holding against any round.
    Refused(Refusal),
    /// An update, or something wrong with it that only matters if it would count otherwise.
    Addressed(Box<Addressed>),
}

/// What is held against its round.
#[derive(Debug)]
pub(crate) struct Addressed {
    pub(crate) round: RoundId,
    pub(crate) proplet: PropletId,
    pub(crate) content: Result<Content, Objection>,
    /// Which bytes it calls its base model, if it says so.
    pub(crate) base: Option<Digest>,
}

/// What a proplet learned, or where to get it.
#[derive(Debug)]
pub(crate) enum Content {
    Whole(Update),
    /// As its round's encoding has it.
    Encoded(Encoded),
    /// Its tensors come in pieces.
    Offered(UpdateOffer),
}

/// A rejection with as much of the address as is known; without all of it nobody is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) round: Option<RoundId>,
    pub(crate) proplet: Option<PropletId>,
    pub(crate) objection: Objection,
}

/// Why not, as a word and in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    pub reason: Rejection,
    pub what: String,
}

impl Objection {
    pub fn new(reason: Rejection, what: impl Into<String>) -> Self {
        Self { reason, what: what.into() }
    }
}

impl Content {
    /// Which model it starts from, where that can be read without the round.
    pub(crate) const fn base(&self) -> Option<&ModelUri> {
        match self {
            Self::Whole(update) => Some(&update.base_model_uri),
            Self::Encoded(_) => None,
            Self::Offered(offer) => Some(&offer.base_model_uri),
        }
    }

    /// Equal for what is said again.
    pub(crate) fn fingerprint(&self) -> Digest {
        match self {
            Self::Whole(update) => update.fingerprint(),
            Self::Encoded(encoded) => encoded.fingerprint(),
            Self::Offered(offer) => offer.fingerprint(),
        }
    }
}

/// Opens `payload`. One of more than `len_max` bytes, what forwarding added aside, is not opened
/// further than its address.
pub(crate) fn read(payload: Bytes, len_max: usize) -> Arrival {
    let len = payload.len();
    let Forwarded { origin, payload } = Forwarded::read(payload);
    if len > len_max.saturating_add(FORWARD_TAIL_LEN_MAX) {
        return too_large(&payload, origin, len_max);
    }
    if let Some((round, proplet, what)) = read_signature_refused(&payload) {
        // Whoever forges decides nothing, whatever has become of the sender's own update.
        let objection = Objection::new(Rejection::Signature, what);
        let (round, proplet) = (Some(round), Some(proplet));
        return Arrival::Refused(Refusal { round, proplet, objection });
    }
    let (base, payload) = match split_base_digest(payload.clone()) {
        Ok(split) => split,
        Err(what) => return objected(&payload, origin, what),
    };
    match open(&payload, origin) {
        Arrival::Addressed(addressed) => {
            Arrival::Addressed(Box::new(Addressed { base, ..*addressed }))
        }
        refused @ Arrival::Refused(_) => refused,
    }
}

impl Arrival {
    fn about(round: RoundId, proplet: PropletId, content: Result<Content, Objection>) -> Self {
        Self::Addressed(Box::new(Addressed { round, proplet, content, base: None }))
    }
}

/// A payload of which as much as its address can be used.
fn objected(payload: &Bytes, origin: Option<Origin>, what: String) -> Arrival {
    let objection = Objection::new(Rejection::Malformed, what);
    let (round, proplet) = match origin {
        Some(origin) => (Some(origin.round_id), Some(origin.proplet_id)),
        None => read_update_address(payload),
    };
    match (round, proplet) {
        (Some(round), Some(proplet)) => Arrival::about(round, proplet, Err(objection)),
        (round, proplet) => Arrival::Refused(Refusal { round, proplet, objection }),
    }
}

fn open(payload: &Bytes, origin: Option<Origin>) -> Arrival {
    if let Some((encoded, said)) = Encoded::of(payload) {
        return addressed(encoded, said, origin);
    }
    let sender = origin.as_ref().map(|origin| &origin.proplet_id);
    let content = if is_blob_form(payload) {
        read_update_offer(payload, sender).map(|offer| {
            let address = (offer.round_id.clone(), offer.proplet_id.clone());
            (address, Content::Offered(offer))
        })
    } else {
        Update::read(payload, sender).map(|update| {
            let address = (update.round_id.clone(), update.proplet_id.clone());
            (address, Content::Whole(update))
        })
    };
    match content {
        Ok(((round, proplet), content)) => match mismatch(origin, &round) {
            Some(refusal) => Arrival::Refused(refusal),
            None => Arrival::about(round, proplet, Ok(content)),
        },
        Err(why) => faulty(origin, why),
    }
}

/// An update that cannot be read yet belongs to where it came from; what it says of itself is held
/// against that once it is read.
fn addressed(encoded: Encoded, said: Address, origin: Option<Origin>) -> Arrival {
    let (round, proplet) = match origin {
        Some(Origin { round_id, proplet_id }) => (Some(round_id), Some(proplet_id)),
        None => said,
    };
    match (round, proplet) {
        (Some(round), Some(proplet)) => {
            Arrival::about(round, proplet, Ok(Content::Encoded(encoded)))
        }
        (round, proplet) => {
            let objection = Objection::new(Rejection::Malformed, "it does not say who sent it");
            Arrival::Refused(Refusal { round, proplet, objection })
        }
    }
}

fn too_large(payload: &Bytes, origin: Option<Origin>, len_max: usize) -> Arrival {
    let len = payload.len();
    let (round, proplet) = match origin {
        Some(origin) => (Some(origin.round_id), Some(origin.proplet_id)),
        None if len <= PAYLOAD_LEN_MAX => read_update_address(payload),
        None => (None, None),
    };
    let what = format!("{len} bytes, at most {len_max} are taken");
    let objection = Objection::new(Rejection::TooLarge, what);
    Arrival::Refused(Refusal { round, proplet, objection })
}

fn faulty(origin: Option<Origin>, why: UpdateError) -> Arrival {
    let UpdateError { reason, what, round_id, proplet_id } = why;
    let objection = Objection { reason, what };
    match (round_id, proplet_id) {
        (Some(round), Some(proplet)) if reason != Rejection::SenderMismatch => {
            match mismatch(origin, &round) {
                Some(refusal) => Arrival::Refused(refusal),
                None => Arrival::about(round, proplet, Err(objection)),
            }
        }
        (round, proplet) => {
            let (round, proplet) = match origin {
                Some(origin) => (Some(origin.round_id), Some(origin.proplet_id)),
                None => (round, proplet),
            };
            Arrival::Refused(Refusal { round, proplet, objection })
        }
    }
}

/// The verdict on a payload that names another round than its topic goes to where it came from.
fn mismatch(origin: Option<Origin>, round: &RoundId) -> Option<Refusal> {
    let origin = origin.filter(|origin| origin.round_id != *round)?;
    let what = format!("the payload names round {round}, but it came in {}", origin.round_id);
    Some(Refusal {
        round: Some(origin.round_id),
        proplet: Some(origin.proplet_id),
        objection: Objection::new(Rejection::SenderMismatch, what),
    })
}
