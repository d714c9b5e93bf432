//! Nodes in containers, on a real engine: they take part, they are limited, and none is left, whatever the way out.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod engine;
mod images;

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader, Write, stderr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use cosim::{
    launch::{
        Run,
        docker::{DockerNode, Engine},
    },
    peer::{Contact, Limits, NodePeer},
    wire::Dialect,
};
use serde_json::{Value, json};
use sim::{DockerSpec, Done, Peer, PeerError, PeerEvent};

use engine::Daemon;

/// One engine and two images serve all stories, so that they are one test.
#[test]
fn containers_take_part_and_none_is_left() {
    let Some(daemon) = Daemon::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (rust, python) = (dir.path().join("rust"), dir.path().join("python"));
    images::rust(&rust);
    images::python(&python);
    let engine = Engine::at(&daemon.socket).unwrap();
    let image = engine.build(&rust, "Dockerfile").unwrap();
    assert_eq!(engine.build(&rust, "Dockerfile").unwrap(), image, "the same files, the same image");
    let machine = Machine { engine, image };
    machine.streams_and_dialects();
    machine.limits_and_settings();
    machine.several_in_one_run();
    machine.failures_are_named();
    machine.a_harness_that_is_killed_leaves_nothing();
    machine.services_in_python(&python, dir.path());
    said(&format!("containers: all stories were tried at {}", daemon.socket));
}

struct Machine {
    engine: Engine,
    image: String,
}

fn said(what: &str) {
    stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
}

fn start_run() -> Run {
    let mut janitor = Command::new(standalone());
    janitor.arg("janitor");
    Run::start(janitor).unwrap()
}

fn standalone() -> PathBuf {
    let own = env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/standalone")
}

fn event(time_us: u64, kind: &str, payload: Value) -> PeerEvent {
    let (kind, src, dst) = (kind.to_owned(), "other".to_owned(), "n".to_owned());
    PeerEvent { time_us, kind, src, dst, payload, size_bytes: 10 }
}

fn step(peer: &mut NodePeer, to_us: u64, events: Vec<PeerEvent>) -> Result<Done, PeerError> {
    peer.begin(to_us, events)?;
    peer.finish()
}

