//! Everything that is wrong with an update, said over real MQTT: each gets its reason, and the round
//! goes on with the honest updates only.

use std::collections::BTreeSet;

use e2e::{
    BrokerKind, Ended, Heard, OneHotFleet, Operator, Peer, RoundPlan, Stack, StackPlan, Turn, judge,
};
use serde_json::{Value, json};

const ROUND: &str = "r-poison";
const BASE: &str = "fl/models/global_model_v0";
const UPDATE_BYTES_MAX: usize = 200_000;
const SAMPLES_MAX: u64 = 1_000_000;

/// A participant of that name sends this, and hears this reason.
struct Case {
    name: &'static str,
    payload: Vec<u8>,
    reason: &'static str,
}

#[test]
fn each_poisoned_update_gets_its_reason_and_the_round_goes_on() {
    let _turn = Turn::take();
    let plan = plan();
    let stack = plan.start();
    let cases = cases();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name");
    let operator = stack.operator();
    let crowd = Crowd::join(&stack, names.iter().copied().chain(["late", "twice"]));
    // `proplet-1` is real; `late` and `twice` are honest, and played by this test.
    let fleet = OneHotFleet::named(&["proplet-1", "late", "twice"].map(str::to_owned));
    let mut round = RoundPlan::one_hot(&fleet, ROUND, 0);
    round.participants.extend(names.iter().map(|&name| name.to_owned()));
    operator.start(&round);
    operator.peer().wait_for(&format!("fl/rounds/{ROUND}/acks/proplet-1"));
    for case in &cases {
        let ack = crowd.say(&operator, ROUND, case.name, case.payload.clone());
        let wanted = json!({"round_id": ROUND, "verdict": "rejected", "reason": case.reason});
        assert_eq!(ack.json(), wanted, "{}", case.name);
    }
    outsiders_are_refused(&crowd, &operator);
    nobody_counts_twice(&crowd, &operator, &fleet);
    let late = "late".parse().unwrap();
    // Bad metrics are dropped; they do not cost an honest update.
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let metrics = format!("{{\"loss\":1e999,\"text\":\"1\",\"deep\":{deep}}}");
    let update = fleet.update(&late, ROUND, BASE).to_string();
    let update = update.replace("{\"loss\":0.5}", &metrics);
    assert!(update.contains(&metrics));
    assert_eq!(crowd.say(&operator, ROUND, "late", update).json()["verdict"], "accepted");
    let complete = operator.wait_for_complete(ROUND);
    assert_eq!(judge(&operator, &fleet, &complete).len(), 3, "{complete:?}");
    assert!(complete.rejected.values().sum::<u64>() >= cases.len() as u64, "{complete:?}");
    the_round_stays_closed(&crowd, &operator);
    assert_eq!(operator.model(1).version.0, 1);
    assert!(operator.peer().all("fl/models/global_model_v2").is_empty());
}

#[test]
fn a_round_of_nothing_but_poison_fails_and_makes_no_version() {
    let _turn = Turn::take();
    let stack = plan().start();
    let operator = stack.operator();
    let crowd = Crowd::join(&stack, ["empty-1", "empty-2"]);
    let fleet = OneHotFleet::named(&["empty-1", "empty-2"].map(str::to_owned));
    let mut round = RoundPlan::one_hot(&fleet, ROUND, 0);
    round.timeout_s = 5;
    operator.start(&round);
    operator.peer().wait_for(&format!("fl/rounds/{ROUND}/opened"));
    for name in ["empty-1", "empty-2"] {
        let update = update(name, |it| it["num_samples"] = json!(0));
        let ack = crowd.say(&operator, ROUND, name, update);
        assert_eq!(ack.json()["reason"], "num_samples");
    }
    let Ended::Failed(failed) = operator.wait_for_end(ROUND) else { panic!("it made a model") };
    assert_eq!((&failed["reason"], &failed["num_updates"]), (&json!("too_few_updates"), &json!(0)));
    // The next round makes version 1.
    let fleet = OneHotFleet::of(1);
    let complete = operator.run(&RoundPlan::one_hot(&fleet, "r-after", 0));
    assert_eq!((complete.model_version.0, judge(&operator, &fleet, &complete).len()), (1, 1));
}

fn plan() -> StackPlan {
    StackPlan::new(BrokerKind::Mosquitto, 1)
        .with("COORDINATOR_UPDATE_BYTES_MAX", UPDATE_BYTES_MAX)
        .with("COORDINATOR_SAMPLES_MAX", SAMPLES_MAX)
        .with("COORDINATOR_UNKNOWN_ROUND_GRACE_S", 1)
        // Those whom this test plays say only once that they are alive.
        .with("MANAGER_LIVENESS_S", 3600)
}

