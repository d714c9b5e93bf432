//! Sessions: many rounds without a human between them, left alone, killed at, asked wrongly, and
//! two at once.
//!
//! `AILERON_E2E_KILLS` sets how many kills a session goes through, 6 by default, in two and a half
//! times as many rounds.

use std::{collections::BTreeMap, process::ExitStatus, time::Duration};

use e2e::{
    BrokerKind, Command, Deadline, Dice, Ended, Heard, OneHotFleet, Operator, Peer, Stack,
    StackPlan, Turn, Victim, aileron, eventually, judge, one_hot_base64, say, versions_are_whole,
};
use protocol::message::{RoundStart, SessionState, SessionStatus};
use serde_json::{Value, json};

use crate::walk::publish;

/// How long the next round of a session may take: it may have to be tried again, and a broker that
/// forgets may cost a repetition of half a minute.
const ROUND_MAX: Duration = Duration::from_secs(150);
const KILLS: u64 = 6;
/// Longest draw between a round's end and a kill: about what a round takes.
const DELAY_MS_MAX: u64 = 900;

#[test]
fn a_session_that_mosquitto_pub_starts_runs_its_rounds_and_its_status_is_kept() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Mosquitto, 3);
    let stack = plan.start();
    let operator = stack.operator();
    publish(&stack, "fl/sessions/start", &spec(&plan.fleet, "s-pub", 4, 20).to_string());
    let status = ends(&operator, "s-pub");
    assert_eq!((status.state, status.rounds_done), (SessionState::Complete, 4), "{status:?}");
    let uri = status.model_uri.map(|uri| uri.to_string());
    assert_eq!(uri.as_deref(), Some("fl/models/global_model_v4"));
    for round in 1..=4 {
        let complete = operator.wait_for_complete(&format!("s-pub-r{round}"));
        assert_eq!(complete.model_version.0, round);
        assert_eq!(judge(&operator, &plan.fleet, &complete).len(), 3, "{complete:?}");
    }
    versions_are_whole(&operator, 4);
    lineage_is_whole(&operator, "s-pub", 4);
    let late = Peer::connect(stack.field().port(), &["fl/sessions/+/status"]);
    let kept = late.wait_for("fl/sessions/s-pub/status");
    assert!(kept.retained, "{kept:?}");
    assert_eq!(kept.json()["state"], "Complete", "{}", kept.text());
}

