//! Rounds that do not wait for the slow: late updates count in a later round, once, whatever is
//! killed, and the models hold exactly what was counted.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

#[allow(unreachable_pub, clippy::wildcard_enum_match_arm, reason = "a module of tests")]
mod story;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use aggregate::Work;
use bytes::Bytes;
use proptest::prelude::*;
use protocol::{
    Digest, Envelope, Filter, Input, Letter as _, Machine as _, ModelUri, ModelVersion, Output,
    Rejection, Tensors, Topic,
    ledger::{self, Claim, Member, Standing},
    message::{Model, Purpose, RoundComplete, RoundFailed, RoundStart, StrategySpec, Verdict},
};
use round::{Effect, Job, News, Note, Rules};
use serde_json::json;
use story::*;

const PROPLETS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const SAMPLES: [u64; 6] = [3, 5, 7, 11, 13, 17];
/// Updates that make a model.
const BUFFER: usize = 2;
const STALENESS_MAX: u64 = 3;

/// A task of a participant: the round that it is for, who has it, and the model it starts from.
type Task = (String, usize, u64);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    DiesAfterWrite,
    DiesBeforeWrite,
}

/// A coordinator, its shell, its model server, and proplets that ask until they are answered.
struct World {
    story: Story,
    fate: Fate,
    /// The step in which the coordinator is killed, and how.
    killed_in: Option<(usize, Fate)>,
    steps: usize,
    models: Vec<Bytes>,
    tasks: BTreeSet<Task>,
    verdicts: BTreeMap<(String, usize), Verdict>,
    complete: BTreeMap<String, RoundComplete>,
    failed: BTreeMap<String, RoundFailed>,
    /// Aggregations under way, where they take their time.
    jobs: Option<Vec<Job>>,
    queue: VecDeque<Outputs>,
}

impl World {
    fn new(killed_in: Option<(usize, Fate)>) -> Self {
        let model = Model::new(ModelVersion(0), zeros()).seal().payload;
        let mut world = Self {
            story: Story::unconnected(Rules::default()),
            fate: Fate::Lives,
            killed_in,
            steps: 0,
            models: vec![model],
            tasks: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            complete: BTreeMap::new(),
            failed: BTreeMap::new(),
            jobs: None,
            queue: VecDeque::new(),
        };
        world.tell(Input::Connected { resumed: false });
        world.shows();
        world
    }

    fn version(&self) -> u64 {
        self.models.len() as u64 - 1
    }

    fn tensors(&self, version: u64) -> Vec<f64> {
        let payload = &self.models[usize::try_from(version).unwrap()];
        Model::read(payload).unwrap().tensors.flatten()
    }

    fn shows(&mut self) {
        let digest = Digest::of(self.models.last().unwrap());
        self.hears(latest(self.version(), digest));
    }

    fn hears(&mut self, envelope: Envelope) {
        self.tell(Input::News(News::try_from(envelope).unwrap()));
    }

    fn tell(&mut self, input: Input<News, round::Report>) {
        self.step(input);
        while let Some(outputs) = self.queue.pop_front() {
            for output in outputs {
                match output {
                    Output::Effect(Effect::Aggregate(job)) => match &mut self.jobs {
                        Some(jobs) => jobs.push(job),
                        None => self.averages(&job),
                    },
                    Output::Listen(Filter::Exactly(Topic::Model { uri })) => self.retained(&uri),
                    Output::Publish(Envelope { topic: Topic::ModelPublish { .. }, payload }) => {
                        self.store(payload);
                    }
                    _ => {}
                }
            }
        }
    }

    /// One step as the driver does it: write, then everything else.
    fn step(&mut self, input: Input<News, round::Report>) {
        self.steps += 1;
        if let Some((_, fate)) = self.killed_in.filter(|(step, _)| *step == self.steps) {
            self.fate = fate;
        }
        let outputs = self.story.rounds.step(input, self.story.now);
        match std::mem::replace(&mut self.fate, Fate::Lives) {
            Fate::DiesBeforeWrite => return self.restarts(),
            Fate::DiesAfterWrite => {
                self.story.disk.write(&outputs);
                let promised = outputs.into_iter().filter(|it| matches!(it, Output::Promise(_)));
                self.note(&promised.collect());
                return self.restarts();
            }
            Fate::Lives => {}
        }
        self.story.disk.write(&outputs);
        self.note(&outputs);
        self.queue.push_back(outputs);
    }

