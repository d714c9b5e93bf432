//! What the manager understands of what it hears. An update stays sealed.

use bytes::Bytes;
use protocol::{
    Envelope, Filter, OpenError, Topic,
    message::{
        ModuleWants, Origin, PropletAlive, PropletCreate, PropletMetrics, RoundStart, TaskMetrics,
    },
};
use serde::de::DeserializeOwned;

use crate::{
    limits::{HELLO_LEN_MAX, METADATA_LEN_MAX},
    results::SealedResults,
};

/// A message to the manager.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    RoundStart(Box<RoundStart>),
    RoundUpdate { origin: Origin, payload: Bytes },
    PropletCreate(PropletCreate),
    PropletAlive(PropletAlive),
    PropletMetrics(PropletMetrics),
    TaskMetrics(TaskMetrics),
    TaskResults(SealedResults),
    ModuleWants(ModuleWants),
}

impl News {
    /// Where all of these come in.
    pub(crate) fn filters() -> Vec<Filter> {
        vec![
            Filter::Exactly(Topic::RoundStart),
            Filter::AnyUpdate,
            Filter::Exactly(Topic::PropletCreate),
            Filter::Exactly(Topic::PropletAlive),
            Filter::Exactly(Topic::PropletMetrics),
            Filter::Exactly(Topic::TaskMetrics),
            Filter::Exactly(Topic::TaskResults),
            Filter::Exactly(Topic::ModuleWants),
        ]
    }
}

impl TryFrom<Envelope> for News {
    type Error = OpenError;

    fn try_from(envelope: Envelope) -> Result<Self, OpenError> {
        match &envelope.topic {
            Topic::RoundStart => Ok(Self::RoundStart(Box::new(envelope.open()?))),
            Topic::RoundUpdate { round, proplet } => {
                let origin = Origin { round_id: round.clone(), proplet_id: proplet.clone() };
                Ok(Self::RoundUpdate { origin, payload: envelope.payload })
            }
            Topic::PropletCreate => hello(&envelope).and_then(|create: PropletCreate| {
                check_metadata(&envelope, &create)?;
                Ok(Self::PropletCreate(create))
            }),
            Topic::PropletAlive => hello(&envelope).map(Self::PropletAlive),
            Topic::PropletMetrics => hello(&envelope).map(Self::PropletMetrics),
            Topic::TaskMetrics => hello(&envelope).map(Self::TaskMetrics),
            Topic::TaskResults => SealedResults::read(&envelope).map(Self::TaskResults),
            Topic::ModuleWants => ModuleWants::read(&envelope.payload)
                .map(Self::ModuleWants)
                .map_err(|why| invalid(&envelope, why.to_string())),
            Topic::RoundOpened { .. }
            | Topic::RoundAck { .. }
            | Topic::RoundAbsent { .. }
            | Topic::RoundComplete { .. }
            | Topic::RoundFailed { .. }
            | Topic::RoundVariate { .. }
            | Topic::ForwardedUpdate
            | Topic::ModelPublish { .. }
            | Topic::Model { .. }
            | Topic::ModelLatest { .. }
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
            | Topic::ModuleChunk { .. }
            | Topic::SessionStart
            | Topic::SessionCommand { .. }
            | Topic::SessionStatus { .. } => Err(OpenError::NotForUs(envelope.topic)),
        }
    }
}

fn hello<M: DeserializeOwned>(envelope: &Envelope) -> Result<M, OpenError> {
    let len = envelope.payload.len();
    if len > HELLO_LEN_MAX {
        let topic = envelope.topic.clone();
        return Err(OpenError::TooLarge { topic, len, len_max: HELLO_LEN_MAX });
    }
    envelope.open()
}

fn check_metadata(envelope: &Envelope, create: &PropletCreate) -> Result<(), OpenError> {
    let text = serde_json::to_vec(&create.metadata).expect("JSON serializes");
    if text.len() <= METADATA_LEN_MAX {
        return Ok(());
    }
    let what = format!(
        "metadata of {} has {} bytes, at most {METADATA_LEN_MAX} are taken",
        create.proplet_id,
        text.len()
    );
    Err(invalid(envelope, what))
}

fn invalid(envelope: &Envelope, what: String) -> OpenError {
    OpenError::Invalid { topic: envelope.topic.clone(), what }
}
