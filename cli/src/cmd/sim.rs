//! `aileron sim`: the platform's own code under virtual time.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use cosim::{sweep::Vary, trace::diff};
use sim::{Replay, Span, Swarm};

use crate::{
    simulate::{self, Pace, Wishes},
    view,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Sim {
    /// Run a scenario; fails if one of its assertions does not hold
    Run(Run),
    /// Say everything that is wrong with a scenario, and run nothing
    Check {
        /// The scenario, YAML
        file: PathBuf,
    },
    /// Run a scenario over several seeds and varied values, with a table at the end
    Sweep(Sweep),
    /// Draw scenarios with faults from seeds, and hold the platform's promises against each
    Swarm(Swarms),
    /// Say where two traces (NDJSON) part
    Diff {
        /// One trace
        left: PathBuf,
        /// The other
        right: PathBuf,
    },
    /// Ends what a killed run has left; started by `run`
    #[command(hide = true)]
    Janitor {
        /// The run's id and directory
        arguments: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The scenario, YAML
    file: PathBuf,
    /// Seed in place of the scenario's
    #[arg(long)]
    seed: Option<u64>,
    /// Threads that train; the result does not depend on it
    #[arg(long)]
    threads: Option<usize>,
    /// Virtual time at which to end, like 90s
    #[arg(long, value_name = "TIME")]
    until: Option<Span>,
    /// Virtual seconds in a second of the wall; as fast as it goes if left out
    #[arg(long, value_name = "X")]
    pace: Option<Pace>,
    /// Write what happened to this file: .ndjson, .json for Perfetto, or .pcap for Wireshark
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Draw accuracy and loss over virtual time, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Show every round
    #[arg(long)]
    verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Sweep {
    /// The scenario, YAML
    file: PathBuf,
    /// Seeds, from the scenario's own on
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Values that a place of the scenario takes in turn, like rounds.0.k_of_n=5,8; repeatable
    #[arg(long, value_name = "PATH=VALUE,...")]
    vary: Vec<Vary>,
}

#[derive(Debug, Args)]
pub(crate) struct Swarms {
    /// First seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Faults in each run, at most
    #[arg(long, default_value_t = 4)]
    faults: u64,
}

impl Sim {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(run) => run.run(),
            Self::Check { file } => {
                let scenario = simulate::check(&file)?;
                let nodes: usize = scenario.nodes.iter().map(|node| node.names().len()).sum();
                let rounds: u32 = scenario.rounds.iter().map(|round| round.repeat).sum();
                view::line(format!(
                    "{} is fine: {nodes} nodes, {rounds} rounds, {} faults, {} assertions",
                    file.display(),
                    scenario.faults.len(),
                    scenario.assertions.len()
                ));
                Ok(ExitCode::SUCCESS)
            }
            Self::Sweep(sweep) => sweep.run(),
            Self::Swarm(swarm) => Ok(swarm.run()),
            Self::Diff { left, right } => compare(&left, &right),
            Self::Janitor { arguments } => {
                cosim::launch::janitor(&arguments)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Run {
    fn run(self) -> anyhow::Result<ExitCode> {
        let wishes = Wishes {
            seed: self.seed,
            threads: self.threads,
            until: self.until,
            pace: self.pace,
            trace: self.trace,
            plot: self.plot,
            verbose: self.verbose,
        };
        let outcome = super::on_runtime(async |stop| {
            let file = self.file.clone();
            let wishes = wishes.clone();
            tokio::task::spawn_blocking(move || simulate::run(&file, &wishes, stop)).await?
        })?;
        outcome.show(wishes.verbose);
        Ok(if outcome.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Sweep {
    fn run(self) -> anyhow::Result<ExitCode> {
        let all_hold = super::on_runtime(async |stop| {
            let sweep = move || simulate::sweep(&self.file, self.seeds, &self.vary, &stop);
            tokio::task::spawn_blocking(sweep).await?
        })?;
        Ok(if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Swarms {
    fn run(self) -> ExitCode {
        let swarm = Swarm {
            first_seed: self.first,
            seeds: self.seeds,
            faults_max: self.faults,
            replay: Replay::Twice,
        };
        let bar = indicatif::ProgressBar::new(self.seeds);
        let report = swarm.run(|report| {
            bar.set_position(report.runs);
            true
        });
        bar.finish_and_clear();
        view::line(format!(
            "{} runs, {} rounds ({} complete), {} events, {} failures",
            report.runs,
            report.rounds,
            report.rounds_complete,
            report.events,
            report.failures.len()
        ));
        for failure in &report.failures {
            view::line(format!(
                "seed {}: {} does not hold: {}\n  replay: aileron sim swarm --first {} --seeds 1 \
                 --faults {}\n  {} faults are enough: {:?}",
                failure.seed,
                failure.property,
                failure.what,
                failure.seed,
                self.faults,
                failure.scenario.faults.len(),
                failure.scenario.faults
            ));
        }
        if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn compare(left: &Path, right: &Path) -> anyhow::Result<ExitCode> {
    let open = |path: &Path| {
        File::open(path).map(BufReader::new).with_context(|| format!("read {}", path.display()))
    };
    let Some(parting) = diff(open(left)?, open(right)?)? else {
        view::line("the traces are the same");
        return Ok(ExitCode::SUCCESS);
    };
    let shown = |line: Option<String>| line.unwrap_or_else(|| "(it ends here)".to_owned());
    view::line(format!(
        "the traces part at event {}\n  {}: {}\n  {}: {}",
        parting.line,
        left.display(),
        shown(parting.left),
        right.display(),
        shown(parting.right)
    ));
    Ok(ExitCode::FAILURE)
}
