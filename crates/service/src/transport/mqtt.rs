//! MQTT 3.1.1 through rumqttc.

/// What rumqttc needs to acknowledge a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unacknowledged(pub(crate) rumqttc::Publish);
