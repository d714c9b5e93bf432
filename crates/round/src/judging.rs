//! What a round says to an update: whether it counts, and why not.

use std::collections::BTreeMap;

use protocol::{
    Digest, ModelUri, PropletId, Rejection,
    message::{Purpose, Update, UpdateOffer},
};

use crate::{
    Base, Kept, Rules,
    arrival::{Content, Objection},
    base::fit_blob,
    claims,
    decoding::Encoded,
    round::{Counted, Round},
};

/// What to say to an update.
#[derive(Debug)]
pub(crate) enum Judgement {
    Count(Counted),
    /// Everything that can be known of it before it is here is right: let it come.
    Receive(UpdateOffer, Digest),
    /// It has been counted before; say so again.
    Repeated,
    Reject(Objection),
    /// The base model has not arrived: nothing can be said yet.
    TooEarly,
    /// More than may be held: nothing is said, it will come again.
    NoRoom,
}

impl Round {
    /// What to say to an update of `proplet`, of which `room` bytes may be held.
    pub(crate) fn judge(
        &self,
        proplet: &PropletId,
        (content, base): (Result<Content, Objection>, Option<Digest>),
        rules: &Rules,
        room: u64,
    ) -> Judgement {
        if !self.spec.members.admit(proplet) {
            let what = format!("{proplet} is not a participant");
            let stranger = Judgement::Reject(Objection::new(Rejection::Stranger, what));
            return if self.is_collecting() { stranger } else { closed() };
        }
        let fingerprint = content.as_ref().ok().map(Content::fingerprint);
        match self.counted.get(proplet) {
            Some(before) if Some(before.fingerprint) == fingerprint => return Judgement::Repeated,
            Some(_) if self.is_collecting() => {
                let what = "another update of this proplet was counted";
                return Judgement::Reject(Objection::new(Rejection::Duplicate, what));
            }
            Some(_) | None if !self.is_collecting() => return closed(),
            Some(_) | None => {}
        }
        match content.and_then(|content| self.check_base(base).map(|()| content)) {
            Ok(content) => {
                let fingerprint = fingerprint.expect("what was opened has a fingerprint");
                let weighed = self.weigh((proplet, content), fingerprint, rules, room);
                weighed.unwrap_or_else(Judgement::Reject)
            }
            Err(objection) => Judgement::Reject(objection),
        }
    }

    /// What to say to an update, in itself.
    pub(crate) fn weigh(
        &self,
        (proplet, content): (&PropletId, Content),
        fingerprint: Digest,
        rules: &Rules,
        room: u64,
    ) -> Result<Judgement, Objection> {
        if self.spec.purpose == Purpose::Evaluate {
            return self.weigh_evaluation(content, fingerprint, rules);
        }
        match content {
            Content::Whole(update) => self.weigh_whole(update, fingerprint, rules, room),
            Content::Encoded(encoded) => {
                self.weigh_encoded((proplet, &encoded), fingerprint, rules, room)
            }
            Content::Offered(offer) => self.weigh_offer(offer, fingerprint, rules),
        }
    }

    fn weigh_whole(
        &self,
        update: Update,
        fingerprint: Digest,
        rules: &Rules,
        room: u64,
    ) -> Result<Judgement, Objection> {
        self.check((&update.base_model_uri, update.num_samples), &update.metrics, rules)?;
        if let Some(asked) = &self.spec.encoding {
            let what = format!("the round asks for encoding {asked}, the update is in none");
            return Err(Objection::new(Rejection::Malformed, what));
        }
        let Some(base) = &self.base else { return Ok(Judgement::TooEarly) };
        let tensors = Base::fit(&update, &self.spec.update_schema(&base.schema))?;
        Ok(count(update, fingerprint, Kept::of(&tensors), room))
    }

    fn weigh_encoded(
        &self,
        (proplet, encoded): (&PropletId, &Encoded),
        fingerprint: Digest,
        rules: &Rules,
        room: u64,
    ) -> Result<Judgement, Objection> {
        let Some(base) = &self.base else { return Ok(Judgement::TooEarly) };
        let asked = self.spec.encoding.as_ref();
        let update = encoded.decode(asked, (base, proplet), rules.update_len_max)?;
        if update.round_id != self.spec.id {
            let (named, own) = (&update.round_id, &self.spec.id);
            let what = format!("the payload names round {named}, but it came in {own}");
            return Err(Objection::new(Rejection::SenderMismatch, what));
        }
        self.check((&update.base_model_uri, update.num_samples), &update.metrics, rules)?;
        let values = Kept::of(&update.update);
        Ok(count(update, fingerprint, values, room))
    }

