//! One round: whom it takes, what it has counted, and when it closes.

use std::collections::{BTreeMap, BTreeSet};

use aggregate::{Guard, NormBound};
use bytes::Bytes;
use protocol::{
    Digest, FailReason, Manifest, ModelUri, PropletId, Rejection, RoundId, Timestamp,
    message::{ClipMode, ClipSpec, Contribution, StrategySpec, Update, UpdateOffer},
};

use crate::{
    Base, Job, JobMember, Kept, Made, Rules,
    arrival::{Content, Objection},
    claims,
    leaving::Leaving,
    memory::Memory,
};

/// Most counted updates that are told apart when a round is complete.
const CONTRIBUTIONS_MAX: usize = 1000;

/// A round that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) spec: Spec,
    /// What is known of the base model, once it has been seen.
    pub(crate) base: Option<Base>,
    pub(crate) opened_at: Timestamp,
    pub(crate) deadline: Timestamp,
    pub(crate) closed_at: Option<Timestamp>,
    pub(crate) counted: BTreeMap<PropletId, Counted>,
    /// Participants that will not contribute, and have not.
    pub(crate) absent: BTreeSet<PropletId>,
    pub(crate) rejected: BTreeMap<Rejection, u64>,
    pub(crate) phase: Phase,
}

/// What the round was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spec {
    pub(crate) id: RoundId,
    pub(crate) base: ModelUri,
    pub(crate) members: Members,
    pub(crate) k: usize,
    pub(crate) updates_min: usize,
    /// What its start said; `None` if an update opened it.
    pub(crate) start: Option<Digest>,
    /// How its updates become a model.
    pub(crate) strategy: StrategySpec,
    pub(crate) clip: Option<ClipSpec>,
    pub(crate) share_max: Option<f64>,
}

/// Whose updates count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Members {
    Named(BTreeSet<PropletId>),
    AsTheyCome,
}

/// Where a round stands.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Collecting,
    /// Closed; the set is frozen and being averaged.
    Aggregating,
    /// Averaged; waits until it is known which versions exist. Not kept: it is averaged again.
    Ready(Made, Leaving),
    /// Has its version; waits until the model server shows it.
    Publishing(Publication),
}

/// A model on its way to the model server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) uri: ModelUri,
    /// Of what is shown: of the payload, or of the blob that it names.
    pub(crate) digest: Digest,
    pub(crate) payload: Bytes,
    /// Where the model is a blob, which the model server fetches.
    pub(crate) blob: Option<Manifest>,
}

/// What is known of a counted update.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counted {
    pub(crate) num_samples: u64,
    pub(crate) fingerprint: Digest,
    pub(crate) metrics: BTreeMap<String, f64>,
    /// Gone once the round has its model.
    pub(crate) values: Option<Kept>,
    /// Why the model is not made of it.
    pub(crate) left_out: Option<Rejection>,
}

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

/// How a round leaves [`Phase::Collecting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    Aggregate,
    Fail(FailReason),
}

impl Round {
    pub(crate) fn open(spec: Spec, opened_at: Timestamp, deadline: Timestamp) -> Self {
        Self {
            spec,
            base: None,
            opened_at,
            deadline,
            closed_at: None,
            counted: BTreeMap::new(),
            absent: BTreeSet::new(),
            rejected: BTreeMap::new(),
            phase: Phase::Collecting,
        }
    }

    pub(crate) const fn is_collecting(&self) -> bool {
        matches!(self.phase, Phase::Collecting)
    }

    pub(crate) const fn publication(&self) -> Option<&Publication> {
        match &self.phase {
            Phase::Publishing(publication) => Some(publication),
            Phase::Collecting | Phase::Aggregating | Phase::Ready(..) => None,
        }
    }

    /// What to say to an update of `proplet`, of which `room` bytes may be held.
    pub(crate) fn judge(
        &self,
        proplet: &PropletId,
        content: Result<Content, Objection>,
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
        match content {
            Ok(content) => self.weigh(content, rules, room),
            Err(objection) => Judgement::Reject(objection),
        }
    }

    fn weigh(&self, content: Content, rules: &Rules, room: u64) -> Judgement {
        let reject = |reason, what| Judgement::Reject(Objection { reason, what });
        let base = content.base();
        if *base != self.spec.base {
            let what = format!("based on {base}, the round on {}", self.spec.base);
            return reject(Rejection::StaleBase, what);
        }
        let num_samples = content.num_samples();
        if num_samples == 0 || num_samples > rules.samples_max {
            let what = format!("num_samples takes 1 to {}, not {num_samples}", rules.samples_max);
            return reject(Rejection::NumSamples, what);
        }
        if let Err(objection) = claims::check(&self.spec.strategy, content.metrics()) {
            return Judgement::Reject(objection);
        }
        let Some(base) = &self.base else { return Judgement::TooEarly };
        let fingerprint = content.fingerprint();
        match content {
            Content::Whole(update) => match base.fit(&update) {
                Ok(tensors) => count(update, fingerprint, Kept::of(&tensors), room),
                Err(objection) => Judgement::Reject(objection),
            },
            Content::Offered(offer) => match base.fit_blob(&offer.blob, rules.blob_len_max) {
                Ok(()) => Judgement::Receive(offer, fingerprint),
                Err(objection) => Judgement::Reject(objection),
            },
        }
    }

