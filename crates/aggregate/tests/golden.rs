//! Every strategy against values from an independent computation: see `golden/make.py`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use aggregate::{
    Facts, Guard, Made, NormBound, Round, STRATEGIES, Slices, Work, aggregate_in_memory, find,
};
use serde_json::Value;

#[test]
fn every_strategy_agrees_with_numpy() {
    let golden: Value = serde_json::from_str(include_str!("golden/golden.json")).unwrap();
    let given = Given::of(&golden);
    let mut seen = BTreeSet::new();
    for case in golden["cases"].as_array().unwrap() {
        seen.insert(case["strategy"].as_str().unwrap());
        given.check(case);
    }
    let listed = STRATEGIES.iter().map(|strategy| strategy.name).collect();
    assert_eq!(seen, listed, "each strategy has its golden values");
}

struct Given {
    base: Vec<f64>,
    updates: Vec<Vec<f64>>,
    bases: Vec<Vec<f64>>,
    controls: Vec<Vec<f64>>,
    facts: Vec<Facts>,
}

impl Given {
    fn of(golden: &Value) -> Self {
        let whole = |name: &str| -> Vec<u64> {
            golden[name].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).collect()
        };
        let (steps, staleness) = (whole("steps"), whole("staleness"));
        let losses = row(&golden["losses"]);
        let fact = |(index, num_samples): (usize, u64)| Facts {
            num_samples,
            loss: Some(losses[index]),
            staleness: staleness[index],
            steps: Some(steps[index]),
        };
        Self {
            base: row(&golden["base"]),
            updates: rows(&golden["updates"]),
            bases: rows(&golden["bases"]),
            controls: rows(&golden["controls"]),
            facts: whole("samples").into_iter().enumerate().map(fact).collect(),
        }
    }

    fn check(&self, case: &Value) {
        let mut base = self.base.clone();
        let mut state: Vec<(&str, Vec<f64>)> = vec![];
        for expected in rows(&case["rounds"]) {
            let made = self.round(case, &base, &state);
            near(&made.weights, &expected, case);
            (base, state) = (made.weights, made.state);
        }
        let expected = rows(&case["state"]);
        assert_eq!(state.len(), expected.len(), "{case}");
        for ((_, vector), expected) in state.iter().zip(&expected) {
            near(vector, expected, case);
        }
    }

    fn round(&self, case: &Value, base: &[f64], state: &[(&str, Vec<f64>)]) -> Made<f64> {
        let settings: BTreeMap<String, f64> =
            serde_json::from_value(case["settings"].clone()).unwrap();
        let strategy = find(case["strategy"].as_str().unwrap()).unwrap();
        let aggregator = strategy.configured(&settings).unwrap();
        let vectors: Vec<&[f64]> = state.iter().map(|(_, vector)| &**vector).collect();
        let [updates, bases, controls] =
            [&self.updates, &self.bases, &self.controls].map(|rows| views(rows));
        let [updates, bases, controls, vectors] =
            [&updates, &bases, &controls, &vectors].map(|rows| Slices::new(rows).unwrap());
        let base = [base];
        let base = Slices::new(&base).unwrap();
        let mut round = Round::new(&updates, &self.facts);
        round.base = Some(&base);
        if case["with_bases"] == true {
            round.bases = Some(&bases);
        }
        if strategy.name == "scaffold" {
            round.controls = Some(&controls);
        }
        if !state.is_empty() {
            round.state = Some(&vectors);
        }
        let clip = case["norm_clip"].as_f64().map(|norm_max| NormBound::Clip { norm_max });
        let reject = case["norm_reject"].as_f64().map(|norm_max| {
            // The bound is itself one of the norms, the last digit of which is a matter of order.
            NormBound::Reject { norm_max: norm_max * (1.0 + 1e-12) }
        });
        let norm = clip.or(reject).unwrap_or_default();
        let guard = Guard { norm, share_max: case["share_max"].as_f64() };
        aggregate_in_memory(&*aggregator, &guard, &round, &Work::threads(2)).unwrap()
    }
}

fn near(found: &[f64], expected: &[f64], case: &Value) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let off = (found - expected).abs() / expected.abs().max(1.0);
        assert!(off < 1e-11, "{found} is not {expected}: {case}");
    }
}

fn row(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(row).collect()
}

fn views(rows: &[Vec<f64>]) -> Vec<&[f64]> {
    rows.iter().map(|row| &**row).collect()
}
