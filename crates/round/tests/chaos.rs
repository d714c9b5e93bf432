//! Everything repeated, reordered, lost and killed at random: the ledger stays exact, every round
//! ends, and versions have no gap.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

#[allow(unreachable_pub, clippy::wildcard_enum_match_arm, reason = "a module of tests")]
mod story;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;
use protocol::{
    Digest, Envelope, Input, Letter as _, Machine as _, ModelUri, ModelVersion, Output, Tensors,
    Topic,
    ledger::{self, Claim, Member, Standing},
    message::{Model, RoundComplete, RoundFailed, Verdict},
};
use round::{Effect, Job, News, Rules};
use serde_json::json;
use story::*;

const PROPLETS: [&str; 4] = ["a", "b", "c", "d"];
const SAMPLES: [u64; 4] = [3, 5, 7, 11];
const ROUNDS: [&str; 3] = ["r1", "r2", "r3"];

/// One thing that goes right or wrong.
#[derive(Clone, Debug)]
enum Happening {
    Start(usize),
    Update(usize, usize),
    /// Another update of the same proplet.
    OtherUpdate(usize, usize),
    Absent(usize, usize),
    Base,
    Time(u64),
    Reconnect,
    /// An averaging that is under way ends.
    Averaged(usize),
    /// The model server hears something that was said, in any order, and possibly again.
    Stored(usize),
    /// The coordinator hears of a newest model, possibly an old one.
    Shown(usize),
    /// Kill -9 between steps.
    Crash,
    /// Kill -9 in the next step, after it was written and before anything else.
    CrashAfterWrite,
    /// Kill -9 in the next step, before it was written.
    CrashBeforeWrite,
}