#[test]
fn a_session_is_started_watched_listed_stopped_and_resumed_by_command() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Embedded, 2);
    let stack = plan.start();
    let operator = stack.operator();
    let file = stack.dir().join("session.json");
    std::fs::write(&file, spec(&plan.fleet, "s-file", 3, 0).to_string()).unwrap();
    let file = file.display().to_string();
    let start = ["start", "--spec", &file, "--watch"];
    let (code, said) = aileron_session(&stack, "start", &start);
    assert!(code.success(), "{code}: {said:?}");
    assert_eq!(said.last().unwrap()["rounds_done"], 3, "{said:?}");
    let (code, said) = aileron_session(&stack, "start-again", &start);
    assert!(code.success(), "a repeated start is one start: {code}: {said:?}");
    assert_eq!(said.last().unwrap()["state"], "Complete", "{said:?}");

    let long = ["start", "--spec", &file, "--id", "s-long", "--rounds", "100000"];
    let (code, said) = aileron_session(&stack, "start-long", &long);
    assert!(code.success(), "{code}: {said:?}");
    reaches(&operator, "s-long", 2);
    let (code, said) = aileron_session(&stack, "list", &["list"]);
    assert!(code.success(), "{code}");
    let states: Vec<(&str, &str)> = said[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["session_id"].as_str().unwrap(), it["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, [("s-file", "Complete"), ("s-long", "Running")]);
    let done = stopped(&stack, &operator, "stop");
    let (code, said) = aileron_session(&stack, "resume", &["resume", "s-long"]);
    assert!(code.success(), "{code}: {said:?}");
    assert_eq!(said.last().unwrap()["state"], "Running", "{said:?}");
    reaches(&operator, "s-long", done + 2);
    stopped(&stack, &operator, "stop-again");
    let other = ["start", "--spec", &file, "--rounds", "4", "--watch"];
    let (code, said) = aileron_session(&stack, "start-other", &other);
    assert!(!code.success(), "another session of this id: {said:?}");
    assert!(said.last().unwrap().to_string().contains("another session"), "{said:?}");
}

/// Stops `s-long`, and sees that only the round that was under way still ends. The rounds done.
fn stopped(stack: &Stack, operator: &Operator, name: &str) -> u64 {
    let (code, said) = aileron_session(stack, name, &["stop", "s-long"]);
    assert!(code.success(), "{code}: {said:?}");
    assert_eq!(said.last().unwrap()["state"], "Stopped", "{said:?}");
    let asked: Vec<RoundStart> = rounds_of(operator, "s-long");
    let last = asked.last().unwrap().round_id.to_string();
    operator.wait_for_complete(&last);
    let from = operator.peer().cursor();
    // Had it gone on, it would have done so while another one runs two rounds.
    let other = format!("s-{name}");
    let fleet = OneHotFleet::of(2);
    operator.peer().publish("fl/sessions/start", spec(&fleet, &other, 2, 0).to_string());
    ends(operator, &other);
    let after = operator.peer().since(from, "fl/rounds/start");
    assert!(!after.iter().any(|it| it.json()["session"] == "s-long"), "it went on after a stop");
    status(operator, "s-long").unwrap().rounds_done
}

#[test]
fn kills_do_not_change_a_byte_of_the_last_model() {
    same_bytes(BrokerKind::Embedded);
}

#[test]
fn kills_do_not_change_a_byte_of_the_last_model_on_mosquitto() {
    same_bytes(BrokerKind::Mosquitto);
}

fn same_bytes(broker: BrokerKind) {
    let _turn = Turn::take();
    let mut dice = Dice::of_story(&format!("a session killed at, on {broker:?}"));
    let rounds = kills() * 5 / 2;
    let quiet = last_model(broker, rounds, |_, _| {});
    let every = rounds / kills().max(1);
    let mut done = 0;
    let killed = last_model(broker, rounds, |stack, round| {
        if round % every != 0 || round / every >= kills() {
            return;
        }
        done += 1;
        // The point in time is the subject here, not something to wait for.
        std::thread::sleep(Duration::from_millis(dice.below(DELAY_MS_MAX)));
        match dice.below(7) {
            0 | 1 => kill(stack, Victim::Coordinator),
            2 => kill(stack, Victim::Manager),
            3 => kill(stack, Victim::ModelServer),
            4 => kill(stack, Victim::Broker),
            member => {
                let proplet = &mut stack.proplets[member as usize - 5];
                say(&format!("kill proplet {}", member - 4));
                proplet.kill();
                proplet.start_again();
            }
        }
    });
    assert_eq!(done, kills(), "one kill every {every} rounds, the first before the first");
    assert_eq!(quiet, killed, "version {rounds} after {done} kills");
}

pub(crate) fn kill(stack: &mut Stack, victim: Victim) {
    say(&format!("kill {victim:?}"));
    stack.kill(victim);
    stack.start_again(victim);
}

/// The bytes of the last model of a session in which everybody takes part in every round; `at` is
/// called after each round. The guest keeps a share of its base model, so every round of the
/// history shows in the bytes.
fn last_model(broker: BrokerKind, rounds: u64, mut at: impl FnMut(&mut Stack, u64)) -> String {
    let plan = StackPlan::new(broker, 3).with("PROPLET_ALIVE_INTERVAL_S", 1);
    let mut stack = plan.start();
    let operator = stack.operator();
    let mut spec = spec(&plan.fleet, "s-bytes", rounds, 200);
    // A round without the one who was killed is tried again until it is there.
    spec["min_updates"] = json!(3);
    spec["retries"] = json!(1000);
    spec["timeout_s"] = json!(20);
    spec["hyperparams"]["keep"] = json!(0.7);
    publish(&stack, "fl/sessions/start", &spec.to_string());
    at(&mut stack, 0);
    for round in 1..=rounds {
        reaches(&operator, "s-bytes", round);
        at(&mut stack, round);
    }
    let status = ends(&operator, "s-bytes");
    assert_eq!((status.state, status.rounds_done), (SessionState::Complete, rounds), "{status:?}");
    versions_are_whole(&operator, rounds);
    lineage_is_whole(&operator, "s-bytes", rounds);
    let tried = rounds_of(&operator, "s-bytes").len();
    say(&format!("{rounds} rounds in {tried} attempts"));
    operator.peer().wait_for(&format!("fl/models/global_model_v{rounds}")).text()
}

#[test]
fn a_session_reaches_its_target_though_three_of_ten_never_answer() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Embedded, 7).with("PROPLET_ALIVE_INTERVAL_S", 2);
    let stack = plan.start();
    let operator = stack.operator();
    // Three that introduce themselves and then do nothing, and three that nobody has ever heard.
    let ghosts = ["ghost-1", "ghost-2", "ghost-3"];
    introduce(operator.peer(), &ghosts);
    let named = |id: &str, k: u64, more: Value| {
        let mut spec = spec(&plan.fleet, id, 3, 20);
        spec["timeout_s"] = json!(3);
        spec["k_of_n"] = json!(k);
        // On a slow machine a round may have too few by then; it is tried again.
        spec["min_updates"] = json!(k.min(7));
        spec["retries"] = json!(1000);
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let with = |more: &[&str]| {
        let members = plan.fleet.members.iter().map(ToString::to_string);
        let all: Vec<String> = members.chain(more.iter().map(|&id| id.to_owned())).collect();
        json!({"participants": all})
    };
    let nobody = ["nobody-1", "nobody-2", "nobody-3"];
    // The first one has the time in which everybody compiles the guest.
    let starts = [
        named("s-enough", 7, json!({"selection": with(&ghosts), "timeout_s": 50})),
        named("s-silent", 10, json!({"selection": with(&ghosts)})),
        named("s-missing", 10, json!({"selection": with(&nobody)})),
        named(
            "s-over",
            6,
            json!({"selection": {
            "method": "random", "count": 6, "over": 1.5, "available_min": 10}}),
        ),
    ];
    for start in starts {
        introduce(operator.peer(), &ghosts);
        let id = start["session_id"].as_str().unwrap();
        operator.peer().publish("fl/sessions/start", start.to_string());
        let status = ends(&operator, id);
        assert_eq!((status.state, status.rounds_done), (SessionState::Complete, 3), "{status:?}");
        let ended = rounds_of(&operator, id).into_iter().map(|start| start.round_id.to_string());
        for round in ended {
            let Ended::Complete(complete) = operator.wait_for_end(&round) else { continue };
            assert!(complete.num_updates >= 6, "{complete:?}");
            judge(&operator, &plan.fleet, &complete);
        }
        lineage_is_whole(&operator, id, 3);
    }
    let goal = json!({"metric": "loss", "op": "<=", "value": 0.5});
    let target = json!({"target": goal, "rounds": 100, "selection": with(&ghosts)});
    operator.peer().publish("fl/sessions/start", named("s-target", 7, target).to_string());
    let status = ends(&operator, "s-target");
    assert_eq!((status.state, status.rounds_done), (SessionState::Complete, 1), "{status:?}");
    assert!(status.detail.unwrap().contains("loss"), "says which target");
}

