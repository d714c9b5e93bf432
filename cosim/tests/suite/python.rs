//! Nodes in Python, run for real, beside the same nodes in Rust.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use cosim::{
    launch::{self, ProcessNode, Run, Via},
    peer::NodePeer,
    wire::{DIALECTS, Dialect},
};
use serde_json::{Value, json};
use sim::{Peer, PeerEvent};

use crate::{
    process::{alive, eventually},
    support::{LONG, event, example, meet, start_run, step},
};

fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/python")
}

fn python(name: &str) -> ProcessNode {
    let script = sdk().join("examples").join(name);
    let mut node = ProcessNode::new("n", "python3", &[script.to_str().unwrap()]);
    node.env.insert("PYTHONPATH".to_owned(), sdk().display().to_string());
    node.env.insert("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned());
    node
}

fn rust(name: &str) -> ProcessNode {
    ProcessNode::new("n", &example(name).display().to_string(), &[])
}

fn started(node: &ProcessNode, run: &Run, config: Value) -> NodePeer {
    meet(Dialect::Json, node.start(run).unwrap(), config).unwrap()
}

#[test]
fn echoes_agree_in_every_dialect_and_over_every_stream() {
    let run = start_run();
    for dialect in DIALECTS {
        for via in [Via::Stdio, Via::Unix] {
            let told = [python("echo.py"), rust("echo")].map(|node| {
                let node = ProcessNode { via, ..node };
                let config = json!({"delay_us": 700});
                let mut peer = meet(*dialect, node.start(&run).unwrap(), config).unwrap();
                let ping =
                    |time_us| event(time_us, "ping", json!({"word": "grüße \"\n", "n": [1.5]}));
                let mut told = step(&mut peer, 1000, vec![ping(200), ping(600)]).unwrap();
                let rest = step(&mut peer, 2000, vec![]).unwrap();
                peer.shutdown();
                told.events.extend(rest.events);
                (told, rest.next_us)
            });
            assert_eq!(told[0], told[1], "{dialect:?} {via:?}");
            let times: Vec<_> = told[0].0.events.iter().map(|event| event.time_us).collect();
            assert_eq!(times, [900, 1300]);
        }
    }
    assert_eq!(alive(run.id()), 0);
}

#[test]
fn a_node_in_python_that_listens_on_tcp() {
    use std::io::{BufRead, BufReader};
    let mut command = Command::new("python3");
    command.arg(sdk().join("examples/echo.py")).env("PYTHONPATH", sdk());
    command.env(launch::ENDPOINT_VARIABLE, "listen:127.0.0.1:0").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let address = said.trim().strip_prefix("listening on ").unwrap();
    let mut peer =
        meet(Dialect::Json, launch::connect("n", address, LONG).unwrap(), json!({})).unwrap();
    let done = step(&mut peer, 10, vec![event(3, "ping", json!(1))]).unwrap();
    assert_eq!(done.events[0].time_us, 3);
    peer.shutdown();
    assert!(child.wait().unwrap().success());
}

/// What the original's service loop lets pass, or swallows with a log line.
#[test]
fn a_node_in_python_is_strict() {
    let told = |orders: &str| {
        let script = sdk().join("examples/echo.py");
        let mut command = Command::new("python3");
        command.arg(script).env("PYTHONPATH", sdk()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), orders.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{orders}");
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned()
    };
    assert_eq!(told("ADVANCE 5 []\n"), "ERROR order 1: ADVANCE before INIT");
    assert_eq!(told("INIT {}\nINIT {}\n"), "ERROR order 2: a second INIT");
    let back = told("INIT {}\nADVANCE 5 []\nADVANCE 4 []\n");
    assert_eq!(back, "ERROR order 3: time cannot go back from 5 us to 4 us");
    let outside = told("INIT {}\nADVANCE 5 [{\"type\":\"a\",\"time_us\":9}]\n");
    assert_eq!(outside, "ERROR order 2: event 'a' at 9 us is outside of its window, 0 to 5 us");
    assert!(
        told("INIT {}\nADVANCE 5\nnonsense\n").starts_with("ERROR order 3 is malformed: not JSON")
    );
    assert!(told("{\"type\":\"INIT\"}\n[]\n").contains("expected a JSON object, found []"));
    assert!(told("hello\n").starts_with("ERROR order 1 is malformed: a first line should begin"));
    assert!(
        told("INIT {\"delay_us\": []}\n")
            .starts_with("ERROR order 1: the service failed: TypeError")
    );
}

/// A line of the digits: the nine of the first fold, pixels divided by 16.
fn request(time_us: u64) -> PeerEvent {
    let pixels = [
        0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0, 0, 4, 12, 0,
        0, 8, 8, 0, 0, 5, 8, 0, 0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0, 0, 0,
        0, 6, 13, 10, 0, 0, 0,
    ];
    let input: Vec<f64> = pixels.iter().map(|pixel| f64::from(*pixel) / 16.0).collect();
    event(time_us, "inference_request", json!({"input": input}))
}

#[test]
fn inference_takes_virtual_time_and_agrees() {
    let run = start_run();
    let model = sdk().join("examples/digits_model.json").display().to_string();
    let told = [python("ml_inference.py"), rust("ml_inference")].map(|node| {
        let mut peer = started(&node, &run, json!({"model": model, "compute_us": 2500}));
        let requests = vec![request(100), request(200), event(300, "inference_request", json!({}))];
        let nothing = step(&mut peer, 1000, requests).unwrap();
        assert_eq!((nothing.next_us, &nothing.events[..]), (Some(2600), &[][..]));
        let done = step(&mut peer, 10_000, vec![]).unwrap();
        peer.shutdown();
        done
    });
    for done in told {
        let times: Vec<_> = done.events.iter().map(|event| event.time_us).collect();
        assert_eq!(times, [2600, 5100, 7600], "one after the other");
        let answer = &done.events[0].payload;
        assert_eq!(answer["label"], 0);
        assert!(answer["confidence"].as_f64().unwrap() > 0.9, "{answer}");
        assert_eq!(done.events[0].payload, done.events[1].payload);
        assert_eq!(
            done.events[2].payload,
            json!({"error": "`input` should be a list of 64 numbers"})
        );
    }
    let missing = python("ml_inference.py").start(&run).unwrap();
    let missing = meet(Dialect::Json, missing, json!({"model": "no-such-file"})).unwrap_err();
    assert!(missing.what.contains("FileNotFoundError"), "{missing}");
}

fn mqtt(time_us: u64, src: &str, kind: &str, payload: Value) -> PeerEvent {
    PeerEvent { src: src.to_owned(), ..event(time_us, kind, payload) }
}

/// Two nodes, three topics, a retained message, and an order that only the stamps can tell.
fn conversation(peer: &mut NodePeer) -> Vec<(u64, String, Value)> {
    let publish = |time_us, topic: &str, payload: &str, retain| {
        let payload = json!({"topic": topic, "payload": payload, "retain": retain});
        mqtt(time_us, "other", "mqtt_publish", payload)
    };
    let subscribe = |time_us, who: &str, filter: &str| {
        mqtt(time_us, who, "mqtt_subscribe", json!({"filter": filter}))
    };
    let windows = [
        vec![publish(5, "lamp/kitchen", "on", true), subscribe(10, "other", "sensor/+/t")],
        vec![
            subscribe(110, "broker", "sensor/#"),
            subscribe(120, "broker", "lamp/#"),
            publish(130, "sensor/a/t", "20.5", false),
            publish(140, "sensor/b/t", "21.5", false),
            publish(150, "sensor/b/h", "60", false),
        ],
        vec![
            mqtt(210, "broker", "mqtt_unsubscribe", json!({"filter": "sensor/#"})),
            publish(220, "sensor/a/t", "22", false),
        ],
        vec![],
    ];
    let mut heard = vec![];
    for (index, events) in windows.into_iter().enumerate() {
        let done = step(peer, 100 * (index as u64 + 1), events).unwrap();
        heard
            .extend(done.events.into_iter().map(|event| (event.time_us, event.dst, event.payload)));
    }
    heard
}

/// What is retained is sent when it is asked for; a real broker sends it within the same window.
fn expected(retained_us: u64) -> Vec<(u64, String, Value)> {
    let mut expected = vec![];
    let mut said = |time_us, who: &str, topic: &str, payload: &str, retain| {
        let said = json!({"topic": topic, "payload": payload, "retain": retain});
        expected.push((time_us, who.to_owned(), said));
    };
    said(retained_us, "broker", "lamp/kitchen", "on", true);
    said(130, "broker", "sensor/a/t", "20.5", false);
    said(130, "other", "sensor/a/t", "20.5", false);
    said(140, "broker", "sensor/b/t", "21.5", false);
    said(140, "other", "sensor/b/t", "21.5", false);
    said(150, "broker", "sensor/b/h", "60", false);
    said(220, "other", "sensor/a/t", "22", false);
    expected
}

#[test]
fn gateways_route_in_no_time() {
    let run = start_run();
    for node in [python("mqtt_gateway.py"), rust("mqtt_gateway")] {
        let mut peer = started(&node, &run, json!({}));
        assert_eq!(conversation(&mut peer), expected(120), "{}", node.program);
        peer.shutdown();
    }
}

/// A broker of our own, ended with the test.
struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn mosquitto(dir: &Path) -> (Mosquitto, String) {
    let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
    let program = program.into_iter().find(|path| Path::new(path).exists()).unwrap_or("mosquitto");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = dir.join("mosquitto.conf");
    fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).unwrap();
    let child = Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn();
    let broker = Mosquitto(child.expect("mosquitto is installed"));
    let address = format!("127.0.0.1:{port}");
    eventually("the broker listens", || TcpStream::connect(&address).is_ok());
    (broker, address)
}

#[test]
fn a_real_broker_routes_in_no_virtual_time() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, address) = mosquitto(dir.path());
    let run = start_run();
    for _ in 0..3 {
        let mut peer = started(&python("mqtt_gateway.py"), &run, json!({"broker": address}));
        assert_eq!(conversation(&mut peer), expected(100));
        peer.shutdown();
    }
    // A broker that goes is an error that says so, not a silence.
    let mut peer = started(&python("mqtt_gateway.py"), &run, json!({"broker": address}));
    drop(broker);
    let subscribe = mqtt(1, "other", "mqtt_subscribe", json!({"filter": "a"}));
    let error = step(&mut peer, 10, vec![subscribe]).unwrap_err();
    assert!(error.what.starts_with("it says: order 2: the service failed"), "{error}");
}
