//! All sessions of one coordinator: asks for their rounds, one after the other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::{
    Entry, EntryError, Envelope, Filter, Input, Letter as _, Machine, ModelLine, ModelUri, Output,
    RoundId, SessionId, Timestamp, Topic,
    message::{
        Command, RoundComplete, RoundFailed, SessionCommand, SessionStart, SessionState,
        SessionStatus,
    },
};

use crate::{
    Effect, HISTORY_ALL_MAX, HISTORY_ROWS_MAX, HistoryRow, News, Note, Refusal, Report,
    SESSIONS_MAX, SessionView, Taken, beginning::begin, candidates::Candidates, evaluating, plan,
    record, session::Session, turn::Turn,
};

/// How soon a round's start is said again that nobody has answered, and one that is open.
pub(crate) const REPEAT: Duration = Duration::from_secs(3);
const REPEAT_OPEN: Duration = Duration::from_secs(30);
/// How soon a session that waits for proplets looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The sessions' core.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    candidates: Candidates,
    latest: Latest,
    /// Rows that were read back and not shown yet.
    history: BTreeMap<SessionId, Vec<HistoryRow>>,
    /// When sessions that wait look again; nothing happens before the broker has been there.
    look_at: Option<Timestamp>,
}

impl Sessions {
    /// What is wrong with a start, before it is said.
    pub fn check(start: &SessionStart) -> Result<(), String> {
        plan::check(start)
    }
}

impl Machine for Sessions {
    type News = News;
    type Effect = Effect;
    /// What a caller of the shell asks for.
    type Report = Report;

    fn filters(&self) -> Vec<Filter> {
        let latest = Topic::ModelLatest { line: ModelLine::default() };
        let exactly = [Topic::SessionStart, latest, Topic::PropletCreate, Topic::PropletAlive];
        let any = [
            Filter::AnyModelLatest,
            Filter::AnySessionCommand,
            Filter::AnyOpened,
            Filter::AnyComplete,
            Filter::AnyFailed,
        ];
        exactly.into_iter().map(Filter::Exactly).chain(any).collect()
    }

    fn restore(&mut self, entries: Vec<Entry>) -> Result<(), EntryError> {
        let remembered = record::read(&entries)?;
        self.sessions = remembered.sessions;
        self.history = remembered.history;
        self.candidates.restore(remembered.proplets);
        Ok(())
    }

    fn step(&mut self, input: Input<News, Report>, now: Timestamp) -> Vec<Output<Effect>> {
        let mut turn = Turn::at(now);
        match input {
            Input::Tick => {}
            Input::Connected { .. } => self.connected(&mut turn),
            Input::News(news) => self.hear(news, &mut turn),
            Input::Report(report) => self.ordered(report, &mut turn),
        }
        self.go_on(&mut turn);
        turn.out
    }

    fn deadline(&self) -> Option<Timestamp> {
        let look_at = self.look_at?;
        let running = self.sessions.values().filter(|session| session.is_running());
        let due = running.flat_map(|session| {
            let next = session.current.as_ref().map(|current| current.repeat_at);
            let next = next.or(session.paused_until).unwrap_or(look_at);
            [Some(next), session.deadline()]
        });
        due.flatten().min()
    }
}

impl Sessions {
    /// The broker may have forgotten what it was told, and so may those who listen.
    fn connected(&mut self, turn: &mut Turn) {
        self.candidates.connected(turn.now);
        self.look_at = Some(turn.now);
        let mut history = std::mem::take(&mut self.history);
        for (id, session) in &mut self.sessions {
            if let Some(current) = &mut session.current {
                current.repeat_at = turn.now;
            }
            show(session, history.remove(id).unwrap_or_default(), turn);
        }
    }

    fn hear(&mut self, news: News, turn: &mut Turn) {
        match news {
            News::Start(start) => {
                let id = start.session_id.clone();
                if let Err(refusal) = self.start(*start, turn) {
                    self.refuse(id, refusal.what().to_owned(), turn);
                }
            }
            News::BadStart { session, what } => self.refuse(session, what, turn),
            News::Command { session, command } => self.command(session, command, turn),
            News::Opened(round) => {
                if let Some(current) = self.of_round(&round).and_then(|it| it.current.as_mut()) {
                    current.opened = true;
                    current.repeat_at = turn.now + REPEAT_OPEN;
                }
            }
            News::Complete(complete) => self.completed(*complete, turn),
            News::Failed(failed) => self.failed(&failed, turn),
            News::Latest(latest) => self.latest.learn(latest),
            News::Create(create) => {
                let entry = self.candidates.introduced(*create, turn.now);
                turn.out.extend(entry.map(Output::Keep));
            }
            News::Alive(alive) => self.candidates.heard(alive, turn.now),
        }
    }

