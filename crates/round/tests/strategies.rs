//! Every strategy of the list, in rounds: what it remembers survives a crash at any point, and no
//! single participant can spoil a model's numbers or end a session.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

#[allow(
    unreachable_pub,
    clippy::wildcard_enum_match_arm,
    reason = "a module of tests, shared with others"
)]
mod story;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use aggregate::{Need, STRATEGIES, Strategy, Work};
use bytes::Bytes;
use protocol::{
    DType, Digest, Envelope, Filter, Form, Input, Letter as _, Machine as _, ModelUri,
    ModelVersion, Output, Rejection, Tensor, Tensors, Topic,
    message::{
        ClipMode, ClipSpec, Model, RoundComplete, RoundStart, StrategySpec, Update, is_blob_form,
    },
    tensor::Slot,
};
use round::{Effect, News, Rules};
use serde_json::{Value, json};

use story::{Outputs, Story, forwarded, id, latest, said, start};

const WIDTH: usize = 3;
const MEMBERS: [&str; 8] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"];

/// A coordinator, its shell, and a model server that is never late.
struct World {
    story: Story,
    form: Form,
    /// Published models, by version.
    models: Vec<Bytes>,
    complete: BTreeMap<String, RoundComplete>,
    failed: Vec<Envelope>,
    steps: usize,
    /// Members bring the change of a control variate.
    has_control: bool,
    /// The step after which the coordinator is killed.
    killed_after: Option<usize>,
}

impl World {
    fn new(form: Form, killed_after: Option<usize>) -> Self {
        let first = Model { version: ModelVersion(0), tensors: tensors(form, &[0.1; WIDTH]), form };
        Self {
            story: Story::unconnected(Rules::default()),
            form,
            models: vec![first.seal().payload],
            complete: BTreeMap::new(),
            failed: vec![],
            steps: 0,
            has_control: false,
            killed_after,
        }
    }

    fn connected(form: Form, killed_after: Option<usize>) -> Self {
        let mut world = Self::new(form, killed_after);
        world.tell(Input::Connected { resumed: false });
        world.shows();
        world
    }

    fn version(&self) -> u64 {
        self.models.len() as u64 - 1
    }

    fn model(&self) -> Vec<f64> {
        Model::read(self.models.last().unwrap()).unwrap().tensors.flatten()
    }

    fn shows(&mut self) {
        let digest = Digest::of(self.models.last().unwrap());
        self.hears(latest(self.version(), digest));
    }

    fn hears(&mut self, envelope: Envelope) {
        self.tell(Input::News(News::try_from(envelope).unwrap()));
    }

    fn tell(&mut self, input: Input<News, round::Report>) {
        let outputs = self.story.tell(input);
        self.attend(outputs);
    }

    fn passes(&mut self, time: Duration) {
        let outputs = self.story.passes(time);
        self.attend(outputs);
    }

    /// Does what the core asks for, and what the others answer.
    fn attend(&mut self, outputs: Outputs) {
        let mut queue = VecDeque::from([outputs]);
        while let Some(mut outputs) = queue.pop_front() {
            self.steps += 1;
            if self.killed_after == Some(self.steps) {
                // What is promised goes out all the same; what is published or asked for does not.
                self.note(&outputs);
                queue.clear();
                outputs = self.story.restarts();
                let digest = Digest::of(self.models.last().unwrap());
                queue.push_back(self.story.hears(latest(self.version(), digest)));
                for filter in self.story.rounds.filters() {
                    if let Filter::Exactly(Topic::Model { uri }) = filter {
                        queue.push_back(self.retained(uri));
                    }
                }
            }
            self.note(&outputs);
            for output in outputs {
                match output {
                    Output::Effect(Effect::Aggregate(job)) => {
                        let report = round::average(&job, &Work::default());
                        queue.push_back(self.story.tell(Input::Report(report)));
                    }
                    Output::Listen(Filter::Exactly(Topic::Model { uri })) => {
                        queue.push_back(self.retained(uri));
                    }
                    Output::Publish(Envelope { topic: Topic::ModelPublish { .. }, payload }) => {
                        queue.push_back(self.store(payload));
                    }
                    _ => {}
                }
            }
        }
    }

