//! All rounds of one coordinator: routes the news to the round that it concerns, and gives verdicts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::{
    Digest, Entry, EntryError, Envelope, Filter, Input, Letter as _, Machine, Manifest, ModelLine,
    ModelUri, Output, PropletId, RoundId, Timestamp, Topic,
    message::{UpdateAck, Verdict},
};

use crate::{
    Effect, Kept, LazyRounds, News, Note, Report, Rules,
    arrival::{self, Addressed, Arrival, Content, Objection, Refusal},
    arriving::Arriving,
    fetching::Fetching,
    handing::Handing,
    judging::Judgement,
    lingering::Lingering,
    memory::Memory,
    outcome::Outcomes,
    record,
    round::{Counted, Phase, Publication, Round},
    rules::RESTART_GRACE,
    turn::Turn,
    unknown::Unknown,
    versions::{Repetition, Versions},
};

/// The coordinator's core.
#[derive(Clone, Debug)]
pub struct Rounds {
    pub(crate) rules: Rules,
    pub(crate) open: BTreeMap<RoundId, Round>,
    pub(crate) outcomes: Outcomes,
    pub(crate) unknown: Unknown,
    pub(crate) versions: Versions,
    pub(crate) repetition: Repetition,
    pub(crate) arriving: Arriving,
    pub(crate) fetching: Fetching,
    pub(crate) handing: Handing,
    pub(crate) memory: Memory,
    pub(crate) lingering: Lingering,
    /// Base models in pieces, of which only the first is needed: it says what they are.
    pub(crate) heads: BTreeMap<ModelUri, Manifest>,
    /// Models that are listened for.
    listening: BTreeSet<ModelUri>,
    /// Rounds whose control variate was said since the broker was there last.
    pub(crate) told: BTreeSet<RoundId>,
    /// Bytes of counted updates that are held.
    pub(crate) kept_len: u64,
    session: Session,
}

/// Nothing expires before the broker has been there once: what was said meanwhile is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Awaited,
    Had,
}

impl Rounds {
    /// No rounds, and no memory yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            open: BTreeMap::new(),
            outcomes: Outcomes::default(),
            unknown: Unknown::default(),
            versions: Versions::default(),
            repetition: Repetition::default(),
            arriving: Arriving::default(),
            fetching: Fetching::default(),
            handing: Handing::default(),
            memory: Memory::default(),
            lingering: Lingering::default(),
            heads: BTreeMap::new(),
            listening: BTreeSet::new(),
            told: BTreeSet::new(),
            kept_len: 0,
            session: Session::Awaited,
        }
    }
}

impl Machine for Rounds {
    type News = News;
    type Effect = Effect;
    type Report = Report;

    fn filters(&self) -> Vec<Filter> {
        let own = [
            Filter::Exactly(Topic::RoundStart),
            Filter::Exactly(Topic::ForwardedUpdate),
            Filter::AnyAbsent,
            Filter::Exactly(Topic::ModelLatest { line: ModelLine::default() }),
            Filter::AnyModelLatest,
            Filter::AnyUpdateChunk,
            Filter::Exactly(Topic::ModelPublishWants { line: ModelLine::default() }),
            Filter::AnyModelPublishWants,
        ];
        let heads = self.heads.keys().map(of_head);
        own.into_iter().chain(self.listening.iter().map(of_model)).chain(heads).collect()
    }

    fn restore(&mut self, entries: Vec<Entry>) -> Result<(), EntryError> {
        let remembered = record::read(entries, self.rules.strategy)?;
        self.memory.restore(remembered.states);
        self.outcomes.restore(remembered.outcomes);
        for (line, made) in remembered.made {
            self.versions.restore(line, made);
        }
        for round in remembered.rounds {
            self.kept_len += round.kept_len();
            if let Some(Publication { uri, blob: Some(blob), .. }) = round.publication() {
                self.handing.begin(uri.clone(), blob.clone());
            }
            match round.phase {
                Phase::Lingering => self.lingering.restore(round),
                Phase::Collecting
                | Phase::Aggregating
                | Phase::Ready(..)
                | Phase::Publishing(_) => drop(self.open.insert(round.spec.id.clone(), round)),
            }
        }
        self.listening = self.wanted();
        Ok(())
    }

    fn step(&mut self, input: Input<News, Report>, now: Timestamp) -> Vec<Output<Effect>> {
        let mut turn = Turn::at(now, self.rules.records);
        match input {
            Input::Connected { .. } => self.connected(&mut turn),
            Input::Tick | Input::News(_) | Input::Report(_) => {}
        }
        self.expire(&mut turn);
        match input {
            Input::News(news) => self.hear(news, &mut turn),
            Input::Report(report) => self.reported(report, &mut turn),
            Input::Connected { .. } | Input::Tick => {}
        }
        self.attend_held(&mut turn);
        self.attend_fetching(&mut turn);
        self.attend_arriving(&mut turn);
        self.attend_variates(&mut turn);
        self.attend(&mut turn);
        turn.out
    }

