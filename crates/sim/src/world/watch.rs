//! What is seen at the broker: the rounds' ends, the models, and the verdicts.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Digest, ModelVersion, PropletId, RoundId, Topic,
    message::{Model, RoundComplete, RoundFailed, UpdateAck, Verdict},
};

use super::{Judge, World};
use crate::{
    Evidence, RoundEnd, RoundEvidence, RoundOutcome, RoundSummary, Summary,
    broker::{Address, Message},
    role::{Operator, Role},
    world::build::{MODEL_SERVER, OPERATOR},
};

/// Looks over the broker's shoulder.
pub(super) struct Watcher {
    judge: Option<Box<dyn Judge>>,
    summary: Summary,
    evidence: Evidence,
    seen: BTreeSet<ModelVersion>,
    /// Whether it is written down whose update was accepted.
    gathers: Gathers,
}

/// How much is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gathers {
    Rounds,
    Members,
}

impl Watcher {
    pub(super) fn new(judge: Option<Box<dyn Judge>>) -> Self {
        Self {
            judge,
            summary: Summary::default(),
            evidence: Evidence::default(),
            seen: BTreeSet::new(),
            gathers: Gathers::Rounds,
        }
    }

    pub(super) const fn gather(&mut self) {
        self.gathers = Gathers::Members;
    }

    /// A message has reached the broker.
    pub(super) fn watch(&mut self, message: &Message, now_us: u64) {
        let Address::Ours(topic) = &message.address else { return };
        match topic {
            Topic::RoundAck { round, .. }
                if self.gathers == Gathers::Rounds && is_accepted(round, &message.payload) => {}
            Topic::RoundAck { round, proplet } => {
                if let Ok(ack) = UpdateAck::read(proplet.clone(), &message.payload) {
                    self.judged(round, proplet, ack.verdict, now_us);
                }
            }
            Topic::RoundComplete { round } => {
                if let Ok(complete) = serde_json::from_slice(&message.payload) {
                    self.completed(round, complete, now_us);
                }
            }
            Topic::RoundFailed { round } => {
                if let Ok(failed) = serde_json::from_slice::<RoundFailed>(&message.payload) {
                    let round = self.evidence.rounds.entry(round.clone()).or_default();
                    round.failures.push(failed);
                }
            }
            Topic::Model { uri } => self.model(uri.version, message, now_us),
            Topic::RoundStart
            | Topic::RoundOpened { .. }
            | Topic::RoundUpdate { .. }
            | Topic::RoundAbsent { .. }
            | Topic::RoundVariate { .. }
            | Topic::ForwardedUpdate
            | Topic::ModelPublish { .. }
            | Topic::ModelLatest { .. }
            | Topic::PropletCreate
            | Topic::PropletAlive
            | Topic::PropletMetrics
            | Topic::TaskMetrics
            | Topic::TaskResults
            | Topic::TaskStart
            | Topic::TaskStop
            | Topic::DirectStart { .. }
            | Topic::DirectStop { .. }
            | Topic::UpdateWants { .. }
            | Topic::UpdateChunk { .. }
            | Topic::ModelPublishWants { .. }
            | Topic::ModelPublishChunk { .. }
            | Topic::ModelWants { .. }
            | Topic::ModelChunk { .. }
            | Topic::ModuleWants
            | Topic::ModuleChunk { .. }
            | Topic::SessionStart
            | Topic::SessionCommand { .. }
            | Topic::SessionStatus { .. } => {}
        }
    }

    fn judged(&mut self, round: &RoundId, proplet: &PropletId, verdict: Verdict, now_us: u64) {
        match (verdict, self.gathers) {
            (Verdict::Accepted, Gathers::Rounds) => {}
            (Verdict::Accepted, Gathers::Members) => {
                let round = self.evidence.rounds.entry(round.clone()).or_default();
                round.accepted.insert(proplet.clone());
            }
            (Verdict::Rejected(reason), Gathers::Rounds | Gathers::Members) => {
                self.summary.count(&format!("rejected_{reason}"), now_us);
            }
        }
    }

    /// A node outside has sent an event of this kind.
    pub(super) fn spoken(&mut self, kind: &str, time_us: u64) {
        self.summary.count(&format!("events_{kind}"), time_us);
    }