    fn retained(&mut self, uri: ModelUri) -> Outputs {
        let payload = self.models[usize::try_from(uri.version.0).unwrap()].clone();
        self.story.hears(Envelope { topic: Topic::Model { uri }, payload })
    }

    /// The model server takes the model, once.
    fn store(&mut self, payload: Bytes) -> Outputs {
        assert!(!is_blob_form(&payload));
        let version = Model::read(&payload).unwrap().version.0;
        match self.models.get(usize::try_from(version).unwrap()) {
            Some(before) => assert_eq!(*before, payload, "version {version} was made twice"),
            None => {
                assert_eq!(version, self.version() + 1, "versions have no gaps");
                self.models.push(payload);
            }
        }
        let digest = Digest::of(self.models.last().unwrap());
        self.story.hears(latest(self.version(), digest))
    }

    fn note(&mut self, outputs: &Outputs) {
        for envelope in said(outputs) {
            match &envelope.topic {
                Topic::RoundComplete { round } => {
                    let complete = serde_json::from_slice(&envelope.payload).unwrap();
                    self.complete.insert(round.to_string(), complete);
                }
                Topic::RoundFailed { .. } => self.failed.push(envelope),
                _ => {}
            }
        }
    }

    fn starts(&mut self, round: &str, asked: impl FnOnce(&mut RoundStart)) {
        let mut start = start(round, &MEMBERS, MEMBERS.len());
        start.model_uri = ModelUri::global(ModelVersion(self.version()));
        asked(&mut start);
        self.has_control = start.has_control();
        self.hears(start.seal());
    }

    /// What a member sends that is where it should be.
    fn honest(&self, round: &str, index: usize, base: u64) -> Envelope {
        let turn = index as f64 / 10.0 + base as f64;
        let values: Vec<f64> = (0..WIDTH).map(|at| 0.5 + 0.2 * (turn + at as f64).sin()).collect();
        let update = Update {
            round_id: id(round),
            proplet_id: id(MEMBERS[index]),
            base_model_uri: ModelUri::global(ModelVersion(base)),
            num_samples: 10 + index as u64,
            metrics: BTreeMap::from([
                ("loss_before".to_owned(), 0.5 + turn / 10.0),
                ("steps".to_owned(), 3.0 + index as f64),
            ]),
            update: self.brought(&values, turn),
            form: self.form,
        };
        forwarded(round, MEMBERS[index], &update.write())
    }

    fn brought(&self, values: &[f64], turn: f64) -> Tensors {
        let own = tensors(self.form, values);
        if !self.has_control {
            return own;
        }
        let change: Vec<f64> = values.iter().map(|value| value - turn.cos()).collect();
        let change = tensors(self.form, &change);
        let change = change.iter().map(|(name, it)| (format!("control/{name}"), it.clone()));
        own.iter().map(|(name, it)| (name.to_owned(), it.clone())).chain(change).collect()
    }

    /// A whole round in which only some members do what they should.
    fn runs(&mut self, round: &str, asked: impl FnOnce(&mut RoundStart), odd: &[(usize, Bytes)]) {
        let base = self.version();
        self.starts(round, asked);
        for (index, member) in MEMBERS.iter().enumerate() {
            let strange = odd.iter().find(|(member, _)| *member == index);
            let envelope = match strange {
                Some((_, payload)) => forwarded(round, member, payload),
                None => self.honest(round, index, base),
            };
            self.hears(envelope);
        }
        self.passes(Duration::from_secs(60));
    }
}

fn tensors(form: Form, values: &[f64]) -> Tensors {
    let dtype = match form {
        Form::Json => DType::F64,
        Form::Safetensors => DType::F32,
    };
    let schema = [("w".to_owned(), Slot { dtype, shape: vec![WIDTH] })].into_iter().collect();
    if values.len() == WIDTH {
        return Tensors::unflatten(&schema, values).unwrap();
    }
    let tensor = Tensor::new(vec![values.len()], values.to_vec()).unwrap();
    [("w".to_owned(), tensor)].into_iter().collect()
}

fn by(strategy: &Strategy) -> impl Fn(&mut RoundStart) {
    let spec = StrategySpec { name: strategy.name.to_owned(), params: BTreeMap::new() };
    move |start| start.strategy = Some(spec.clone())
}

