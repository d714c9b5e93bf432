//! Proplets of one machine that keep what they compile in one place: one of them compiles, all run.

use std::collections::BTreeMap;

use e2e::{BrokerKind, RoundPlan, StackPlan, Turn, eventually, judge, versions_are_whole};

const PROPLETS: usize = 8;

#[test]
fn a_program_is_compiled_once_for_all_proplets_of_a_machine() {
    let _turn = Turn::take();
    let dir = tempfile::tempdir().unwrap();
    let compiled = dir.path().join("compiled");
    let plan = StackPlan::new(BrokerKind::Mosquitto, PROPLETS)
        .with("PROPLET_CACHE_DIR", compiled.display());
    let stack = plan.start();
    let operator = stack.operator();
    for base in 0..2 {
        let round = RoundPlan::one_hot(&plan.fleet, &format!("r-{base}"), base);
        let complete = operator.run(&round);
        assert_eq!(judge(&operator, &plan.fleet, &complete).len(), PROPLETS, "{complete:?}");
    }
    versions_are_whole(&operator, 2);
    let origins = eventually("every task has told its metrics", || {
        let tasks = stack.http.get("/tasks?limit=1000").body;
        let origins: Vec<String> = tasks["tasks"]
            .as_array()?
            .iter()
            .filter_map(|task| {
                let id = task["id"].as_str()?;
                let metrics = stack.http.get(&format!("/tasks/{id}/metrics")).body;
                Some(metrics["metrics"][0]["module"].as_str()?.to_owned())
            })
            .collect();
        (origins.len() == 2 * PROPLETS).then_some(origins)
    });
    let mut counts = BTreeMap::new();
    origins.iter().for_each(|origin| *counts.entry(origin.as_str()).or_insert(0) += 1);
    let expected = [("compiled", 1), ("disk", PROPLETS - 1), ("memory", PROPLETS)];
    assert_eq!(counts, BTreeMap::from(expected));
    // The program and its digest; no lock, and nothing unfinished.
    assert_eq!(std::fs::read_dir(&compiled).unwrap().count(), 2);
}