    fn disconnected(&mut self) {
        self.arriving.disconnected();
        self.fetching.disconnected();
        self.lingering.disconnected();
    }

    fn deadline(&self) -> Option<Timestamp> {
        if self.session == Session::Awaited {
            return None;
        }
        let rounds = self.open.values().filter(|round| round.is_collecting());
        let others = [
            self.unknown.deadline(self.rules.unknown_grace),
            self.repetition.next(),
            self.arriving.deadline(),
            self.fetching.deadline(),
            self.lingering.deadline(),
        ];
        rounds.map(|round| round.deadline).chain(others.into_iter().flatten()).min()
    }
}

impl Rounds {
    fn hear(&mut self, news: News, turn: &mut Turn) {
        match news {
            // Whoever asked this way is answered on the round's topics.
            News::Start(start) => drop(self.start(&start, turn)),
            News::BadStart { round, what } => self.bad_start(round, what, turn),
            News::Update(payload) => self.update(payload, turn),
            News::Absent(absent) => self.absent(&absent.round_id, absent.proplet_id, turn),
            News::Latest(latest) => self.shown(latest, turn),
            News::Model(model) => self.model(model, turn),
            News::ModelBlob { uri, blob } => self.model_blob(uri, blob, turn),
            News::ModelPiece { uri, index, bytes } => {
                if index == 0 {
                    self.model_head(&uri, &bytes, turn);
                }
                self.model_piece(&uri, index, bytes, turn);
            }
            News::Piece { round, proplet, index, bytes } => {
                self.piece(&(round, proplet), index, bytes, turn);
            }
            News::Wants(wants) => self.wanted_pieces(&wants, turn),
        }
    }

    /// After a restart: closed rounds go on where they stood, open ones get a grace.
    fn connected(&mut self, turn: &mut Turn) {
        if self.session == Session::Awaited {
            self.session = Session::Had;
            let blobs = self.open.values().flat_map(Round::blobs).chain(self.memory.blobs());
            turn.effect(Effect::Hold(blobs.chain(self.lingering.blobs()).collect()));
            for round in self.open.values_mut() {
                if round.is_collecting() {
                    round.deadline = round.deadline.max(turn.now + RESTART_GRACE);
                }
                let job = round.job(&self.memory, &self.lingering);
                turn.out.extend(job.map(|job| Output::Effect(Effect::Aggregate(job))));
            }
        }
        self.await_sessions(turn.now);
        self.told.clear();
        self.go_on_fetching(turn);
        self.go_on_arriving(turn);
        self.publish_all(turn);
    }

    /// Everything whose time has come; before anything that was heard at this time.
    fn expire(&mut self, turn: &mut Turn) {
        if self.session == Session::Awaited {
            return;
        }
        let due =
            self.open.values().filter(|round| round.is_collecting() && turn.now >= round.deadline);
        let due: Vec<RoundId> = due.map(|round| round.spec.id.clone()).collect();
        for round in due {
            self.settle(&round, turn);
        }
        self.expire_lingering(turn);
        for (round, waiting) in self.unknown.expired(self.rules.unknown_grace, turn.now) {
            for proplet in waiting.senders {
                let what = "nobody has started this round";
                let objection = Objection::new(protocol::Rejection::UnknownRound, what);
                self.reject(Some(round.clone()), Some(proplet), objection, turn);
            }
        }
        if self.repetition.is_due(turn.now) {
            self.repeat_publications(turn);
        }
    }

    pub(crate) fn update(&mut self, payload: Bytes, turn: &mut Turn) {
        let arrived = match arrival::read(payload.clone(), self.rules.update_len_max) {
            Arrival::Refused(Refusal { round, proplet, objection }) => {
                return self.reject(round, proplet, objection, turn);
            }
            Arrival::Addressed(arrived) => *arrived,
        };
        let Addressed { round, proplet, content, base } = arrived;
        if self.is_late(&round, &proplet) {
            return self.rule_late((round, proplet), (content, base), payload, turn);
        }
        if let Some(outcome) = self.outcomes.get(&round) {
            let fingerprint = content.ok().map(|content| content.fingerprint());
            if fingerprint.is_some() && outcome.counted.get(&proplet) == fingerprint.as_ref() {
                return turn.publish(accepted(&round, &proplet));
            }
            let objection = Objection::new(protocol::Rejection::RoundClosed, "the round has ended");
            return self.reject(Some(round), Some(proplet), objection, turn);
        }
        if !self.open.contains_key(&round) {
            match (&content, self.rules.lazy) {
                (Ok(content), LazyRounds::On) if self.open.len() < self.rules.rounds_open_max => {
                    let Some(base) = content.base().cloned() else {
                        return self.unknown.sent(&round, proplet, turn.now);
                    };
                    self.open_lazily(&round, base, turn);
                }
                (Ok(_) | Err(_), LazyRounds::On | LazyRounds::Off) => {
                    return self.unknown.sent(&round, proplet, turn.now);
                }
            }
        }
        self.rule(&round, proplet, (content, base), turn);
    }

