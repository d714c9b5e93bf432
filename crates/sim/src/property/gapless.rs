//! Versions count up from 0 without gaps, each with one content, each made by one round.

use std::collections::BTreeMap;

use super::Evidence;

pub(super) fn check(evidence: &Evidence) -> Result<(), String> {
    for (expected, version) in (0..).zip(evidence.models.keys()) {
        if version.0 != expected {
            return Err(format!("version {expected} is missing, {version} is there"));
        }
    }
    for (version, contents) in &evidence.published {
        if contents.len() > 1 {
            return Err(format!(
                "version {version} was published with {} contents",
                contents.len()
            ));
        }
        if !evidence.models.contains_key(version) {
            return Err(format!("version {version} was published and has no file"));
        }
    }
    let mut made_by = BTreeMap::new();
    for (round, heard) in &evidence.rounds {
        let versions: Vec<_> = heard.completions.iter().map(|it| it.model_version).collect();
        if versions.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("round {round} completed with several versions: {versions:?}"));
        }
        let Some(version) = versions.first() else { continue };
        if let Some(other) = made_by.insert(*version, round) {
            return Err(format!("version {version} was made by {other} and by {round}"));
        }
    }
    match evidence.models.keys().find(|it| it.0 > 0 && !made_by.contains_key(it)) {
        Some(version) if evidence.rounds.values().all(super::RoundEvidence::has_ended) => {
            Err(format!("version {version} was made by no round"))
        }
        Some(_) | None => Ok(()),
    }
}
