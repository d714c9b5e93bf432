//! A scenario over seeds and varied values, with a table at the end.

use std::{fs, path::Path};

use anyhow::Context as _;
use cosim::sweep::{Vary, combinations, set};
use serde_json::Value;
use sim::Scenario;
use tokio_util::sync::CancellationToken;

use super::{
    Wishes, check,
    report::{beside, run_scenario},
};
use crate::view;

/// Metrics that get a column, if a run has them.
const METRICS: [&str; 3] = ["accuracy", "test_loss", "loss"];

/// Runs every seed with every combination; whether every claim held everywhere.
pub(crate) fn sweep(
    file: &Path,
    seeds: u64,
    varies: &[Vary],
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let plain = check(file)?;
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let as_written: Value = serde_saphyr::from_str(&text)?;
    let bar = indicatif::ProgressBar::new(seeds * combinations(varies).len() as u64);
    let (mut rows, mut all_hold) = (vec![], true);
    for chosen in combinations(varies) {
        for seed in plain.simulation.seed..plain.simulation.seed.saturating_add(seeds) {
            let mut varied = as_written.clone();
            for (path, value) in &chosen {
                set(&mut varied, path, value.clone())?;
            }
            let scenario: Scenario = serde_json::from_value(varied).context("varied so")?;
            let wishes = Wishes { seed: Some(seed), ..Wishes::default() };
            let outcome = run_scenario(scenario, beside(file), &wishes, stop.clone())?;
            all_hold &= outcome.holds();
            rows.push(row(seed, &chosen, &outcome));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let mut header = vec!["seed"];
    header.extend(varies.iter().map(|vary| vary.path.as_str()));
    header.extend(["complete", "virtual s"]);
    header.extend(METRICS);
    header.push("claims");
    view::table(&header, rows);
    Ok(all_hold)
}

fn row(seed: u64, chosen: &[(String, Value)], outcome: &super::report::Outcome) -> Vec<String> {
    let summary = &outcome.summary;
    let mut cells = vec![seed.to_string()];
    cells.extend(chosen.iter().map(|(_, value)| view::cell(value)));
    cells.push(format!("{} of {}", summary.rounds_complete(), summary.rounds.len()));
    cells.push(format!("{:.3}", summary.virtual_us as f64 / 1e6));
    cells.extend(METRICS.map(|name| {
        let last = summary.metrics.get(name).and_then(|samples| samples.last());
        last.map_or_else(|| "-".to_owned(), |sample| format!("{:.4}", sample.value))
    }));
    cells.push(if outcome.holds() { "hold" } else { "FAIL" }.to_owned());
    cells
}