fn has_control(strategy: &Strategy) -> bool {
    strategy.needs.contains(&Need::Controls)
}

/// Three rounds, each on the model of the one before.
fn session(strategy: &Strategy, form: Form, killed_after: Option<usize>) -> World {
    let mut world = World::connected(form, killed_after);
    for round in ["r1", "r2", "r3"] {
        world.runs(round, by(strategy), &[]);
    }
    assert_eq!(world.failed, [], "{strategy:?}");
    assert_eq!(world.complete.len(), 3, "{strategy:?}");
    world
}

#[test]
fn every_strategy_makes_models() {
    for strategy in STRATEGIES {
        let mut world = World::connected(Form::Json, None);
        world.runs("r", by(strategy), &[]);
        assert_eq!(world.complete["r"].num_updates, MEMBERS.len(), "{strategy:?}");
        assert!(world.model().iter().all(|value| value.is_finite()));
        // What the wire calls it is what the arithmetic does.
        let spec = StrategySpec { name: strategy.name.to_owned(), params: BTreeMap::new() };
        assert_eq!(spec.has_control(), has_control(strategy));
    }
}

#[test]
fn a_kill_at_any_point_changes_no_byte() {
    for strategy in STRATEGIES {
        for form in [Form::Json, Form::Safetensors] {
            let calm = session(strategy, form, None);
            for step in 1..=calm.steps {
                let hit = session(strategy, form, Some(step));
                assert_eq!(hit.models, calm.models, "{strategy:?}, killed after step {step}");
                let tables = |world: &World| {
                    let entries = world.story.disk.entries().into_iter();
                    let state = entries.filter(|entry| entry.table.starts_with("state"));
                    state.collect::<Vec<_>>()
                };
                assert_eq!(tables(&hit), tables(&calm), "{strategy:?}, step {step}");
            }
        }
    }
}

#[test]
fn a_strategy_goes_on_from_what_it_left() {
    // The members here do not listen to the control variate.
    let with_state = STRATEGIES.iter().filter(|it| !it.vectors.is_empty() && !has_control(it));
    for strategy in with_state {
        let remembered = session(strategy, Form::Json, None);
        let mut forgetful = World::connected(Form::Json, None);
        for round in ["r1", "r2", "r3"] {
            forgetful.runs(round, by(strategy), &[]);
            forgetful.story.disk.forget("state");
            forgetful.story.disk.forget("state_values");
            forgetful.killed_after = Some(forgetful.steps + 1);
            forgetful.passes(Duration::ZERO);
        }
        assert_eq!(remembered.models[1], forgetful.models[1], "{strategy:?}");
        assert_ne!(remembered.models[3], forgetful.models[3], "{strategy:?}");
    }
}

#[test]
fn a_strategy_that_is_told_otherwise_begins_anew() {
    let told = |momentum: f64| {
        let params = BTreeMap::from([("momentum".to_owned(), momentum)]);
        let spec = StrategySpec { name: "fedavgm".into(), params };
        move |start: &mut RoundStart| start.strategy = Some(spec.clone())
    };
    let mut changed = World::connected(Form::Json, None);
    changed.runs("r1", told(0.5), &[]);
    changed.runs("r2", told(0.9), &[]);
    let mut plain = World::connected(Form::Json, None);
    plain.runs("r1", told(0.5), &[]);
    plain.runs("r2", |start| start.strategy = None, &[]);
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(near(&changed.model(), &plain.model()), "without a velocity its step is the mean");
}

#[test]
fn old_states_are_forgotten() {
    let mut world = World::connected(Form::Json, None);
    let strategy = aggregate::find("fedadam").unwrap();
    for round in 0..8 {
        world.runs(&format!("r{round}"), by(strategy), &[]);
    }
    let entries = world.story.disk.entries();
    let kept: Vec<&str> =
        entries.iter().filter(|it| it.table == "state").map(|it| it.key.as_str()).collect();
    assert_eq!(kept, ["global_model/6", "global_model/7", "global_model/8"]);
    assert_eq!(entries.iter().filter(|it| it.table == "state_values").count(), 3);
}

