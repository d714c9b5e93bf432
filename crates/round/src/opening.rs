//! How rounds begin, and how it is known that some participants will not contribute.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use encoding::SpecError;
use protocol::{
    FailReason, Letter as _, ModelUri, Output, PropletId, RoundId, TraceField,
    message::{Purpose, RoundFailed, RoundOpened, RoundStart, StrategySpec},
};

use crate::{
    Note, Refusal, Rounds, Taken,
    average::check_strategy,
    record,
    round::{Members, Round, Spec, Stream},
    rules::{LAZY_K, LAZY_TIMEOUT},
    turn::Turn,
};

/// What averages updates of different ages.
const ASYNCHRONOUS: &str = "fedbuff";

impl Rounds {
    /// Opens a round; a repeated start is answered as the first one was, a changed one is not.
    pub(crate) fn start(&mut self, start: &RoundStart, turn: &mut Turn) -> Result<Taken, Refusal> {
        let id = &start.round_id;
        let fingerprint = Some(start.fingerprint());
        if let Some(round) = self.open.get(id) {
            if round.spec.start == fingerprint {
                turn.publish(opened(round).seal());
                return Ok(Taken::Before);
            }
            return Err(refuse(id, "it is open, from another start", turn));
        }
        if let Some(outcome) = self.outcomes.get(id) {
            if outcome.start == fingerprint {
                turn.publish(outcome.seal());
                return Ok(Taken::Before);
            }
            return Err(refuse(id, "it has ended, from another start", turn));
        }
        if self.open.len() >= self.rules.rounds_open_max {
            let what = format!("{} rounds are open, no more are taken", self.open.len());
            self.bad_start(id.clone(), what.clone(), turn);
            return Err(Refusal::Conflict(what));
        }
        let spec = check(start).and_then(|()| self.spec(start));
        match spec {
            Ok(spec) => {
                let timeout = Duration::from_secs(start.timeout_s);
                self.open(spec, timeout, start.traceparent.clone(), turn);
            }
            Err(what) => {
                self.bad_start(id.clone(), what.clone(), turn);
                return Err(Refusal::Bad(what));
            }
        }
        Ok(Taken::Now)
    }

    /// What a start asks for, if that serves its base model as far as that is known.
    fn spec(&self, start: &RoundStart) -> Result<Spec, String> {
        let encoding = start
            .encoding
            .as_deref()
            .map(|text| text.parse().map_err(|why: SpecError| format!("encoding {text:?}: {why}")));
        let unsaid = start.staleness_max.map_or(self.rules.strategy, |_| ASYNCHRONOUS);
        let k = start.k_effective();
        let updates_min = start.min_updates.unwrap_or(self.rules.updates_min).clamp(1, k);
        let spec = Spec {
            id: start.round_id.clone(),
            base: start.model_uri.clone(),
            members: Members::Named(start.participants.clone()),
            k,
            updates_min,
            start: Some(start.fingerprint()),
            strategy: start.strategy.clone().unwrap_or_else(|| by_name(unsaid)),
            clip: start.clip.or(self.rules.clip),
            share_max: start.share_max.or(self.rules.share_max),
            purpose: start.purpose,
            workload: Spec::workload_of(start),
            encoding: encoding.transpose()?,
            session: start.session.clone(),
            stream: stream(start),
        };
        let base = self.versions.base(&spec.base);
        base.map_or(Ok(()), |base| spec.check(base, self.rules.variate_len_max))?;
        Ok(spec)
    }

    /// Says that a start is no good; of a round that is known, a bad start changes nothing.
    pub(crate) fn bad_start(&self, round: RoundId, what: String, turn: &mut Turn) {
        if !self.open.contains_key(&round) && self.outcomes.get(&round).is_none() {
            let failed = RoundFailed {
                round_id: round.clone(),
                reason: FailReason::BadStart,
                num_updates: 0,
                k_of_n: 0,
                failed_at: turn.now,
                error: Some(what.clone()),
                outstanding: BTreeSet::new(),
            };
            turn.publish(failed.seal());
        }
        turn.note(Note::StartRefused { round, what });
    }

