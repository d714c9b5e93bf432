//! A scenario over seeds and varied values, with a table at the end.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use cosim::sweep::{Vary, combinations, set};
use serde::Serialize;
use serde_json::Value;
use sim::Scenario;
use tokio_util::sync::CancellationToken;

use super::{
    Wishes,
    report::{self, beside, run_scenario},
};
use crate::view;

/// Metrics that get a column, if a run has them.
const METRICS: [&str; 3] = ["accuracy", "test_loss", "loss"];

/// What came of a sweep.
#[derive(Debug, Serialize)]
pub(crate) struct Swept {
    /// Whether every claim held everywhere.
    pub(crate) holds: bool,
    runs: Vec<SweptRun>,
}

/// One run of a sweep.
#[derive(Debug, Serialize)]
struct SweptRun {
    seed: u64,
    varied: BTreeMap<String, Value>,
    rounds_complete: usize,
    rounds: usize,
    virtual_us: u64,
    metrics: BTreeMap<&'static str, f64>,
    trace_sha256: String,
    holds: bool,
}

/// Runs every seed with every combination.
pub(crate) fn sweep(
    file: &Path,
    seeds: u64,
    varies: &[Vary],
    stop: &CancellationToken,
) -> anyhow::Result<Swept> {
    let plain = report::check(file)?;
    let whole = serde_json::to_value(&plain)?;
    let bar = indicatif::ProgressBar::new(seeds * combinations(varies).len() as u64);
    let mut runs = vec![];
    for chosen in combinations(varies) {
        for seed in plain.simulation.seed..plain.simulation.seed.saturating_add(seeds) {
            let mut varied = whole.clone();
            for (path, value) in &chosen {
                set(&mut varied, path, value.clone())?;
            }
            let scenario: Scenario = serde_json::from_value(varied).context("varied so")?;
            let wishes = Wishes { seed: Some(seed), ..Wishes::default() };
            let outcome = run_scenario(scenario, beside(file), &wishes, stop.clone())?;
            runs.push(run(seed, &chosen, &outcome));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(Swept { holds: runs.iter().all(|run| run.holds), runs })
}

fn run(seed: u64, chosen: &[(String, Value)], outcome: &report::Outcome) -> SweptRun {
    let summary = &outcome.summary;
    let last = |name| Some((name, summary.metrics.get(name)?.last()?.value));
    SweptRun {
        seed,
        varied: chosen.iter().cloned().collect(),
        rounds_complete: summary.rounds_complete(),
        rounds: summary.rounds.len(),
        virtual_us: summary.virtual_us,
        metrics: METRICS.into_iter().filter_map(last).collect(),
        trace_sha256: summary.trace_sha256.clone(),
        holds: outcome.holds(),
    }
}

impl Swept {
    pub(crate) fn show(&self, varies: &[Vary]) {
        let mut header = vec!["seed"];
        header.extend(varies.iter().map(|vary| vary.path.as_str()));
        header.extend(["complete", "virtual s"]);
        header.extend(METRICS);
        header.push("claims");
        view::table(&header, self.runs.iter().map(|run| run.row(varies)));
    }
}

impl SweptRun {
    fn row(&self, varies: &[Vary]) -> Vec<String> {
        let mut cells = vec![self.seed.to_string()];
        cells.extend(
            varies
                .iter()
                .map(|vary| self.varied.get(&vary.path).map(view::cell).unwrap_or_default()),
        );
        cells.push(format!("{} of {}", self.rounds_complete, self.rounds));
        cells.push(format!("{:.3}", self.virtual_us as f64 / 1e6));
        cells.extend(METRICS.map(|name| {
            let value = self.metrics.get(name);
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
        }));
        cells.push(if self.holds { "hold" } else { "FAIL" }.to_owned());
        cells
    }
}
