//! What a caller of the shell asks of the rounds, and what it is told.

use protocol::{
    Digest, Letter as _, ModelLine, ModelUri, RoundId, Timestamp,
    message::{ModelLatest, Purpose, RoundComplete, RoundFailed, RoundStart},
};

use crate::{
    Effect, Rounds,
    outcome::{Ending, Outcome},
    round::{Phase, Round},
    turn::Turn,
};

/// What can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// As if an operator had said it; the manager hears it, too.
    Start(Box<RoundStart>),
    Round(RoundId),
    Rounds {
        offset: usize,
        limit: usize,
    },
    Models {
        offset: usize,
        limit: usize,
    },
}

/// What is answered, after what was decided is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Started { round: RoundView, taken: Taken },
    Round(RoundView),
    Rounds { rounds: Vec<RoundView>, total: usize },
    Models { models: Vec<ModelView>, total: usize, latest: Option<ModelLatest> },
}

/// Whether a start opened its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Now,
    Before,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Bad(String),
    Unknown(String),
    /// It contradicts what there is.
    Conflict(String),
}

/// A round for the eye.
#[derive(Clone, Debug, PartialEq)]
pub enum RoundView {
    Open(OpenRound),
    Complete(RoundComplete),
    Failed(RoundFailed),
}

/// A round that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRound {
    pub round_id: RoundId,
    pub base: ModelUri,
    pub purpose: Purpose,
    pub stage: Stage,
    /// `None` where members are taken as they come.
    pub participants: Option<usize>,
    pub k_of_n: usize,
    pub num_updates: usize,
    pub absent: usize,
    pub opened_at: Timestamp,
    pub deadline: Timestamp,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Collecting,
    Aggregating,
    Publishing,
}

/// A model that a round made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelView {
    pub uri: ModelUri,
    /// Of its payload, or of the blob that holds it; rounds of earlier releases do not say.
    pub sha256: Option<Digest>,
    pub round_id: RoundId,
    pub made_at: Timestamp,
}

impl Rounds {
    pub(crate) fn asked(&mut self, ticket: u64, ask: Ask, turn: &mut Turn) {
        let answer = match ask {
            Ask::Start(start) => self.ordered(&start, turn),
            Ask::Round(id) => self.view(&id).map(Answer::Round),
            Ask::Rounds { offset, limit } => Ok(self.page(offset, limit)),
            Ask::Models { offset, limit } => Ok(self.models(offset, limit)),
        };
        turn.effect(Effect::Answer { ticket, answer: answer.map(Box::new) });
    }

    fn ordered(&mut self, start: &RoundStart, turn: &mut Turn) -> Result<Answer, Refusal> {
        let taken = self.start(start, turn)?;
        if taken == Taken::Now {
            // The manager has not heard of it; what comes back to us is a repetition.
            turn.promise(start.seal());
        }
        Ok(Answer::Started { round: self.view(&start.round_id)?, taken })
    }

    fn view(&self, id: &RoundId) -> Result<RoundView, Refusal> {
        let open = self.open.get(id).map(|round| RoundView::Open(open(round)));
        let known = open.or_else(|| self.outcomes.get(id).map(ended));
        known.ok_or_else(|| Refusal::Unknown(format!("there is no round {id}")))
    }

    /// Those that are open by id, then those that have ended, the last one first.
    fn page(&self, offset: usize, limit: usize) -> Answer {
        let rounds = self.open.values().map(|round| RoundView::Open(open(round)));
        let rounds = rounds.chain(self.outcomes.newest_first().map(ended));
        let total = self.open.len() + self.outcomes.newest_first().count();
        Answer::Rounds { rounds: rounds.skip(offset).take(limit).collect(), total }
    }

    /// The newest first; as far back as rounds are remembered.
    fn models(&self, offset: usize, limit: usize) -> Answer {
        let made = || self.outcomes.newest_first().filter_map(model);
        let latest = self.versions.shown(&ModelLine::default()).cloned();
        let models = made().skip(offset).take(limit).collect();
        Answer::Models { models, total: made().count(), latest }
    }
}

fn open(round: &Round) -> OpenRound {
    OpenRound {
        round_id: round.spec.id.clone(),
        base: round.spec.base.clone(),
        purpose: round.spec.purpose,
        stage: match &round.phase {
            Phase::Collecting => Stage::Collecting,
            Phase::Aggregating | Phase::Ready(..) => Stage::Aggregating,
            Phase::Publishing(_) | Phase::Lingering => Stage::Publishing,
        },
        participants: round.spec.members.count(),
        k_of_n: round.spec.k,
        num_updates: round.counted.len(),
        absent: round.absent.len(),
        opened_at: round.opened_at,
        deadline: round.deadline,
    }
}

fn ended(outcome: &Outcome) -> RoundView {
    match &outcome.ending {
        Ending::Complete(complete) => RoundView::Complete(complete.clone()),
        Ending::Failed(failed) => RoundView::Failed(failed.clone()),
    }
}

fn model(outcome: &Outcome) -> Option<ModelView> {
    match &outcome.ending {
        Ending::Complete(complete) if complete.purpose.is_train() => Some(ModelView {
            uri: complete.model_topic.clone(),
            sha256: outcome.digest,
            round_id: complete.round_id.clone(),
            made_at: complete.completed_at,
        }),
        Ending::Complete(_) | Ending::Failed(_) => None,
    }
}