impl Machine {
    fn spec(&self, program: &str, channel: Option<&str>) -> DockerSpec {
        DockerSpec {
            image: Some(self.image.clone()),
            command: vec![format!("/bin/{program}")],
            channel: channel.map(str::to_owned),
            ..DockerSpec::default()
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each story chooses all of them")]
    fn meet(
        &self,
        run: &Run,
        name: &str,
        dialect: Dialect,
        spec: DockerSpec,
        config: Value,
    ) -> Result<NodePeer, PeerError> {
        let launched = DockerNode::new(name, spec).start(&self.engine, run).unwrap();
        let known: BTreeSet<String> = ["n", "m", "other", "broker"].map(str::to_owned).into();
        let (node, limits) = (name.to_owned(), Limits::default());
        let contact = Contact { node, dialect, limits, known: Arc::new(known) };
        NodePeer::meet(contact, launched.channel, launched.keeper, 7, config)
    }

    /// What the engine's own command says about what bears the label of a run.
    fn docker(&self, arguments: &[&str]) -> String {
        let host = format!("unix://{}", self.engine.socket());
        let output =
            Command::new("docker").args(["--host", &host]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn left(&self, run: &str) -> usize {
        let filter = format!("label=aileron.cosim.run={run}");
        let containers = self.docker(&["ps", "--all", "--quiet", "--filter", &filter]);
        let networks = self.docker(&["network", "ls", "--quiet", "--filter", &filter]);
        containers.lines().count() + networks.lines().count()
    }

    fn streams_and_dialects(&self) {
        let run = start_run();
        for dialect in [Dialect::Json, Dialect::PlainStdio] {
            for channel in [None, Some("unix"), Some("stdio")] {
                let spec = self.spec("echo", channel);
                let mut peer =
                    self.meet(&run, "n", dialect, spec, json!({"delay_us": 50})).unwrap();
                assert_eq!(self.left(run.id()), 1);
                let long = "z".repeat(200_000);
                let done = step(&mut peer, 100, vec![event(10, "ping", json!(long))]).unwrap();
                assert_eq!((done.events[0].time_us, &done.events[0].payload), (60, &json!(long)));
                for to_us in 101..200 {
                    step(&mut peer, to_us, vec![]).unwrap();
                }
                peer.shutdown();
                assert_eq!(self.left(run.id()), 0, "{dialect:?} over {channel:?}");
            }
        }
        let dir = run.dir().to_owned();
        drop(run);
        assert!(!dir.exists());
    }

    fn limits_and_settings(&self) {
        let run = start_run();
        let folder = tempfile::tempdir().unwrap();
        let network = format!("net-{}", &run.id()[..8]);
        let spec = DockerSpec {
            environment: [("COLOUR".to_owned(), "green".to_owned())].into(),
            volumes: vec![format!("{}:/data:ro", folder.path().display())],
            network: Some(network.clone()),
            memory_mb: Some(64),
            cpus: Some(0.5),
            ..self.spec("echo", None)
        };
        let peer = self.meet(&run, "n", Dialect::Json, spec, json!({})).unwrap();
        assert_eq!(self.left(run.id()), 2, "the container and its network");
        let filter = format!("label=aileron.cosim.run={}", run.id());
        let id = self.docker(&["ps", "--quiet", "--filter", &filter]);
        let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.NetworkMode}} \
                      {{.Config.Env}} {{.HostConfig.Binds}}";
        let found = self.docker(&["inspect", "--format", format, &id]);
        assert!(found.starts_with(&format!("67108864 500000000 {network} ")), "{found}");
        assert!(found.contains("COLOUR=green") && found.contains(":/data:ro"), "{found}");
        let id = run.id().to_owned();
        drop(peer);
        drop(run);
        assert_eq!(self.left(&id), 0);
    }

    fn several_in_one_run(&self) {
        let run = start_run();
        let config = || json!({"delay_us": 5});
        let node =
            |name| self.meet(&run, name, Dialect::Json, self.spec("echo", None), config()).unwrap();
        let mut peers = [node("n"), node("m")];
        for round in 1..=50 {
            let to_us = round * 10;
            for peer in &mut peers {
                peer.begin(to_us, vec![event(to_us - 5, "ping", json!(round))]).unwrap();
            }
            for peer in &mut peers {
                let done = peer.finish().unwrap();
                assert_eq!((done.events.len(), done.events[0].time_us), (1, to_us));
            }
        }
        // One is killed in mid-run: it is named, and the other goes on.
        let filter = format!("label=aileron.cosim.run={}", run.id());
        let label = "label=aileron.cosim.node=m";
        let id = self.docker(&["ps", "--quiet", "--filter", &filter, "--filter", label]);
        self.docker(&["kill", &id]);
        let error = step(&mut peers[1], 1000, vec![]).unwrap_err();
        assert_eq!((error.node.as_str(), error.time_us), ("m", 1000));
        assert!(error.what.contains("its container has ended (exit code 137"), "{error}");
        step(&mut peers[0], 1000, vec![]).unwrap();
        let id = run.id().to_owned();
        drop(run);
        assert_eq!(self.left(&id), 0, "the janitor does not wait for peers to be dropped");
    }

    fn failures_are_named(&self) {
        let run = start_run();
        let start =
            |spec| DockerNode::new("n", spec).start(&self.engine, &run).unwrap_err().to_string();
        let image = Some("no-such-image".to_owned());
        let missing = start(DockerSpec { image, ..DockerSpec::default() });
        assert!(missing.contains("No such image"), "{missing}");
        let none = start(DockerSpec::default());
        assert_eq!(none, "node n: give an image or a build context");
        let quits = DockerSpec {
            command: ["/bin/sh", "-c", "echo out of cheese >&2; exit 3"].map(str::to_owned).into(),
            ..self.spec("sh", None)
        };
        let quits = start(quits);
        assert!(quits.contains("exit code 3") && quits.contains("out of cheese"), "{quits}");
        let context = tempfile::tempdir().unwrap();
        std::fs::write(context.path().join("Dockerfile"), "FROM scratch\nCOPY nothing /\n")
            .unwrap();
        let build_context = Some(context.path().display().to_string());
        let broken = start(DockerSpec { build_context, ..DockerSpec::default() });
        assert!(broken.contains("nothing"), "{broken}");
        let channel = start(self.spec("echo", Some("pigeon")));
        assert_eq!(channel, "node n: channel \"pigeon\" should be unix or stdio");
        let id = run.id().to_owned();
        drop(run);
        assert_eq!(self.left(&id), 0);
    }

    fn a_harness_that_is_killed_leaves_nothing(&self) {
        let mut harness = Command::new(standalone());
        harness.args(["run", "--docker", self.engine.socket(), &self.image, "sleep", "1000"]);
        let mut harness = harness.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(harness.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (id, dir) = line.trim().split_once(' ').unwrap();
        assert_eq!(self.left(id), 2, "a container and a network");
        harness.kill().unwrap();
        harness.wait().unwrap();
        for _ in 0..3000 {
            if self.left(id) == 0 && !Path::new(dir).exists() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} containers and networks are left", self.left(id));
    }

    /// The Dockerfiles beside the Python library, on a base image of this machine's own Python.
    fn services_in_python(&self, base: &Path, dir: &Path) {
        let base = self.engine.build(base, "Dockerfile").unwrap();
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/python");
        let context = dir.join("sdk");
        let copied = Command::new("cp").arg("-r").arg(&sdk).arg(&context).status().unwrap();
        assert!(copied.success());
        let run = start_run();
        let node = |name: &str, config| {
            let file = format!("Dockerfile.{name}");
            let text = std::fs::read_to_string(context.join(&file)).unwrap();
            let text = text.replace("python:3.12-slim", &base);
            std::fs::write(context.join(&file), text).unwrap();
            let build_context = Some(context.display().to_string());
            let dockerfile = Some(file);
            let spec = DockerSpec { build_context, dockerfile, ..DockerSpec::default() };
            self.meet(&run, "n", Dialect::Json, spec, config).unwrap()
        };
        let mut echo = node("echo", json!({"delay_us": 3}));
        let done = step(&mut echo, 10, vec![event(1, "ping", json!("hello"))]).unwrap();
        assert_eq!((done.events[0].time_us, &done.events[0].payload), (4, &json!("hello")));
        let mut inference = node("ml_inference", json!({"compute_us": 500}));
        let blank = json!({"input": vec![0.0; 64]});
        let done = step(&mut inference, 1000, vec![event(1, "inference_request", blank)]).unwrap();
        assert_eq!(done.events[0].time_us, 501);
        assert!(done.events[0].payload["label"].is_u64(), "{:?}", done.events);
        let mut gateway = node("mqtt_gateway", json!({}));
        let subscribe = event(1, "mqtt_subscribe", json!({"filter": "a/+"}));
        let publish = event(2, "mqtt_publish", json!({"topic": "a/b", "payload": "hi"}));
        let done = step(&mut gateway, 10, vec![subscribe, publish]).unwrap();
        assert_eq!(done.events[0].payload["payload"], "hi");
        for mut peer in [echo, inference, gateway] {
            peer.shutdown();
        }
        assert_eq!(self.left(run.id()), 0);
    }
}
