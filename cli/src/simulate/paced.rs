//! Proplets whose tasks run in real time, in the executor that ships: a task takes in virtual time
//! what it took by the clock of this machine, and so no two runs are the same.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use agent::GuestOutput;
use anyhow::{Context as _, bail};
use proplet::executor::{EXECUTORS, Executor, Job, Model, Settings, virtual_time::VirtualJob};
use serde::Serialize;
use sim::Ran;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::{
    guests::failure,
    stage::{Data, Source},
};

/// Runs tasks in real time, and writes down how long they took.
pub(super) struct Paced {
    executor: Arc<dyn Executor>,
    runtime: Runtime,
    dirs: BTreeMap<String, PathBuf>,
    took: Mutex<BTreeMap<String, Vec<u64>>>,
    stop: CancellationToken,
}

/// How far the times of one node's tasks are spread: what makes two runs differ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) tasks: usize,
    pub(crate) mean_us: f64,
    pub(crate) variance_us2: f64,
    pub(crate) shortest_us: u64,
    pub(crate) longest_us: u64,
}

impl Paced {
    /// Data that is on no disk is written below `dir`.
    pub(super) fn new(
        nodes: &[String],
        data: &BTreeMap<String, Data>,
        (dir, state): (&Path, &Path),
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let Some(wasm) = EXECUTORS.iter().find(|entry| entry.name == "wasm") else {
            bail!("there is no executor for WebAssembly");
        };
        let settings = Settings { scratch_dir: dir.join("scratch"), ..Settings::below(state) };
        let executor = (wasm.build)(&settings);
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut dirs = BTreeMap::new();
        for node in nodes {
            let Some(data) = data.get(node) else { continue };
            let own = match &data.source {
                Source::Dir(dir) => dir.clone(),
                Source::File(name, bytes) => {
                    let own = dir.join("data").join(node);
                    let write =
                        || fs::create_dir_all(&own).and_then(|()| fs::write(own.join(name), bytes));
                    write().with_context(|| format!("data of {node} in {}", own.display()))?;
                    own
                }
            };
            dirs.insert(node.clone(), own);
        }
        Ok(Self { executor, runtime, dirs, took: Mutex::default(), stop })
    }

    pub(super) fn run(&self, node: &str, job: &VirtualJob) -> Ran {
        let job = Job {
            label: job.label.clone(),
            program: job.program.clone(),
            args: job.args.clone(),
            env: job.env.clone(),
            model: job.model.clone().map(Model::Bytes),
            variates: job.variates.clone(),
            data_dir: self.dirs.get(node).cloned(),
            limits: job.limits.clone(),
            cancel: self.stop.child_token(),
        };
        let done = self.runtime.block_on(self.executor.run(job));
        let took_us = done.metrics.wall_us;
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        took.entry(node.to_owned()).or_default().push(took_us);
        let outcome = match done.end {
            Ok(output) => agent::Outcome::Ok(GuestOutput {
                stdout: output.stdout.into(),
                update_file: output.update_file.map(Into::into),
                state: output.state.map(Into::into),
            }),
            Err(why) => {
                let words = done.stderr_tail.trim();
                agent::Outcome::Failed(failure(why.code(), format!("{why}; {words}")))
            }
        };
        Ran { outcome, compute_us: took_us, fuel: done.metrics.fuel_used }
    }

    /// By node.
    pub(super) fn spreads(&self) -> BTreeMap<String, Spread> {
        let took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        let spreads =
            took.iter().filter_map(|(node, took)| Some((node.clone(), Spread::of(took)?)));
        spreads.collect()
    }
}

impl Spread {
    /// With the variance of a sample: one task has none.
    fn of(took_us: &[u64]) -> Option<Self> {
        let (shortest_us, longest_us) = (*took_us.iter().min()?, *took_us.iter().max()?);
        let tasks = took_us.len();
        let mean_us = took_us.iter().map(|it| *it as f64).sum::<f64>() / tasks as f64;
        let squares: f64 = took_us.iter().map(|it| (*it as f64 - mean_us).powi(2)).sum();
        let variance_us2 = squares / (tasks as f64 - 1.0).max(1.0);
        Some(Self { tasks, mean_us, variance_us2, shortest_us, longest_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_what_the_textbook_says() {
        assert_eq!(Spread::of(&[]), None);
        let one = Spread::of(&[7]).unwrap();
        assert_eq!((one.mean_us, one.variance_us2), (7.0, 0.0));
        let four = Spread::of(&[2, 4, 4, 6]).unwrap();
        assert_eq!((four.mean_us, four.shortest_us, four.longest_us), (4.0, 2, 6));
        assert!((four.variance_us2 - 8.0 / 3.0).abs() < 1e-12);
    }
}