    fn completed(&mut self, round: &RoundId, mut complete: RoundComplete, now_us: u64) {
        let known = self.evidence.rounds.entry(round.clone()).or_default();
        if known.completions.is_empty() {
            for (name, value) in &complete.metrics {
                self.summary.sample(name, now_us, *value);
            }
            self.summary.sample("updates", now_us, complete.num_updates as f64);
            self.summary.sample("round_s", now_us, complete.duration_ms as f64 / 1e3);
        }
        if self.gathers == Gathers::Rounds {
            complete.participants = vec![];
        }
        known.completions.push(complete);
    }

    fn model(&mut self, version: ModelVersion, message: &Message, now_us: u64) {
        let digest = Digest::of(&message.payload);
        self.evidence.published.entry(version).or_default().insert(digest);
        if !self.seen.insert(version) {
            return;
        }
        self.summary.sample("version", now_us, version.0 as f64);
        let Some(judge) = &mut self.judge else { return };
        let Ok(model) = serde_json::from_slice::<Model>(&message.payload) else { return };
        for (name, value) in judge.judge(&model) {
            self.summary.sample(&name, now_us, value);
        }
    }

    pub(super) fn summary(&self, world: &World) -> Summary {
        let mut summary = self.summary.clone();
        let Role::ModelServer { library, .. } = &world.nodes[MODEL_SERVER].role else {
            return summary;
        };
        summary.models = library.models();
        summary.versions =
            summary.models.iter().map(|(version, bytes)| (*version, Digest::of(bytes))).collect();
        let since = |at: protocol::Timestamp| at.as_micros().saturating_sub(world.epoch_us);
        let logged = world.operator().into_iter().flat_map(|it| &it.log);
        summary.rounds = logged
            .map(|logged| RoundSummary {
                round: logged.round.clone(),
                participants: logged.participants,
                asked_us: since(logged.asked),
                opened_us: logged.opened.map(since),
                end: logged.end.as_ref().map(|(at, end)| RoundEnd {
                    heard_us: since(*at),
                    outcome: end.outcome(),
                    num_updates: end.num_updates(),
                }),
            })
            .collect();
        let ended = summary.rounds.iter().filter_map(|it| it.end.as_ref().map(|end| end.heard_us));
        for (count, at) in (1..).zip(ended.collect::<Vec<_>>()) {
            summary.sample("rounds", at, f64::from(count));
        }
        summary
    }

    pub(super) fn evidence(&self, world: &World) -> Evidence {
        let mut evidence = self.evidence.clone();
        if let Role::ModelServer { library, .. } = &world.nodes[MODEL_SERVER].role {
            evidence.models = library.models();
        }
        for logged in world.operator().into_iter().flat_map(|it| &it.log) {
            let round: &mut RoundEvidence =
                evidence.rounds.entry(logged.round.clone()).or_default();
            round.asked = true;
            if logged.end.is_none() {
                evidence.unheard.insert(logged.round.clone());
            }
        }
        evidence.members = BTreeMap::new();
        evidence
    }
}

/// Whether a verdict is the coordinator's usual word, without reading all of it.
fn is_accepted(round: &RoundId, payload: &[u8]) -> bool {
    let rest = payload.strip_prefix(b"{\"round_id\":\"");
    let rest = rest.and_then(|rest| rest.strip_prefix(round.as_str().as_bytes()));
    rest == Some(b"\",\"verdict\":\"accepted\"}")
}

impl World {
    pub(super) fn operator(&self) -> Option<&Operator> {
        match &self.nodes[OPERATOR].role {
            Role::Operator(host) => host.machine(),
            Role::Broker
            | Role::Manager { .. }
            | Role::Coordinator { .. }
            | Role::ModelServer { .. }
            | Role::Proplet(_)
            | Role::Sessions(_)
            | Role::Peer => None,
        }
    }
}

impl crate::role::OperatorEnd {
    fn outcome(&self) -> RoundOutcome {
        match self {
            Self::Complete(complete) => RoundOutcome::Complete {
                version: complete.model_version,
                total_samples: complete.total_samples,
            },
            Self::Failed { reason, .. } => RoundOutcome::Failed { reason: *reason },
        }
    }

    fn num_updates(&self) -> usize {
        match self {
            Self::Complete(complete) => complete.num_updates,
            Self::Failed { num_updates, .. } => *num_updates,
        }
    }
}
