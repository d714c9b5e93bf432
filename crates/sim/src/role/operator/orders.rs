//! Sessions that the operator has started, and the rounds that they ask for.

use protocol::{
    Envelope, Letter as _, Output, RoundId, SessionId, Timestamp,
    message::{RoundOpened, SessionStart, SessionState},
};

use super::{End, Logged, REPEAT};

/// One session to be started.
#[derive(Clone, Debug)]
pub(crate) struct ScriptSession {
    pub(crate) start: SessionStart,
    pub(crate) not_before: Timestamp,
}

/// Sessions in the order of the scenario.
#[derive(Debug, Default)]
pub(super) struct Orders {
    orders: Vec<Order>,
}

#[derive(Debug)]
struct Order {
    session: SessionId,
    rounds: u64,
    envelope: Envelope,
    /// When it is said (again); never, once it is heard of.
    say_at: Option<Timestamp>,
    has_ended: bool,
}

impl Orders {
    pub(super) fn new(sessions: Vec<ScriptSession>) -> Self {
        let order = |it: ScriptSession| Order {
            session: it.start.session_id.clone(),
            rounds: it.start.rounds,
            envelope: it.start.seal(),
            say_at: Some(it.not_before),
            has_ended: false,
        };
        Self { orders: sessions.into_iter().map(order).collect() }
    }

    pub(super) const fn are_none(&self) -> bool {
        self.orders.is_empty()
    }

    pub(super) fn have_ended(&self) -> bool {
        self.orders.iter().all(|order| order.has_ended)
    }

    /// How many rounds there may be.
    pub(super) fn rounds(&self) -> usize {
        let all = self.orders.iter().fold(0_u64, |sum, order| sum.saturating_add(order.rounds));
        usize::try_from(all).unwrap_or(usize::MAX)
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.orders.iter().filter_map(|order| order.say_at).min()
    }

    pub(super) fn say(&mut self, now: Timestamp, out: &mut Vec<Output<()>>) {
        for order in &mut self.orders {
            if order.say_at.is_some_and(|at| at <= now) {
                order.say_at = Some(now + REPEAT);
                out.push(Output::Publish(order.envelope.clone()));
            }
        }
    }

    pub(super) fn stands(&mut self, session: &SessionId, state: SessionState) {
        let order = self.orders.iter_mut().find(|order| order.session == *session);
        let Some(order) = order else { return };
        order.say_at = None;
        order.has_ended = match state {
            SessionState::Running => false,
            SessionState::Stopped
            | SessionState::Complete
            | SessionState::Failed
            | SessionState::Refused => true,
        };
    }
}

/// A round that a session asks for is written down when it is opened.
pub(super) fn opened(log: &mut Vec<Logged>, opened: &RoundOpened, now: Timestamp) {
    if log.iter().all(|logged| logged.round != opened.round_id) {
        log.push(Logged {
            round: opened.round_id.clone(),
            participants: opened.participants,
            asked: now,
            opened: Some(now),
            end: None,
        });
    }
}

/// The end of such a round.
pub(super) fn ended(log: &mut [Logged], round: &RoundId, end: End, now: Timestamp) {
    if let Some(logged) = log.iter_mut().rev().find(|logged| logged.round == *round) {
        logged.end.get_or_insert((now, end));
    }
}