    fn restarts(&mut self) {
        self.queue.clear();
        if let Some(jobs) = &mut self.jobs {
            jobs.clear();
        }
        let mut again = Story::unconnected(self.story.rules);
        (again.now, again.disk) = (self.story.now, self.story.disk.clone());
        again.rounds.restore(again.disk.entries()).unwrap();
        self.story = again;
        let filters = self.story.rounds.filters();
        self.step(Input::Connected { resumed: true });
        let digest = Digest::of(self.models.last().unwrap());
        let shown = latest(self.version(), digest);
        self.step(Input::News(News::try_from(shown).unwrap()));
        for filter in filters {
            if let Filter::Exactly(Topic::Model { uri }) = filter {
                self.retained(&uri);
            }
        }
    }

    fn averages(&mut self, job: &Job) {
        self.step(Input::Report(round::average(job, &Work::default())));
    }

    fn retained(&mut self, uri: &ModelUri) {
        let Some(payload) = self.models.get(usize::try_from(uri.version.0).unwrap()) else {
            return;
        };
        let (topic, payload) = (Topic::Model { uri: uri.clone() }, payload.clone());
        self.step(Input::News(News::try_from(Envelope { topic, payload }).unwrap()));
    }

    /// The model server takes the model, once.
    fn store(&mut self, payload: Bytes) {
        let version = Model::read(&payload).unwrap().version.0;
        match self.models.get(usize::try_from(version).unwrap()) {
            Some(before) => assert_eq!(*before, payload, "version {version} was made twice"),
            None => {
                assert_eq!(version, self.version() + 1, "versions have no gaps");
                self.models.push(payload);
            }
        }
        let digest = Digest::of(self.models.last().unwrap());
        let shown = latest(self.version(), digest);
        self.step(Input::News(News::try_from(shown).unwrap()));
    }

    fn note(&mut self, outputs: &Outputs) {
        for (round, proplet, verdict) in verdicts(outputs) {
            let proplet = PROPLETS.iter().position(|name| *name == proplet.as_str()).unwrap();
            let key = (round.to_string(), proplet);
            self.tasks.retain(|(round, member, _)| (round, member) != (&key.0, &key.1));
            let before = self.verdicts.insert(key.clone(), verdict);
            if before == Some(Verdict::Accepted) {
                let other = Verdict::Rejected(Rejection::RoundClosed);
                let duplicate = Verdict::Rejected(Rejection::Duplicate);
                let known = [Verdict::Accepted, other, duplicate];
                assert!(known.contains(&verdict), "{key:?}: {verdict:?}");
                self.verdicts.insert(key, Verdict::Accepted);
            }
        }
        for envelope in said(outputs) {
            match &envelope.topic {
                Topic::RoundComplete { round } => {
                    let said: RoundComplete = envelope.open().unwrap();
                    let before = self.complete.insert(round.to_string(), said.clone());
                    assert!(before.is_none_or(|before| before == said), "two ends of {round}");
                }
                Topic::RoundFailed { round } => {
                    let said: RoundFailed = envelope.open().unwrap();
                    let before = self.failed.insert(round.to_string(), said.clone());
                    assert!(before.is_none_or(|before| before == said), "two ends of {round}");
                }
                _ => {}
            }
        }
    }

    fn start(&self, round: &str, participants: &[usize], base: u64) -> RoundStart {
        let names: Vec<&str> = participants.iter().map(|member| PROPLETS[*member]).collect();
        RoundStart {
            model_uri: ModelUri::global(ModelVersion(base)),
            staleness_max: Some(STALENESS_MAX),
            session: Some(id("s")),
            min_updates: Some(1),
            strategy: Some(StrategySpec {
                name: "fedbuff".to_owned(),
                params: BTreeMap::from([("staleness_exponent".to_owned(), 0.0)]),
            }),
            ..start(round, &names, BUFFER)
        }
    }

    /// The session asks for a round, until it is heard.
    fn asks(&mut self, round: &str, participants: &[usize]) {
        let base = self.version();
        let letter = self.start(round, participants, base).seal();
        for member in participants {
            self.tasks.insert((round.to_owned(), *member, base));
        }
        self.hears(letter.clone());
        self.hears(letter);
    }

