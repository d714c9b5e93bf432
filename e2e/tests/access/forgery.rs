//! A hostile manager: real proplets sign on one broker, a real coordinator judges on another, and
//! between them sits somebody who can read, change, drop, repeat and invent whatever goes across.

use std::process::Command as Words;

use e2e::{
    Broker, BrokerKind, Command, Ended, Heard, OneHotFleet, Operator, Peer, Process, Turn, aileron,
    judge, one_hot_base64,
};
use protocol::{
    PropletId, Timestamp,
    message::{Origin, RoundComplete, forward},
};
use serde_json::{Value, json};

const BASE: &str = "fl/models/global_model_v0";
/// Everybody; the last one is shown another base model.
const FLEET: usize = 4;

/// The two worlds, and the one between them.
struct Middle {
    fleet: OneHotFleet,
    front: Peer,
    back: Operator,
    coordinator: Process,
    _rest: Vec<Process>,
    _brokers: [Broker; 2],
    _dir: tempfile::TempDir,
}

impl Middle {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fleet = OneHotFleet::of(FLEET);
        for id in &fleet.members {
            let mut words = Words::new(aileron());
            words.args(["token", "new", id.as_str(), "--role", "proplet", "--signing-key"]);
            words.arg(format!("{id}.sign")).current_dir(dir.path());
            words.env("AILERON_ROSTER_FILE", dir.path().join("roster.json"));
            assert!(words.output().unwrap().status.success());
        }
        std::fs::write(dir.path().join("model-0.json"), fleet.model_0().to_string()).unwrap();
        let brokers = [0, 1].map(|_| Broker::start(BrokerKind::Embedded, dir.path()));
        let start = |name: &str, service: &str, broker: &Broker, own: &[(&str, &str)]| {
            let prefix = service.to_uppercase().replace('-', "_");
            let state = format!("{name}-state");
            let address = broker.address();
            let all = [("MQTT_ADDRESS", address.as_str()), ("STATE_DIR", &state)];
            let env: Vec<_> = all
                .iter()
                .chain(own)
                .map(|(key, value)| (format!("{prefix}_{key}"), (*value).to_owned()))
                .collect();
            Command::service(dir.path(), name, service, &env).start()
        };
        let [front, back] = &brokers;
        let judging =
            [("HTTP_PORT", "0"), ("SIGNATURES", "required"), ("ROSTER_FILE", "roster.json")];
        let coordinator = start("coordinator", "coordinator", back, &judging);
        let model_0 = [("MODEL_FILE", "model-0.json")];
        let mut rest = vec![start("model-server", "model-server", back, &model_0)];
        rest.extend(fleet.members.iter().map(|id| {
            let key = format!("{id}.sign");
            let own = [("ID", id.as_str()), ("SIGNING_KEY_FILE", key.as_str())];
            start(id.as_str(), "proplet", front, &own)
        }));
        let (front, back) =
            (Peer::connect(front.port(), &["fl/#", "m/#"]), Operator::connect(back.port()));
        for id in &fleet.members {
            front.wait(&format!("{id} is there"), |heard| {
                heard
                    .iter()
                    .find(|m| m.topic.ends_with("/create") && m.text().contains(id.as_str()))
                    .cloned()
            });
        }
        back.peer().wait_for("fl/models/latest");
        Self { fleet, front, back, coordinator, _rest: rest, _brokers: brokers, _dir: dir }
    }

    /// The coordinator opens a round; nobody works for it yet.
    fn open(&self, round: &str, k: usize, encoding: Option<&str>) {
        let members: Vec<&str> = self.fleet.members.iter().map(PropletId::as_str).collect();
        let mut start = json!({
            "round_id": round, "model_uri": BASE, "file": one_hot_base64(), "k_of_n": k,
            "participants": members, "hyperparams": self.fleet.hyperparams(0), "timeout_s": 100,
        });
        if let Some(encoding) = encoding {
            start["encoding"] = encoding.into();
        }
        self.back.peer().publish("fl/rounds/start", start.to_string());
        self.back.peer().wait_for(&format!("fl/rounds/{round}/opened"));
    }

    /// Has one proplet work for a round, and takes its update away.
    fn update(&self, round: &str, id: &PropletId, encoding: Option<&str>) -> Vec<u8> {
        let mut env = json!({
            "ROUND_ID": round, "MODEL_URI": BASE, "PROPLET_ID": id,
            "HYPERPARAMS": self.fleet.hyperparams(0).to_string(),
        });
        if let Some(encoding) = encoding {
            env["ENCODING"] = encoding.into();
        }
        let task = json!({
            "id": format!("{round}-{id}"), "name": "work", "file": one_hot_base64(), "env": env,
            "proplet_id": id, "attempt": 1,
        });
        self.front.publish(&format!("m/demo/c/fl/control/manager/{id}/start"), task.to_string());
        self.front.wait_for(&format!("fl/rounds/{round}/updates/{id}")).payload
    }

    /// Says to the coordinator that `id` has sent this to `round`.
    fn say(&self, update: &[u8], round: &str, id: &PropletId) {
        let origin = Origin { round_id: round.parse().unwrap(), proplet_id: id.clone() };
        let forwarded = forward(update, &origin, Timestamp::from_micros(1_768_464_194_000_000));
        self.back.peer().publish("fml/updates", forwarded);
    }

    fn accepted(&self, round: &str, id: &PropletId) {
        let ack = self.back.peer().wait_for(&format!("fl/rounds/{round}/acks/{id}"));
        assert_eq!(ack.json()["verdict"], "accepted", "{}", ack.text());
    }

    fn complete(&self, round: &str) -> (RoundComplete, Value) {
        let Ended::Complete(complete) = self.back.wait_for_end(round) else {
            panic!("round {round} failed")
        };
        let said = self.back.peer().wait_for(&format!("fl/rounds/{round}/complete")).json();
        (complete, said["rejected"].clone())
    }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8(payload.to_vec()).unwrap()
}

