//! What a session finds out about its model on the way, told as messages in and messages out, with
//! a crash after each.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    Entry, Envelope, FailReason, Input, Letter as _, Machine as _, ModelUri, ModelVersion, Output,
    Timestamp, Topic,
    message::{
        Contribution, Hyperparams, ModelLatest, Purpose, Quantiles, RoundComplete, RoundFailed,
        RoundStart, SessionState, SessionStatus,
    },
};
use serde_json::{Value, json};
use session::{Answer, Effect, HistoryRow, Leg, News, Order, Refusal, Report, Sessions, Taken};

/// Sessions that crash after every step, and come back from what they kept.
struct Brittle {
    sessions: Sessions,
    disk: BTreeMap<(&'static str, String), Vec<u8>>,
    asked: Vec<RoundStart>,
    seen: BTreeSet<String>,
    status: Option<SessionStatus>,
    rows: BTreeMap<u64, HistoryRow>,
    answers: Vec<Result<Box<Answer>, Refusal>>,
    now: Timestamp,
}

impl Brittle {
    fn new() -> Self {
        Self {
            sessions: Sessions::default(),
            disk: BTreeMap::new(),
            asked: vec![],
            seen: BTreeSet::new(),
            status: None,
            rows: BTreeMap::new(),
            answers: vec![],
            now: Timestamp::from_micros(1),
        }
    }

