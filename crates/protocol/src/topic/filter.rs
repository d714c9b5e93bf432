//! What may be subscribed to: exact topics, and the wildcards that the platform needs.

use crate::{PropletId, Topic};

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// One topic.
    Exactly(Topic),
    /// Updates of every round and proplet.
    AnyUpdate,
    /// Absences of every round.
    AnyAbsent,
    /// `opened` of every round.
    AnyOpened,
    /// Completions of every round.
    AnyComplete,
    /// Failures of every round.
    AnyFailed,
    /// Verdicts on one proplet's updates, in every round.
    AcksOf(PropletId),
    /// Every model version of every line.
    AnyModel,
    /// New models of every line but the default one.
    AnyModelPublish,
    /// What is lacking of the new models of those lines.
    AnyModelPublishWants,
    /// Which model is the newest of those lines.
    AnyModelLatest,
    /// Who lacks the pieces of a model of those lines.
    AnyModelWants,
    /// The pieces of those lines' new models.
    AnyLinePublishChunk,
    /// What the coordinator lacks of one proplet's updates, in every round.
    UpdateWantsOf(PropletId),
    /// The pieces of every round's and proplet's updates.
    AnyUpdateChunk,
    /// The pieces of the default line's new models.
    AnyModelPublishChunk,
    /// What is asked of any session.
    AnySessionCommand,
    /// How every session stands.
    AnySessionStatus,
    /// Everything that concerns rounds and models, for those who watch.
    Everything,
}

impl Filter {
    /// The filter in MQTT's syntax, with `{B}` for the control topics' base.
    pub(super) fn pattern(&self) -> String {
        match self {
            Self::Exactly(topic) => topic.to_string(),
            Self::AnyUpdate => "fl/rounds/+/updates/+".to_owned(),
            Self::AnyAbsent => "fl/rounds/+/absent".to_owned(),
            Self::AnyOpened => "fl/rounds/+/opened".to_owned(),
            Self::AnyComplete => "fl/rounds/+/complete".to_owned(),
            Self::AnyFailed => "fl/rounds/+/failed".to_owned(),
            Self::AcksOf(proplet) => format!("fl/rounds/+/acks/{proplet}"),
            Self::AnyModel => "fl/models/+".to_owned(),
            Self::AnyModelPublish => "fl/lines/+/publish".to_owned(),
            Self::AnyModelPublishWants => "fl/lines/+/publish/wants".to_owned(),
            Self::AnyModelLatest => "fl/lines/+/latest".to_owned(),
            Self::AnyModelWants => "fl/lines/+/wants".to_owned(),
            Self::AnyLinePublishChunk => "fl/lines/+/publish/+/chunks/+".to_owned(),
            Self::UpdateWantsOf(proplet) => format!("fl/rounds/+/wants/{proplet}"),
            Self::AnyUpdateChunk => "fl/rounds/+/updates/+/chunks/+".to_owned(),
            Self::AnyModelPublishChunk => "fl/models/publish/+/chunks/+".to_owned(),
            Self::AnySessionCommand => "fl/sessions/+/command".to_owned(),
            Self::AnySessionStatus => "fl/sessions/+/status".to_owned(),
            Self::Everything => "fl/#".to_owned(),
        }
    }

    /// Whether a message on `topic` is meant by this filter.
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Self::Exactly(one) => one == topic,
            Self::AnyUpdate => matches!(topic, Topic::RoundUpdate { .. }),
            Self::AnyAbsent => matches!(topic, Topic::RoundAbsent { .. }),
            Self::AnyOpened => matches!(topic, Topic::RoundOpened { .. }),
            Self::AnyComplete => matches!(topic, Topic::RoundComplete { .. }),
            Self::AnyFailed => matches!(topic, Topic::RoundFailed { .. }),
            Self::AcksOf(of) => matches!(topic, Topic::RoundAck { proplet, .. } if proplet == of),
            Self::AnyModel => {
                let is_below_home = matches!(
                    topic,
                    Topic::ModelLatest { .. }
                        | Topic::ModelPublish { .. }
                        | Topic::ModelWants { .. }
                );
                matches!(topic, Topic::Model { .. }) || is_below_home && !is_of_other_line(topic)
            }
            Self::AnyModelPublish => {
                matches!(topic, Topic::ModelPublish { .. }) && is_of_other_line(topic)
            }
            Self::AnyModelPublishWants => {
                matches!(topic, Topic::ModelPublishWants { .. }) && is_of_other_line(topic)
            }
            Self::AnyModelLatest => {
                matches!(topic, Topic::ModelLatest { .. }) && is_of_other_line(topic)
            }
            Self::AnyModelWants => {
                matches!(topic, Topic::ModelWants { .. }) && is_of_other_line(topic)
            }
            Self::AnyLinePublishChunk => {
                matches!(topic, Topic::ModelPublishChunk { .. }) && is_of_other_line(topic)
            }
            Self::UpdateWantsOf(of) => {
                matches!(topic, Topic::UpdateWants { proplet, .. } if proplet == of)
            }
            Self::AnyUpdateChunk => matches!(topic, Topic::UpdateChunk { .. }),
            Self::AnyModelPublishChunk => {
                matches!(topic, Topic::ModelPublishChunk { .. }) && !is_of_other_line(topic)
            }
            Self::AnySessionCommand => matches!(topic, Topic::SessionCommand { .. }),
            Self::AnySessionStatus => matches!(topic, Topic::SessionStatus { .. }),
            Self::Everything => topic.to_string().starts_with("fl/"),
        }
    }
}

fn is_of_other_line(topic: &Topic) -> bool {
    topic.line().is_some_and(|line| !line.is_default())
}