/// With another text in one place, where it must have stood.
fn changed(update: &str, from: &str, to: &str) -> Vec<u8> {
    assert!(update.contains(from), "{from} is not in {update}");
    update.replacen(from, to, 1).into_bytes()
}

fn field(update: &str, name: &str) -> String {
    let value: Value = serde_json::from_str(update).unwrap();
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {update}")).to_owned()
}

#[test]
fn nothing_that_a_manager_forges_counts_and_what_is_signed_does() {
    let _turn = Turn::take();
    let middle = Middle::new();
    let [first, second, third, deceived] =
        <&[PropletId; FLEET]>::try_from(&middle.fleet.members[..]).unwrap();
    let honest = middle.back.peer().wait_for(BASE).payload;
    middle.front.publish_retained(BASE, honest.clone());
    middle.open("r-1", 3, None);
    middle.open("r-2", 1, None);
    let updates = [first, second, third].map(|id| text(&middle.update("r-1", id, None)));
    // The broker of the last one shows another model under the same address.
    let mut other = middle.fleet.model_0();
    other["b"] = json!(1e9);
    middle.front.publish_retained(BASE, other.to_string());
    middle.front.flush();
    let swapped = middle.update("r-1", deceived, None);
    middle.front.publish_retained(BASE, honest);

    let update = &updates[0];
    let signature = field(update, "signature");
    let base = field(update, "base_model_sha256");
    let samples = format!("\"num_samples\":{}", middle.fleet.samples(first));
    let unsigned = changed(update, &format!(",\"signature\":\"{signature}\""), "");
    let anothers = field(&updates[1], "signature");
    let forged = [
        unsigned,
        changed(update, &samples, "\"num_samples\":1000000"),
        changed(update, "1.0", "9.0"),
        changed(update, "\"loss\":", "\"lost\":"),
        changed(update, &base, &"0".repeat(64)),
        changed(update, &format!(",\"base_model_sha256\":\"{base}\""), ""),
        changed(update, &signature, &anothers),
        changed(update, &signature, ""),
        changed(update, &signature, "bm8gc2lnbmF0dXJl"),
        changed(update, "{", "{\"num_samples\":7,"),
        updates[1].clone().into_bytes(),
    ];
    for update in &forged {
        middle.say(update, "r-1", first);
    }
    // Replayed into another round, and in the name of another.
    middle.say(update.as_bytes(), "r-2", first);
    middle.say(update.as_bytes(), "r-1", second);
    // Signed well, for another base model: nobody's forgery, but of no use.
    middle.say(&swapped, "r-1", deceived);
    let refused = middle.back.peer().wait_for(&format!("fl/rounds/r-1/acks/{deceived}"));
    assert_eq!(refused.json()["reason"], "stale_base", "{}", refused.text());
    // It was judged after all the others, none of whom was answered: they said nothing.
    let answered = |id: &PropletId| middle.back.peer().all(&format!("fl/rounds/+/acks/{id}"));
    assert!(answered(first).is_empty() && answered(second).is_empty());

    for (id, update) in [(first, 0), (first, 0), (second, 1), (third, 2)] {
        middle.say(updates[update].as_bytes(), "r-1", id);
        middle.accepted("r-1", id);
    }
    let (complete, rejected) = middle.complete("r-1");
    assert_eq!(judge(&middle.back, &middle.fleet, &complete), [0, 1, 2].into());
    assert_eq!(rejected, json!({"signature": forged.len() + 1, "stale_base": 1}));

    // The other round, which a replay was meant to spoil, goes on; and replays come too late now.
    middle.say(update.as_bytes(), "r-2", first);
    let genuine = middle.update("r-2", first, None);
    middle.say(&genuine, "r-2", first);
    let (complete, rejected) = middle.complete("r-2");
    assert_eq!(judge(&middle.back, &middle.fleet, &complete), [0].into());
    assert_eq!(rejected, json!({"signature": 2}));
    let log = middle.coordinator.log();
    for why in ["not signed", "not that of its sender", "stands in it twice", "to its sender"] {
        assert!(log.contains(why), "the log does not say {why:?}");
    }
}