/// Participants that this test plays: they say that they are alive, and run nothing.
struct Crowd(Peer);

impl Crowd {
    fn join<'a>(stack: &Stack, names: impl IntoIterator<Item = &'a str>) -> Self {
        let peer = Peer::connect(stack.field().port(), &[]);
        let mut alive = stack.proplets.len();
        for name in names {
            let create = json!({"proplet_id": name, "namespace": "", "metadata": {}});
            peer.publish("m/demo/c/fl/control/proplet/create", create.to_string());
            alive += 1;
        }
        stack.http.wait_for_alive(alive);
        Self(peer)
    }

    /// Publishes on a participant's update topic and waits for the verdict on it.
    #[track_caller]
    fn say(
        &self,
        operator: &Operator,
        round: &str,
        name: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Heard {
        let from = operator.peer().cursor();
        self.0.publish(&format!("fl/rounds/{round}/updates/{name}"), payload);
        operator.peer().wait_after(from, &format!("fl/rounds/{round}/acks/{name}"), |_| true)
    }
}

fn outsiders_are_refused(crowd: &Crowd, operator: &Operator) {
    let stranger = crowd.say(operator, ROUND, "stranger", update("stranger", |_| {}));
    assert_eq!(stranger.json()["reason"], "stranger");
    let lost = update("stranger", |it| it["round_id"] = json!("r-never-started"));
    let lost = crowd.say(operator, "r-never-started", "stranger", lost);
    assert_eq!(lost.json()["reason"], "unknown_round");
}

/// The first update counts; the same once more is accepted again, another one is a duplicate.
fn nobody_counts_twice(crowd: &Crowd, operator: &Operator, fleet: &OneHotFleet) {
    let honest = fleet.update(&"twice".parse().unwrap(), ROUND, BASE);
    for _ in 0..3 {
        let ack = crowd.say(operator, ROUND, "twice", honest.to_string());
        assert_eq!(ack.json()["verdict"], "accepted");
    }
    let mut other = honest;
    other["update"]["w"] = json!([7.0, 7.0, 7.0]);
    let ack = crowd.say(operator, ROUND, "twice", other.to_string());
    assert_eq!(ack.json()["reason"], "duplicate");
}

fn the_round_stays_closed(crowd: &Crowd, operator: &Operator) {
    let late = crowd.say(operator, ROUND, "nan", update("nan", |_| {}));
    assert_eq!(late.json()["reason"], "round_closed");
}

/// An update that would be counted, with one change.
fn update(name: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut update = json!({
        "round_id": ROUND, "proplet_id": name, "base_model_uri": BASE, "num_samples": 100,
        "metrics": {"loss": 0.1}, "update": {"w": [9.0, 9.0, 9.0], "b": 9.0},
    });
    change(&mut update);
    update.to_string().into_bytes()
}

