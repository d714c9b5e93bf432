//! What must hold after any run, whatever was killed, delayed or repeated in it: judged from what
//! an outsider hears.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    PropletId,
    ledger::{self, Claim, Standing},
    message::{RoundComplete, UpdateAck, Verdict},
};

use crate::{OneHotFleet, Operator, Peer};

/// Holds a completed round against the ledger: everybody who heard `accepted` is in the model once,
/// nobody else is in it more than once or against a rejection. The seats that were counted.
#[track_caller]
pub fn judge(
    operator: &Operator,
    fleet: &OneHotFleet,
    complete: &RoundComplete,
) -> BTreeSet<usize> {
    let round = complete.round_id.as_str();
    let model = operator.model(complete.model_version.0);
    assert_eq!(model.version, complete.model_version, "the model names its own version");
    let claim = Claim { num_updates: complete.num_updates, total_samples: complete.total_samples };
    let members = fleet.ledger(|member| standing(operator.peer(), round, member));
    let counted = ledger::check(&members, &model.tensors, claim).unwrap_or_else(|violations| {
        let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
        panic!("round {round}: {}\nmodel: {:?}\n{complete:?}", list.join("; "), model.tensors)
    });
    counted.into_iter().map(|index| index - 1).collect()
}

/// What a member was told; a member that heard both keeps to `accepted`.
fn standing(peer: &Peer, round: &str, member: &PropletId) -> Standing {
    let acks = peer.all(&format!("fl/rounds/{round}/acks/{member}"));
    let verdicts: Vec<Verdict> = acks
        .iter()
        .map(|ack| {
            let read = UpdateAck::read(member.clone(), &ack.payload);
            read.unwrap_or_else(|why| panic!("{}: {why}: {}", ack.topic, ack.text())).verdict
        })
        .collect();
    if verdicts.contains(&Verdict::Accepted) {
        Standing::Accepted
    } else if verdicts.is_empty() {
        Standing::Unheard
    } else {
        Standing::Refused
    }
}

/// Versions 0 to `newest` are all there, each was only ever shown with the same bytes, each belongs
/// to one round, and no round claims two.
#[track_caller]
pub fn versions_are_whole(operator: &Operator, newest: u64) {
    for version in 0..=newest {
        operator.model(version);
    }
    let mut shown: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for heard in operator.peer().all("fl/models/+") {
        if heard.topic.starts_with("fl/models/global_model_v") {
            shown.entry(heard.topic).or_default().insert(heard.payload);
        }
    }
    assert_eq!(shown.len() as u64, newest + 1, "versions 0 to {newest}: {:?}", shown.keys());
    for (topic, payloads) in shown {
        assert_eq!(payloads.len(), 1, "{topic} was shown with different contents");
    }
    let mut claims: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut made: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for heard in operator.peer().all("fl/rounds/+/complete") {
        let complete: RoundComplete =
            serde_json::from_slice(&heard.payload).expect("a completion can be read");
        // An evaluation makes none: it names the model that it looked at.
        if !complete.quantiles.is_empty() {
            continue;
        }
        let (round, version) = (complete.round_id.to_string(), complete.model_version.0);
        claims.entry(version).or_default().insert(round.clone());
        made.entry(round).or_default().insert(version);
    }
    assert!(claims.values().all(|rounds| rounds.len() == 1), "a version of two rounds: {claims:?}");
    assert!(made.values().all(|versions| versions.len() == 1), "a round of two versions: {made:?}");
}