    fn weigh_offer(
        &self,
        offer: UpdateOffer,
        fingerprint: Digest,
        rules: &Rules,
    ) -> Result<Judgement, Objection> {
        self.check((&offer.base_model_uri, offer.num_samples), &offer.metrics, rules)?;
        let Some(base) = &self.base else { return Ok(Judgement::TooEarly) };
        let schema = self.spec.update_schema(&base.schema);
        fit_blob(&offer.blob, &schema, self.spec.encoding.as_ref(), rules.blob_len_max)?;
        Ok(Judgement::Receive(offer, fingerprint))
    }

    /// An evaluation has metrics, and no tensors that could be counted.
    fn weigh_evaluation(
        &self,
        content: Content,
        fingerprint: Digest,
        rules: &Rules,
    ) -> Result<Judgement, Objection> {
        let reject = |reason, what: String| Err(Objection { reason, what });
        let update = match content {
            Content::Whole(update) => update,
            Content::Encoded(_) => {
                let what = "an encoded update, an evaluation has nothing to encode".to_owned();
                return reject(Rejection::Malformed, what);
            }
            Content::Offered(offer) => {
                self.check((&offer.base_model_uri, offer.num_samples), &offer.metrics, rules)?;
                let bytes = offer.blob.bytes();
                let what = format!("{bytes} bytes of tensors, an evaluation has none");
                return reject(Rejection::Shape, what);
            }
        };
        self.check((&update.base_model_uri, update.num_samples), &update.metrics, rules)?;
        let tensors = update.update.iter().count();
        if tensors > 0 {
            return reject(Rejection::Shape, format!("{tensors} tensors, an evaluation has none"));
        }
        if update.metrics.is_empty() {
            let what = "an evaluation without a metric that is a finite number".to_owned();
            return reject(Rejection::Malformed, what);
        }
        let Update { num_samples, metrics, .. } = update;
        Ok(Judgement::Count(Counted {
            num_samples,
            fingerprint,
            metrics,
            values: None,
            left_out: None,
            made_for: None,
        }))
    }

    /// Whether an update that says which bytes it calls its base model means ours.
    pub(crate) fn check_base(&self, said: Option<Digest>) -> Result<(), Objection> {
        let ours = self.base.as_ref().and_then(|base| base.sha256);
        match (said, ours) {
            (Some(said), Some(ours)) if said != ours => {
                let base = &self.spec.base;
                let what = format!("{base} is {ours} here, and {said} to its sender");
                Err(Objection::new(Rejection::StaleBase, what))
            }
            (_, _) => Ok(()),
        }
    }

    /// What an update says of itself, its numbers aside.
    fn check(
        &self,
        (base, num_samples): (&ModelUri, u64),
        metrics: &BTreeMap<String, f64>,
        rules: &Rules,
    ) -> Result<(), Objection> {
        if *base != self.spec.base {
            let what = format!("based on {base}, the round on {}", self.spec.base);
            return Err(Objection::new(Rejection::StaleBase, what));
        }
        if num_samples == 0 || num_samples > rules.samples_max {
            let what = format!("num_samples takes 1 to {}, not {num_samples}", rules.samples_max);
            return Err(Objection::new(Rejection::NumSamples, what));
        }
        match self.spec.purpose {
            Purpose::Train => claims::check(&self.spec.strategy, metrics),
            Purpose::Evaluate => Ok(()),
        }
    }
}

fn count(update: Update, fingerprint: Digest, values: Kept, room: u64) -> Judgement {
    if values.len() > room {
        return Judgement::NoRoom;
    }
    let Update { num_samples, metrics, .. } = update;
    let values = Some(values);
    let (left_out, made_for) = (None, None);
    Judgement::Count(Counted { num_samples, fingerprint, metrics, values, left_out, made_for })
}

fn closed() -> Judgement {
    Judgement::Reject(Objection::new(Rejection::RoundClosed, "the round has closed"))
}