fn introduce(peer: &Peer, names: &[&str]) {
    for name in names {
        let create = json!({"proplet_id": name, "namespace": "", "metadata": {}});
        peer.publish("m/demo/c/fl/control/proplet/create", create.to_string());
    }
}

#[test]
fn bad_starts_are_answered_and_disturb_nothing() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Mosquitto, 2);
    let mut stack = plan.start();
    let operator = stack.operator();
    let good = spec(&plan.fleet, "s-good", 8, 100);
    publish(&stack, "fl/sessions/start", &good.to_string());
    reaches(&operator, "s-good", 1);
    let from = operator.peer().cursor();
    let bad = bad_starts(&plan.fleet);
    for (_, start, _) in &bad {
        operator.peer().publish("fl/sessions/start", start.clone());
    }
    for nameless in nameless_starts() {
        operator.peer().publish("fl/sessions/start", nameless);
    }
    let huge = format!("{{\"session_id\":\"s-huge\",\"file\":\"{}\"}}", "A".repeat(65 << 20));
    publish(&stack, "fl/sessions/start", &huge);
    let mut other = good.clone();
    other["rounds"] = json!(9);
    operator.peer().publish("fl/sessions/start", other.to_string());
    for (id, _, word) in &bad {
        let status = operator.peer().wait_after(from, &status_topic(id), |_| true).json();
        let detail = status["detail"].as_str().unwrap_or_default();
        assert_eq!(status["state"], "Refused", "{status}");
        assert!(detail.contains(word), "{id}: no {word:?} in {detail:?}");
    }
    let told = |heard: &Heard| heard.text().contains("another session");
    let told = operator.peer().wait_after(from, &status_topic("s-good"), told);
    assert_eq!(told.json()["rounds"], 8, "the first one stands: {}", told.text());
    let status = ends(&operator, "s-good");
    assert_eq!((status.state, status.rounds_done), (SessionState::Complete, 8), "{status:?}");
    for command in ["", "{}", "{\"command\":\"explode\"}", "[]", "{\"command\":7}"] {
        operator.peer().publish("fl/sessions/s-good/command", command);
        operator.peer().publish("fl/sessions/s-none/command", command);
    }
    fails_in_the_open(&operator, &plan.fleet);
    operator.peer().publish("fl/sessions/start", spec(&plan.fleet, "s-after", 2, 0).to_string());
    assert_eq!(ends(&operator, "s-after").state, SessionState::Complete);
    versions_are_whole(&operator, 10);
    for process in [&mut stack.coordinator, &mut stack.manager, &mut stack.model_server] {
        assert_eq!(process.has_ended(), None, "a process ended by itself");
    }
}

