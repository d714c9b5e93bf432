//! Models that are too large for one message, on their way to the model server: it asks for the
//! pieces that it lacks, and gets exactly those.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{Digest, Envelope, Manifest, ModelUri, Topic, message::ModelPublishWants};
use transfer::{Offer, OfferRules};

use crate::{Effect, Rounds, turn::Turn};

/// The models that are being handed over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handing {
    offers: BTreeMap<ModelUri, Offer>,
}

impl Handing {
    pub(crate) fn begin(&mut self, uri: ModelUri, blob: Manifest) {
        self.offers.insert(uri, Offer::new(blob, OfferRules::default()));
    }

    pub(crate) fn end(&mut self, uri: &ModelUri) {
        self.offers.remove(uri);
    }
}

impl Rounds {
    /// The model server lacks some pieces. Wants of something else are none of ours.
    pub(crate) fn wanted_pieces(&mut self, wants: &ModelPublishWants, turn: &mut Turn) {
        let uri = ModelUri { line: wants.line.clone(), version: wants.version };
        let Some(offer) = self.handing.offers.get_mut(&uri) else { return };
        if let Ok(indexes) = offer.wanted(&wants.wants, turn.now) {
            read(&offer.manifest().clone(), indexes, turn);
        }
    }

    /// A piece was read: it goes out, and the next are read.
    pub(crate) fn piece_read(
        &mut self,
        sha256: Digest,
        index: u32,
        result: Result<Bytes, String>,
        turn: &mut Turn,
    ) {
        let mut offers = self.handing.offers.iter_mut();
        let found = offers.find(|(_, offer)| offer.manifest().sha256() == sha256);
        let Some((uri, offer)) = found else { return };
        let next = match result {
            Ok(payload) => {
                let topic = Topic::ModelPublishChunk { uri: uri.clone(), index };
                turn.publish(Envelope { topic, payload });
                offer.sent(index, turn.now)
            }
            // The model server asks again.
            Err(_) => offer.failed(index),
        };
        read(&offer.manifest().clone(), next, turn);
    }
}

fn read(blob: &Manifest, indexes: Vec<u32>, turn: &mut Turn) {
    for index in indexes {
        turn.effect(Effect::ReadChunk { blob: blob.clone(), index });
    }
}