    /// A proplet sends what it made; a few times, for nobody knows what was heard.
    fn sends(&mut self, round: &str, member: usize) {
        let base = self.tasks.iter().find(|task| (task.0.as_str(), task.1) == (round, member));
        let Some((.., base)) = base.cloned() else { return };
        for _ in 0..2 {
            self.hears(self.update(round, member, base, SAMPLES[member]));
        }
    }

    /// The model that the task started from, and a one at a place that is the member's own.
    fn update(&self, round: &str, member: usize, base: u64, num_samples: u64) -> Envelope {
        let mut values = self.tensors(base);
        values[member] += 1.0;
        let update = Tensors::unflatten(&zeros().schema(), &values).unwrap();
        sent(&json!({
            "round_id": round, "proplet_id": PROPLETS[member],
            "base_model_uri": ModelUri::global(ModelVersion(base)).to_string(),
            "num_samples": num_samples, "metrics": {"loss": 0.5}, "update": update,
        }))
    }

    fn accepted(&self, round: &str, member: usize) -> bool {
        self.verdicts.get(&(round.to_owned(), member)) == Some(&Verdict::Accepted)
    }

    /// What each model adds to the one before is what its round says, and all that was accepted is
    /// in some model, once.
    fn is_exact(&self) {
        let mut counted = BTreeMap::new();
        let mut versions = BTreeSet::new();
        for done in self.complete.values() {
            let version = done.model_version.0;
            assert!(versions.insert(version), "two rounds made version {version}");
            let (before, after) = (self.tensors(version - 1), self.tensors(version));
            let added: Vec<f64> = after.iter().zip(before).map(|(x, y)| x - y).collect();
            let added = Tensors::unflatten(&zeros().schema(), &added).unwrap();
            let members = PROPLETS.iter().zip(SAMPLES).enumerate();
            let members: Vec<Member> = members
                .map(|(index, (name, num_samples))| {
                    let named = done.participants.iter().any(|it| it.as_str() == *name);
                    let standing = if named { Standing::Accepted } else { Standing::Refused };
                    *counted.entry(index).or_insert(0) += usize::from(named);
                    Member { index, num_samples, standing }
                })
                .collect();
            let claim = Claim { num_updates: done.num_updates, total_samples: done.total_samples };
            let found = ledger::check(&members, &added, claim);
            found.unwrap_or_else(|wrong| panic!("version {version}: {wrong:?}"));
        }
        assert_eq!(versions, (1..=self.version()).collect(), "no gap");
        for member in 0..PROPLETS.len() {
            let accepted = self
                .verdicts
                .iter()
                .filter(|((_, it), verdict)| *it == member && **verdict == Verdict::Accepted);
            assert_eq!(accepted.count(), counted.get(&member).copied().unwrap_or(0), "{member}");
        }
    }
}

fn zeros() -> Tensors {
    tensors(&[0.0; PROPLETS.len() + 1])
}

fn outstanding(found: &BTreeSet<protocol::PropletId>) -> Vec<&str> {
    found.iter().map(|id| id.as_str()).collect()
}

/// Five models, of which all but the first are made of late updates, too.
fn tale(killed_in: Option<(usize, Fate)>) -> World {
    let mut world = World::new(killed_in);
    world.asks("r1", &[0, 1, 2, 3]);
    world.sends("r1", 0);
    world.sends("r1", 1);
    assert_eq!(outstanding(&world.complete["r1"].outstanding), ["c", "d"]);
    world.asks("r2", &[0, 1]);
    world.sends("r1", 2);
    assert!(world.accepted("r1", 2));
    world.sends("r2", 0);
    let second = &world.complete["r2"];
    assert_eq!((second.num_updates, second.late), (2, 1));
    assert_eq!(outstanding(&second.outstanding), ["b", "d"]);
    // No round is open: it is not lost, and not answered.
    world.sends("r2", 1);
    assert!(!world.verdicts.contains_key(&("r2".to_owned(), 1)));
    world.asks("r3", &[0, 2]);
    world.sends("r2", 1);
    assert!(world.accepted("r2", 1), "it counts in the round that opened");
    world.hears(absent("r1", "d"));
    world.hears(absent("r1", "d"));
    world.sends("r3", 0);
    assert_eq!(outstanding(&world.complete["r3"].outstanding), ["c"], "d is not waited for");
    // Nobody is idle but those who were not asked: only the slow are waited for.
    world.asks("r4", &[]);
    world.sends("r3", 2);
    assert_eq!(world.complete["r4"].num_updates, 1, "nobody else is left");
    world.asks("r5", &[4, 5]);
    world.sends("r5", 4);
    world.sends("r5", 5);
    assert_eq!(world.complete.len(), 5);
    world.is_exact();
    world
}