/// What only a round can find out ends the session, with the reason.
fn fails_in_the_open(operator: &Operator, fleet: &OneHotFleet) {
    let mut start = spec(fleet, "s-base", 2, 0);
    start["model_uri"] = json!("fl/models/global_model_v900");
    start["retries"] = json!(0);
    start["timeout_s"] = json!(2);
    operator.peer().publish("fl/sessions/start", start.to_string());
    let status = ends(operator, "s-base");
    assert_eq!(status.state, SessionState::Failed, "{status:?}");
    assert!(status.detail.unwrap().contains("unknown_model"), "says what was wrong");
}

/// Id, start, and a word of the answer.
fn bad_starts(fleet: &OneHotFleet) -> Vec<(String, String, &'static str)> {
    let set = |key: &'static str, value: Value| move |start: &mut Value| start[key] = value.clone();
    type Spoil = Box<dyn Fn(&mut Value)>;
    let spoilt: Vec<(&'static str, Spoil)> = vec![
        ("rounds", Box::new(set("rounds", json!(0)))),
        ("rounds", Box::new(set("rounds", json!(1_000_001)))),
        ("-3", Box::new(set("rounds", json!(-3)))),
        ("\"3\"", Box::new(set("rounds", json!("3")))),
        ("1.5", Box::new(set("rounds", json!(1.5)))),
        ("best", Box::new(set("selection", json!({"method": "best"})))),
        ("selection", Box::new(set("selection", json!({"count": 1, "fraction": 0.5})))),
        ("not allowed in an id", Box::new(set("selection", json!({"participants": ["a/b"]})))),
        ("colour", Box::new(set("colour", json!("red")))),
        ("timeout_s", Box::new(set("timeout_s", json!(0)))),
        ("model address", Box::new(set("model_uri", json!("fl/models/../etc")))),
        ("k_of_n", Box::new(set("k_of_n", json!(0)))),
        ("1099511627776", Box::new(set("retries", json!(1_u64 << 40)))),
        ("==", Box::new(set("target", json!({"metric": "loss", "op": "==", "value": 1})))),
        ("exclude", Box::new(set("task_wasm_image", json!("http://127.0.0.1/x.wasm")))),
        ("null", Box::new(set("rounds", json!(null)))),
    ];
    let bad = spoilt.into_iter().enumerate().map(|(number, (word, spoil))| {
        let id = format!("s-bad-{number}");
        let mut start = spec(fleet, &id, 2, 0);
        spoil(&mut start);
        (id, start.to_string(), word)
    });
    let long = "s".repeat(101);
    let mut start = spec(fleet, &long, 2, 0).to_string();
    let mut bad: Vec<(String, String, &'static str)> = bad.collect();
    bad.push((long, std::mem::take(&mut start), "101"));
    bad
}

/// Starts of sessions that cannot be named, so that nobody can be answered.
fn nameless_starts() -> Vec<Vec<u8>> {
    vec![
        vec![],
        b"{".to_vec(),
        b"null".to_vec(),
        b"[1,2]".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        b"{\"rounds\":3}".to_vec(),
        b"{\"session_id\":\"a/+/#\",\"rounds\":3}".to_vec(),
        b"{\"session_id\":\"\",\"rounds\":3}".to_vec(),
        b"{\"session_id\":7,\"rounds\":3}".to_vec(),
        format!("{{\"session_id\":\"{}\",\"rounds\":3}}", "x".repeat(1 << 20)).into_bytes(),
        format!("{{\"hyperparams\":{}", "[".repeat(200_000)).into_bytes(),
    ]
}

#[test]
fn two_sessions_at_once_go_on_from_their_own_models() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Embedded, 3);
    let stack = plan.start();
    let operator = stack.operator();
    let ids = ["s-left", "s-right"];
    for id in ids {
        let mut start = spec(&plan.fleet, id, 6, 50);
        start["model_uri"] = json!("fl/models/global_model_v0");
        operator.peer().publish("fl/sessions/start", start.to_string());
    }
    let last: Vec<u64> = ids
        .iter()
        .map(|id| {
            let status = ends(&operator, id);
            assert_eq!((status.state, status.rounds_done), (SessionState::Complete, 6));
            lineage_is_whole(&operator, id, 6);
            status.model_uri.unwrap().version.0
        })
        .collect();
    versions_are_whole(&operator, 12);
    let first = |id: &str| rounds_of(&operator, id).len();
    assert_eq!((first(ids[0]), first(ids[1])), (6, 6), "rounds of each");
    let (left, right) = (operator.model(last[0]), operator.model(last[1]));
    assert_eq!(left.tensors, right.tensors, "neither was in the other's way");
}

