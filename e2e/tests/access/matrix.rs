//! The matrix: role x topic x publish or subscribe, each cell tried on a real broker.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command as Words, Output},
    time::Duration,
};

use e2e::{Command, Deadline, PATIENCE, Process, aileron, eventually, free_port, tool};
use protocol::topic::{Access, Role, TOPICS, TopicRow};
use rumqttc::v5::{
    Client, Connection, Event, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Packet, PubAckReason, SubscribeReasonCode},
    },
};

/// A proplet, and another one.
const OWN: &str = "p1";
const OTHER: &str = "p2";
/// What everybody may hear, so that it can be the last word.
const LAST: &str = "fl/models/latest";

/// One client, and what it has heard.
struct Caller {
    client: Client,
    connection: Connection,
    heard: Vec<(String, Vec<u8>)>,
}

impl Caller {
    fn connect(port: u16, name: &str, password: &str) -> Self {
        let mut options = MqttOptions::new(format!("matrix-{name}"), "127.0.0.1", port);
        options.set_credentials(name, password).set_keep_alive(Duration::from_secs(60));
        options.set_clean_start(true);
        let (client, mut connection) = Client::new(options, 10_000);
        let deadline = Deadline::after(PATIENCE);
        loop {
            match connection.iter().next().unwrap() {
                Ok(Event::Incoming(Packet::ConnAck(_))) => break,
                Ok(_) => {}
                // It may not listen yet.
                Err(why) => {
                    deadline.left().unwrap_or_else(|| panic!("{name}: {why}"));
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        Self { client, connection, heard: vec![] }
    }

    fn next(&mut self) -> Packet {
        loop {
            match self.connection.iter().next().unwrap().unwrap() {
                Event::Incoming(Packet::Publish(message)) => {
                    let topic = String::from_utf8(message.topic.to_vec()).unwrap();
                    self.heard.push((topic, message.payload.to_vec()));
                    return Packet::Publish(message);
                }
                Event::Incoming(packet) => return packet,
                Event::Outgoing(_) => {}
            }
        }
    }

    fn may_publish(&mut self, topic: &str, payload: &str) -> bool {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload.to_owned()).unwrap();
        loop {
            if let Packet::PubAck(answer) = self.next() {
                return match answer.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => true,
                    PubAckReason::NotAuthorized => false,
                    other => panic!("{topic}: {other:?}"),
                };
            }
        }
    }

    fn may_subscribe(&mut self, filter: &str) -> bool {
        self.client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        loop {
            if let Packet::SubAck(answer) = self.next() {
                return match answer.return_codes[0] {
                    SubscribeReasonCode::Success(_) => true,
                    SubscribeReasonCode::NotAuthorized => false,
                    ref other => panic!("{filter}: {other:?}"),
                };
            }
        }
    }

    /// Everything that is delivered up to the last word.
    fn hears(&mut self) -> BTreeSet<String> {
        while !self.heard.iter().any(|(_, payload)| payload == b"last") {
            self.next();
        }
        self.heard.drain(..).map(|(topic, _)| topic).collect()
    }
}

/// A topic of a row, with a proplet in it if it has one.
fn sample(row: &TopicRow, proplet: &str) -> String {
    row.pattern
        .replace("{B}", "m/demo/c/fl")
        .replace("{proplet_id}", proplet)
        .replace("{round_id}", "r1")
        .replace("{session_id}", "s1")
        .replace("{sha256}", &"a".repeat(64))
        .replace("{line}", "other")
        .replace("{N}", "3")
        .replace("{i}", "0")
}

/// Every topic to try, and whether the table grants it to a role.
fn cells(role: Role, access: Access) -> Vec<(String, bool)> {
    let mut cells = vec![];
    for row in TOPICS {
        let of_proplet = row.pattern.contains("{proplet_id}");
        let ids: &[&str] = if of_proplet { &[OWN, OTHER] } else { &[OWN] };
        for id in ids {
            let own = role != Role::Proplet || *id == OWN;
            let topic = sample(row, id);
            // What is heard of models is heard by `fl/models/+`: no broker knows a wildcard for a
            // part of a level, so what is said beside them is heard as well.
            let beside = access == Access::Subscribe
                && ["fl/models/publish", "fl/models/wants"].contains(&topic.as_str());
            cells.push((topic, row.grants(role, access) && own || beside));
        }
    }
    for nobodys in ["fl/rounds/x", "other/topic", "m/other/c/fl/control/proplet/alive"] {
        cells.push((nobodys.to_owned(), false));
    }
    cells
}

fn name(role: Role) -> &'static str {
    if role == Role::Proplet { OWN } else { role.name() }
}

