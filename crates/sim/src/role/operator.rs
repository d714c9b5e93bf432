//! The operator: asks for one round after the other, as the scenario says, and hears how they end.

mod orders;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use protocol::{
    Entry, EntryError, Envelope, FailReason, Filter, Input, Letter as _, Machine, ModelLine,
    ModelUri, ModelVersion, OpenError, Output, PropletId, RoundId, SessionId, Timestamp, Topic,
    message::{
        Hyperparams, ModelLatest, RoundComplete, RoundFailed, RoundOpened, RoundStart,
        SessionState, SessionStatus, StrategySpec,
    },
};

use self::orders::Orders;
pub(crate) use self::orders::ScriptSession;
use crate::{Dice, Participants, RoundModel, scenario::fits};

/// How soon a start is said again that nobody answers, and one that was answered.
const REPEAT: Duration = Duration::from_secs(2);
const REPEAT_OPEN: Duration = Duration::from_secs(10);

/// What the operator is going to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) proplets: Arc<Vec<PropletId>>,
    pub(crate) rounds: Vec<ScriptRound>,
    /// What every start says, where the coordinator's own word for it is not enough.
    pub(crate) strategy: Option<StrategySpec>,
    pub(crate) sessions: Vec<ScriptSession>,
}

/// One round.
#[derive(Clone, Debug)]
pub(crate) struct ScriptRound {
    pub(crate) id: RoundId,
    pub(crate) not_before: Timestamp,
    pub(crate) pause: Duration,
    pub(crate) model: RoundModel,
    pub(crate) participants: Participants,
    pub(crate) k_of_n: Option<usize>,
    pub(crate) timeout_s: u64,
    pub(crate) min_updates: Option<usize>,
    pub(crate) hyperparams: Hyperparams,
    pub(crate) image: Option<String>,
}

/// A person with a plan.
#[derive(Debug)]
pub(crate) struct Operator {
    script: Script,
    latest: Option<ModelVersion>,
    current: Option<Current>,
    next: usize,
    ready_at: Timestamp,
    orders: Orders,
    pub(crate) log: Vec<Logged>,
}

#[derive(Debug)]
struct Current {
    round: RoundId,
    envelope: Envelope,
    repeat_at: Timestamp,
}

/// How one round went.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) round: RoundId,
    pub(crate) participants: usize,
    pub(crate) asked: Timestamp,
    pub(crate) opened: Option<Timestamp>,
    pub(crate) end: Option<(Timestamp, End)>,
}

/// What was heard at its end.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Complete(Box<RoundComplete>),
    Failed { reason: FailReason, num_updates: usize },
}

/// What the operator hears.
#[derive(Debug)]
pub(crate) enum News {
    Opened(RoundOpened),
    Complete(Box<RoundComplete>),
    Failed(RoundFailed),
    Latest(ModelVersion),
    Session(SessionId, SessionState),
}

impl TryFrom<Envelope> for News {
    type Error = OpenError;

    fn try_from(envelope: Envelope) -> Result<Self, OpenError> {
        match &envelope.topic {
            Topic::RoundOpened { .. } => Ok(Self::Opened(envelope.open()?)),
            Topic::RoundComplete { .. } => Ok(Self::Complete(Box::new(envelope.open()?))),
            Topic::RoundFailed { .. } => Ok(Self::Failed(envelope.open()?)),
            Topic::ModelLatest { .. } => Ok(Self::Latest(envelope.open::<ModelLatest>()?.version)),
            Topic::SessionStatus { session } => {
                let status: SessionStatus = envelope.open()?;
                Ok(Self::Session(session.clone(), status.state))
            }
            Topic::RoundStart
            | Topic::RoundUpdate { .. }
            | Topic::RoundAck { .. }
            | Topic::RoundAbsent { .. }
            | Topic::RoundVariate { .. }
            | Topic::ForwardedUpdate
            | Topic::ModelPublish { .. }
            | Topic::Model { .. }
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
            | Topic::SessionCommand { .. } => Err(OpenError::NotForUs(envelope.topic)),
        }
    }
}

impl Operator {
    pub(crate) fn new(mut script: Script) -> Self {
        let orders = Orders::new(std::mem::take(&mut script.sessions));
        let ready_at = script.rounds.first().map_or(Timestamp::ZERO, |first| first.not_before);
        Self { script, latest: None, current: None, next: 0, ready_at, orders, log: vec![] }
    }

    /// Whether every round and every session has ended.
    pub(crate) fn is_done(&self) -> bool {
        let rounds = self.current.is_none() && self.next == self.script.rounds.len();
        rounds && self.orders.have_ended()
    }

    /// How many rounds there are to be.
    pub(crate) fn rounds(&self) -> usize {
        self.script.rounds.len().saturating_add(self.orders.rounds())
    }

    fn hear(&mut self, news: News, now: Timestamp) {
        match news {
            News::Latest(version) => self.latest = self.latest.max(Some(version)),
            News::Opened(opened) => {
                let Some((logged, current)) = self.under_way(&opened.round_id) else {
                    if !self.orders.are_none() {
                        orders::opened(&mut self.log, &opened, now);
                    }
                    return;
                };
                logged.opened.get_or_insert(now);
                current.repeat_at = now + REPEAT_OPEN;
            }
            News::Complete(mut complete) => {
                // There may be many, and their number is enough here.
                complete.participants = vec![];
                self.latest = self.latest.max(Some(complete.model_version));
                self.ended(&complete.round_id.clone(), End::Complete(complete), now);
            }
            News::Failed(failed) => {
                let RoundFailed { round_id, reason, num_updates, .. } = failed;
                self.ended(&round_id, End::Failed { reason, num_updates }, now);
            }
            News::Session(session, state) => self.orders.stands(&session, state),
        }
    }