/// A session of the one-hot guest with every member of a fleet in every round.
pub(crate) fn spec(fleet: &OneHotFleet, id: &str, rounds: u64, work_ms: u64) -> Value {
    let participants: Vec<String> = fleet.members.iter().map(ToString::to_string).collect();
    json!({
        "session_id": id, "rounds": rounds, "file": one_hot_base64(), "timeout_s": 50,
        "hyperparams": fleet.hyperparams(work_ms), "selection": {"participants": participants},
        "seed": 7,
    })
}

fn kills() -> u64 {
    let given = std::env::var("AILERON_E2E_KILLS").ok();
    given.map_or(KILLS, |text| text.parse().expect("AILERON_E2E_KILLS takes a whole number"))
}

fn status_topic(id: &str) -> String {
    format!("fl/sessions/{id}/status")
}

fn read(heard: &Heard) -> SessionStatus {
    serde_json::from_slice(&heard.payload)
        .unwrap_or_else(|why| panic!("{}: {why}: {}", heard.topic, heard.text()))
}

/// How it stood when it spoke last.
fn status(operator: &Operator, id: &str) -> Option<SessionStatus> {
    operator.peer().all(&status_topic(id)).last().map(read)
}

/// Waits until the session has done so many rounds.
#[track_caller]
pub(crate) fn reaches(operator: &Operator, id: &str, rounds: u64) {
    let reached = |status: &SessionStatus| status.rounds_done >= rounds;
    hears(operator, id, &format!("round {rounds} of {id}"), reached);
}