fn run(dir: &Path, words: &[&str]) -> Output {
    let mut command = Words::new(aileron());
    command.args(words).current_dir(dir).env("AILERON_ROSTER_FILE", dir.join("roster.json"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    output
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A roster with everybody on it; the tokens in the order of the roles.
fn enlist(dir: &Path) -> Vec<String> {
    let token = |role: Role| text(run(dir, &["token", "new", name(role), "--role", role.name()]));
    Role::ALL.into_iter().map(token).collect()
}

fn embedded(dir: &Path, port: u16) -> Process {
    let mut command = Command::service(dir, "broker", "broker", &[]);
    command.args.push(format!("--listen=127.0.0.1:{port}"));
    command.args.push("--roster-file=roster.json".to_owned());
    command.start()
}

#[test]
fn on_the_embedded_broker_each_role_may_do_what_the_table_grants_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = enlist(dir.path());
    let port = free_port();
    let _broker = embedded(dir.path(), port);
    for (role, token) in Role::ALL.into_iter().zip(&tokens) {
        let mut caller = Caller::connect(port, name(role), token);
        for (topic, granted) in cells(role, Access::Publish) {
            assert_eq!(caller.may_publish(&topic, "x"), granted, "{role} publishes on {topic}");
        }
        for (topic, granted) in cells(role, Access::Subscribe) {
            assert_eq!(caller.may_subscribe(&topic), granted, "{role} subscribes to {topic}");
        }
        for wide in ["#", "fl/#", "+/+/+", "$SYS/#", "$share/g/#", "fl/rounds/+/#"] {
            assert!(!caller.may_subscribe(wide), "{role} subscribes to {wide}");
        }
        assert!(
            caller.may_subscribe("fl/models/+") && caller.may_subscribe("$share/g/fl/models/+")
        );
    }
}

#[test]
fn on_mosquitto_with_the_exported_file_each_role_may_do_what_the_table_grants() {
    let dir = tempfile::tempdir().unwrap();
    let _tokens = enlist(dir.path());
    let port = free_port();
    let mut rules = text(run(dir.path(), &["acl", "export", "--for", "mosquitto"]));
    // The test's own ear and mouth.
    rules += "\n\nuser tester\ntopic readwrite #\n";
    fs::write(dir.path().join("acl"), rules).unwrap();
    for user in Role::ALL.map(name).into_iter().chain(["tester"]) {
        let mut passwd = Words::new(tool("mosquitto_passwd"));
        let file = dir.path().join("passwd");
        if !file.exists() {
            passwd.arg("-c");
        }
        assert!(passwd.arg("-b").arg(&file).args([user, "secret"]).status().unwrap().success());
    }
    let conf = format!(
        "listener {port} 127.0.0.1\nuser root\nallow_anonymous false\npersistence false\n\
         password_file {0}/passwd\nacl_file {0}/acl\n",
        dir.path().display()
    );
    fs::write(dir.path().join("conf"), conf).unwrap();
    let _broker = Command::outside(dir.path(), "mosquitto", &["-c", "conf"]).start();
    let mut tester = Caller::connect(port, "tester", "secret");
    for role in Role::ALL {
        let mut caller = Caller::connect(port, name(role), "secret");
        for (topic, granted) in cells(role, Access::Publish) {
            // It has no wildcard for a part of a level either, so that who shows models can also
            // say what is said beside them.
            let beside = role == Role::ModelServer && topic == "fl/models/publish";
            let may = caller.may_publish(&topic, "x");
            assert_eq!(may, granted || beside, "{role} publishes on {topic}");
        }
        let cells = cells(role, Access::Subscribe);
        for (topic, _) in &cells {
            // Mosquitto takes any subscription, and delivers what may be read.
            caller.may_subscribe(topic);
        }
        caller.may_subscribe("#");
        for (topic, _) in &cells {
            assert!(tester.may_publish(topic, "x"));
        }
        assert!(tester.may_publish(LAST, "last"));
        let heard = caller.hears();
        for (topic, granted) in cells {
            assert_eq!(heard.contains(&topic), granted, "{role} hears {topic}");
        }
    }
}

#[test]
fn the_file_for_emqx_grants_by_name_and_denies_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let said = text(run(
        dir.path(),
        &[
            "acl",
            "export",
            "--for",
            "emqx",
            "--clients",
            "proplet:p7,manager:m",
            "--topic-prefix=s",
        ],
    ));
    assert!(said.contains(r#"{allow, {username, "p7"}, publish, ["#), "{said}");
    assert!(said.contains(r#""s/fl/rounds/+/updates/p7""#), "{said}");
    assert!(said.ends_with("{deny, all}."), "{said}");
    assert!(!said.contains("updates/m\""), "{said}");
}

#[test]
fn strangers_are_not_let_in_and_who_is_revoked_is_out_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = enlist(dir.path());
    let port = free_port();
    let broker = embedded(dir.path(), port);
    let proplet = Role::ALL.iter().position(|role| *role == Role::Proplet).unwrap();
    let mut caller = Caller::connect(port, OWN, &tokens[proplet]);
    assert!(caller.may_publish("m/demo/c/fl/control/proplet/alive", "x"));
    for (user, password) in [(OWN, "guess"), ("nobody", "x"), ("manager", &*tokens[proplet])] {
        let mut options = MqttOptions::new("stranger", "127.0.0.1", port);
        options.set_credentials(user, password);
        let (_client, mut connection) = Client::new(options, 10);
        let refused = connection.iter().find_map(Result::err).unwrap().to_string();
        assert!(refused.contains("BadUserNamePassword"), "{user}: {refused}");
    }
    run(dir.path(), &["token", "revoke", OWN]);
    // It only listens, and learns of it nevertheless.
    let cut = eventually("the revoked one is cut off", || connection_error(&mut caller.connection));
    assert!(!cut.is_empty());
    broker.wait_for_log("no longer welcome");
    let log = broker.log();
    for token in &tokens {
        let secret = token.rsplit('.').next().unwrap();
        assert!(!log.contains(secret), "a secret in the log");
    }
    assert!(!log.contains("guess"), "a password in the log");
}

fn connection_error(connection: &mut Connection) -> Option<String> {
    connection.iter().next()?.err().map(|why| why.to_string())
}

#[test]
fn a_broker_for_other_machines_needs_a_roster_or_to_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let ended = |words: &[&str]| {
        let mut command = Words::new(aileron());
        command.arg("broker").args(words).current_dir(dir.path());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = ended(&["--listen=0.0.0.0:0"]);
    assert_eq!(code, Some(64), "{said}");
    for named in ["listen", "0.0.0.0:0", "roster_file", "allow_remote"] {
        assert!(said.contains(named), "{said}");
    }
    for (words, named) in [
        (&["--roster-file=nowhere.json"][..], "nowhere.json"),
        (&["--tls-cert-file=a.pem"], "tls_key_file"),
        (&["--tls-client-ca-file=a.pem"], "tls_cert_file"),
    ] {
        let (code, said) = ended(words);
        assert!(code == Some(64) && said.contains(named), "{words:?}: {code:?} {said}");
    }
}