#[test]
fn late_updates_count_in_a_later_round_once() {
    let world = tale(None);
    assert_eq!(world.failed.len(), 0);
    assert_eq!(world.version(), 5);
    let left = world.story.disk.tables();
    assert!(!left.contains(&"round") && !left.contains(&"base"), "nothing is left over: {left:?}");
    assert!(!left.contains(&"counted") && !left.contains(&"absent"), "{left:?}");
}

#[test]
fn a_death_in_any_step_makes_the_same_bytes() {
    let whole = tale(None);
    for step in 2..=whole.steps {
        for fate in [Fate::DiesAfterWrite, Fate::DiesBeforeWrite] {
            let killed = std::panic::catch_unwind(|| tale(Some((step, fate))));
            let killed = killed.unwrap_or_else(|_| panic!("killed in step {step}"));
            assert_eq!(killed.models, whole.models, "killed in step {step}");
        }
    }
}

#[test]
fn an_update_counts_as_much_as_it_is_fresh() {
    let mut world = World::new(None);
    let by_age = |world: &World, round: &str, who: &[usize]| {
        let mut start = world.start(round, who, world.version());
        start.strategy = Some(StrategySpec { name: "fedbuff".to_owned(), params: [].into() });
        start.seal()
    };
    for (round, who) in [("r1", &[0, 1, 2][..]), ("r2", &[0][..])] {
        for member in who {
            world.tasks.insert((round.to_owned(), *member, world.version()));
        }
        let start = by_age(&world, round, who);
        world.hears(start);
        world.sends(round, 0);
        world.sends("r1", if round == "r1" { 1 } else { 2 });
    }
    // x + (3 * 1 * e_a + 7 * 2^-1/2 * e_c) / 10
    let (before, after) = (world.tensors(1), world.tensors(2));
    let added: Vec<f64> = after.iter().zip(before).map(|(x, y)| x - y).collect();
    let expected = [0.3, 0.0, 0.7 / 2_f64.sqrt(), 0.0, 0.0, 0.0, 0.0];
    for (added, expected) in added.iter().zip(expected) {
        assert!((added - expected).abs() < 1e-9, "{added} is not {expected}");
    }
}

#[test]
fn what_is_too_old_or_wrong_is_turned_away_and_not_waited_for() {
    let mut world = World::new(None);
    world.asks("r1", &[0, 1, 2, 3, 4]);
    world.sends("r1", 0);
    world.sends("r1", 1);
    world.asks("r2", &[0, 1]);
    // Its numbers are no model of this shape.
    let mut odd = json!({
        "round_id": "r1", "proplet_id": "e", "num_samples": 1, "update": {"w": [1.0]},
        "base_model_uri": ModelUri::global(ModelVersion(0)).to_string(), "metrics": {},
    });
    world.hears(sent(&odd));
    let verdict = |world: &World, round: &str, member: usize| {
        world.verdicts.get(&(round.to_owned(), member)).copied()
    };
    assert_eq!(verdict(&world, "r1", 4), rejected(Rejection::Shape));
    odd["proplet_id"] = json!("f");
    world.hears(sent(&odd));
    assert_eq!(verdict(&world, "r1", 5), rejected(Rejection::RoundClosed), "it was not asked");
    world.sends("r2", 0);
    world.sends("r2", 1);
    assert_eq!(outstanding(&world.complete["r2"].outstanding), ["c", "d"], "e is not waited for");
    for round in ["r3", "r4"] {
        world.asks(round, &[0, 1]);
        world.sends(round, 0);
        world.sends(round, 1);
    }
    // The next round starts from version 4, and r1 from 0: that is four versions behind.
    assert!(world.complete["r4"].outstanding.is_empty());
    world.asks("r5", &[0, 1]);
    world.sends("r1", 2);
    assert_eq!(verdict(&world, "r1", 2), rejected(Rejection::RoundClosed));
    world.is_exact();
}