    /// Takes a session on; a repeated start changes nothing.
    pub(crate) fn start(&mut self, start: SessionStart, turn: &mut Turn) -> Result<Taken, Refusal> {
        let id = start.session_id.clone();
        if let Some(known) = self.sessions.get(&id) {
            if known.fingerprint == start.fingerprint() {
                show(known, vec![], turn);
                return Ok(Taken::Before);
            }
            return Err(Refusal::Conflict("another session has this id".to_owned()));
        }
        plan::check(&start).map_err(Refusal::Bad)?;
        if !self.make_room(turn) {
            return Err(Refusal::Conflict(format!("{SESSIONS_MAX} sessions are under way")));
        }
        let last = self.sessions.values().map(|session| session.standing.ordinal).max();
        let mut session = Session::new(start, last.map_or(0, |last| last + 1), turn.now);
        turn.keep(record::keep_start(&session));
        turn.out.extend(record::keep_standing(&mut session).into_iter().map(Output::Keep));
        turn.note(Note::Started { session: id.clone(), rounds: session.start.rounds });
        show(&session, vec![], turn);
        self.sessions.insert(id, session);
        Ok(Taken::Now)
    }

    /// Forgets the session that ended first, if there are too many.
    fn make_room(&mut self, turn: &mut Turn) -> bool {
        if self.sessions.len() < SESSIONS_MAX {
            return true;
        }
        let ended = self.sessions.values().filter(|it| !it.is_running() && it.current.is_none());
        let Some(oldest) = ended.min_by_key(|session| session.standing.ordinal) else {
            return false;
        };
        let id = oldest.start.session_id.clone();
        turn.out.extend(record::forget(oldest).into_iter().map(Output::Keep));
        turn.publish(Envelope {
            topic: Topic::SessionStatus { session: id.clone() },
            payload: Bytes::new(),
        });
        turn.out.push(Output::Effect(Effect::Forget(id.clone())));
        self.sessions.remove(&id);
        true
    }

    /// Says why; a session of that id stays as it is.
    fn refuse(&self, session: SessionId, what: String, turn: &mut Turn) {
        let status = match self.sessions.get(&session) {
            Some(known) => SessionStatus { refused: Some(what.clone()), ..known.status() },
            None => SessionStatus {
                session_id: session.clone(),
                state: SessionState::Refused,
                rounds_done: 0,
                rounds: 0,
                model_uri: None,
                metrics: BTreeMap::new(),
                best: None,
                started_at: turn.now,
                updated_at: turn.now,
                detail: Some(what.clone()),
                refused: None,
            },
        };
        turn.publish(status.seal());
        turn.note(Note::Refused { session, what });
    }

