//! Every round that was asked for ends, in one way.

use super::{Evidence, RoundEvidence};

impl RoundEvidence {
    pub(super) fn has_ended(&self) -> bool {
        !self.completions.is_empty() || !self.failures.is_empty()
    }
}

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    if let Some(round) = evidence.unheard.first() {
        return Err(format!("the operator has not heard how round {round} ended"));
    }
    for (round, heard) in &evidence.rounds {
        if heard.asked && !heard.has_ended() {
            return Err(format!("round {round} has not ended"));
        }
        if !heard.completions.is_empty() && !heard.failures.is_empty() {
            return Err(format!("round {round} both completed and failed"));
        }
        if heard.completions.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("round {round} completed in two different ways"));
        }
    }
    Ok(())
}
