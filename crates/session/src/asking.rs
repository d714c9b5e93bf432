//! What a caller of the shell asks for, as an operator would, and what it is told.

use protocol::{
    Output, SessionId,
    message::{Command, SessionCommand, SessionStart, SessionState, SessionStatus},
};

use crate::{Effect, Sessions, turn::Turn};

/// A caller's order; its number comes back with the answer, after what was decided is durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub ticket: u64,
    pub order: Order,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    Start(Box<SessionStart>),
    Command { session: SessionId, command: SessionCommand },
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: SessionStatus,
    pub taken: Taken,
}

/// Whether the order changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Now,
    Before,
}

/// Why an order was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Bad(String),
    Unknown(String),
    /// It contradicts what there is.
    Conflict(String),
}

impl Refusal {
    /// In words.
    pub fn what(&self) -> &str {
        match self {
            Self::Bad(what) | Self::Unknown(what) | Self::Conflict(what) => what,
        }
    }
}

impl Sessions {
    pub(crate) fn ordered(&mut self, Report { ticket, order }: Report, turn: &mut Turn) {
        let answer = match order {
            Order::Start(start) => {
                let id = start.session_id.clone();
                self.start(*start, turn).and_then(|taken| self.answer(&id, taken))
            }
            Order::Command { session, command } => {
                self.obey(&session, command, turn).and_then(|taken| self.answer(&session, taken))
            }
        };
        turn.out.push(Output::Effect(Effect::Answer { ticket, answer: answer.map(Box::new) }));
    }

    fn answer(&self, id: &SessionId, taken: Taken) -> Result<Answer, Refusal> {
        let session = self.sessions.get(id);
        let session = session.ok_or_else(|| unknown(id))?;
        Ok(Answer { status: session.status(), taken })
    }

    /// As a command over the broker, but what cannot be done is said.
    fn obey(
        &mut self,
        id: &SessionId,
        command: SessionCommand,
        turn: &mut Turn,
    ) -> Result<Taken, Refusal> {
        let state = |sessions: &Self| sessions.sessions.get(id).map(|it| it.standing.state);
        let before = state(self).ok_or_else(|| unknown(id))?;
        self.command(id.clone(), command, turn);
        let after = state(self).unwrap_or(before);
        if after != before {
            return Ok(Taken::Now);
        }
        match (command.command, after) {
            (Command::Stop, SessionState::Stopped) | (Command::Resume, SessionState::Running) => {
                Ok(Taken::Before)
            }
            (Command::Stop | Command::Resume, state) => {
                Err(Refusal::Conflict(format!("session {id} is {state}")))
            }
        }
    }
}

fn unknown(id: &SessionId) -> Refusal {
    Refusal::Unknown(format!("there is no session {id}"))
}