    pub(crate) fn command(&mut self, id: SessionId, command: SessionCommand, turn: &mut Turn) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return turn.note(Note::UnknownCommand { session: id });
        };
        let (before, standing) = (session.standing.state, &mut session.standing);
        match (command.command, before) {
            (Command::Stop, SessionState::Running) => {
                standing.state = SessionState::Stopped;
                standing.detail = Some("stopped by an operator".to_owned());
            }
            (Command::Resume, SessionState::Stopped | SessionState::Failed) => {
                standing.state = SessionState::Running;
                standing.detail = None;
                // The id of an attempt is never used twice.
                standing.failures_max = standing.failures.saturating_add(session.start.retries);
                session.paused_until = None;
            }
            (Command::Stop | Command::Resume, _) => {}
        }
        if session.standing.state != before {
            session.standing.updated_at = turn.now;
            settle(session, before, vec![], turn);
        } else {
            show(session, vec![], turn);
        }
    }

    fn of_round(&mut self, round: &RoundId) -> Option<&mut Session> {
        self.sessions
            .values_mut()
            .find(|session| session.current.as_ref().is_some_and(|it| it.round == *round))
    }

    fn completed(&mut self, complete: RoundComplete, turn: &mut Turn) {
        let Some(session) = self.of_round(&complete.round_id) else { return };
        let Some(current) = session.current.take() else { return };
        if session.leg().is_some() {
            return evaluated(session, Ok(complete), current.asked, turn);
        }
        let before = session.standing.state;
        let model = complete.model_topic.clone();
        let row = session.completed(complete, current.asked);
        turn.keep(record::keep_row(&session.start.session_id, &row));
        turn.note(Note::RoundDone {
            session: session.start.session_id.clone(),
            round: row.round,
            of: session.start.rounds,
            model,
        });
        settle(session, before, vec![row], turn);
        self.trim(turn);
    }

    fn failed(&mut self, failed: &RoundFailed, turn: &mut Turn) {
        let Some(session) = self.of_round(&failed.round_id) else { return };
        let Some(current) = session.current.take() else { return };
        if session.leg().is_some() {
            return evaluated(session, Err(failed), current.asked, turn);
        }
        let before = session.standing.state;
        session.failed(failed, current.asked);
        session.paused_until = Some(turn.now + session.pause());
        let what = session.standing.detail.clone().unwrap_or_default();
        turn.note(Note::RoundFailed { session: session.start.session_id.clone(), what });
        settle(session, before, vec![], turn);
    }

    /// Forgets the oldest rows: of a session that has too many, or of the one that has most.
    fn trim(&mut self, turn: &mut Turn) {
        let all: u64 = self.sessions.values().map(Session::rows).sum();
        let Some(longest) = self.sessions.values_mut().max_by_key(|session| session.rows()) else {
            return;
        };
        if all > HISTORY_ALL_MAX || longest.rows() > HISTORY_ROWS_MAX {
            let session = longest.start.session_id.clone();
            turn.keep(record::forget_row(&session, longest.first_row));
            longest.first_row += 1;
            let first_row = longest.first_row;
            turn.out.push(Output::Effect(Effect::Trim { session, first_row }));
        }
    }

    /// Asks for what is to be asked for now, and repeats what was not answered.
    fn go_on(&mut self, turn: &mut Turn) {
        let Some(look_at) = self.look_at else { return };
        for session in self.sessions.values_mut().filter(|session| session.is_running()) {
            if session.deadline().is_some_and(|deadline| turn.now >= deadline) {
                session.standing.state = SessionState::Complete;
                session.standing.updated_at = turn.now;
                session.standing.detail = Some("its time is over".to_owned());
                settle(session, SessionState::Running, vec![], turn);
                continue;
            }
            match &mut session.current {
                Some(current) if turn.now >= current.repeat_at => {
                    let pause = if current.opened { REPEAT_OPEN } else { REPEAT };
                    current.repeat_at = turn.now + pause;
                    let payload = current.start.clone();
                    turn.publish(Envelope { topic: Topic::RoundStart, payload });
                }
                Some(_) => {}
                // One that waits looks now and then, not at every message.
                None if session.waits && turn.now < look_at => {}
                None if session.paused_until.is_some_and(|until| turn.now < until) => {}
                None => {
                    session.paused_until = None;
                    begin(session, &self.latest, &self.candidates, turn);
                }
            }
        }
        if turn.now >= look_at {
            self.look_at = Some(turn.now + LOOK_AGAIN);
        }
    }
}

/// Lines whose newest models are remembered.
const LINES_MAX: usize = 10_000;

/// The newest model of each line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latest(BTreeMap<ModelLine, ModelUri>);

impl Latest {
    fn learn(&mut self, uri: ModelUri) {
        if self.0.len() < LINES_MAX || self.0.contains_key(&uri.line) {
            self.0.insert(uri.line.clone(), uri);
        }
    }

    pub(crate) fn of(&self, line: &ModelLine) -> Option<&ModelUri> {
        self.0.get(line)
    }
}

/// Takes what came of an evaluation.
fn evaluated(
    session: &mut Session,
    end: Result<RoundComplete, &RoundFailed>,
    asked: usize,
    turn: &mut Turn,
) {
    let before = session.standing.state;
    let row = session.evaluated(end, asked);
    if let Some(row) = &row {
        turn.keep(record::keep_row(&session.start.session_id, row));
        evaluating::tell(session, row, turn);
    }
    settle(session, before, row.into_iter().collect(), turn);
}

/// Keeps and shows what has changed.
fn settle(session: &mut Session, before: SessionState, rows: Vec<HistoryRow>, turn: &mut Turn) {
    turn.out.extend(record::keep_standing(session).into_iter().map(Output::Keep));
    if session.standing.state != before && !session.is_running() {
        turn.note(Note::Ended {
            session: session.start.session_id.clone(),
            state: session.standing.state,
            detail: session.standing.detail.clone().unwrap_or_default(),
        });
    }
    show(session, rows, turn);
}

pub(crate) fn show(session: &Session, rows: Vec<HistoryRow>, turn: &mut Turn) {
    let status = session.status();
    turn.publish(status.seal());
    let round = session.current.as_ref().map(|current| current.round.clone());
    let view = SessionView { status, start: Arc::clone(&session.start), round, rows };
    turn.out.push(Output::Effect(Effect::Show(Box::new(view))));
}