#[test]
fn one_participant_counts_once_in_a_round() {
    let mut world = World::new(None);
    world.asks("r1", &[0, 1, 2]);
    world.sends("r1", 0);
    world.sends("r1", 1);
    world.asks("r2", &[2, 3]);
    world.sends("r2", 2);
    world.sends("r1", 2);
    assert!(!world.accepted("r1", 2), "another of it is in this round: it waits for the next");
    world.sends("r2", 3);
    world.asks("r3", &[0]);
    assert!(world.accepted("r1", 2));
    world.sends("r3", 0);
    world.is_exact();
}

#[test]
fn what_a_round_asked_for_goes_before_what_is_late() {
    let mut world = World::new(None);
    world.asks("r1", &[0, 1, 2]);
    world.sends("r1", 0);
    world.sends("r1", 1);
    // It was taken to be gone, and was asked again.
    world.asks("r2", &[1, 2]);
    world.sends("r1", 2);
    assert!(!world.verdicts.contains_key(&("r1".to_owned(), 2)), "this round has its own to come");
    world.sends("r2", 2);
    assert!(world.accepted("r2", 2));
    world.sends("r2", 1);
    world.asks("r3", &[0, 3]);
    assert!(world.accepted("r1", 2), "and this is the next one");
    world.sends("r3", 0);
    world.asks("r4", &[3, 4]);
    world.sends("r3", 3);
    assert!(!world.verdicts.contains_key(&("r3".to_owned(), 3)));
    world.hears(absent("r4", "d"));
    assert!(world.accepted("r3", 3), "nothing else of it is to come here");
    world.sends("r4", 4);
    world.is_exact();
}

#[test]
fn what_is_held_is_not_opened_before_it_can_be_judged() {
    let mut world = World::new(None);
    world.asks("r1", &[0, 1, 2]);
    world.sends("r1", 0);
    world.sends("r1", 1);
    world.sends("r1", 2);
    let start = world.start("r2", &[2, 3], 1);
    let held = |note: &Note| matches!(note, Note::Held { .. });
    assert!(!notes(&world.story.hears(start.seal())).iter().any(held), "it is held as it was");
    let own = world.update("r2", 2, 1, SAMPLES[2]);
    world.hears(own);
    assert!(world.accepted("r2", 2));
}

#[test]
fn what_is_wrong_in_any_case_takes_the_place_of_nothing_that_is_held() {
    let mut world = World::new(None);
    world.asks("r1", &[0, 1, 2, 3]);
    world.sends("r1", 0);
    world.sends("r1", 1);
    world.sends("r1", 2);
    world.sends("r1", 3);
    let forged =
        json!({"round_id": "r1", "proplet_id": "c", "signature_refused": "not by its key"});
    world.hears(sent(&forged));
    assert!(!world.verdicts.contains_key(&("r1".to_owned(), 2)), "c did not say that");
    world.hears(forwarded("r1", "d", b"{\"num_samples\":"));
    let malformed = Verdict::Rejected(Rejection::Malformed);
    assert_eq!(world.verdicts.get(&("r1".to_owned(), 3)), Some(&malformed));
    world.asks("r2", &[0]);
    assert!(world.accepted("r1", 2));
    world.hears(sent(&forged));
    assert!(world.accepted("r1", 2), "nor is what it said taken back");
}

#[test]
fn what_counts_takes_the_room_of_what_is_held() {
    let mut world = World::new(None);
    let len = world.update("r1", 2, 0, SAMPLES[2]).payload.len() as u64;
    let numbers = 8 * zeros().schema().parameters() as u64;
    let kept_len_max = len + numbers - 1;
    world.story = Story::unconnected(Rules { kept_len_max, ..Rules::default() });
    world.tell(Input::Connected { resumed: false });
    world.shows();
    world.asks("r1", &[0, 1, 2]);
    world.sends("r1", 0);
    world.sends("r1", 1);
    world.asks("r2", &[2, 3]);
    world.sends("r1", 2);
    world.sends("r2", 3);
    world.sends("r2", 2);
    assert!(world.accepted("r2", 2) && world.accepted("r2", 3));
    world.asks("r3", &[0]);
    assert!(!world.accepted("r1", 2), "there was no room for it");
    world.sends("r1", 2);
    assert!(world.accepted("r1", 2), "its sender says it again");
}

