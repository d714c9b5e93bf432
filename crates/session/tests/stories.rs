//! What a session does, told as messages in and messages out, with a crash wherever one can happen.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    Entry, Envelope, FailReason, Input, Letter as _, Machine as _, ModelUri, ModelVersion, Output,
    PropletId, RoundId, Timestamp, Topic,
    message::{
        AliveStatus, Contribution, ModelLatest, PropletAlive, PropletCreate, RoundComplete,
        RoundFailed, RoundOpened, RoundStart, SessionStart, SessionState, SessionStatus,
    },
};
use serde_json::json;
use session::{News, Report, Sessions};

/// One coordinator's sessions, its disk, and what it said last.
struct Desk {
    sessions: Sessions,
    disk: BTreeMap<(&'static str, String), Vec<u8>>,
    said: Vec<Envelope>,
    now: Timestamp,
    /// Who the coordinator says is at work.
    outstanding: BTreeSet<PropletId>,
}

impl Desk {
    fn new() -> Self {
        let sessions = Sessions::default();
        let (disk, outstanding) = (BTreeMap::new(), BTreeSet::new());
        let mut desk =
            Self { sessions, disk, said: vec![], now: Timestamp::from_micros(1), outstanding };
        desk.input(Input::Connected { resumed: false });
        desk.latest(0);
        desk
    }

    fn input(&mut self, input: Input<News, Report>) {
        for output in self.sessions.step(input, self.now) {
            match output {
                Output::Keep(Entry { table, key, value: Some(value) }) => {
                    self.disk.insert((table, key), value);
                }
                Output::Keep(Entry { table, key, value: None }) => {
                    self.disk.remove(&(table, key));
                }
                Output::Publish(envelope) => self.said.push(envelope),
                Output::Effect(_) => {}
                Output::Promise(_) | Output::Listen(_) | Output::Unlisten(_) => {
                    panic!("sessions do not {output:?}")
                }
            }
        }
    }

    fn hear(&mut self, envelope: Envelope) {
        self.input(Input::News(News::try_from(envelope).unwrap()));
    }

