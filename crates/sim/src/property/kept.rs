//! Whoever was told that its update is accepted, is among those that the round counted.

use super::Evidence;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    for (round, heard) in &evidence.rounds {
        let Some(complete) = heard.completions.first() else { continue };
        let lost = heard.accepted.iter().find(|it| !complete.participants.contains(it));
        if let Some(lost) = lost {
            return Err(format!("round {round}: {lost} was accepted and is not counted"));
        }
        if !evidence.models.contains_key(&complete.model_version) {
            let version = complete.model_version;
            return Err(format!("round {round} made version {version}, which has no file"));
        }
    }
    Ok(())
}
