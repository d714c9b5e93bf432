//! What holds after every run, whatever went wrong in it. One file each, one line in
//! [`PROPERTIES`].

mod gapless;
mod kept;
mod ledger;
mod rounds_end;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::{
    Digest, ModelVersion, PropletId, RoundId,
    message::{RoundComplete, RoundFailed},
};

/// One line of the list.
#[derive(Clone, Copy)]
pub struct Property {
    pub name: &'static str,
    pub summary: &'static str,
    /// What is wrong, if anything is.
    pub check: fn(&Evidence) -> Result<(), String>,
}

/// Every property that a swarm checks.
pub const PROPERTIES: &[Property] = &[
    Property {
        name: "gapless",
        summary: "versions have no gaps, one a round, none with two contents",
        check: gapless::check,
    },
    Property {
        name: "ledger",
        summary: "models hold what was counted, once, and nothing else",
        check: ledger::check,
    },
    Property { name: "rounds_end", summary: "every round ends", check: rounds_end::check },
    Property { name: "kept", summary: "nothing that was accepted is lost", check: kept::check },
];

/// What a run left behind, as seen at the broker and on the model server's disk.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub rounds: BTreeMap<RoundId, RoundEvidence>,
    /// Every content that was ever published as a version.
    pub published: BTreeMap<ModelVersion, BTreeSet<Digest>>,
    /// Rounds whose end the operator has not heard of.
    pub unheard: BTreeSet<RoundId>,
    /// The model server's files at the end.
    pub models: BTreeMap<ModelVersion, Bytes>,
    /// By proplet, what it submits: its position and its number of samples.
    pub members: BTreeMap<PropletId, (usize, u64)>,
}

/// What was said about one round.
#[derive(Clone, Debug, Default)]
pub struct RoundEvidence {
    /// Whether the operator asked for it.
    pub asked: bool,
    pub completions: Vec<RoundComplete>,
    pub failures: Vec<RoundFailed>,
    pub accepted: BTreeSet<PropletId>,
}

impl Evidence {
    /// Every property that does not hold, with what is wrong.
    pub fn violations(&self) -> Vec<(&'static str, String)> {
        let all = PROPERTIES.iter();
        all.filter_map(|it| (it.check)(self).err().map(|what| (it.name, what))).collect()
    }
}

impl std::fmt::Debug for Property {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{FailReason, ModelUri, Timestamp};

    use super::*;

    /// Two proplets of three are counted by the one round there is.
    fn sound() -> Evidence {
        let id = |name: &str| name.parse::<PropletId>().unwrap();
        let complete = RoundComplete {
            round_id: "r".parse().unwrap(),
            model_version: ModelVersion(1),
            model_topic: ModelUri::global(ModelVersion(1)),
            num_updates: 2,
            total_samples: 8,
            completed_at: Timestamp::ZERO,
            duration_ms: 0,
            participants: vec![id("a"), id("b")],
            metrics: BTreeMap::new(),
            contributions: BTreeMap::new(),
            rejected: BTreeMap::new(),
            purpose: protocol::message::Purpose::Train,
            quantiles: BTreeMap::new(),
            late: 0,
            outstanding: BTreeSet::new(),
        };
        let round = RoundEvidence {
            asked: true,
            completions: vec![complete],
            failures: vec![],
            accepted: [id("a")].into(),
        };
        let models: BTreeMap<_, _> = [
            (ModelVersion(0), Bytes::from_static(br#"{"w":[0.0,0.0,0.0],"version":0}"#)),
            (ModelVersion(1), Bytes::from_static(br#"{"w":[0.375,0.625,0.0],"version":1}"#)),
        ]
        .into();
        Evidence {
            rounds: [("r".parse().unwrap(), round)].into(),
            published: models.iter().map(|(v, m)| (*v, [Digest::of(m)].into())).collect(),
            unheard: BTreeSet::new(),
            models,
            members: [(id("a"), (0, 3)), (id("b"), (1, 5)), (id("c"), (2, 7))].into(),
        }
    }

    fn broken(change: impl FnOnce(&mut Evidence)) -> Vec<&'static str> {
        let mut evidence = sound();
        change(&mut evidence);
        evidence.violations().into_iter().map(|(name, _)| name).collect()
    }

    fn round(evidence: &mut Evidence) -> &mut RoundEvidence {
        evidence.rounds.values_mut().next().unwrap()
    }

    #[test]
    fn a_sound_run_passes_and_every_damage_is_named() {
        assert_eq!(sound().violations(), []);
        let gap = broken(|it| drop(it.models.remove(&ModelVersion(0))));
        assert!(gap.contains(&"gapless"), "{gap:?}");
        let twice = broken(|it| {
            it.published.get_mut(&ModelVersion(1)).unwrap().insert(Digest::of(b"other"));
        });
        assert_eq!(twice, ["gapless"]);
        let other = Bytes::from_static(br#"{"w":[0.375,0.5,0.125],"version":1}"#);
        let forged = broken(|it| drop(it.models.insert(ModelVersion(1), other)));
        assert_eq!(forged, ["ledger"]);
        let open = broken(|it| it.unheard = ["r".parse().unwrap()].into());
        assert_eq!(open, ["rounds_end"]);
        let both = broken(|it| {
            round(it).failures.push(RoundFailed {
                round_id: "r".parse().unwrap(),
                reason: FailReason::TooFewUpdates,
                num_updates: 0,
                k_of_n: 2,
                failed_at: Timestamp::ZERO,
                error: None,
                outstanding: BTreeSet::new(),
            });
        });
        assert_eq!(both, ["rounds_end"]);
        let lost = broken(|it| round(it).accepted = ["c".parse().unwrap()].into());
        assert!(lost.contains(&"kept") && lost.contains(&"ledger"), "{lost:?}");
    }
}
