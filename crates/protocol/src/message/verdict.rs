//! The coordinator's word on an update; until a proplet hears it, it sends the update again.

use serde::{Deserialize, Serialize};

use crate::{Letter, PropletId, Rejection, RoundId, Topic};

/// The verdict on one proplet's update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateAck {
    pub round_id: RoundId,
    /// From the topic.
    pub proplet_id: PropletId,
    pub verdict: Verdict,
}

/// Counted durably, or not counted and never to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Rejected(Rejection),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    round_id: RoundId,
    verdict: Word,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Rejection>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Accepted,
    Rejected,
}

impl UpdateAck {
    /// Reads the payload of an ack; the proplet stands in the topic.
    pub fn read(proplet_id: PropletId, payload: &[u8]) -> Result<Self, serde_json::Error> {
        let wire: Wire = serde_json::from_slice(payload)?;
        let verdict = match wire.verdict {
            Word::Accepted => Verdict::Accepted,
            Word::Rejected => Verdict::Rejected(wire.reason.unwrap_or(Rejection::Malformed)),
        };
        Ok(Self { round_id: wire.round_id, proplet_id, verdict })
    }
}

impl Serialize for UpdateAck {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (verdict, reason) = match self.verdict {
            Verdict::Accepted => (Word::Accepted, None),
            Verdict::Rejected(reason) => (Word::Rejected, Some(reason)),
        };
        Wire { round_id: self.round_id.clone(), verdict, reason }.serialize(serializer)
    }
}

impl Letter for UpdateAck {
    fn topic(&self) -> Topic {
        Topic::RoundAck { round: self.round_id.clone(), proplet: self.proplet_id.clone() }
    }
}
