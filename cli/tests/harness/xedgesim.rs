//! Files of xEdgeSim run, with nodes that speak its dialects.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{json as asked, scenario, sim, text, written};

/// Two seconds, a sample every 100 ms; the last is under way when time is over.
fn is_whole(run: &Value) {
    let count = |kind: &str| run["metrics"][format!("events_{kind}")]["value"].as_f64().unwrap();
    assert_eq!((count("measured"), count("sample"), count("ack")), (20.0, 20.0, 19.0), "{run:#}");
    assert_eq!(run["virtual_us"], 2_000_000);
    assert_eq!(run["lost_nodes"], json!([]));
    assert_eq!(run["deterministic"], true);
}

#[test]
fn nodes_over_pipes_in_the_plain_dialect() {
    let file = scenario("xedgesim/pipes.yaml");
    let first = asked(&["run", &file]);
    is_whole(&first);
    assert_eq!(asked(&["run", &file])["trace_sha256"], first["trace_sha256"]);
    assert_ne!(asked(&["run", &file, "--seed", "43"])["trace_sha256"], first["trace_sha256"]);
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("t.ndjson");
    assert!(sim(&["run", &file, "--trace", trace.to_str().unwrap()]).status.success());
    let trace = fs::read_to_string(trace).unwrap();
    let line = trace.lines().find(|line| line.contains("\"sample\"")).unwrap();
    let event: Value = serde_json::from_str(line).unwrap();
    assert_eq!(event["detail"]["time_us"], 100_000);
    assert_eq!(event["detail"]["dst"], "gateway");
    let told_nobody = trace.lines().find(|line| line.contains("\"measured\"")).unwrap();
    assert!(told_nobody.contains("\"dst\":\"\""), "{told_nobody}");
}

/// Ports that nobody listened on a moment ago.
fn ports() -> [u16; 2] {
    let free = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    free.map(|listener| listener.local_addr().unwrap().port())
}

/// The scenario over TCP on free ports, beside its node.
fn over_tcp(dir: &std::path::Path, [sensor, gateway]: [u16; 2], command: bool) -> String {
    let mut file = fs::read_to_string(scenario("xedgesim/tcp.yaml")).unwrap();
    file = file.replace("5001", &sensor.to_string()).replace("5002", &gateway.to_string());
    if !command {
        file = file.lines().fold(String::new(), |all, line| {
            let line = match line.split_once(", command:") {
                Some((start, _)) => format!("{start} }}"),
                None => line.to_owned(),
            };
            all + &line + "\n"
        });
        assert!(!file.contains("python3 node.py"), "{file}");
    }
    fs::copy(scenario("xedgesim/node.py"), dir.join("node.py")).unwrap();
    written(dir, "tcp.yaml", file)
}

#[test]
fn nodes_on_their_ports_started_with_the_run_or_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let started = asked(&["run", &over_tcp(dir.path(), ports(), true)]);
    is_whole(&started);

    let both = ports();
    let file = over_tcp(dir.path(), both, false);
    let nodes = both.map(|port| Listening::start(dir.path(), port));
    let found = asked(&["run", &file]);
    is_whole(&found);
    assert_eq!(found["trace_sha256"], started["trace_sha256"]);
    for node in nodes {
        node.ends();
    }
}

/// A node that was started by hand.
struct Listening(Child);

impl Listening {
    fn start(dir: &std::path::Path, port: u16) -> Self {
        let mut command = Command::new("python3");
        command.args(["node.py", &port.to_string()]).current_dir(dir).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// At its SHUTDOWN.
    fn ends(mut self) {
        for _ in 0..3_000 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return assert!(status.success(), "{status}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn how_each_part_is_taken_is_noted() {
    let checked = asked(&["check", &scenario("xedgesim/tcp.yaml")]);
    assert_eq!(checked["fine"], true, "{checked:#}");
    let notes = checked["notes"].to_string();
    for part in ["simulation.time_quantum_us", "node gateway: started with the run"] {
        assert!(notes.contains(part), "{part} is missing in {notes}");
    }
    let scenario = &checked["scenario"];
    assert_eq!(scenario["simulation"]["until"], "2s");
    assert_eq!(scenario["network"]["links"][0]["latency_us"], 5_000);
    assert_eq!(scenario["nodes"][1]["dialect"], "plain_tcp");
    let ahead = &checked["tables"]["lookahead"][0];
    assert_eq!((&ahead["node"], &ahead["lookahead_us"]), (&json!("sensor1"), &json!(5_000)));
}

#[test]
fn what_is_wrong_with_such_a_file_is_told_in_its_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = "\
simulation:
  duration_s: 2
  time_quantum: 1000
nodes:
  - id: a
    type: sensor
    implementation: dokcer
    port: 5001
  - id: b
    type: sensor
    prot: 5002
ml_inferense: { placement: edge }
";
    let output = sim(&["check", &written(dir.path(), "wrong.yaml", file)]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "wrong.yaml:3:3: simulation: unknown field `time_quantum`",
        "did you mean `time_quantum_us`?",
        "wrong.yaml:5:5: nodes[0]: unknown variant `dokcer`",
        "did you mean `docker`?",
        "wrong.yaml:11:5: nodes[1]: unknown field `prot`",
        "did you mean `port`?",
        "did you mean `ml_inference`?",
    ] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    let file = "\
simulation: { duration_s: 1, seed: 1 }
ml_inference: { placement: edge, edge_config: { model_path: models/none.onnx } }
nodes:
  - { id: a, type: sensor, port: 5001 }
";
    let output = sim(&["check", &written(dir.path(), "missing.yaml", file)]);
    assert!(text(&output).contains("edge_config.model_path: models/none.onnx is not there"));
    let file = "\
simulation: { duration_s: 1, seed: 1 }
nodes:
  - { id: a, type: renode, implementation: renode_inprocess, platform: a.repl, firmware: b.elf }
  - { id: b, type: sensor }
";
    let said = text(&sim(&["check", &written(dir.path(), "renode.yaml", file)]));
    assert!(said.contains(":3:5: nodes[0]: a: renode_inprocess is not run here"), "{said}");
    assert!(said.contains(":4:5: nodes[1]: b needs a `port` or a `command`"), "{said}");
}

#[test]
fn containers_are_taken_over_with_all_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("gateway")).unwrap();
    let file = "\
simulation: { duration_s: 10, seed: 42, time_quantum_us: 1000 }
nodes:
  - id: gateway1
    type: gateway
    implementation: docker
    port: 5002
    docker:
      image: xedgesim/gateway:latest
      build_context: gateway
      ports:
        5000: 5000
      environment:
        MQTT_BROKER_PORT: 1883
      volumes:
        /srv/models:
          bind: /app/models
          mode: ro
      command: python -u -m service
";
    let checked = asked(&["check", &written(dir.path(), "docker.yaml", file)]);
    let node = &checked["scenario"]["nodes"][0];
    assert_eq!((&node["type"], &node["dialect"]), (&json!("docker"), &json!("plain_stdio")));
    let docker = &node["docker"];
    assert_eq!(docker["ports"], json!(["5000:5000"]), "{checked:#}");
    assert_eq!(docker["environment"], json!({ "MQTT_BROKER_PORT": "1883" }));
    assert_eq!(docker["volumes"], json!(["/srv/models:/app/models:ro"]));
    assert_eq!(docker["command"], json!(["python", "-u", "-m", "service"]));
    assert_eq!(docker["channel"], "stdio");
}