fn happening() -> impl Strategy<Value = Happening> {
    let pair = || (0..ROUNDS.len(), 0..PROPLETS.len());
    prop_oneof![
        3 => (0..ROUNDS.len()).prop_map(Happening::Start),
        12 => pair().prop_map(|(round, proplet)| Happening::Update(round, proplet)),
        2 => pair().prop_map(|(round, proplet)| Happening::OtherUpdate(round, proplet)),
        1 => pair().prop_map(|(round, proplet)| Happening::Absent(round, proplet)),
        2 => Just(Happening::Base),
        3 => (0..12_u64).prop_map(Happening::Time),
        1 => Just(Happening::Reconnect),
        4 => any::<usize>().prop_map(Happening::Averaged),
        4 => any::<usize>().prop_map(Happening::Stored),
        4 => any::<usize>().prop_map(Happening::Shown),
        2 => Just(Happening::Crash),
        1 => Just(Happening::CrashAfterWrite),
        1 => Just(Happening::CrashBeforeWrite),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    DiesAfterWrite,
    DiesBeforeWrite,
}

/// A coordinator among peers that lose and repeat everything.
struct World {
    story: Story,
    fate: Fate,
    jobs: Vec<Job>,
    published: Vec<Bytes>,
    /// The model server: what it stored, in order of versions.
    stored: Vec<Bytes>,
    shown: Vec<Envelope>,
    accepted: BTreeSet<(usize, usize)>,
    refused: BTreeSet<(usize, usize)>,
    complete: BTreeMap<String, RoundComplete>,
    failed: BTreeMap<String, RoundFailed>,
}

impl World {
    fn new() -> Self {
        let model = Model::new(ModelVersion(0), zeros()).seal().payload;
        let mut world = Self {
            story: Story::unconnected(Rules::default()),
            fate: Fate::Lives,
            jobs: vec![],
            published: vec![],
            shown: vec![latest(0, Digest::of(&model))],
            stored: vec![model],
            accepted: BTreeSet::new(),
            refused: BTreeSet::new(),
            complete: BTreeMap::new(),
            failed: BTreeMap::new(),
        };
        world.tell(Input::Connected { resumed: false });
        world
    }

    fn happens(&mut self, happening: &Happening) {
        match *happening {
            Happening::Start(round) => self.hears(start(ROUNDS[round], &PROPLETS, 3).seal()),
            Happening::Update(round, proplet) => {
                self.hears(one_hot(round, proplet, SAMPLES[proplet]));
            }
            Happening::OtherUpdate(round, proplet) => self.hears(one_hot(round, proplet, 1_000)),
            Happening::Absent(round, proplet) => {
                self.hears(absent(ROUNDS[round], PROPLETS[proplet]));
            }
            Happening::Base => {
                let topic = Topic::Model { uri: ModelUri::global(ModelVersion(0)) };
                self.hears(Envelope { topic, payload: self.stored[0].clone() });
            }
            Happening::Time(seconds) => {
                self.story.now = self.story.now + Duration::from_secs(seconds);
                self.tell(Input::Tick);
            }
            Happening::Reconnect => self.tell(Input::Connected { resumed: false }),
            Happening::Averaged(which) => {
                if !self.jobs.is_empty() {
                    let job = self.jobs.remove(which % self.jobs.len());
                    self.tell(Input::Report(average(&job)));
                }
            }
            Happening::Stored(which) => {
                if !self.published.is_empty() {
                    self.store(self.published[which % self.published.len()].clone());
                }
            }
            Happening::Shown(which) => {
                let latest = self.shown[which % self.shown.len()].clone();
                self.hears(latest);
            }
            Happening::Crash => self.restart(),
            Happening::CrashAfterWrite => self.fate = Fate::DiesAfterWrite,
            Happening::CrashBeforeWrite => self.fate = Fate::DiesBeforeWrite,
        }
    }

    fn hears(&mut self, envelope: Envelope) {
        self.tell(Input::News(News::try_from(envelope).unwrap()));
    }

    /// What the driver does: write, then everything else.
    fn tell(&mut self, input: Input<News, round::Report>) {
        let outputs = self.story.rounds.step(input, self.story.now);
        let fate = std::mem::replace(&mut self.fate, Fate::Lives);
        if fate == Fate::DiesBeforeWrite {
            return self.restart();
        }
        self.story.disk.write(&outputs);
        for output in outputs {
            match output {
                Output::Promise(envelope) => self.notice(&envelope),
                Output::Publish(_) | Output::Effect(_) if fate == Fate::DiesAfterWrite => {}
                Output::Publish(envelope) => self.notice(&envelope),
                Output::Effect(Effect::Aggregate(job)) => self.jobs.push(job),
                Output::Effect(Effect::Note(_) | Effect::Hold(_) | Effect::Answer { .. })
                | Output::Keep(_)
                | Output::Listen(_)
                | Output::Unlisten(_) => {}
                Output::Effect(
                    Effect::Begin(_)
                    | Effect::Store { .. }
                    | Effect::Finish { .. }
                    | Effect::Decode { .. }
                    | Effect::Pin(_)
                    | Effect::Unpin(_)
                    | Effect::Abandon(_)
                    | Effect::ReadChunk { .. }
                    | Effect::Drop(_),
                ) => panic!("nothing goes in pieces here: {output:?}"),
            }
        }
        if fate == Fate::DiesAfterWrite {
            self.restart();
        }
    }

    fn restart(&mut self) {
        self.jobs.clear();
        let mut again = Story::unconnected(self.story.rules);
        again.now = self.story.now;
        again.disk = self.story.disk.clone();
        again.rounds.restore(again.disk.entries()).unwrap();
        self.story = again;
        self.tell(Input::Connected { resumed: true });
    }

    /// The model server's rule: exactly the next version, or the same bytes again.
    fn store(&mut self, payload: Bytes) {
        let version = serde_json::from_slice::<Model>(&payload).unwrap().version.0;
        let index = usize::try_from(version).unwrap();
        if index == self.stored.len() {
            self.stored.push(payload);
        }
        if let Some(stored) = self.stored.get(index) {
            let newest = self.stored.last().unwrap();
            assert!(!stored.is_empty());
            let newest_version = self.stored.len() as u64 - 1;
            self.shown.push(latest(newest_version, Digest::of(newest)));
        }
    }

    fn notice(&mut self, envelope: &Envelope) {
        match &envelope.topic {
            Topic::ModelPublish { .. } => self.published.push(envelope.payload.clone()),
            Topic::RoundAck { .. } => {
                let outputs = vec![Output::Publish(envelope.clone())];
                let (round, proplet, verdict) = verdicts(&outputs).remove(0);
                let round = ROUNDS.iter().position(|id| *id == round.as_str()).unwrap();
                let proplet = PROPLETS.iter().position(|id| *id == proplet.as_str()).unwrap();
                match verdict {
                    Verdict::Accepted => self.accepted.insert((round, proplet)),
                    Verdict::Rejected(protocol::Rejection::RoundClosed) => {
                        self.refused.insert((round, proplet))
                    }
                    Verdict::Rejected(_) => false,
                };
            }
            Topic::RoundComplete { round } => {
                let said: RoundComplete = envelope.open().unwrap();
                let before = self.complete.insert(round.to_string(), said.clone());
                assert!(before.is_none_or(|before| before == said), "two completions of {round}");
            }
            Topic::RoundFailed { round } => {
                let said: RoundFailed = envelope.open().unwrap();
                let before = self.failed.insert(round.to_string(), said.clone());
                assert!(before.is_none_or(|before| before == said), "two failures of {round}");
            }
            _ => {}
        }
    }

    /// The peers' patience: everything is said again until every round has ended.
    fn settles(&mut self) {
        for _ in 0..40 {
            for round in 0..ROUNDS.len() {
                self.happens(&Happening::Start(round));
            }
            self.happens(&Happening::Base);
            for (round, proplet) in (0..3).flat_map(|r| (0..4).map(move |p| (r, p))) {
                self.happens(&Happening::Update(round, proplet));
            }
            self.happens(&Happening::Averaged(0));
            self.published.clone().into_iter().for_each(|payload| self.store(payload));
            let newest = self.shown.last().unwrap().clone();
            self.hears(newest);
            for payload in self.stored.clone() {
                let version = serde_json::from_slice::<Model>(&payload).unwrap().version;
                self.hears(Envelope {
                    topic: Topic::Model { uri: ModelUri::global(version) },
                    payload,
                });
            }
            self.happens(&Happening::Time(5));
        }
    }

    fn is_exact(&self) {
        for (index, round) in ROUNDS.iter().enumerate() {
            let done = self.complete.get(*round);
            assert!(done.is_some() != self.failed.contains_key(*round), "{round} ends one way");
            let Some(done) = done else { continue };
            let version = usize::try_from(done.model_version.0).unwrap();
            let model: Model = serde_json::from_slice(&self.stored[version]).unwrap();
            let claim = Claim { num_updates: done.num_updates, total_samples: done.total_samples };
            let counted = ledger::check(&self.members(index, done), &model.tensors, claim);
            let counted = counted.unwrap_or_else(|wrong| panic!("{round}: {wrong:?}"));
            let named: BTreeSet<usize> = done
                .participants
                .iter()
                .map(|id| PROPLETS.iter().position(|name| *name == id.as_str()).unwrap())
                .collect();
            assert_eq!(counted, named);
        }
        let versions: BTreeSet<u64> = self.complete.values().map(|c| c.model_version.0).collect();
        let expected: BTreeSet<u64> = (1..=self.complete.len() as u64).collect();
        assert_eq!(versions, expected, "one version a round, no gap");
        assert_eq!(self.stored.len(), self.complete.len() + 1);
    }

    /// Where a proplet sent another update first, that one counts: its samples are in the claim.
    fn members(&self, round: usize, done: &RoundComplete) -> Vec<Member> {
        let names = PROPLETS.iter().zip(SAMPLES).enumerate();
        let mut members: Vec<Member> = names
            .map(|(index, (_, num_samples))| {
                let accepted = self.accepted.contains(&(round, index));
                let refused = self.refused.contains(&(round, index));
                let standing = match (accepted, refused) {
                    (true, _) => Standing::Accepted,
                    (false, true) => Standing::Refused,
                    (false, false) => Standing::Unheard,
                };
                Member { index, num_samples, standing }
            })
            .collect();
        let others = done.total_samples / 1_000;
        if others > 0 {
            let model = &self.stored[usize::try_from(done.model_version.0).unwrap()];
            let values = serde_json::from_slice::<Model>(model).unwrap().tensors.flatten();
            for member in &mut members {
                if values[member.index] * done.total_samples as f64 > 500.0 {
                    member.num_samples = 1_000;
                }
            }
        }
        members
    }
}

fn zeros() -> Tensors {
    tensors(&[0.0; PROPLETS.len() + 1])
}

fn one_hot(round: usize, proplet: usize, num_samples: u64) -> Envelope {
    let update = ledger::one_hot(&zeros().schema(), proplet).unwrap();
    sent(&json!({
        "round_id": ROUNDS[round], "proplet_id": PROPLETS[proplet],
        "base_model_uri": ModelUri::global(ModelVersion(0)).to_string(),
        "num_samples": num_samples, "metrics": {"loss": 0.5}, "update": update,
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_exact_whatever_happens(
        happenings in proptest::collection::vec(happening(), 0..150),
    ) {
        let mut world = World::new();
        happenings.iter().for_each(|happening| world.happens(happening));
        world.settles();
        world.is_exact();
    }
}

/// The same run, killed at each of its steps in turn, before and after the step is written.
#[test]
fn a_death_at_any_step_changes_nothing() {
    let run: Vec<Happening> = (0..ROUNDS.len())
        .flat_map(|round| {
            let updates = (0..4).map(move |proplet| Happening::Update(round, proplet));
            [Happening::Start(round), Happening::Base].into_iter().chain(updates).chain([
                Happening::Shown(0),
                Happening::Averaged(0),
                Happening::Stored(round),
                Happening::Shown(usize::MAX),
                Happening::Time(1),
            ])
        })
        .collect();
    for at in 0..run.len() {
        for death in [Happening::Crash, Happening::CrashAfterWrite, Happening::CrashBeforeWrite] {
            let mut world = World::new();
            for (step, happening) in run.iter().enumerate() {
                if step == at {
                    world.happens(&death);
                }
                world.happens(happening);
            }
            world.settles();
            world.is_exact();
            assert_eq!(world.complete.len(), ROUNDS.len());
        }
    }
}
