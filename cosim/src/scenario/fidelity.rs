//! What a node's fidelity asks for.

use sim::{NodeKind, NodeSpec, Problem, Scenario};

use super::nearest::suggestion;
use crate::harness::CONTAINER;

/// Tasks take the time that they take.
const PACED: &str = "paced";

/// Everything that is wrong with the fidelities of a scenario.
pub(super) fn problems(scenario: &Scenario, known: &[String]) -> Vec<Problem> {
    let nodes = scenario.nodes.iter().enumerate();
    let mut found: Vec<Problem> =
        nodes.filter_map(|(i, node)| of_node(node, known).map(|what| problem(i, what))).collect();
    let paced = scenario.nodes.iter().find(|node| node.fidelity.as_deref() == Some(PACED));
    if let Some(node) = paced {
        let claims = scenario.assertions.iter().enumerate();
        found.extend(claims.filter(|(_, text)| text.starts_with("trace_sha256")).map(|(i, _)| {
            let what = format!("{:?} is paced: no two runs have the same trace", node.id);
            Problem { path: format!("assertions[{i}]"), what }
        }));
    }
    found
}

fn of_node(node: &NodeSpec, known: &[String]) -> Option<String> {
    let fidelity = node.fidelity.as_deref()?;
    if node.kind != NodeKind::Proplet {
        return Some(format!("{:?} runs no tasks, so it has no fidelity", node.id));
    }
    if !known.iter().any(|it| it == fidelity) {
        let hint = suggestion(fidelity, known.iter().map(String::as_str));
        return Some(format!("{fidelity:?} is not one of {}{hint}", known.join(", ")));
    }
    let has_program = node.process.is_some() || node.docker.is_some() || node.tcp.is_some();
    (fidelity == CONTAINER && !has_program)
        .then(|| "container needs the key \"docker\", \"process\" or \"tcp\"".to_owned())
}

fn problem(node: usize, what: String) -> Problem {
    Problem { path: format!("nodes[{node}].fidelity"), what }
}
