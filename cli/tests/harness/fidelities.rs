//! Tasks that are not run by the sandbox in virtual time: programs of the proplets' own, and real time.

use std::fs;

use serde_json::json;

use crate::{json as asked, scenario, sim, text, written};

#[test]
fn a_proplets_own_program_computes_its_tasks_the_same_on_any_number_of_threads() {
    let file = scenario("own-program.yaml");
    let traces = ["1", "2", "8"].map(|threads| {
        let run = asked(&["run", &file, "--threads", threads]);
        assert_eq!((&run["holds"], &run["deterministic"]), (&json!(true), &json!(true)), "{run:#}");
        run["trace_sha256"].clone()
    });
    assert!(traces.iter().all(|trace| *trace == traces[0]), "{traces:?}");
}

/// The scenario with another trainer.
fn varied(dir: &std::path::Path, program: &str, from: &str, to: &str) -> String {
    let text = fs::read_to_string(scenario("own-program.yaml")).unwrap();
    assert!(text.contains(from), "{text}");
    fs::create_dir_all(dir.join("own-program")).unwrap();
    let trainer = fs::read_to_string(scenario("own-program/trainer.py")).unwrap();
    let main = "def main():\n";
    assert!(trainer.contains(main));
    fs::write(dir.join("own-program/trainer.py"), trainer.replace(main, program)).unwrap();
    written(dir, "s.yaml", text.replace(from, to))
}

const DIES: &str = "
def dies(order):
    if order['type'] == 'ADVANCE' and order['events']:
        if order['events'][0]['payload']['env']['PROPLET_ID'] == 'proplet-1':
            sys.exit('no more rows')
    return order

loads = json.loads
json.loads = lambda text: dies(loads(text)) if '\"type\"' in text else loads(text)

def main():
";

#[test]
fn a_program_that_dies_ends_the_run_or_only_its_own_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let file = varied(dir.path(), DIES, "count: 3", "count: 3");
    let output = sim(&["run", &file]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("node proplet-1 at") && said.contains("no more rows"), "{said}");
    assert!(!said.contains("rounds complete"), "{said}");

    let goes_on = "count: 3\n    on_failure: go_on";
    let run = asked(&["run", &varied(dir.path(), DIES, "count: 3", goes_on)]);
    assert_eq!(run["lost_nodes"][0]["node"], "proplet-1", "{run:#}");
    assert_eq!(run["rounds"].as_array().unwrap().len(), 5);
}

#[test]
fn a_task_may_fail_by_its_programs_word() {
    let dir = tempfile::tempdir().unwrap();
    let fails = "
def train(model, data):
    raise ValueError('singular')

def update(task):
    return {'failed': True}

def main():
";
    let file = varied(dir.path(), fails, "timeout: 30s", "timeout: 2s");
    let run = asked(&["run", &file]);
    // What it printed is no update.
    assert_eq!((&run["rounds_complete"], &run["lost_nodes"]), (&json!(0), &json!([])), "{run:#}");
}

#[test]
fn paced_tasks_take_real_time_and_say_that_no_two_runs_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = |fidelity: &str, claim: &str| {
        let text = format!(
            "simulation: {{ seed: 1, until: 10min }}\n\
             nodes: [{{ id: p, count: 2, fidelity: {fidelity}, data: digits }}]\n\
             rounds: [{{ id: r, repeat: 2, timeout: 60s, hyperparams: {{ epochs: 1, lr: 0.1 }} }}]\n\
             assertions: [rounds_complete == 2{claim}]\n"
        );
        written(dir.path(), &format!("{fidelity}.yaml"), text)
    };
    let paced = asked(&["run", &file("paced", "")]);
    assert_eq!((&paced["holds"], &paced["deterministic"]), (&json!(true), &json!(false)));
    for node in ["p-0", "p-1"] {
        let spread = &paced["paced"][node];
        assert_eq!(spread["tasks"], 2, "{paced:#}");
        let [mean, shortest, longest] =
            ["mean_us", "shortest_us", "longest_us"].map(|key| spread[key].as_f64().unwrap());
        assert!(0.0 < shortest && shortest <= mean && mean <= longest, "{spread}");
        assert!(spread["variance_us2"].as_f64().unwrap() >= 0.0);
    }
    // The same guest on the same rows: only the time is another.
    let wasm = asked(&["run", &file("wasm", "")]);
    assert_eq!(wasm["versions"], paced["versions"]);
    assert_eq!((&wasm["deterministic"], &wasm["paced"]), (&json!(true), &json!({})));
    let said = text(&sim(&["run", &file("paced", "")]));
    assert!(said.contains("not deterministic: p-0 ran in real time, 2 tasks in"), "{said}");
    let said = text(&sim(&["check", &file("paced", ", \"trace_sha256 == ab\"")]));
    assert!(said.contains("\"p\" is paced: no two runs have the same trace"), "{said}");
}

#[test]
fn a_fidelity_that_nobody_knows_or_that_lacks_its_program_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = "\
nodes:
  - { id: a, fidelity: wsam }
  - { id: b, fidelity: container }
  - { id: c, type: process, fidelity: wasm, process: { command: [cat] } }
";
    let said = text(&sim(&["check", &written(dir.path(), "s.yaml", file)]));
    for part in [
        "s.yaml:2:5: nodes[0].fidelity: \"wsam\" is not one of model, wasm, memo, container, paced; \
         did you mean `wasm`?",
        "s.yaml:3:5: nodes[1].fidelity: container needs the key",
        "s.yaml:4:5: nodes[2].fidelity: \"c\" runs no tasks",
    ] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
}
