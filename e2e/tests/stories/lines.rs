//! Several lines of models on one fleet: each session has its own, and its own versions.

use std::process::Command as Program;

use e2e::{BrokerKind, Peer, StackPlan, Turn, Victim, aileron, eventually, judge};
use protocol::message::SessionState;
use serde_json::json;

use crate::sessions::{ends, kill, reaches, rounds_of, spec};

const ROUNDS: u64 = 4;

#[test]
fn two_sessions_have_lines_of_their_own_whoever_dies() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Mosquitto, 3);
    let mut stack = plan.start();
    let operator = stack.operator();
    let peer = Peer::connect(stack.field().port(), &["fl/lines/#"]);
    let file = stack.dir().join("zeros.json");
    std::fs::write(&file, plan.fleet.model_0().to_string()).unwrap();
    for line in ["left", "right"] {
        let begun = Program::new(aileron())
            .args(["model", "begin", line, &file.display().to_string()])
            .args(["--mqtt-address", &stack.field().address()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&begun.stdout).into_owned();
        assert!(begun.status.success(), "{said}{}", String::from_utf8_lossy(&begun.stderr));
        assert!(said.contains(&format!("fl/models/{line}_v0")), "{said}");
        let mut start = spec(&plan.fleet, &format!("s-{line}"), ROUNDS, 50);
        start["model_line"] = json!(line);
        start["retries"] = json!(1000);
        operator.peer().publish("fl/sessions/start", start.to_string());
    }
    reaches(&operator, "s-left", 1);
    kill(&mut stack, Victim::ModelServer);
    reaches(&operator, "s-right", 2);
    kill(&mut stack, Victim::Coordinator);
    for line in ["left", "right"] {
        let id = format!("s-{line}");
        let status = ends(&operator, &id);
        assert_eq!((status.state, status.rounds_done), (SessionState::Complete, ROUNDS));
        let newest = format!("fl/models/{line}_v{ROUNDS}");
        assert_eq!(status.model_uri.unwrap().to_string(), newest);
        let latest = format!("fl/lines/{line}/latest");
        eventually(&latest, || {
            let said = peer.all(&latest).last()?.json();
            (said["topic"] == newest.as_str() && said["version"] == ROUNDS).then_some(())
        });
        let late = Peer::connect(stack.field().port(), &[&format!("fl/models/{line}_v1")]);
        assert!(late.wait_for(&format!("fl/models/{line}_v1")).retained);
        let asked = rounds_of(&operator, &id);
        assert!(asked.iter().all(|start| start.model_uri.line.as_str() == line), "{asked:?}");
        assert!(asked.len() as u64 >= ROUNDS, "{asked:?}");
    }
    // The default line is where it was.
    let untouched = operator.peer().all("fl/models/latest");
    assert_eq!(untouched.last().unwrap().json()["version"], 0);
    let alone = e2e::RoundPlan::one_hot(&plan.fleet, "r-default", 0);
    let complete = operator.run(&alone);
    assert_eq!(complete.model_version.0, 1);
    assert_eq!(judge(&operator, &plan.fleet, &complete).len(), 3);
}
