//! What is heard about sessions, their rounds, and the proplets that could take part.

use protocol::{
    Envelope, ModelUri, OpenError, RoundId, SessionId, Topic,
    message::{
        ModelLatest, PropletAlive, PropletCreate, RoundComplete, RoundFailed, RoundOpened,
        SESSION_START_LEN_MAX, SessionCommand, SessionStart,
    },
};
use serde::Deserialize;

/// Longest message that is read, the start of a session aside.
const NOTICE_LEN_MAX: usize = 8 << 20;

/// A message to this role.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    Start(Box<SessionStart>),
    /// A start that is not valid, of a session that can be named.
    BadStart {
        session: SessionId,
        what: String,
    },
    Command {
        session: SessionId,
        command: SessionCommand,
    },
    Opened(RoundId),
    Complete(Box<RoundComplete>),
    Failed(RoundFailed),
    Latest(ModelUri),
    Create(Box<PropletCreate>),
    Alive(PropletAlive),
}

#[derive(Deserialize)]
struct Named {
    session_id: SessionId,
}

impl TryFrom<Envelope> for News {
    type Error = OpenError;

    fn try_from(envelope: Envelope) -> Result<Self, OpenError> {
        let len_max = if envelope.topic == Topic::SessionStart {
            SESSION_START_LEN_MAX
        } else {
            NOTICE_LEN_MAX
        };
        if envelope.payload.len() > len_max {
            let len = envelope.payload.len();
            return Err(OpenError::TooLarge { topic: envelope.topic, len, len_max });
        }
        match &envelope.topic {
            Topic::SessionStart => start(&envelope),
            Topic::SessionCommand { session } => {
                Ok(Self::Command { session: session.clone(), command: envelope.open()? })
            }
            Topic::RoundOpened { round } => {
                let opened: RoundOpened = envelope.open()?;
                same(&envelope.topic, round, &opened.round_id)
                    .map(|()| Self::Opened(opened.round_id))
            }
            Topic::RoundComplete { round } => {
                let complete: RoundComplete = envelope.open()?;
                same(&envelope.topic, round, &complete.round_id)?;
                Ok(Self::Complete(Box::new(complete)))
            }
            Topic::RoundFailed { round } => {
                let failed: RoundFailed = envelope.open()?;
                same(&envelope.topic, round, &failed.round_id).map(|()| Self::Failed(failed))
            }
            Topic::ModelLatest { line } => {
                let latest: ModelLatest = envelope.open()?;
                if latest.topic.line == *line {
                    return Ok(Self::Latest(latest.topic));
                }
                let what = format!("the payload names {}", latest.topic);
                Err(OpenError::Invalid { topic: envelope.topic, what })
            }
            Topic::PropletCreate => envelope.open().map(|create| Self::Create(Box::new(create))),
            Topic::PropletAlive => envelope.open().map(Self::Alive),
            Topic::RoundStart
            | Topic::RoundUpdate { .. }
            | Topic::RoundAck { .. }
            | Topic::RoundAbsent { .. }
            | Topic::RoundVariate { .. }
            | Topic::ForwardedUpdate
            | Topic::ModelPublish { .. }
            | Topic::Model { .. }
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
            | Topic::SessionStatus { .. } => Err(OpenError::NotForUs(envelope.topic)),
        }
    }
}

/// A start, or what is wrong with one whose session can be named.
fn start(envelope: &Envelope) -> Result<News, OpenError> {
    match envelope.open() {
        Ok(start) => Ok(News::Start(Box::new(start))),
        Err(why) => match envelope.open::<Named>() {
            Ok(Named { session_id: session }) => {
                Ok(News::BadStart { session, what: why.to_string() })
            }
            Err(_) => Err(why),
        },
    }
}

fn same(topic: &Topic, named: &RoundId, found: &RoundId) -> Result<(), OpenError> {
    if named == found {
        return Ok(());
    }
    let what = format!("the payload names round {found}");
    Err(OpenError::Invalid { topic: topic.clone(), what })
}