#[test]
fn an_outage_of_the_broker_ends_no_session() {
    let mut world = World::new(None);
    world.asks("r1", &[0, 1, 2]);
    world.sends("r1", 0);
    world.story.rounds.disconnected();
    world.story.now = world.story.now + Duration::from_secs(31);
    // The round ends by its deadline; nobody hears of it, and nobody can ask for the next one.
    world.tell(Input::Tick);
    world.story.now = world.story.now + Duration::from_secs(3600);
    world.tell(Input::Tick);
    world.tell(Input::Connected { resumed: true });
    world.sends("r1", 2);
    assert!(!world.verdicts.contains_key(&("r1".to_owned(), 2)));
    world.asks("r2", &[0]);
    assert!(world.accepted("r1", 2));
    world.sends("r2", 0);
    // Connected again, the session still has to go on some time.
    world.story.rounds.disconnected();
    world.tell(Input::Connected { resumed: true });
    world.story.now = world.story.now + Duration::from_secs(2 * 30 + 60);
    world.tell(Input::Tick);
    assert_eq!(world.story.disk.tables(), ["made", "outcome"]);
}

#[test]
fn a_session_goes_on_while_its_model_is_evaluated() {
    let mut world = World::new(None);
    world.asks("r1", &[0, 1, 2]);
    world.sends("r1", 0);
    world.sends("r1", 1);
    world.sends("r1", 2);
    let evaluation = RoundStart {
        purpose: Purpose::Evaluate,
        strategy: None,
        staleness_max: None,
        timeout_s: 1000,
        ..world.start("e1", &[0], 1)
    };
    world.hears(evaluation.seal());
    world.restarts();
    for _ in 0..5 {
        world.story.now = world.story.now + Duration::from_secs(2 * 30 + 60);
        world.tell(Input::Tick);
    }
    world.sends("r1", 2);
    assert!(!world.verdicts.contains_key(&("r1".to_owned(), 2)));
    world.hears(absent("e1", "a"));
    world.asks("r2", &[0]);
    assert!(world.accepted("r1", 2));
}

#[test]
fn a_session_that_does_not_go_on_is_over() {
    let mut world = World::new(None);
    world.asks("r1", &[0, 1, 2]);
    world.sends("r1", 0);
    world.sends("r1", 1);
    world.sends("r1", 2);
    assert!(!world.verdicts.contains_key(&("r1".to_owned(), 2)));
    world.story.now = world.story.now + Duration::from_secs(2 * 30 + 60);
    world.tell(Input::Tick);
    assert_eq!(world.verdicts[&("r1".to_owned(), 2)], Verdict::Rejected(Rejection::RoundClosed));
    assert_eq!(world.story.disk.tables(), ["made", "outcome"]);
}

#[test]
fn only_what_can_be_done_is_started() {
    let mut world = World::new(None);
    let plain = start("r", &[], 1);
    let by_median = StrategySpec { name: "fedmedian".to_owned(), params: [].into() };
    let by_median = RoundStart { strategy: Some(by_median), ..world.start("m", &[0], 0) };
    let of_none = RoundStart { session: None, ..world.start("n", &[0], 0) };
    for (start, named) in [
        (plain, "participants is empty"),
        (by_median, "averaged by fedbuff"),
        (of_none, "needs a session"),
    ] {
        let id = start.round_id.to_string();
        world.hears(start.seal());
        let error = world.failed[&id].error.clone().unwrap();
        assert!(error.contains(named), "{error}");
    }
}

/// One thing that goes right or wrong.
#[derive(Clone, Debug)]
enum Happening {
    /// The session asks for its next round, if the last one has ended.
    Ask(u8),
    /// One of those at work sends what it made.
    Send(usize),
    /// It sends something else under the same name.
    Other(usize),
    /// One of those at work fails.
    Absent(usize),
    Averaged,
    Time(u64),
    Reconnect,
    Crash,
    CrashAfterWrite,
    CrashBeforeWrite,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => any::<u8>().prop_map(Happening::Ask),
        16 => any::<usize>().prop_map(Happening::Send),
        1 => any::<usize>().prop_map(Happening::Other),
        1 => any::<usize>().prop_map(Happening::Absent),
        8 => Just(Happening::Averaged),
        2 => (0..9_u64).prop_map(Happening::Time),
        1 => Just(Happening::Reconnect),
        1 => Just(Happening::Crash),
        1 => Just(Happening::CrashAfterWrite),
        1 => Just(Happening::CrashBeforeWrite),
    ]
}