    /// Opens the round that an update names, for whoever comes.
    pub(crate) fn open_lazily(&mut self, id: &RoundId, base: ModelUri, turn: &mut Turn) {
        let spec = Spec {
            id: id.clone(),
            base,
            members: Members::AsTheyCome,
            k: LAZY_K,
            updates_min: self.rules.updates_min.clamp(1, LAZY_K),
            start: None,
            strategy: by_name(self.rules.strategy),
            clip: self.rules.clip,
            share_max: self.rules.share_max,
            purpose: Purpose::Train,
            workload: None,
            encoding: None,
            session: None,
            stream: None,
        };
        self.open(spec, LAZY_TIMEOUT, None, turn);
    }

    fn open(
        &mut self,
        spec: Spec,
        timeout: Duration,
        traceparent: Option<TraceField>,
        turn: &mut Turn,
    ) {
        let id = spec.id.clone();
        let mut round = Round::open(spec, turn.now, turn.now + timeout);
        let base = self.versions.base(&round.spec.base);
        round.base = base.and_then(|base| round.spec.base_from(base));
        let letter = opened(&round);
        turn.note(Note::Opened {
            round: id.clone(),
            base: round.spec.base.clone(),
            participants: round.spec.members.count(),
            k: round.spec.k,
            deadline: round.deadline,
            traceparent,
        });
        turn.keep(record::keep_round(&round));
        turn.out.extend(record::keep_base(&round).map(Output::Keep));
        turn.promise(letter.seal());
        self.open.insert(id.clone(), round);
        for proplet in self.unknown.take(&id).map(|waiting| waiting.absent).unwrap_or_default() {
            self.absent(&id, proplet, turn);
        }
        self.goes_on(&id, turn);
    }

    /// A participant will not contribute; if nobody is left to wait for, the round closes.
    pub(crate) fn absent(&mut self, id: &RoundId, proplet: PropletId, turn: &mut Turn) {
        let Some(round) = self.open.get_mut(id) else {
            if self.lingering.get(id).is_some() {
                self.late_absent(id, proplet, turn);
            } else if self.outcomes.get(id).is_none() {
                self.unknown.absent(id, proplet, turn.now);
            }
            return;
        };
        let waited_for = (round.is_collecting() || round.spec.stream.is_some())
            && round.spec.members.name(&proplet)
            && !round.counted.contains_key(&proplet);
        if !waited_for || !round.absent.insert(proplet.clone()) {
            return;
        }
        turn.keep(record::keep_absent(id, &proplet));
        turn.note(Note::Absent { round: id.clone(), proplet });
        // What it made for an earlier round need not wait for this one's.
        self.lingering.ask_again();
        self.settle(id, turn);
    }
}

/// A strategy that is told nothing.
pub(crate) fn by_name(name: &str) -> StrategySpec {
    StrategySpec { name: name.to_owned(), params: BTreeMap::new() }
}

fn opened(round: &Round) -> RoundOpened {
    RoundOpened {
        round_id: round.spec.id.clone(),
        model_uri: round.spec.base.clone(),
        participants: round.spec.members.count().unwrap_or_default(),
        k_of_n: round.spec.k,
        deadline: round.deadline,
    }
}

/// What is wrong with a start whatever else there is.
fn check(start: &RoundStart) -> Result<(), String> {
    if let (Purpose::Evaluate, Some(encoding)) = (start.purpose, &start.encoding) {
        return Err(format!("encoding {encoding:?}: an evaluation has nothing to encode"));
    }
    if let (true, Some(encoding)) = (start.has_control(), &start.encoding) {
        return Err(format!(
            "encoding {encoding:?}: strategy {} sends control variates beside updates, which are \
             not encoded",
            StrategySpec::SCAFFOLD
        ));
    }
    start.check()?;
    start.strategy.as_ref().map_or(Ok(()), check_strategy)?;
    match (start.staleness_max, &start.strategy) {
        (Some(_), Some(spec)) if spec.name != ASYNCHRONOUS => Err(format!(
            "strategy {:?} cannot tell what an update adds to the model that it started from: late \
             updates are averaged by {ASYNCHRONOUS}",
            spec.name
        )),
        (Some(_) | None, _) => Ok(()),
    }
}

/// The rounds that late updates go to.
fn stream(start: &RoundStart) -> Option<Stream> {
    let (session, staleness_max) = (start.session.clone()?, start.staleness_max?);
    Some(Stream { session, staleness_max })
}

fn refuse(round: &RoundId, what: &str, turn: &mut Turn) -> Refusal {
    turn.note(Note::StartRefused { round: round.clone(), what: what.to_owned() });
    Refusal::Conflict(format!("round {round}: {what}"))
}