    /// Whether the round closes now, and how.
    pub(crate) fn closing(&self, now: Timestamp) -> Option<Closing> {
        let counted = self.counted.len();
        let alone = self.spec.members.are_all(counted + self.absent.len());
        let over = now >= self.deadline;
        if !self.is_collecting() || !(counted >= self.spec.k || alone || over) {
            return None;
        }
        if counted >= self.spec.updates_min {
            return Some(Closing::Aggregate);
        }
        Some(Closing::Fail(match (alone, &self.base) {
            (true, _) => FailReason::AllAbsent,
            (false, None) => FailReason::UnknownModel,
            (false, Some(_)) => FailReason::TooFewUpdates,
        }))
    }

    /// The frozen set, for the shell; `None` unless the round is being aggregated.
    pub(crate) fn job(&self, memory: &Memory) -> Option<Job> {
        let (Phase::Aggregating, Some(base)) = (&self.phase, &self.base) else { return None };
        let members = self.counted.iter().map(|(proplet, counted)| {
            let values = counted.values.clone();
            let values = values.expect("a counted update is kept together with its numbers");
            let Counted { num_samples, metrics, .. } = counted;
            let (loss, steps) = (claims::loss(metrics), claims::steps(metrics));
            let (proplet, num_samples) = (proplet.clone(), *num_samples);
            JobMember { proplet, num_samples, loss, steps, values }
        });
        Some(Job {
            round: self.spec.id.clone(),
            base: self.spec.base.clone(),
            schema: base.schema.clone(),
            form: base.form,
            base_values: base.values.clone(),
            strategy: self.spec.strategy.clone(),
            guard: self.spec.guard(),
            state: memory.find(&self.spec.base, &self.spec.strategy).cloned(),
            members: members.collect(),
        })
    }

    /// Blobs that are needed until the round has ended, or has its model.
    pub(crate) fn blobs(&self) -> Vec<Digest> {
        let updates = self.counted.values().filter_map(|counted| counted.values.as_ref()?.stored());
        let base = self.base.as_ref().and_then(|base| base.values.as_ref()?.stored());
        let updates = updates.chain(base).map(|blob| blob.sha256);
        let model = self.publication().and_then(|ours| ours.blob.as_ref()).map(Manifest::sha256);
        updates.chain(model).collect()
    }

    /// Bytes of counted updates that are held.
    pub(crate) fn kept_len(&self) -> u64 {
        self.counted.values().filter_map(|counted| counted.values.as_ref()).map(Kept::len).sum()
    }

    /// The updates that the model is made of.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (&PropletId, &Counted)> {
        self.counted.iter().filter(|(_, counted)| counted.left_out.is_none())
    }

    pub(crate) fn total_samples(&self) -> u64 {
        self.taken().fold(0, |sum, (_, counted)| sum.saturating_add(counted.num_samples))
    }

    /// What each counted update brought, unless that is much.
    pub(crate) fn contributions(&self) -> BTreeMap<PropletId, Contribution> {
        if self.counted.len() > CONTRIBUTIONS_MAX {
            return BTreeMap::new();
        }
        let brought = |counted: &Counted| Contribution {
            num_samples: counted.num_samples,
            metrics: counted.metrics.clone(),
        };
        self.taken().map(|(proplet, counted)| (proplet.clone(), brought(counted))).collect()
    }

    /// Means of the metrics, weighted by samples, over the updates that carry each.
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (_, counted) in self.taken() {
            let weight = counted.num_samples as f64;
            for (name, value) in &counted.metrics {
                let (sum, weights) = sums.entry(name).or_default();
                *sum += weight * value;
                *weights += weight;
            }
        }
        let means = sums.into_iter().map(|(name, (sum, weights))| (name.to_owned(), sum / weights));
        means.filter(|(_, mean)| mean.is_finite()).collect()
    }
}

impl Spec {
    fn guard(&self) -> Guard {
        let norm = match self.clip {
            None => NormBound::Off,
            Some(ClipSpec { norm, mode: ClipMode::Clip }) => NormBound::Clip { norm_max: norm },
            Some(ClipSpec { norm, mode: ClipMode::Reject }) => NormBound::Reject { norm_max: norm },
        };
        Guard { norm, share_max: self.share_max }
    }
}

impl Members {
    fn admit(&self, proplet: &PropletId) -> bool {
        match self {
            Self::Named(names) => names.contains(proplet),
            Self::AsTheyCome => true,
        }
    }

    /// Whether `count` different members are all there can be.
    fn are_all(&self, count: usize) -> bool {
        match self {
            Self::Named(names) => names.len() <= count,
            Self::AsTheyCome => false,
        }
    }

    /// How many there are, where that is fixed.
    pub(crate) fn count(&self) -> Option<usize> {
        match self {
            Self::Named(names) => Some(names.len()),
            Self::AsTheyCome => None,
        }
    }

    /// Whether `proplet` is waited for by name.
    pub(crate) fn name(&self, proplet: &PropletId) -> bool {
        match self {
            Self::Named(names) => names.contains(proplet),
            Self::AsTheyCome => false,
        }
    }
}

fn count(update: Update, fingerprint: Digest, values: Kept, room: u64) -> Judgement {
    if values.len() > room {
        return Judgement::NoRoom;
    }
    let Update { num_samples, metrics, .. } = update;
    let values = Some(values);
    Judgement::Count(Counted { num_samples, fingerprint, metrics, values, left_out: None })
}

fn closed() -> Judgement {
    Judgement::Reject(Objection::new(Rejection::RoundClosed, "the round has closed"))
}