#[test]
fn compressed_updates_are_signed_as_well() {
    let _turn = Turn::take();
    let middle = Middle::new();
    let id = &middle.fleet.members[0];
    let base = middle.back.peer().wait_for(BASE).payload;
    middle.front.publish_retained(BASE, base);
    middle.open("r-z", 1, Some("f16+deflate"));
    let update = middle.update("r-z", id, Some("f16+deflate"));
    let tail = update.windows(2).rposition(|two| two == b"{\"").unwrap();
    let said: Value = serde_json::from_slice(&update[tail..]).unwrap();
    let behind = |fields: Value| [&update[..tail], fields.to_string().as_bytes()].concat();
    let mut flipped = update.clone();
    flipped[tail / 2] ^= 1;
    let forged = [
        update[..tail].to_vec(),
        behind(json!({"base_model_sha256": said["base_model_sha256"]})),
        behind(json!({"signature": said["signature"]})),
        behind(json!({"base_model_sha256": "0".repeat(64), "signature": said["signature"]})),
        [&update[..tail], b"x", &update[tail..]].concat(),
        flipped,
    ];
    for update in &forged {
        middle.say(update, "r-z", id);
    }
    middle.say(&update, "r-z", &middle.fleet.members[1]);
    middle.say(&update, "r-z", id);
    middle.accepted("r-z", id);
    let (complete, rejected) = middle.complete("r-z");
    assert_eq!(judge(&middle.back, &middle.fleet, &complete), [0].into());
    assert_eq!(rejected, json!({"signature": forged.len() + 1}));
    let acks: Vec<Heard> = middle.back.peer().all("fl/rounds/r-z/acks/+");
    assert!(acks.iter().all(|ack| ack.json()["verdict"] == "accepted"), "nobody else is answered");
}
