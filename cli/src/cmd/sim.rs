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
use serde_json::{Value, json};
use sim::{Failure, Replay, Span, Swarm, SwarmReport};

use crate::{
    simulate::{self, Judged, Pace, Tables, Wishes},
    view::{self, Format},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Sim {
    /// Run a scenario; fails if one of its assertions does not hold
    Run(Run),
    /// Say everything that is wrong with a scenario, and run nothing
    Check {
        /// The scenario, YAML
        file: PathBuf,
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print the JSON schema of scenarios
    Schema,
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
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
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
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    format: Format,
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
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    format: Format,
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
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Sim {
    pub(super) const fn format(&self) -> Format {
        match self {
            Self::Run(run) => run.format,
            Self::Check { format, .. } | Self::Diff { format, .. } => *format,
            Self::Sweep(sweep) => sweep.format,
            Self::Swarm(swarm) => swarm.format,
            Self::Schema | Self::Janitor { .. } => Format::Text,
        }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(run) => run.run(),
            Self::Check { file, format } => check(&file, format),
            Self::Schema => {
                view::json(&cosim::scenario::schema());
                Ok(ExitCode::SUCCESS)
            }
            Self::Sweep(sweep) => sweep.run(),
            Self::Swarm(swarm) => Ok(swarm.run()),
            Self::Diff { left, right, format } => compare(&left, &right, format),
            Self::Janitor { arguments } => {
                cosim::launch::janitor(&arguments)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Whether all is as it should be, as an exit code.
fn verdict(holds: bool) -> ExitCode {
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(file: &Path, format: Format) -> anyhow::Result<ExitCode> {
    let judged = simulate::judge(file)?;
    let fine = matches!(judged, Judged::Fine(_));
    match (judged, format) {
        (Judged::Fine(loaded), Format::Text) => {
            for note in &loaded.notes {
                view::line(format!("note: {note}"));
            }
            let scenario = &loaded.scenario;
            Tables::of(scenario).show();
            let nodes: usize = scenario.nodes.iter().map(|node| node.names().len()).sum();
            let rounds: u32 = scenario.rounds.iter().map(|round| round.repeat).sum();
            view::line(format!(
                "{} is fine: {nodes} nodes, {rounds} rounds, {} faults, {} assertions",
                file.display(),
                scenario.faults.len(),
                scenario.assertions.len()
            ));
        }
        (Judged::Fine(loaded), Format::Json) => view::json(&json!({
            "fine": true,
            "notes": loaded.notes,
            "tables": Tables::of(&loaded.scenario),
            "scenario": loaded.scenario,
        })),
        (Judged::Wrong { mistakes, missing }, Format::Text) => {
            return Err(simulate::wrong(file, &mistakes, &missing));
        }
        (Judged::Wrong { mistakes, missing }, Format::Json) => {
            let mistakes = mistakes.iter().map(|it| {
                json!({ "line": it.line, "column": it.column, "path": it.path, "what": it.what })
            });
            let mistakes: Vec<Value> = mistakes.collect();
            view::json(&json!({ "fine": false, "mistakes": mistakes, "missing": missing }));
        }
    }
    Ok(verdict(fine))
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
        match self.format {
            Format::Text => outcome.show(wishes.verbose),
            Format::Json => view::json(&outcome.json()),
        }
        Ok(verdict(outcome.holds()))
    }
}

impl Sweep {
    fn run(self) -> anyhow::Result<ExitCode> {
        let Self { file, seeds, vary, format } = self;
        let varies = vary.clone();
        let swept = super::on_runtime(async |stop| {
            let sweep = move || simulate::sweep(&file, seeds, &varies, &stop);
            tokio::task::spawn_blocking(sweep).await?
        })?;
        match format {
            Format::Text => swept.show(&vary),
            Format::Json => view::json(&json!(swept)),
        }
        Ok(verdict(swept.holds))
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
        match self.format {
            Format::Text => self.show(&report),
            Format::Json => view::json(&self.json(&report)),
        }
        verdict(report.failures.is_empty())
    }

    fn replay(&self, failure: &Failure) -> String {
        let Failure { seed, .. } = failure;
        format!("aileron sim swarm --first {seed} --seeds 1 --faults {}", self.faults)
    }

    fn show(&self, report: &SwarmReport) {
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
                "seed {}: {} does not hold: {}\n  replay: {}\n  {} faults are enough: {:?}",
                failure.seed,
                failure.property,
                failure.what,
                self.replay(failure),
                failure.scenario.faults.len(),
                failure.scenario.faults
            ));
        }
    }

    fn json(&self, report: &SwarmReport) -> Value {
        let failures = report.failures.iter().map(|failure| {
            json!({
                "seed": failure.seed,
                "property": failure.property,
                "what": failure.what,
                "replay": self.replay(failure),
                "faults": failure.scenario.faults,
            })
        });
        json!({
            "runs": report.runs,
            "rounds": report.rounds,
            "rounds_complete": report.rounds_complete,
            "events": report.events,
            "failures": failures.collect::<Vec<_>>(),
        })
    }
}

fn compare(left: &Path, right: &Path, format: Format) -> anyhow::Result<ExitCode> {
    let open = |path: &Path| {
        File::open(path).map(BufReader::new).with_context(|| format!("read {}", path.display()))
    };
    let parting = diff(open(left)?, open(right)?)?;
    match (&parting, format) {
        (None, Format::Text) => view::line("the traces are the same"),
        (None, Format::Json) => view::json(&json!({ "same": true })),
        (Some(parting), Format::Text) => {
            let shown =
                |line: &Option<String>| line.clone().unwrap_or_else(|| "(it ends here)".to_owned());
            view::line(format!(
                "the traces part at event {}\n  {}: {}\n  {}: {}",
                parting.line,
                left.display(),
                shown(&parting.left),
                right.display(),
                shown(&parting.right)
            ));
        }
        (Some(parting), Format::Json) => {
            let event = |line: &Option<String>| -> Value {
                let parsed = line.as_ref().map(|line| serde_json::from_str(line));
                parsed.map_or(Value::Null, |it| it.unwrap_or_else(|_| json!(line)))
            };
            view::json(&json!({
                "same": false,
                "event": parting.line,
                "left": event(&parting.left),
                "right": event(&parting.right),
            }));
        }
    }
    Ok(verdict(parting.is_none()))
}
