//! A scenario file of xEdgeSim with a container: it speaks the plain dialect over the pipes of its own command.

use std::fs;

use e2e::Turn;

use crate::{copy, engine::Engine, sim};

const IMAGE: &str = "aileron-e2e-python:xedgesim";

#[test]
fn a_file_of_xedgesim_runs_with_a_container() {
    let _turn = Turn::take();
    let Some(engine) = Engine::find() else { return };
    engine.import_python(IMAGE);
    let dir = tempfile::tempdir().unwrap();
    copy("scenarios/xedgesim", &dir.path().join("nodes"));
    let nodes = dir.path().join("nodes");
    let file = fs::read_to_string(nodes.join("pipes.yaml")).unwrap();
    let (start, gateway) = file.split_once("  - id: gateway\n").unwrap();
    assert!(gateway.contains("command: [python3, node.py]"), "{file}");
    let container = format!(
        "{start}  - id: gateway
    type: gateway
    implementation: docker
    port: 5002
    docker:
      image: {IMAGE}
      volumes:
        {}:
          bind: /nodes
          mode: ro
      environment:
        PYTHONDONTWRITEBYTECODE: 1
      ports: {{}}
      command: python3 /nodes/node.py
",
        nodes.display()
    );
    fs::write(nodes.join("container.yaml"), container).unwrap();
    let run = |name: &str| {
        let mut command = sim(dir.path(), Some(&engine));
        command.args(["run", "--format", "json"]).arg(nodes.join(name));
        let output = command.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let contained = run("container.yaml");
    assert_eq!(contained["metrics"]["events_ack"]["value"], 19.0, "{contained:#}");
    assert_eq!(contained["lost_nodes"], serde_json::json!([]));
    // Where a node runs makes no difference to the world.
    assert_eq!(contained["trace_sha256"], run("pipes.yaml")["trace_sha256"]);
    assert_eq!(engine.left(), 0);
}