/// Waits until the session is over, as long as its rounds go on.
#[track_caller]
pub(crate) fn ends(operator: &Operator, id: &str) -> SessionStatus {
    loop {
        let done = status(operator, id).map(|status| status.rounds_done);
        let news = |status: &SessionStatus| {
            status.state != SessionState::Running || Some(status.rounds_done) > done
        };
        let status = hears(operator, id, &format!("{id} goes on from round {done:?}"), news);
        if status.state != SessionState::Running {
            return status;
        }
    }
}

#[track_caller]
fn hears(
    operator: &Operator,
    id: &str,
    what: &str,
    wanted: impl Fn(&SessionStatus) -> bool,
) -> SessionStatus {
    let topic = status_topic(id);
    let look = |heard: &[Heard]| {
        let mut statuses = heard.iter().rev().filter(|it| it.topic == topic).map(read);
        statuses.next().filter(&wanted)
    };
    let found = operator.peer().hears(Deadline::after(ROUND_MAX), look);
    found.unwrap_or_else(|| {
        let last = status(operator, id);
        panic!("waited {ROUND_MAX:?} in vain: {what}; it stands at {last:?}")
    })
}

/// The rounds that a session has asked for, each once, in order.
pub(crate) fn rounds_of(operator: &Operator, id: &str) -> Vec<RoundStart> {
    let mut asked: Vec<RoundStart> = vec![];
    for heard in operator.peer().all("fl/rounds/start") {
        let Ok(start) = serde_json::from_slice::<RoundStart>(&heard.payload) else { continue };
        let own = start.session.as_ref().is_some_and(|session| session.as_str() == id);
        match asked.iter().find(|known| known.round_id == start.round_id) {
            _ if !own => {}
            Some(known) => assert_eq!(*known, start, "a round was asked for in two ways"),
            None => asked.push(start),
        }
    }
    asked
}

/// Each round begins from the model that the one before it made.
#[track_caller]
fn lineage_is_whole(operator: &Operator, id: &str, rounds: u64) {
    let asked = rounds_of(operator, id);
    let mut made: BTreeMap<String, String> = BTreeMap::new();
    for heard in operator.peer().all("fl/rounds/+/complete") {
        let complete = heard.json();
        let text = |key: &str| complete[key].as_str().unwrap_or_default().to_owned();
        made.insert(text("round_id"), text("model_topic"));
    }
    let mut base = asked.first().map(|start| start.model_uri.to_string());
    let mut done = 0;
    for start in &asked {
        assert_eq!(Some(start.model_uri.to_string()), base, "{}: {made:?}", start.round_id);
        if let Some(model) = made.get(start.round_id.as_str()) {
            base = Some(model.clone());
            done += 1;
        }
    }
    assert_eq!(done, rounds, "rounds of {id} that made a model");
}

/// Runs `aileron session` to its end; what it said, as JSON.
#[track_caller]
fn aileron_session(stack: &Stack, name: &str, args: &[&str]) -> (ExitStatus, Vec<Value>) {
    let address = stack.field().address();
    let more = ["--mqtt-address", &address, "--format", "json"];
    let args = ["session"].iter().chain(args).chain(&more).map(|&arg| arg.to_owned());
    let command = Command {
        name: format!("session-{name}"),
        program: aileron().to_owned(),
        args: args.collect(),
        env: vec![],
        dir: stack.dir(),
    };
    let mut process = command.start();
    let status = eventually(&format!("aileron session {name} ends"), || process.has_ended());
    let log = process.log();
    let said = serde_json::Deserializer::from_str(&log).into_iter::<Value>();
    (status, said.filter_map(Result::ok).collect())
}
