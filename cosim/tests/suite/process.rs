//! Nodes that are processes: they are started, spoken to, and never left behind.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use cosim::{
    launch::{self, LaunchError, ProcessNode, RUN_VARIABLE, Via},
    wire::{DIALECTS, Dialect},
};
use serde_json::json;
use sim::{Peer, TcpSpec};

use crate::support::{LONG, event, example, meet, start_run, step};

fn program(name: &str) -> String {
    example(name).display().to_string()
}

/// Waits for what another process brings about; that it never does is the failure.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: still not so");
}

/// The processes that bear the mark of a run.
pub(crate) fn alive(run: &str) -> usize {
    let mark = format!("{RUN_VARIABLE}={run}");
    let bears =
        |environment: Vec<u8>| environment.split(|byte| *byte == 0).any(|v| v == mark.as_bytes());
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("environ"));
    entries.filter(|path| fs::read(path).is_ok_and(&bears)).count()
}

#[test]
fn an_echo_over_pipes_and_over_a_socket_in_every_dialect() {
    let run = start_run();
    for via in [Via::Stdio, Via::Unix] {
        for dialect in DIALECTS {
            let node = ProcessNode { via, ..ProcessNode::new("n", &program("echo"), &[]) };
            let mut peer =
                meet(*dialect, node.start(&run).unwrap(), json!({"delay_us": 1500})).unwrap();
            let done = step(&mut peer, 1000, vec![event(1000, "ping", json!({"a": [1]}))]).unwrap();
            assert_eq!(done.events, []);
            if *dialect == Dialect::Json {
                assert_eq!(done.next_us, Some(2500), "it knows when it acts next");
            }
            let done = step(&mut peer, 3000, vec![]).unwrap();
            let echo = &done.events[0];
            assert_eq!(
                (echo.time_us, echo.kind.as_str(), echo.dst.as_str()),
                (2500, "echo", "other")
            );
            assert_eq!(echo.payload, json!({"a": [1]}));
            peer.shutdown();
        }
    }
    let (id, dir) = (run.id().to_owned(), run.dir().to_owned());
    assert_eq!(alive(&id), 0, "each of them has ended at its SHUTDOWN");
    drop(run);
    assert!(!dir.exists());
}

