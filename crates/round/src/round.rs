//! One round: whom it takes, what it has counted, and when it closes.

use std::collections::{BTreeMap, BTreeSet};

use aggregate::{Guard, NormBound};
use bytes::Bytes;
use encoding::Encoding;
use protocol::{
    Digest, FailReason, Manifest, ModelUri, PropletId, Rejection, RoundId, SessionId, Timestamp,
    message::{ClipMode, ClipSpec, Contribution, Purpose, Quantiles, StrategySpec},
};
use serde::{Deserialize, Serialize};

use crate::{
    Base, Job, JobMember, Kept, Made, claims, leaving::Leaving, lingering::Lingering,
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
    pub(crate) purpose: Purpose,
    /// What its tasks run, where what is kept on the devices goes by that; the built-in program has
    /// none.
    pub(crate) workload: Option<Digest>,
    /// How updates are written, where its start says; as they are otherwise.
    pub(crate) encoding: Option<Encoding>,
    /// The session that asked for it, if one did.
    pub(crate) session: Option<SessionId>,
    /// The rounds that it takes late updates of, and that may take those of its own.
    pub(crate) stream: Option<Stream>,
}

/// One round after the other of an asynchronous session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) session: SessionId,
    /// Versions that an update may be behind.
    pub(crate) staleness_max: u64,
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
    /// It has ended; some of its participants are at work, for the rounds after it.
    Lingering,
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
    /// Which round it was made for, where that is an earlier one.
    pub(crate) made_for: Option<MadeFor>,
}

/// Where a late update comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MadeFor {
    pub(crate) round: RoundId,
    pub(crate) base: ModelUri,
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
            Phase::Collecting | Phase::Aggregating | Phase::Ready(..) | Phase::Lingering => None,
        }
    }

    /// Participants that may still contribute.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &PropletId> {
        let settled = |it: &PropletId| self.counted.contains_key(it) || self.absent.contains(it);
        let names = match &self.spec.members {
            Members::Named(names) => Some(names),
            Members::AsTheyCome => None,
        };
        names.into_iter().flatten().filter(move |proplet| !settled(proplet))
    }

    /// Versions that the round is ahead of an update on `base`; `None` if it is not of its line.
    pub(crate) fn staleness(&self, base: &ModelUri) -> Option<u64> {
        let own = &self.spec.base;
        (own.line == base.line).then(|| own.version.0.saturating_sub(base.version.0))
    }

    /// Whether each of its own participants has contributed or will not.
    pub(crate) fn has_heard_all(&self) -> bool {
        self.spec.members.are_all(self.counted.len() + self.absent.len())
    }

    /// Whether the round closes now, and how; `alone` if nobody is left who could contribute.
    pub(crate) fn closing(&self, now: Timestamp, alone: bool) -> Option<Closing> {
        let counted = self.counted.len();
        let over = now >= self.deadline;
        if !self.is_collecting() || !(counted >= self.spec.k || alone || over) {
            return None;
        }
        if counted >= self.spec.updates_min {
            return Some(Closing::Aggregate);
        }
        Some(Closing::Fail(match (alone, &self.base) {
            (true, _) => FailReason::AllAbsent,
            (false, None) if self.lacks_base() => FailReason::UnknownModel,
            (false, None | Some(_)) => FailReason::TooFewUpdates,
        }))
    }

    /// Whether it cannot judge updates before it has seen its base model.
    pub(crate) const fn lacks_base(&self) -> bool {
        self.is_collecting() && self.base.is_none() && self.spec.purpose.is_train()
    }

    /// The frozen set, for the shell; `None` unless the round is being aggregated.
    pub(crate) fn job(&self, memory: &Memory, lingering: &Lingering) -> Option<Job> {
        let (Phase::Aggregating, Some(base)) = (&self.phase, &self.base) else { return None };
        let members = self.counted.iter().map(|(proplet, counted)| {
            let values = counted.values.clone();
            let values = values.expect("a counted update is kept together with its numbers");
            let Counted { num_samples, metrics, .. } = counted;
            let (loss, steps) = (claims::loss(metrics), claims::steps(metrics));
            let (proplet, num_samples) = (proplet.clone(), *num_samples);
            let made_for = counted.made_for.as_ref();
            let staleness = made_for.and_then(|it| self.staleness(&it.base)).unwrap_or_default();
            let base_values = made_for.and_then(|it| lingering.base_values(&it.round));
            JobMember { proplet, num_samples, loss, steps, values, staleness, base_values }
        });
        Some(Job {
            round: self.spec.id.clone(),
            base: self.spec.base.clone(),
            schema: base.schema.clone(),
            form: base.form,
            base_values: base.values.clone(),
            strategy: self.spec.strategy.clone(),
            guard: self.spec.guard(),
            state: memory.find(&self.spec).cloned(),
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

    /// How each metric is spread over the counted updates that carry it, each counted once.
    pub(crate) fn quantiles(&self) -> BTreeMap<String, Quantiles> {
        let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, value) in self.counted.values().flat_map(|counted| &counted.metrics) {
            values.entry(name).or_default().push(*value);
        }
        let spread = |(name, values): (&str, _)| Some((name.to_owned(), Quantiles::of(values)?));
        values.into_iter().filter_map(spread).collect()
    }
}

impl Spec {
    /// Why a round like this cannot begin from `base`.
    pub(crate) fn check(&self, base: &Base, variate_len_max: usize) -> Result<(), String> {
        if let Some(encoding) = &self.encoding {
            let unfit = |why| format!("encoding {:?}: {why}", encoding.to_string());
            encoding.check(&base.schema).map_err(unfit)?;
        }
        self.check_control(base, variate_len_max)
    }

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
    pub(crate) fn admit(&self, proplet: &PropletId) -> bool {
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