/// What member 3 may send instead, and what is said of it if it is not taken.
fn poisons(
    strategy: &Strategy,
    round: &str,
    base: u64,
) -> Vec<(&'static str, Bytes, Option<Rejection>)> {
    use Rejection::{NotFinite, NumSamples, Shape};
    let update = |change: Value| {
        let mut update = json!({
            "round_id": round, "proplet_id": MEMBERS[3],
            "base_model_uri": ModelUri::global(ModelVersion(base)).to_string(), "num_samples": 10,
            "metrics": {"loss_before": 0.5, "steps": 5}, "update": {"w": [0.5, 0.5, 0.5]},
        });
        update.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        if has_control(strategy) {
            let tensors = update["update"].as_object_mut().unwrap();
            tensors.entry("control/w").or_insert(json!([0.5, 0.25, -0.5]));
        }
        Bytes::from(update.to_string())
    };
    let with = |control: &str| {
        let update = String::from_utf8(update(json!({})).to_vec()).unwrap();
        let controlled = r#""update":{"control/w":"#;
        match has_control(strategy) {
            true => update.replace("[0.5,0.25,-0.5]", control),
            false => update.replace(r#""update":{"#, &format!("{controlled}{control},")),
        }
    };
    // A control variate that nobody asked for is a tensor too many.
    let control = |reason| Some(if has_control(strategy) { reason } else { Shape });
    let nan = String::from_utf8(update(json!({})).to_vec()).unwrap().replace("[0.5,", "[NaN,");
    let inf = nan.replace("NaN", "1e999");
    let n_nan = String::from_utf8(update(json!({"num_samples": 77})).to_vec()).unwrap();
    let n_nan = n_nan.replace("77", "NaN");
    vec![
        ("NaN", nan.into(), Some(NotFinite)),
        ("infinity", inf.into(), Some(NotFinite)),
        ("1e30", update(json!({"update": {"w": [1e30, 1e30, 1e30]}, "num_samples": 1})), None),
        ("1e308", update(json!({"update": {"w": [1e308, -1e308, 1.7e308]}})), None),
        ("-1.7e308", update(json!({"update": {"w": [-1.7e308, -1.7e308, 0.0]}})), None),
        ("n = 0", update(json!({"num_samples": 0})), Some(NumSamples)),
        ("n = -50", update(json!({"num_samples": -50})), Some(NumSamples)),
        ("n = -200", update(json!({"num_samples": -200})), Some(NumSamples)),
        ("n = NaN", n_nan.into(), Some(NumSamples)),
        (
            "n = 1e18",
            update(json!({"num_samples": 1_000_000_000_000_000_000_u64})),
            Some(NumSamples),
        ),
        ("n = all", update(json!({"num_samples": 1_000_000_000})), None),
        ("shape (1,)", update(json!({"update": {"w": [9.0]}})), Some(Shape)),
        ("shape (4,)", update(json!({"update": {"w": [9.0, 9.0, 9.0, 9.0]}})), Some(Shape)),
        ("another key", update(json!({"update": {"v": [9.0, 9.0, 9.0]}})), Some(Shape)),
        ("a boast of steps", update(json!({"metrics": {"loss_before": 0.5, "steps": 9e15}})), None),
        ("a boast of loss", update(json!({"metrics": {"loss_before": 1e308, "steps": 1}})), None),
        ("no loss", update(json!({"metrics": {"loss_before": 0, "steps": 1}})), None),
        ("control NaN", with("[NaN,0.0,0.0]").into(), Some(NotFinite)),
        ("control infinity", with("[1e999,0.0,0.0]").into(), Some(NotFinite)),
        ("control shape (1,)", with("[9.0]").into(), control(Shape)),
        ("control shape (3, 1)", with("[[9.0],[9.0],[9.0]]").into(), control(Shape)),
        (
            "control 1e308",
            with("[1e308,-1e308,1.7e308]").into(),
            (!has_control(strategy)).then_some(Shape),
        ),
        (
            "control of another key",
            update(json!({"update": {"w": [9.0, 9.0, 9.0], "control/v": [0.0, 0.0, 0.0]}})),
            Some(Shape),
        ),
    ]
}

#[test]
fn no_poison_spoils_a_model_or_ends_a_session() {
    for strategy in STRATEGIES {
        for (what, _, reason) in poisons(strategy, "r", 0) {
            let mut world = World::connected(Form::Json, None);
            world.runs("r0", by(strategy), &[]);
            let (_, poison, _) =
                poisons(strategy, "r1", 1).into_iter().find(|(name, ..)| *name == what).unwrap();
            world.runs("r1", by(strategy), &[(3, poison)]);
            world.runs("r2", by(strategy), &[]);
            world.runs("r3", by(strategy), &[]);
            assert_eq!(world.failed, [], "{strategy:?}: {what}");
            assert_eq!(world.version(), 4, "{strategy:?}: {what}");
            for payload in &world.models {
                let values = Model::read(payload).unwrap().tensors.flatten();
                assert!(values.iter().all(|value| value.is_finite()), "{strategy:?}: {what}");
            }
            if let Some(reason) = reason {
                let rejected = &world.complete["r1"].rejected;
                assert_eq!(rejected.get(&reason), Some(&1), "{strategy:?}: {what}: {rejected:?}");
            }
        }
    }
}

#[test]
fn a_round_in_which_nobody_has_a_sample_fails_and_the_next_one_does_not() {
    for strategy in STRATEGIES {
        let mut world = World::connected(Form::Json, None);
        world.runs("r0", by(strategy), &[]);
        let empty = |(index, member): (usize, &&str)| {
            let update = json!({
                "round_id": "r1", "proplet_id": member, "num_samples": 0, "update": {"w": [1, 1, 1]},
                "base_model_uri": ModelUri::global(ModelVersion(1)).to_string(), "metrics": {},
            });
            (index, Bytes::from(update.to_string()))
        };
        let empty: Vec<(usize, Bytes)> = MEMBERS.iter().enumerate().map(empty).collect();
        world.runs("r1", by(strategy), &empty);
        assert_eq!((world.failed.len(), world.version()), (1, 1), "{strategy:?}");
        let failed: Value = serde_json::from_slice(&world.failed[0].payload).unwrap();
        assert_eq!(failed["reason"], "too_few_updates", "{strategy:?}: {failed}");
        world.runs("r2", by(strategy), &[]);
        assert_eq!((world.failed.len(), world.version()), (1, 2), "{strategy:?}");
        assert!(world.model().iter().all(|value| value.is_finite()), "{strategy:?}");
    }
}

#[test]
fn whoever_says_it_three_times_counts_once() {
    for strategy in STRATEGIES {
        let mut calm = World::connected(Form::Json, None);
        calm.runs("r", by(strategy), &[]);
        let mut world = World::connected(Form::Json, None);
        world.starts("r", by(strategy));
        for index in [3, 3, 3, 0, 1, 2, 4, 5, 6, 3, 7] {
            let honest = world.honest("r", index, 0);
            world.hears(honest);
        }
        assert_eq!(world.complete["r"].num_updates, MEMBERS.len(), "{strategy:?}");
        assert_eq!(world.models, calm.models, "{strategy:?}");
    }
}

#[test]
fn an_update_that_cannot_say_what_the_strategy_needs_is_rejected_not_the_round() {
    for (strategy, metrics) in [
        ("fednova", json!({"loss_before": 0.5})),
        ("fednova", json!({"steps": 0})),
        ("fednova", json!({"steps": 1.5})),
        ("fednova", json!({"steps": 1e300})),
        ("qfedavg", json!({"steps": 5})),
        ("qfedavg", json!({"loss_before": -0.1})),
    ] {
        let poison = json!({
            "round_id": "r", "proplet_id": MEMBERS[3], "num_samples": 10, "metrics": metrics,
            "base_model_uri": ModelUri::global(ModelVersion(0)).to_string(), "update": {"w": [1, 1, 1]},
        });
        let mut world = World::connected(Form::Json, None);
        let strategy = aggregate::find(strategy).unwrap();
        world.runs("r", by(strategy), &[(3, poison.to_string().into())]);
        let complete = &world.complete["r"];
        assert_eq!(complete.num_updates, 7);
        assert_eq!(complete.rejected[&Rejection::Unusable], 1);
        assert!(!complete.participants.contains(&id(MEMBERS[3])));
    }
}

fn far(round: &str, member: usize) -> (usize, Bytes) {
    far_with(round, member, json!({"w": [1e6, -1e6, 1e6]}))
}

fn far_with(round: &str, member: usize, update: Value) -> (usize, Bytes) {
    let far = json!({
        "round_id": round, "proplet_id": MEMBERS[member], "num_samples": 10,
        "metrics": {"loss_before": 0.5, "steps": 5}, "update": update,
        "base_model_uri": ModelUri::global(ModelVersion(0)).to_string(),
    });
    (member, far.to_string().into())
}

#[test]
fn a_bound_stands_before_every_strategy() {
    for strategy in STRATEGIES {
        for mode in [ClipMode::Clip, ClipMode::Reject] {
            let mut world = World::connected(Form::Json, None);
            let asked = |start: &mut RoundStart| {
                by(strategy)(start);
                start.clip = Some(ClipSpec { norm: 2.0, mode });
            };
            let odd = if has_control(strategy) {
                far_with("r", 3, json!({"w": [1e6, -1e6, 1e6], "control/w": [0, 0, 0]}))
            } else {
                far("r", 3)
            };
            world.runs("r", asked, &[odd]);
            let complete = &world.complete["r"];
            assert!(world.model().iter().all(|value| value.abs() < 3.0), "{strategy:?} {mode:?}");
            let (updates, rejected) = match mode {
                ClipMode::Clip => (8, None),
                ClipMode::Reject => (7, Some(1)),
            };
            assert_eq!(complete.num_updates, updates);
            assert_eq!(complete.participants.len(), updates);
            assert_eq!(complete.rejected.get(&Rejection::TooFar).copied(), rejected);
        }
    }
}

#[test]
fn a_bound_that_leaves_too_few_fails_the_round() {
    let mut world = World::connected(Form::Json, None);
    let asked = |start: &mut RoundStart| {
        start.clip = Some(ClipSpec { norm: 2.0, mode: ClipMode::Reject });
        start.min_updates = Some(7);
    };
    world.runs("r", asked, &[far("r", 3), far("r", 4)]);
    let failed: Value = serde_json::from_slice(&world.failed[0].payload).unwrap();
    assert_eq!(failed["reason"], "too_few_updates");
    assert_eq!(failed["error"], "6 of 8 updates can be used, 7 are needed");
}

#[test]
fn no_participant_counts_for_more_than_its_share() {
    let greedy = json!({
        "round_id": "r", "proplet_id": MEMBERS[3], "num_samples": 1_000_000_000,
        "metrics": {}, "update": {"w": [100, 100, 100]},
        "base_model_uri": ModelUri::global(ModelVersion(0)).to_string(),
    });
    let greedy = [(3, Bytes::from(greedy.to_string()))];
    let mut world = World::connected(Form::Json, None);
    world.runs("r", |start| start.share_max = Some(0.2), &greedy);
    assert!(world.model().iter().all(|value| (19.0..22.0).contains(value)), "{:?}", world.model());
    let mut open = World::connected(Form::Json, None);
    open.runs("r", |_| {}, &greedy);
    assert!(open.model().iter().all(|value| *value > 99.0));
}

#[test]
fn robust_strategies_bear_two_hostile_of_eight() {
    let mut calm = World::connected(Form::Json, None);
    calm.runs("r", |_| {}, &[]);
    for name in ["fedmedian", "trimmed_mean", "krum", "multikrum", "geometric_median", "fedavg"] {
        let mut world = World::connected(Form::Json, None);
        let strategy = aggregate::find(name).unwrap();
        let share = strategy.settings.iter().find(|it| it.name.ends_with("_share"));
        let params = share.map(|share| (share.name.to_owned(), 0.25)).into_iter().collect();
        let spec = StrategySpec { name: name.into(), params };
        let asked = |start: &mut RoundStart| start.strategy = Some(spec);
        world.runs("r", asked, &[far("r", 3), far("r", 4)]);
        let (found, wanted) = (world.model(), calm.model());
        let near = found.iter().zip(&wanted).all(|(found, wanted)| (found - wanted).abs() < 0.3);
        assert_eq!(near, name != "fedavg", "{name}: {found:?}, not {wanted:?}");
    }
}
