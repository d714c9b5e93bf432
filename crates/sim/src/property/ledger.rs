//! Every published model holds exactly the updates that its round counted.

use protocol::{
    ledger::{self, Claim, Member, Standing},
    message::Model,
};

use super::Evidence;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    for (round, heard) in &evidence.rounds {
        let Some(complete) = heard.completions.first() else { continue };
        let Some(model) = evidence.models.get(&complete.model_version) else { continue };
        let model: Model =
            serde_json::from_slice(model).map_err(|why| format!("round {round}: {why}"))?;
        let members = evidence.members.iter().map(|(proplet, (index, num_samples))| {
            let counted = complete.participants.contains(proplet);
            let standing = match (heard.accepted.contains(proplet), counted) {
                (true, _) | (false, true) => Standing::Accepted,
                (false, false) => Standing::Refused,
            };
            Member { index: *index, num_samples: *num_samples, standing }
        });
        let members: Vec<_> = members.collect();
        let claim =
            Claim { num_updates: complete.num_updates, total_samples: complete.total_samples };
        if let Err(violations) = ledger::check(&members, &model.tensors, claim) {
            let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
            return Err(format!("round {round}: {}", all.join("; ")));
        }
    }
    Ok(())
}