/// A session over all that happens.
struct Chaos {
    world: World,
    /// The start of the round under way.
    current: Option<RoundStart>,
    rounds: usize,
}

impl Chaos {
    fn happens(&mut self, happening: &Happening) {
        let task = |world: &World, which: usize| {
            let count = world.tasks.len();
            (count > 0).then(|| world.tasks.iter().nth(which % count).cloned().unwrap())
        };
        match *happening {
            Happening::Ask(mask) => self.ask(mask),
            Happening::Send(which) => {
                if let Some((round, member, _)) = task(&self.world, which) {
                    self.world.sends(&round, member);
                }
            }
            Happening::Other(which) => {
                // The one that came first stands; both have the same samples.
                if let Some((round, member, base)) = task(&self.world, which) {
                    let other = self.world.update(&round, member, base, SAMPLES[member]);
                    self.world.hears(other);
                }
            }
            Happening::Absent(which) => {
                if let Some((round, member, _)) = task(&self.world, which) {
                    self.world.hears(absent(&round, PROPLETS[member]));
                    self.world.tasks.retain(|task| (&task.0, task.1) != (&round, member));
                }
            }
            Happening::Averaged => {
                let jobs = self.world.jobs.as_mut().unwrap();
                if !jobs.is_empty() {
                    let job = jobs.remove(0);
                    self.world.tell(Input::Report(round::average(&job, &Work::default())));
                }
            }
            Happening::Time(seconds) => {
                self.world.story.now = self.world.story.now + Duration::from_secs(seconds);
                self.world.tell(Input::Tick);
            }
            Happening::Reconnect => self.world.tell(Input::Connected { resumed: false }),
            Happening::Crash => {
                self.world.restarts();
                self.world.tell(Input::Tick);
            }
            Happening::CrashAfterWrite => self.world.fate = Fate::DiesAfterWrite,
            Happening::CrashBeforeWrite => self.world.fate = Fate::DiesBeforeWrite,
        }
    }

    /// What the session's core does: idle proplets alone are asked, by what the last round said.
    fn ask(&mut self, mask: u8) {
        let mut busy = BTreeSet::new();
        if let Some(start) = &self.current {
            let id = start.round_id.as_str();
            let done = self.world.complete.get(id).map(|it| it.outstanding.clone());
            let ended = done.or_else(|| self.world.failed.get(id).map(|it| it.outstanding.clone()));
            match ended {
                None => return self.world.hears(start.clone().seal()),
                Some(outstanding) => busy = outstanding,
            }
        }
        self.rounds += 1;
        let round = format!("r{}", self.rounds);
        let is_idle = |member: &usize| !busy.contains(&id(PROPLETS[*member]));
        let chosen = (0..PROPLETS.len()).filter(|member| mask & (1 << member) != 0);
        let chosen: Vec<usize> = chosen.filter(is_idle).collect();
        self.current = Some(self.world.start(&round, &chosen, self.world.version()));
        self.world.asks(&round, &chosen);
    }

    /// Everything is said again until everybody has been answered.
    fn settles(&mut self) {
        for _ in 0..60 {
            self.happens(&Happening::Ask(0));
            let tasks: Vec<Task> = self.world.tasks.iter().cloned().collect();
            tasks.into_iter().for_each(|(round, member, _)| self.world.sends(&round, member));
            self.happens(&Happening::Averaged);
            self.happens(&Happening::Time(5));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_exact_whatever_happens(
        happenings in proptest::collection::vec(happening(), 0..150),
    ) {
        let mut world = World::new(None);
        world.jobs = Some(vec![]);
        let mut chaos = Chaos { world, current: None, rounds: 0 };
        happenings.iter().for_each(|happening| chaos.happens(happening));
        chaos.settles();
        chaos.world.is_exact();
        prop_assert!(chaos.world.tasks.is_empty(), "everybody is answered");
    }
}