    fn under_way(&mut self, round: &RoundId) -> Option<(&mut Logged, &mut Current)> {
        let current = self.current.as_mut().filter(|current| current.round == *round)?;
        let logged = self.log.iter_mut().rev().find(|logged| logged.round == *round)?;
        Some((logged, current))
    }

    fn ended(&mut self, round: &RoundId, end: End, now: Timestamp) {
        let Some((logged, _)) = self.under_way(round) else {
            if !self.orders.are_none() {
                orders::ended(&mut self.log, round, end, now);
            }
            return;
        };
        logged.end = Some((now, end));
        self.current = None;
        if let Some(next) = self.script.rounds.get(self.next) {
            self.ready_at = next.not_before.max(now + next.pause);
        }
    }

    /// Asks for the next round, if it is time and the base is known.
    fn ask(&mut self, now: Timestamp, out: &mut Vec<Output<()>>) {
        if self.current.is_some() || now < self.ready_at {
            return;
        }
        let Some(round) = self.script.rounds.get(self.next) else { return };
        let base = match round.model {
            RoundModel::Latest => self.latest,
            RoundModel::Version(version) => Some(ModelVersion(version)),
        };
        let Some(base) = base else { return };
        let participants = self.script.choose(round);
        let count = participants.len();
        let start = RoundStart {
            round_id: round.id.clone(),
            model_uri: ModelUri::global(base),
            task_wasm_image: round.image.clone(),
            file: None,
            participants,
            hyperparams: round.hyperparams.clone(),
            k_of_n: round.k_of_n.unwrap_or(count),
            timeout_s: round.timeout_s,
            min_updates: round.min_updates,
            strategy: self.script.strategy.clone(),
            clip: None,
            share_max: None,
            env: std::collections::BTreeMap::new(),
            session: None,
            encoding: None,
            purpose: protocol::message::Purpose::Train,
            staleness_max: None,
            traceparent: None,
        };
        let envelope = start.seal();
        out.push(Output::Publish(envelope.clone()));
        let round = start.round_id.clone();
        self.current = Some(Current { round, envelope, repeat_at: now + REPEAT });
        self.log.push(Logged {
            round: start.round_id,
            participants: count,
            asked: now,
            opened: None,
            end: None,
        });
        self.next += 1;
    }

    fn repeat(&mut self, now: Timestamp, out: &mut Vec<Output<()>>) {
        let Some(current) = &mut self.current else { return };
        let logged = self.log.iter().rev().find(|logged| logged.round == current.round);
        let opened = logged.is_some_and(|logged| logged.opened.is_some());
        if current.repeat_at > now {
            return;
        }
        current.repeat_at = now + if opened { REPEAT_OPEN } else { REPEAT };
        out.push(Output::Publish(current.envelope.clone()));
    }
}

impl Script {
    fn choose(&self, round: &ScriptRound) -> BTreeSet<PropletId> {
        let all = self.proplets.iter();
        let count = match &round.participants {
            Participants::All => return all.cloned().collect(),
            Participants::Named(patterns) => {
                let named = |id: &&PropletId| patterns.iter().any(|it| fits(it, id.as_str()));
                return all.filter(named).cloned().collect();
            }
            Participants::Sample(count) => *count,
            Participants::Fraction(share) => {
                (self.proplets.len() as f64 * share.clamp(0.0, 1.0)).ceil() as usize
            }
        };
        let mut dice = Dice::of(self.seed, "operator", round.id.as_str());
        let mut drawn: Vec<(u64, &PropletId)> = all.map(|id| (dice.roll(), id)).collect();
        drawn.sort_unstable();
        drawn.into_iter().take(count).map(|(_, id)| id.clone()).collect()
    }
}

impl Machine for Operator {
    type News = News;
    type Effect = ();
    type Report = ();

    fn filters(&self) -> Vec<Filter> {
        let rounds = [
            Filter::AnyOpened,
            Filter::AnyComplete,
            Filter::AnyFailed,
            Filter::Exactly(Topic::ModelLatest { line: ModelLine::default() }),
        ];
        let sessions = (!self.orders.are_none()).then_some(Filter::AnySessionStatus);
        rounds.into_iter().chain(sessions).collect()
    }

    fn restore(&mut self, _entries: Vec<Entry>) -> Result<(), EntryError> {
        Ok(())
    }

    fn step(&mut self, input: Input<News, ()>, now: Timestamp) -> Vec<Output<()>> {
        let mut out = vec![];
        match input {
            Input::News(news) => self.hear(news, now),
            Input::Report(()) | Input::Connected { .. } | Input::Tick => {}
        }
        self.repeat(now, &mut out);
        self.ask(now, &mut out);
        self.orders.say(now, &mut out);
        out
    }

    fn deadline(&self) -> Option<Timestamp> {
        let round = match &self.current {
            Some(current) => Some(current.repeat_at),
            // Without a model to begin with, only news can change that.
            None if self.latest.is_none() => None,
            None if self.next < self.script.rounds.len() => Some(self.ready_at),
            None => None,
        };
        [round, self.orders.next()].into_iter().flatten().min()
    }
}