#[test]
fn a_node_that_listens_on_tcp() {
    let mut command = Command::new(program("echo"));
    let child = command.env(launch::ENDPOINT_VARIABLE, "listen:127.0.0.1:0");
    let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let address = said.trim().strip_prefix("listening on ").unwrap();
    let launched = launch::connect("n", address, LONG).unwrap();
    let mut peer = meet(Dialect::PlainTcp, launched, json!({})).unwrap();
    let done = step(&mut peer, 10, vec![event(3, "ping", json!(1))]).unwrap();
    assert_eq!(done.events[0].time_us, 3);
    peer.shutdown();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_program_that_listens_is_started_and_ended() {
    let run = start_run();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // A port that it is told, and one that it finds itself and says.
    for address in [format!("127.0.0.1:{port}"), "127.0.0.1:0".to_owned()] {
        let spec = TcpSpec { address, command: vec![program("echo")] };
        let node = ProcessNode::listening("n", &spec).unwrap();
        let launched = node.start_and_connect(&spec.address, &run).unwrap();
        assert_eq!(alive(run.id()), 1);
        let mut peer = meet(Dialect::PlainTcp, launched, json!({})).unwrap();
        let done = step(&mut peer, 10, vec![event(3, "ping", json!(1))]).unwrap();
        assert_eq!(done.events[0].time_us, 3);
        peer.shutdown();
        assert_eq!(alive(run.id()), 0);
    }
    let spec = |script: &str| {
        let command = ["sh", "-c", script].map(str::to_owned).into();
        TcpSpec { address: "127.0.0.1:0".to_owned(), command }
    };
    let fails = |spec: &TcpSpec, connect| {
        let node = ProcessNode { connect, ..ProcessNode::listening("n", spec).unwrap() };
        let error = node.start_and_connect(&spec.address, &run).unwrap_err().to_string();
        assert_eq!(alive(run.id()), 0, "{error}");
        error
    };
    let quits = fails(&spec("echo no luck >&2; exit 3"), LONG);
    assert!(quits.contains("exit status: 3") && quits.contains("no luck"), "{quits}");
    let silent = fails(&spec("exec sleep 1000"), Duration::from_millis(50));
    assert!(silent.contains("it has not said where it listens"), "{silent}");
    let nothing = ProcessNode::listening("n", &TcpSpec::default()).unwrap_err();
    assert_eq!(nothing.to_string(), "node n has no command");
}

#[test]
fn what_cannot_be_started_or_reached_is_named() {
    let run = start_run();
    let missing = ProcessNode::new("n", "./no-such-program", &[]).start(&run).unwrap_err();
    assert!(
        missing.to_string().starts_with("node n: cannot start \"./no-such-program\""),
        "{missing}"
    );
    let quits = ProcessNode {
        via: Via::Unix,
        ..ProcessNode::new("n", "sh", &["-c", "echo no luck >&2; exit 3"])
    };
    let quits = quits.start(&run).unwrap_err();
    assert!(matches!(quits, LaunchError::NoConnection { .. }), "{quits}");
    assert!(quits.to_string().contains("exit status: 3"), "{quits}");
    let nobody = launch::connect("n", "127.0.0.1:1", Duration::ZERO).unwrap_err();
    assert!(nobody.to_string().contains("no connection at 127.0.0.1:1"), "{nobody}");
}

#[test]
fn a_node_that_dies_leaves_its_last_words() {
    let run = start_run();
    let script = "read init; echo READY; read advance; echo 'out of cheese' >&2; exit 3";
    let launched = ProcessNode::new("n", "sh", &["-c", script]).start(&run).unwrap();
    let mut peer = meet(Dialect::PlainStdio, launched, json!({})).unwrap();
    let error = step(&mut peer, 5, vec![]).unwrap_err();
    assert!(error.what.contains("its process has ended (exit status: 3)"), "{error}");
    assert!(error.what.contains("out of cheese"), "{error}");
}

/// A pipe that nobody reads holds 64 KiB: a node that says more there would stand still.
#[test]
fn a_node_that_writes_much_to_stderr_goes_on() {
    let run = start_run();
    let script = "head -c 1000000 /dev/zero >&2; read init; echo READY; read advance; read events; \
                  head -c 1000000 /dev/zero >&2; echo DONE; echo '[]'; read shutdown";
    let launched = ProcessNode::new("n", "sh", &["-c", script]).start(&run).unwrap();
    let mut peer = meet(Dialect::PlainStdio, launched, json!({})).unwrap();
    step(&mut peer, 5, vec![]).unwrap();
    peer.shutdown();
}

/// One that does not listen, with a child in a session of its own: both are gone with the peer and the run.
const STUBBORN: &str = "trap '' TERM INT HUP; setsid sleep 1000 & sleep 1000";

#[test]
fn a_stubborn_node_and_its_children_end_with_the_run() {
    let run = start_run();
    let launched = ProcessNode::new("n", "sh", &["-c", STUBBORN]).start(&run).unwrap();
    let id = run.id().to_owned();
    eventually("all three run", || alive(&id) == 3);
    drop(launched);
    // One at most: it may have been killed with its group before it had a session of its own.
    eventually("at most the one in a session of its own is left", || alive(&id) <= 1);
    drop(run);
    assert_eq!(alive(&id), 0);
}

#[test]
fn a_harness_that_is_killed_leaves_nothing() {
    let mut harness = Command::new(example("standalone"));
    harness.args(["run", "sh", "-c", STUBBORN]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut harness = harness.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(harness.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let (id, dir) = said.trim().split_once(' ').unwrap();
    eventually("all three run", || alive(id) == 3);
    assert!(Path::new(dir).exists());
    harness.kill().unwrap();
    assert_eq!(harness.wait().unwrap().signal(), Some(9));
    eventually("no process is left", || alive(id) == 0);
    eventually("no file is left", || !Path::new(dir).exists());
}