/// An update in whose text one thing is written differently.
fn rewritten(name: &str, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(update(name, |_| {})).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1).into_bytes()
}

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    let mut case = |name, reason, payload| cases.push(Case { name, payload, reason });
    let number = |name, text: &str| rewritten(name, "\"b\":9.0", &format!("\"b\":{text}"));
    case("nan", "not_finite", number("nan", "NaN"));
    case("inf", "not_finite", number("inf", "Infinity"));
    case("minus-inf", "not_finite", number("minus-inf", "-Infinity"));
    case("overflow", "not_finite", number("overflow", "1e999"));
    let samples = |name, text: &str| {
        rewritten(name, "\"num_samples\":100", &format!("\"num_samples\":{text}"))
    };
    case("n-zero", "num_samples", samples("n-zero", "0"));
    case("n-minus-50", "num_samples", samples("n-minus-50", "-50"));
    case("n-minus-200", "num_samples", samples("n-minus-200", "-200"));
    case("n-half", "num_samples", samples("n-half", "1.5"));
    case("n-1e18", "num_samples", samples("n-1e18", "1e18"));
    case("n-huge", "num_samples", samples("n-huge", "1000000000000000000"));
    case("n-over", "num_samples", samples("n-over", "1000001"));
    case("n-text", "num_samples", samples("n-text", "\"100\""));
    case("n-null", "num_samples", samples("n-null", "null"));
    case("n-nan", "num_samples", samples("n-nan", "NaN"));
    case(
        "n-none",
        "num_samples",
        update("n-none", |it| drop(it.as_object_mut().unwrap().remove("num_samples"))),
    );
    let tensors = |name, tensors: Value| update(name, |it| it["update"] = tensors);
    case("shape-1", "shape", tensors("shape-1", json!({"w": [9.0], "b": 9.0})));
    case("shape-4", "shape", tensors("shape-4", json!({"w": [9.0, 9.0, 9.0, 9.0], "b": 9.0})));
    case("shape-rank", "shape", tensors("shape-rank", json!({"w": [[9.0, 9.0, 9.0]], "b": 9.0})));
    case("shape-scalar", "shape", tensors("shape-scalar", json!({"w": 9.0, "b": 9.0})));
    case("shape-empty", "shape", tensors("shape-empty", json!({"w": [], "b": 9.0})));
    case("key-other", "shape", tensors("key-other", json!({"v": [9.0, 9.0, 9.0], "b": 9.0})));
    case(
        "key-more",
        "shape",
        tensors("key-more", json!({"w": [9.0, 9.0, 9.0], "b": 9.0, "c": 1.0})),
    );
    case("key-less", "shape", tensors("key-less", json!({"w": [9.0, 9.0, 9.0]})));
    case("no-tensors", "shape", tensors("no-tensors", json!({})));
    case(
        "base-old",
        "stale_base",
        update("base-old", |it| it["base_model_uri"] = json!("fl/models/global_model_v7")),
    );
    case(
        "base-elsewhere",
        "stale_base",
        update("base-elsewhere", |it| it["base_model_uri"] = json!("http://example.com/m")),
    );
    case("other-sender", "sender_mismatch", update("late", |_| {}));
    case(
        "other-round",
        "sender_mismatch",
        update("other-round", |it| it["round_id"] = json!("r-other")),
    );
    let padding = "x".repeat(2 * UPDATE_BYTES_MAX);
    case("too-large", "too_large", update("too-large", |it| it["padding"] = json!(padding)));
    let many = vec![9.0; UPDATE_BYTES_MAX / 2];
    case("too-many", "too_large", tensors("too-many", json!({"w": many, "b": 9.0})));
    malformed(&mut cases);
    cases
}

fn malformed(cases: &mut Vec<Case>) {
    let mut case = |name, payload| cases.push(Case { name, payload, reason: "malformed" });
    case("nothing", vec![]);
    case("blank", b"  \n ".to_vec());
    case("garbage", b"\x00\xff\xfe garbage {".to_vec());
    case("array", b"[1,2,3]".to_vec());
    case("number", b"7".to_vec());
    case("open", b"{".to_vec());
    case("cut", update("cut", |_| {})[..60].to_vec());
    case("tail", [update("tail", |_| {}), b"}".to_vec()].concat());
    case("not-utf8", b"{\"round_id\":\"\xff\"}".to_vec());
    case(
        "deep",
        rewritten("deep", "\"b\":9.0", &format!("\"b\":{}1{}", "[".repeat(5000), "]".repeat(5000))),
    );
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let base = format!("\"{BASE}\"");
    case("huge-base", rewritten("huge-base", &base, "1e99999"));
    case("deep-base", rewritten("deep-base", &base, &deep));
    case("ragged", rewritten("ragged", "[9.0,9.0,9.0]", "[9.0,[9.0],9.0]"));
    case("text-in-w", rewritten("text-in-w", "[9.0,9.0,9.0]", "[9.0,\"9.0\",9.0]"));
    case("null-in-w", rewritten("null-in-w", "[9.0,9.0,9.0]", "[9.0,null,9.0]"));
    case("tensor-twice", rewritten("tensor-twice", "\"b\":9.0", "\"b\":9.0,\"b\":8.0"));
    case(
        "round-twice",
        rewritten("round-twice", "\"update\":", "\"round_id\":\"r-poison\",\"update\":"),
    );
    case("no-update", update("no-update", |it| drop(it.as_object_mut().unwrap().remove("update"))));
    case("no-round", update("no-round", |it| drop(it.as_object_mut().unwrap().remove("round_id"))));
    case("bad-round", update("bad-round", |it| it["round_id"] = json!("../+/#")));
    case("bad-name", update("../../etc", |_| {}));
    case(
        "no-base",
        update("no-base", |it| drop(it.as_object_mut().unwrap().remove("base_model_uri"))),
    );
    case("update-text", update("update-text", |it| it["update"] = json!("w")));
    case("forged-tail", forged_tail());
}

/// Pretends that the manager had appended another address.
fn forged_tail() -> Vec<u8> {
    let tail = ",\"forwarded_from\":{\"round_id\":\"r-poison\",\"proplet_id\":\"late\"},\"forwarded_at\":\"2026-01-01T00:00:00Z\"}";
    [b"{\"garbage".to_vec(), tail.as_bytes().to_vec()].concat()
}