    fn crash(&mut self) {
        self.sessions = Sessions::default();
        let entry = |((table, key), value): (&(&'static str, String), &Vec<u8>)| Entry {
            table,
            key: key.clone(),
            value: Some(value.clone()),
        };
        self.sessions.restore(self.disk.iter().map(entry).collect()).unwrap();
        self.input(Input::Connected { resumed: true });
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.input(Input::Tick);
    }

    fn latest(&mut self, version: u64) {
        let version = ModelVersion(version);
        let latest = ModelLatest {
            version,
            topic: ModelUri::global(version),
            sha256: protocol::Digest::of(b"model"),
            bytes: 1,
            format: "json".to_owned(),
        };
        self.hear(latest.seal());
    }

    fn introduce(&mut self, names: &[&str]) {
        for name in names {
            let create = PropletCreate {
                proplet_id: name.parse().unwrap(),
                namespace: String::new(),
                metadata: BTreeMap::from([("data_samples".to_owned(), json!(10))]),
                tasks: None,
            };
            self.hear(create.seal());
        }
    }

    fn alive(&mut self, name: &str) {
        let alive = PropletAlive {
            proplet_id: name.parse().unwrap(),
            status: AliveStatus::Alive,
            namespace: String::new(),
            tasks: None,
        };
        self.hear(alive.seal());
    }

    fn start(&mut self, start: serde_json::Value) {
        let payload = serde_json::to_vec(&start).unwrap().into();
        self.hear(Envelope { topic: Topic::SessionStart, payload });
    }

    fn command(&mut self, command: &str) {
        let payload = serde_json::to_vec(&json!({ "command": command })).unwrap().into();
        self.hear(Envelope { topic: Topic::SessionCommand { session: id() }, payload });
    }

    /// The starts of rounds that were said since the last call.
    fn asked(&mut self) -> Vec<RoundStart> {
        let said = std::mem::take(&mut self.said);
        let starts = said.into_iter().filter(|envelope| envelope.topic == Topic::RoundStart);
        starts.map(|envelope| envelope.open().unwrap()).collect()
    }

    fn asked_once(&mut self) -> RoundStart {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }

    fn status(&self) -> SessionStatus {
        let topic = Topic::SessionStatus { session: id() };
        self.said.iter().rev().find(|said| said.topic == topic).unwrap().open().unwrap()
    }

    fn opened(&mut self, round: &RoundId) {
        let opened = RoundOpened {
            round_id: round.clone(),
            model_uri: ModelUri::global(ModelVersion(0)),
            participants: 1,
            k_of_n: 1,
            deadline: self.now,
        };
        self.hear(opened.seal());
    }

    fn complete(&mut self, round: &RoundId, version: u64, metrics: &[(&str, f64)]) {
        let metrics: BTreeMap<String, f64> =
            metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let part = Contribution { num_samples: 5, metrics: metrics.clone() };
        let complete = RoundComplete {
            round_id: round.clone(),
            model_version: ModelVersion(version),
            model_topic: ModelUri::global(ModelVersion(version)),
            num_updates: 1,
            total_samples: 5,
            completed_at: self.now,
            duration_ms: 3,
            participants: vec!["p1".parse().unwrap()],
            metrics,
            contributions: BTreeMap::from([("p1".parse().unwrap(), part)]),
            rejected: BTreeMap::new(),
            purpose: protocol::message::Purpose::Train,
            quantiles: BTreeMap::new(),
            late: 0,
            outstanding: self.outstanding.clone(),
        };
        self.hear(complete.seal());
    }

    fn fail(&mut self, round: &RoundId) {
        self.fail_for(round, FailReason::TooFewUpdates);
    }

    fn fail_for(&mut self, round: &RoundId, reason: FailReason) {
        let failed = RoundFailed {
            round_id: round.clone(),
            reason,
            num_updates: 0,
            k_of_n: 1,
            failed_at: self.now,
            error: None,
            outstanding: self.outstanding.clone(),
        };
        self.hear(failed.seal());
    }
}

fn id() -> protocol::SessionId {
    "s".parse().unwrap()
}

fn plain(rounds: u64) -> serde_json::Value {
    json!({ "session_id": "s", "rounds": rounds, "selection": { "participants": ["p1", "p2"] } })
}

#[test]
fn one_round_follows_the_other_on_its_model() {
    let mut desk = Desk::new();
    desk.start(plain(3));
    for version in 1..=3 {
        let start = desk.asked_once();
        assert_eq!(start.round_id.as_str(), format!("s-r{version}"));
        assert_eq!(start.model_uri, ModelUri::global(ModelVersion(version - 1)));
        assert_eq!((start.k_of_n, start.participants.len()), (2, 2));
        assert_eq!(start.session, Some(id()));
        desk.opened(&start.round_id);
        desk.complete(&start.round_id, version, &[]);
        assert_eq!(desk.status().rounds_done, version);
    }
    let status = desk.status();
    assert_eq!(
        (status.state, status.model_uri),
        (SessionState::Complete, Some(ModelUri::global(ModelVersion(3))))
    );
    assert!(desk.asked().is_empty());
}

#[test]
fn a_crash_at_any_point_goes_on_with_the_same_round() {
    let mut desk = Desk::new();
    desk.start(plain(2));
    let first = desk.asked_once();
    desk.crash();
    assert_eq!(desk.asked_once(), first, "said again, to the byte");
    desk.opened(&first.round_id);
    desk.crash();
    assert_eq!(desk.asked_once(), first);
    desk.complete(&first.round_id, 1, &[]);
    let second = desk.asked_once();
    desk.crash();
    assert_eq!(desk.asked_once(), second);
    desk.complete(&first.round_id, 1, &[]);
    assert!(desk.asked().is_empty(), "an old round's end is no news");
    desk.complete(&second.round_id, 2, &[]);
    desk.crash();
    assert_eq!(desk.status().state, SessionState::Complete);
    assert!(desk.asked().is_empty());
}

#[test]
fn a_start_is_repeated_until_it_is_heard() {
    let mut desk = Desk::new();
    desk.start(plain(1));
    let start = desk.asked_once();
    desk.pass(3);
    assert_eq!(desk.asked_once(), start);
    desk.opened(&start.round_id);
    desk.pass(4);
    assert!(desk.asked().is_empty());
    desk.pass(30);
    assert_eq!(desk.asked_once(), start);
}

#[test]
fn a_failed_round_is_tried_again_and_then_the_session_fails_and_can_be_resumed() {
    let mut desk = Desk::new();
    let mut start = plain(2);
    start["retries"] = json!(1);
    desk.start(start);
    let round = desk.asked_once().round_id;
    desk.fail(&round);
    assert!(desk.asked().is_empty(), "what it failed of may pass");
    desk.pass(1);
    let again = desk.asked_once().round_id;
    assert_eq!(again.as_str(), "s-r1-t1");
    desk.fail(&again);
    assert_eq!(desk.status().state, SessionState::Failed);
    assert!(desk.status().detail.unwrap().contains("too_few_updates"), "{:?}", desk.status());
    desk.asked();
    desk.command("resume");
    let third = desk.asked_once().round_id;
    assert_eq!(third.as_str(), "s-r1-t2", "an id is never used twice");
    desk.complete(&third, 1, &[]);
    assert_eq!(desk.asked_once().round_id.as_str(), "s-r2");
}

#[test]
fn a_start_that_the_coordinator_does_not_take_is_not_tried_again() {
    let mut desk = Desk::new();
    desk.start(plain(2));
    let round = desk.asked_once().round_id;
    desk.fail_for(&round, FailReason::BadStart);
    assert_eq!(desk.status().state, SessionState::Failed);
    desk.pass(60);
    assert!(desk.asked().is_empty());
}

#[test]
fn a_stopped_session_counts_the_round_under_way_and_begins_no_other() {
    let mut desk = Desk::new();
    desk.start(plain(3));
    let round = desk.asked_once().round_id;
    desk.command("stop");
    desk.complete(&round, 1, &[]);
    let status = desk.status();
    assert_eq!((status.state, status.rounds_done), (SessionState::Stopped, 1));
    desk.pass(60);
    desk.crash();
    assert!(desk.asked().is_empty());
    desk.command("resume");
    assert_eq!(desk.asked_once().round_id.as_str(), "s-r2");
}

#[test]
fn a_session_ends_at_its_target_its_patience_or_its_time() {
    let mut desk = Desk::new();
    let mut start = plain(100);
    start["target"] = json!({ "metric": "accuracy", "op": ">=", "value": 0.9 });
    desk.start(start);
    let round = desk.asked_once().round_id;
    desk.complete(&round, 1, &[("accuracy", 0.8)]);
    let round = desk.asked_once().round_id;
    desk.complete(&round, 2, &[("accuracy", 0.93)]);
    let status = desk.status();
    assert_eq!(
        (status.state, status.best.unwrap().model_version),
        (SessionState::Complete, ModelVersion(2))
    );

    let mut desk = Desk::new();
    let mut start = plain(100);
    start["patience"] = json!({ "metric": "loss", "op": "<=", "rounds": 2, "min_delta": 0.1 });
    desk.start(start);
    for (version, loss) in [(1, 0.9), (2, 0.5), (3, 0.45), (4, f64::from(2))] {
        let round = desk.asked_once().round_id;
        desk.complete(&round, version, &[("loss", loss)]);
    }
    let status = desk.status();
    assert_eq!(status.state, SessionState::Complete);
    assert_eq!(status.best.unwrap().model_version, ModelVersion(2), "the best is remembered");

    let mut desk = Desk::new();
    let mut start = plain(100);
    start["deadline_s"] = json!(10);
    desk.start(start);
    desk.asked_once();
    desk.pass(10);
    assert_eq!(desk.status().state, SessionState::Complete);
}

#[test]
fn a_session_waits_for_proplets_and_asks_more_than_it_needs() {
    let mut desk = Desk::new();
    desk.start(json!({
        "session_id": "s", "rounds": 5,
        "selection": { "method": "random", "count": 4, "over": 1.3, "available_min": 6 },
    }));
    assert!(desk.asked().is_empty());
    desk.introduce(&["a", "b", "c", "d", "e"]);
    desk.pass(1);
    assert!(desk.status().detail.unwrap().contains("5 of 6"));
    assert!(desk.asked().is_empty());
    desk.introduce(&["f", "g"]);
    desk.pass(1);
    let start = desk.asked_once();
    assert_eq!((start.participants.len(), start.k_of_n), (6, 4), "4 and a third more");
    desk.crash();
    assert_eq!(desk.asked_once(), start, "whom it asked is remembered");
}

#[test]
fn who_fell_silent_is_not_asked() {
    let mut desk = Desk::new();
    desk.introduce(&["a"]);
    desk.pass(31);
    desk.introduce(&["b"]);
    desk.start(json!({ "session_id": "s", "rounds": 1 }));
    let asked = desk.asked_once().participants;
    assert_eq!(asked.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn what_a_proplet_says_of_itself_outlives_the_coordinator() {
    let mut desk = Desk::new();
    desk.introduce(&["a", "b"]);
    desk.crash();
    desk.latest(0);
    desk.start(json!({
        "session_id": "s", "rounds": 1,
        "selection": { "at_least": { "data_samples": 10 }, "available_min": 1 },
    }));
    assert!(desk.asked().is_empty(), "nobody was heard yet");
    desk.alive("b");
    desk.pass(1);
    let asked = desk.asked_once().participants;
    assert_eq!(asked.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_coordinator_that_comes_back_hears_the_fleet_before_it_asks() {
    let mut desk = Desk::new();
    desk.introduce(&["a", "b"]);
    desk.pass(20);
    desk.start(json!({ "session_id": "s", "rounds": 2 }));
    let first = desk.asked_once();
    assert_eq!(first.participants.len(), 2);
    desk.command("stop");
    desk.complete(&first.round_id, 1, &[]);
    desk.crash();
    desk.alive("a");
    desk.command("resume");
    assert!(desk.asked().is_empty(), "one of two is not all");
    desk.alive("b");
    desk.pass(12);
    assert_eq!(desk.asked_once().participants.len(), 2);
}

#[test]
fn what_cannot_be_taken_is_refused_with_the_value() {
    let with = |key: &str, value: serde_json::Value| {
        let mut start = plain(1);
        start[key] = value;
        start
    };
    let bad = [
        (with("rounds", json!(0)), "0"),
        (with("timeout_s", json!(0)), "0"),
        (with("selection", json!({ "method": "best" })), "best"),
        (with("selection", json!({ "fraction": 1.5 })), "1.5"),
        (with("selection", json!({ "over": 0.5 })), "0.5"),
        (with("selection", json!({ "colour": 1 })), "colour"),
        (with("k_of_n", json!(0)), "k_of_n"),
        (with("ruonds", json!(1)), "ruonds"),
    ];
    for (start, named) in bad {
        let mut desk = Desk::new();
        desk.start(start);
        let status = desk.status();
        assert_eq!(status.state, SessionState::Refused);
        let detail = status.detail.unwrap();
        assert!(detail.contains(named), "{detail}");
        desk.pass(100);
        assert!(desk.asked().is_empty());
    }
    let mut desk = Desk::new();
    desk.start(plain(2));
    desk.start(plain(3));
    let status = desk.status();
    assert_eq!((status.state, status.rounds), (SessionState::Running, 2), "the first one stands");
    assert!(status.refused.unwrap().contains("another session"));
    desk.crash();
    desk.asked();
    desk.start(plain(2));
    assert_eq!(desk.status().refused, None, "the same start again is no mistake");
}

#[test]
fn a_valid_start_survives_its_own_text() {
    let start: SessionStart = serde_json::from_value(plain(7)).unwrap();
    let again: SessionStart = start.seal().open().unwrap();
    assert_eq!(again, start);
    assert_eq!(again.fingerprint(), start.fingerprint());
}

fn names(start: &RoundStart) -> Vec<&str> {
    start.participants.iter().map(|id| id.as_str()).collect()
}

/// Six proplets of which four are kept at work; two updates make a model.
fn asynchronous(rounds: u64) -> serde_json::Value {
    json!({
        "session_id": "s", "rounds": rounds,
        "asynchronous": { "buffer": 2, "concurrency": 4, "staleness_max": 5 },
        "selection": { "participants": ["a", "b", "c", "d", "e", "f"] },
    })
}

fn these(names: &[&str]) -> BTreeSet<PropletId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn an_asynchronous_session_asks_only_those_that_have_nothing_to_do() {
    let mut desk = Desk::new();
    desk.start(asynchronous(9));
    let first = desk.asked_once();
    assert_eq!(names(&first), ["a", "b", "c", "d"]);
    assert_eq!((first.k_of_n, first.staleness_max, first.min_updates), (2, Some(5), Some(1)));
    // Two were counted, two are at work: two of those that were asked least are asked.
    desk.outstanding = these(&["c", "d"]);
    desk.complete(&first.round_id, 1, &[]);
    let second = desk.asked_once();
    assert_eq!(names(&second), ["e", "f"]);
    assert_eq!(second.model_uri, ModelUri::global(ModelVersion(1)));
    desk.crash();
    assert_eq!(desk.asked_once(), second, "killed, it goes on with the same round");
    // Nobody came in time: everybody is at work, and the next attempt waits for them alone.
    desk.outstanding = these(&["c", "d", "e", "f"]);
    desk.fail(&second.round_id);
    desk.pass(1);
    let third = desk.asked_once();
    assert_eq!((third.round_id.as_str(), names(&third).len()), ("s-r2-t1", 0));
    desk.crash();
    assert_eq!(desk.asked_once(), third);
    // One is too late for good, or gone: its place is free.
    desk.outstanding = these(&["d", "f"]);
    desk.complete(&third.round_id, 2, &[]);
    assert_eq!(desk.asked_once().participants.len(), 2);
}

#[test]
fn a_round_that_asked_nobody_since_all_were_thought_to_be_at_work_is_no_failed_attempt() {
    let mut desk = Desk::new();
    let mut start = asynchronous(2);
    start["retries"] = json!(0);
    desk.start(start);
    let first = desk.asked_once();
    desk.outstanding = these(&["a", "b", "c", "d"]);
    desk.complete(&first.round_id, 1, &[]);
    let second = desk.asked_once();
    assert_eq!(names(&second).len(), 0, "four are at work");
    // The coordinator does not wait for them any more.
    desk.outstanding = these(&[]);
    desk.fail_for(&second.round_id, FailReason::AllAbsent);
    desk.pass(1);
    let third = desk.asked_once();
    assert_eq!((third.round_id.as_str(), names(&third).len()), ("s-r2-t1", 4));
    desk.fail_for(&third.round_id, FailReason::AllAbsent);
    assert_eq!(desk.status().state, SessionState::Failed, "this one was an attempt");
}

#[test]
fn what_is_kept_of_a_proplet_is_written_when_it_changes() {
    let mut desk = Desk::new();
    let mut start = asynchronous(9);
    start["asynchronous"] = json!({ "buffer": 2, "concurrency": 2, "staleness_max": 5 });
    desk.start(start);
    let shares = |desk: &Desk| {
        let of = desk.disk.iter().filter(|((table, _), _)| *table == "shares");
        of.map(|((_, key), value)| (key.clone(), value.clone())).collect::<BTreeMap<_, _>>()
    };
    let key = |name: &&str| format!("s/{name}");
    let first = desk.asked_once();
    let mut known: BTreeSet<String> = names(&first).iter().map(key).collect();
    assert!(known.iter().eq(shares(&desk).keys()), "nobody else was asked");
    desk.complete(&first.round_id, 1, &[]);
    let second = desk.asked_once();
    known.extend(names(&second).iter().map(key).chain(["s/p1".to_owned()]));
    assert!(known.len() == 5 && known.iter().eq(shares(&desk).keys()), "and one has counted");
    // As an earlier release kept them.
    let read = |value: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(value).unwrap();
    let as_one: serde_json::Map<String, serde_json::Value> =
        shares(&desk).iter().map(|(key, value)| (key[2..].to_owned(), read(value))).collect();
    desk.disk.retain(|(table, _), _| *table != "shares");
    desk.disk.insert(("shares", "s".to_owned()), serde_json::to_vec(&as_one).unwrap());
    desk.crash();
    desk.asked();
    desk.complete(&second.round_id, 2, &[]);
    let third = desk.asked_once();
    let others: BTreeSet<String> = names(&third).iter().map(key).collect();
    assert!(others.len() == 2 && others.is_disjoint(&known), "those that were not asked before");
    known.extend(others);
    assert!(known.iter().eq(shares(&desk).keys()), "each by itself again");
}

#[test]
fn those_at_work_do_not_evaluate() {
    let mut desk = Desk::new();
    let mut start = asynchronous(3);
    start["evaluate"] = json!({ "every": 1 });
    desk.start(start);
    let first = desk.asked_once();
    desk.outstanding = these(&["c", "d"]);
    desk.complete(&first.round_id, 1, &[]);
    let evaluation = desk.asked_once();
    assert_eq!(names(&evaluation), ["a", "b", "e", "f"]);
    assert_eq!(evaluation.staleness_max, None);
}

#[test]
fn what_contradicts_an_asynchronous_session_is_refused() {
    let bad = [
        ("/k_of_n", json!(2), "asynchronous and k_of_n exclude each other"),
        ("/min_updates", json!(2), "min_updates"),
        ("/selection/over", json!(1.3), "selection.over"),
        ("/selection/count", json!(3), "selection.count"),
        ("/asynchronous/buffer", json!(0), "not 0 and 4"),
        ("/asynchronous/buffer", json!(5), "not 5 and 4"),
        ("/asynchronous/staleness_max", json!(0), "staleness_max takes 1 to 1000, not 0"),
        ("/asynchronous/hurry", json!(1), "hurry"),
        ("/strategy", json!({ "name": "fedmedian" }), "fedmedian"),
    ];
    for (place, value, named) in bad {
        let mut desk = Desk::new();
        let mut start = asynchronous(1);
        let (at, key) = place.rsplit_once('/').unwrap();
        start.pointer_mut(at).unwrap()[key] = value;
        desk.start(start);
        let status = desk.status();
        assert_eq!(status.state, SessionState::Refused);
        let detail = status.detail.unwrap();
        assert!(detail.contains(named), "{detail}");
    }
}