    fn step(&mut self, input: Input<News, Report>) {
        self.sessions = Sessions::default();
        let entry = |((table, key), value): (&(&'static str, String), &Vec<u8>)| Entry {
            table,
            key: key.clone(),
            value: Some(value.clone()),
        };
        self.sessions.restore(self.disk.iter().map(entry).collect()).unwrap();
        self.take(Input::Connected { resumed: true });
        self.take(Input::News(News::try_from(latest().seal()).unwrap()));
        self.take(input);
    }

    fn take(&mut self, input: Input<News, Report>) {
        for output in self.sessions.step(input, self.now) {
            match output {
                Output::Keep(Entry { table, key, value: Some(value) }) => {
                    self.disk.insert((table, key), value);
                }
                Output::Keep(Entry { table, key, value: None }) => {
                    self.disk.remove(&(table, key));
                }
                Output::Publish(said) if said.topic == Topic::RoundStart => {
                    let start: RoundStart = said.open().unwrap();
                    if self.seen.insert(start.round_id.to_string()) {
                        self.asked.push(start);
                    }
                }
                Output::Publish(said) => self.status = said.open().ok(),
                Output::Effect(Effect::Show(view)) => {
                    self.rows.extend(view.rows.into_iter().map(|row| (row.round, row)));
                }
                Output::Effect(Effect::Answer { answer, .. }) => self.answers.push(answer),
                Output::Effect(_) => {}
                Output::Promise(_) | Output::Listen(_) | Output::Unlisten(_) => {
                    panic!("sessions do not {output:?}")
                }
            }
        }
    }

    fn order(&mut self, order: Order) -> Result<Box<Answer>, Refusal> {
        self.step(Input::Report(Report { ticket: 7, order }));
        self.answers.pop().unwrap()
    }

    fn hear(&mut self, envelope: Envelope) {
        self.now = self.now + Duration::from_secs(1);
        self.step(Input::News(News::try_from(envelope).unwrap()));
    }

    /// The one round that was asked for and has not been looked at.
    fn next(&mut self) -> RoundStart {
        assert_eq!(self.asked.len(), 1, "{:?}", self.asked);
        self.asked.remove(0)
    }

    fn train(&mut self, version: u64) -> RoundStart {
        let start = self.next();
        assert_eq!(start.purpose, Purpose::Train, "{start:?}");
        self.hear(complete(&start, version, &[("loss", 1.0)]).seal());
        start
    }

    fn evaluate(&mut self, metrics: &[(&str, f64)]) -> RoundStart {
        let start = self.next();
        assert_eq!(start.purpose, Purpose::Evaluate, "{start:?}");
        let version = start.model_uri.version.0;
        self.hear(complete(&start, version, metrics).seal());
        start
    }

    fn status(&self) -> &SessionStatus {
        self.status.as_ref().unwrap()
    }
}

fn latest() -> ModelLatest {
    ModelLatest {
        version: ModelVersion(0),
        topic: ModelUri::global(ModelVersion(0)),
        sha256: protocol::Digest::of(b"model"),
        bytes: 1,
        format: "json".to_owned(),
    }
}

fn complete(start: &RoundStart, version: u64, metrics: &[(&str, f64)]) -> RoundComplete {
    let metrics: BTreeMap<String, f64> =
        metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let part = Contribution { num_samples: 5, metrics: metrics.clone() };
    let spread = |value: &f64| Quantiles::of(vec![*value]).unwrap();
    RoundComplete {
        round_id: start.round_id.clone(),
        model_version: ModelVersion(version),
        model_topic: ModelUri::global(ModelVersion(version)),
        num_updates: start.participants.len(),
        total_samples: 5,
        completed_at: Timestamp::from_micros(version),
        duration_ms: 3,
        participants: start.participants.iter().cloned().collect(),
        late: 0,
        outstanding: BTreeSet::new(),
        quantiles: metrics.iter().map(|(name, value)| (name.clone(), spread(value))).collect(),
        metrics,
        contributions: start.participants.iter().map(|id| (id.clone(), part.clone())).collect(),
        rejected: BTreeMap::new(),
        purpose: start.purpose,
    }
}

fn spec(more: Value) -> Order {
    let mut start = json!({
        "session_id": "s", "rounds": 4, "hyperparams": {"lr": 0.1},
        "selection": {"participants": ["p1", "p2", "p3"]},
        "evaluate": {"every": 2, "central": "judge"},
    });
    start.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Order::Start(serde_json::from_value(start).unwrap())
}

#[test]
fn every_second_model_is_evaluated_by_the_fleet_and_in_the_centre() {
    let mut desk = Brittle::new();
    assert_eq!(desk.order(spec(json!({}))).unwrap().taken, Taken::Now);
    assert_eq!(desk.order(spec(json!({}))).unwrap().taken, Taken::Before);
    for version in [1, 2] {
        assert_eq!(desk.train(version).round_id.as_str(), format!("s-r{version}"));
    }
    let fleet = desk.evaluate(&[("accuracy", 0.8)]);
    assert_eq!(
        (fleet.round_id.as_str(), fleet.model_uri),
        ("s-e2", ModelUri::global(ModelVersion(2)))
    );
    assert_eq!((fleet.participants.len(), fleet.k_of_n), (3, 3));
    assert_eq!(fleet.hyperparams, Hyperparams::parse(r#"{"lr":0.1}"#).unwrap());
    let centre = desk.evaluate(&[("accuracy", 0.7)]);
    assert_eq!(centre.round_id.as_str(), "s-e2-central");
    assert_eq!(centre.participants.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["judge"]);
    let metrics = &desk.status().metrics;
    assert_eq!((metrics["loss"], metrics["eval_accuracy"]), (1.0, 0.8));
    assert_eq!(metrics["central_accuracy"], 0.7);
    desk.train(3);
    assert!(!desk.status().metrics.contains_key("eval_accuracy"), "model 3 was not looked at");
    desk.train(4);
    assert_eq!(desk.status().state, SessionState::Running, "the last model is still to be judged");
    desk.evaluate(&[("accuracy", 0.9)]);
    desk.evaluate(&[("accuracy", 0.85)]);
    assert_eq!(desk.status().state, SessionState::Complete);
    assert!(desk.asked.is_empty());
    assert_eq!(desk.rows.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    let legs: Vec<Leg> = desk.rows[&4].evaluations.iter().map(|it| it.leg).collect();
    assert_eq!(legs, [Leg::Federated, Leg::Central]);
    let found = &desk.rows[&2].evaluations[0];
    assert_eq!((found.metrics["accuracy"], found.quantiles["accuracy"].median), (0.8, 0.8));
    assert_eq!(found.contributions.len(), 3);
    assert!(desk.rows[&1].evaluations.is_empty());
}

#[test]
fn a_failed_evaluation_is_noted_and_the_session_goes_on() {
    let mut desk = Brittle::new();
    desk.order(spec(json!({"rounds": 2}))).unwrap();
    desk.train(1);
    desk.train(2);
    let start = desk.next();
    let failed = RoundFailed {
        round_id: start.round_id,
        reason: FailReason::AllAbsent,
        num_updates: 0,
        k_of_n: 3,
        failed_at: desk.now,
        error: None,
        outstanding: BTreeSet::new(),
    };
    desk.hear(failed.seal());
    desk.hear(failed.seal());
    desk.evaluate(&[("accuracy", 0.7)]);
    assert_eq!(desk.status().state, SessionState::Complete);
    let row = &desk.rows[&2];
    let said = row.evaluations[0].error.as_deref().unwrap();
    assert!(said.contains("all_absent") && said.contains("s-e2"), "{said}");
    assert_eq!(row.evaluations[1].error, None);
}

#[test]
fn goals_may_go_by_what_an_evaluation_finds() {
    let goal = json!({"metric": "central_accuracy", "op": ">=", "value": 0.9});
    let mut desk = Brittle::new();
    desk.order(spec(json!({"target": goal, "rounds": 100}))).unwrap();
    for (version, found) in [(2, 0.5), (4, 0.95)] {
        desk.train(version - 1);
        desk.train(version);
        desk.evaluate(&[("accuracy", 0.99)]);
        desk.evaluate(&[("accuracy", found)]);
    }
    let status = desk.status();
    assert_eq!((status.state, status.rounds_done), (SessionState::Complete, 4));
    assert_eq!(status.best.as_ref().unwrap().model_version, ModelVersion(4));

    let patience = json!({"metric": "eval_loss", "op": "<=", "rounds": 3});
    let mut desk = Brittle::new();
    desk.order(spec(json!({"patience": patience, "rounds": 100}))).unwrap();
    for (version, loss) in [(2, 0.5), (4, 0.6), (6, 0.7)] {
        desk.train(version - 1);
        desk.train(version);
        desk.evaluate(&[("loss", loss)]);
        desk.evaluate(&[("loss", 1.0)]);
    }
    let status = desk.status();
    assert_eq!((status.state, status.rounds_done), (SessionState::Complete, 6), "{status:?}");
    assert_eq!(status.best.as_ref().unwrap().round, 2);
}

#[test]
fn evaluators_are_so_many_by_lot_or_named_or_nobody() {
    let asked = |evaluate: Value| {
        let mut desk = Brittle::new();
        desk.order(spec(json!({"evaluate": evaluate}))).unwrap();
        desk.train(1);
        desk.next()
    };
    let two = asked(json!({"every": 1, "participants": 2}));
    assert_eq!(two.participants.len(), 2);
    assert_eq!(asked(json!({"every": 1, "participants": 2})).participants, two.participants);
    let named = asked(json!({"every": 1, "participants": ["x"]}));
    assert_eq!(named.participants.first().unwrap().as_str(), "x");
    let centre = asked(json!({"every": 1, "participants": 0, "central": "judge"}));
    assert_eq!(centre.round_id.as_str(), "s-e1-central");
}

#[test]
fn orders_that_cannot_be_are_refused_in_words() {
    let mut desk = Brittle::new();
    let trains = json!({"evaluate": {"every": 1, "central": "p1"}});
    let Err(Refusal::Bad(said)) = desk.order(spec(trains)) else { panic!("it was taken") };
    assert!(said.contains("evaluate.central p1"), "{said}");
    let nobody = json!({"evaluate": {"every": 1, "participants": 0}});
    assert!(matches!(desk.order(spec(nobody)), Err(Refusal::Bad(_))));
    let command = |command: &str| Order::Command {
        session: "s".parse().unwrap(),
        command: serde_json::from_value(json!({ "command": command })).unwrap(),
    };
    assert!(matches!(desk.order(command("stop")), Err(Refusal::Unknown(_))));
    desk.order(spec(json!({"evaluate": null, "rounds": 1}))).unwrap();
    assert!(matches!(desk.order(spec(json!({"rounds": 9}))), Err(Refusal::Conflict(_))));
    assert_eq!(desk.order(command("stop")).unwrap().taken, Taken::Now);
    assert_eq!(desk.order(command("stop")).unwrap().taken, Taken::Before);
    assert_eq!(desk.order(command("resume")).unwrap().status.state, SessionState::Running);
    desk.train(1);
    let Err(Refusal::Conflict(said)) = desk.order(command("resume")) else { panic!("it is over") };
    assert!(said.contains("Complete"), "{said}");
}
