//! Opening a forwarded update: who speaks of which round, and what they say.

use bytes::Bytes;
use protocol::{
    Digest, ModelUri, PropletId, Rejection, RoundId,
    message::{
        FORWARD_TAIL_LEN_MAX, Forwarded, Origin, Update, UpdateError, UpdateOffer, is_blob_form,
        read_signature_refused, read_update_address, read_update_offer,
    },
};

use crate::PAYLOAD_LEN_MAX;

/// A forwarded payload, opened.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// Not worth holding against any round.
    Refused(Refusal),
    /// An update, or something wrong with it that only matters if it would count otherwise.
    Addressed { round: RoundId, proplet: PropletId, content: Result<Content, Objection> },
}

/// What a proplet learned, or where to get it.
#[derive(Debug)]
pub(crate) enum Content {
    Whole(Update),
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
    fn address(&self) -> (&RoundId, &PropletId) {
        match self {
            Self::Whole(update) => (&update.round_id, &update.proplet_id),
            Self::Offered(offer) => (&offer.round_id, &offer.proplet_id),
        }
    }

    pub(crate) const fn base(&self) -> &ModelUri {
        match self {
            Self::Whole(update) => &update.base_model_uri,
            Self::Offered(offer) => &offer.base_model_uri,
        }
    }

    pub(crate) const fn num_samples(&self) -> u64 {
        match self {
            Self::Whole(update) => update.num_samples,
            Self::Offered(offer) => offer.num_samples,
        }
    }

    /// Equal for what is said again.
    pub(crate) fn fingerprint(&self) -> Digest {
        match self {
            Self::Whole(update) => update.fingerprint(),
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
        let content = Err(Objection::new(Rejection::Signature, what));
        return Arrival::Addressed { round, proplet, content };
    }
    let sender = origin.as_ref().map(|origin| &origin.proplet_id);
    let content = if is_blob_form(&payload) {
        read_update_offer(&payload, sender).map(Content::Offered)
    } else {
        Update::read(&payload, sender).map(Content::Whole)
    };
    match content {
        Ok(content) => {
            let (round, proplet) = content.address();
            let (round, proplet) = (round.clone(), proplet.clone());
            match mismatch(origin, &round) {
                Some(refusal) => Arrival::Refused(refusal),
                None => Arrival::Addressed { round, proplet, content: Ok(content) },
            }
        }
        Err(why) => faulty(origin, why),
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
                None => Arrival::Addressed { round, proplet, content: Err(objection) },
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