    /// The verdict on an update of an open round.
    fn rule(
        &mut self,
        id: &RoundId,
        proplet: PropletId,
        (content, base): (Result<Content, Objection>, Option<Digest>),
        turn: &mut Turn,
    ) {
        let Some(round) = self.open.get(id) else { return };
        match round.judge(&proplet, (content, base), &self.rules, self.room()) {
            Judgement::Count(counted) => {
                self.count(id, proplet, counted, turn);
                self.settle(id, turn);
            }
            Judgement::Receive(offer, fingerprint) => {
                let Some(holds) = round.holds() else { return };
                self.arriving.offered((offer, fingerprint), holds, turn);
            }
            Judgement::Repeated => turn.publish(accepted(id, &proplet)),
            Judgement::Reject(objection) => {
                self.turn_away((id.clone(), proplet), objection, turn);
            }
            Judgement::TooEarly => {}
            Judgement::NoRoom => {
                let kept_len = self.kept_len;
                turn.note(Note::NoRoom { round: id.clone(), proplet, kept_len });
            }
        }
    }

    /// Counts an update, keeps it, and promises to say so, in one step.
    pub(crate) fn count(
        &mut self,
        id: &RoundId,
        proplet: PropletId,
        counted: Counted,
        turn: &mut Turn,
    ) {
        let Some(round) = self.open.get_mut(id) else { return };
        turn.keep_with(|| record::keep_counted(id, &proplet, &counted));
        if let Some(Kept::Here(bytes)) = &counted.values {
            turn.keep_with(|| record::keep_update(id, &proplet, bytes));
        }
        if round.absent.remove(&proplet) {
            let key = record::member_key(id, &proplet);
            turn.keep(Entry::forget(record::ABSENT, key));
        }
        let made_for = counted.made_for.as_ref().map_or(id, |made_for| &made_for.round);
        turn.promise(accepted(made_for, &proplet));
        let num_samples = counted.num_samples;
        turn.note(Note::Accepted { round: id.clone(), proplet: proplet.clone(), num_samples });
        self.kept_len += counted.values.as_ref().map_or(0, Kept::len);
        round.counted.insert(proplet, counted);
        self.lingering.let_go(self.room());
    }

    /// Counts a rejection, and answers whoever is known to have sent the update.
    pub(crate) fn reject(
        &mut self,
        round: Option<RoundId>,
        proplet: Option<PropletId>,
        objection: Objection,
        turn: &mut Turn,
    ) {
        let Objection { reason, what } = objection;
        if let Some(open) = round.as_ref().and_then(|round| self.open.get_mut(round)) {
            *open.rejected.entry(reason).or_default() += 1;
        }
        // A forger must not make the one in whose name it speaks believe that its update is lost.
        let is_theirs = reason != protocol::Rejection::Signature;
        if let (true, Some(round_id), Some(proplet_id)) =
            (is_theirs, round.clone(), proplet.clone())
        {
            let verdict = Verdict::Rejected(reason);
            let ack = UpdateAck { round_id, proplet_id, verdict };
            turn.publish(ack.seal());
        }
        turn.note(Note::Rejected { reason, round, proplet, what });
    }

    /// Listens for the models that are missing, and no longer for those that are not.
    fn attend(&mut self, turn: &mut Turn) {
        let wanted = self.wanted();
        let listen = wanted.difference(&self.listening);
        turn.out.extend(listen.map(|uri| Output::Listen(of_model(uri))));
        let unlisten = self.listening.difference(&wanted);
        turn.out.extend(unlisten.map(|uri| Output::Unlisten(of_model(uri))));
        let heads: Vec<ModelUri> = self.heads.keys().cloned().collect();
        for uri in heads.into_iter().filter(|uri| !wanted.contains(uri)) {
            self.heads.remove(&uri);
            turn.out.push(Output::Unlisten(of_head(&uri)));
        }
        self.listening = wanted;
    }

    /// Base models of unknown shape, and versions of ours that a newer one hides.
    fn wanted(&self) -> BTreeSet<ModelUri> {
        let is_hidden = |uri: &&ModelUri| {
            let shown = self.versions.shown(&uri.line);
            shown.is_some_and(|latest| latest.version > uri.version)
        };
        let wanted = self.open.values().filter_map(|round| {
            if round.lacks_base() {
                return Some(round.spec.base.clone());
            }
            round.publication().map(|ours| &ours.uri).filter(is_hidden).cloned()
        });
        wanted.collect()
    }
}

pub(crate) fn accepted(round: &RoundId, proplet: &PropletId) -> Envelope {
    let (round_id, proplet_id) = (round.clone(), proplet.clone());
    UpdateAck { round_id, proplet_id, verdict: Verdict::Accepted }.seal()
}

pub(crate) fn of_head(uri: &ModelUri) -> Filter {
    Filter::Exactly(Topic::ModelChunk { uri: uri.clone(), index: 0 })
}

fn of_model(uri: &ModelUri) -> Filter {
    Filter::Exactly(Topic::Model { uri: uri.clone() })
}
