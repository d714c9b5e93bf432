//! One run from its file to its verdict.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use cosim::{
    harness,
    launch::Run,
    plot,
    trace::{Ndjson, Pcap, Perfetto},
};
use proplet::executor::virtual_time::VirtualSettings;
use service::{Clock as _, SystemClock};
use sim::{
    Assertion, Checked, NoTrace, RoundOutcome, RunError, Scenario, Setup, Summary, TraceSink, World,
};
use tokio_util::sync::CancellationToken;

use super::{
    Wishes, devices,
    guests::Guests,
    stage::{self, Stage},
    watch::Watch,
};
use crate::view;

/// Real guests need this much stack, which ordinary threads do not have.
const STACK_BYTES: usize = 64 << 20;

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) summary: Summary,
    pub(crate) checked: Vec<Checked>,
    pub(crate) wall_s: f64,
}

/// Reads a scenario; says everything that is wrong with it.
pub(crate) fn check(file: &Path) -> anyhow::Result<Scenario> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let classes = devices()?.into_keys().collect();
    let scenario = match cosim::scenario::read(&text, &classes) {
        Ok(scenario) => scenario,
        Err(mistakes) => {
            for mistake in &mistakes {
                view::aside(format!("{}:{mistake}", file.display()));
            }
            bail!("{}: {} to mend", file.display(), mistakes.len());
        }
    };
    let missing = harness::missing_files(&scenario, beside(file));
    for what in &missing {
        view::aside(format!("{}: {what}", file.display()));
    }
    if missing.is_empty() {
        Ok(scenario)
    } else {
        bail!("{}: {} files are missing", file.display(), missing.len())
    }
}

/// Runs the scenario in a file to its end.
pub(crate) fn run(
    file: &Path,
    wishes: &Wishes,
    stop: CancellationToken,
) -> anyhow::Result<Outcome> {
    run_scenario(check(file)?, beside(file), wishes, stop)
}

/// Runs a scenario whose files are in `dir`.
pub(super) fn run_scenario(
    mut scenario: Scenario,
    dir: &Path,
    wishes: &Wishes,
    stop: CancellationToken,
) -> anyhow::Result<Outcome> {
    if let Some(seed) = wishes.seed {
        scenario.simulation.seed = seed;
    }
    if let Some(threads) = wishes.threads {
        scenario.simulation.threads = threads;
    }
    if let Some(until) = wishes.until {
        scenario.simulation.until = until;
    }
    let dir = dir.to_owned();
    let wishes = wishes.clone();
    // Guests run on the caller's stack; the world hands its threads as much.
    let running = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || play(&scenario, &dir, &wishes, stop))
        .context("start a thread")?;
    running.join().unwrap_or_else(|_| bail!("the simulation broke down; see above"))
}

fn play(
    scenario: &Scenario,
    dir: &Path,
    wishes: &Wishes,
    stop: CancellationToken,
) -> anyhow::Result<Outcome> {
    let began = SystemClock.now();
    let Stage { data, model0, judge } = stage::set(scenario, dir)?;
    let settings = VirtualSettings::below(&PathBuf::from(".aileron/sim"));
    let is_real = |fidelity: &Option<String>| matches!(fidelity.as_deref(), Some("wasm" | "memo"));
    let real = scenario.nodes.iter().any(|node| is_real(&node.fidelity));
    let guests = Guests::new(real.then_some(&settings), data)?;
    let outside =
        harness::has_outside(scenario).then(|| Run::start(janitor()?).map_err(anyhow::Error::from));
    let outside = outside.transpose()?;
    let peers = match &outside {
        Some(run) => harness::peers(scenario, dir, run)?,
        None => Default::default(),
    };
    let setup = Setup { workload: Arc::new(guests), peers, model0, classes: devices()?, judge };
    let world = World::new(scenario, setup)?;
    let mut watch = Watch::new(scenario.simulation.until.micros(), wishes.pace, stop);
    let ran = traced(world, wishes.trace.as_deref(), &mut watch);
    watch.finish();
    drop(outside);
    let summary = ran?;
    if let Some(path) = &wishes.plot {
        let drawn = plot::svg(&scenario.name, &summary, &["accuracy", "loss", "test_loss"]);
        let drawn = drawn.context("the run has no metric to plot")?;
        fs::write(path, drawn).with_context(|| format!("write {}", path.display()))?;
    }
    let claims = scenario.assertions.iter().map(|text| text.parse::<Assertion>());
    let claims: Vec<Assertion> = claims.collect::<Result<_, _>>()?;
    let checked = claims.iter().map(|claim| claim.check(&summary)).collect();
    let wall_s = SystemClock.now().since(began).as_secs_f64();
    Ok(Outcome { summary, checked, wall_s })
}

/// The extension of the trace's file says its form.
fn traced(world: World, file: Option<&Path>, watch: &mut Watch) -> anyhow::Result<Summary> {
    let Some(path) = file else { return ended(world, &mut NoTrace, watch) };
    let write = || format!("write {}", path.display());
    let out = BufWriter::new(File::create(path).with_context(write)?);
    let (summary, written) = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => {
            let mut sink = Perfetto::new(out);
            (ended(world, &mut sink, watch), sink.finish())
        }
        Some("pcap") => {
            let mut sink = Pcap::new(out);
            (ended(world, &mut sink, watch), sink.finish())
        }
        Some(_) | None => {
            let mut sink = Ndjson::new(out);
            (ended(world, &mut sink, watch), sink.finish())
        }
    };
    written.with_context(write)?;
    summary
}

fn ended(mut world: World, sink: &mut dyn TraceSink, watch: &mut Watch) -> anyhow::Result<Summary> {
    world.run(sink, watch).map_err(|why| match why {
        RunError::Stopped { at_us } => {
            anyhow::anyhow!("stopped at {:.3} s of virtual time", at_us as f64 / 1e6)
        }
        RunError::Peer(why) => why.into(),
    })
}

/// This program, as the one that cleans up after a run that was killed.
fn janitor() -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(own);
    command.args(["sim", "janitor"]);
    Ok(command)
}

pub(super) fn beside(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Outcome {
    /// Whether every claim holds.
    pub(crate) fn holds(&self) -> bool {
        self.checked.iter().all(|checked| checked.holds)
    }

    /// Rounds, metrics, claims, hash.
    pub(crate) fn show(&self, verbose: bool) {
        let summary = &self.summary;
        let seconds = |us: u64| format!("{:.3} s", us as f64 / 1e6);
        if verbose || summary.rounds.len() <= 20 {
            let rows = summary.rounds.iter().map(|round| {
                let ended = round.end.as_ref();
                let outcome = ended.map_or("not ended".to_owned(), |end| match end.outcome {
                    RoundOutcome::Complete { version, total_samples } => {
                        format!("model {version} from {total_samples} samples")
                    }
                    RoundOutcome::Failed { reason } => format!("failed: {reason}"),
                });
                vec![
                    round.round.to_string(),
                    seconds(round.asked_us),
                    ended.map_or("-".to_owned(), |end| seconds(end.heard_us - round.asked_us)),
                    ended.map_or("-".to_owned(), |end| {
                        format!("{} of {}", end.num_updates, round.participants)
                    }),
                    outcome,
                ]
            });
            view::table(&["round", "asked at", "took", "updates", "outcome"], rows);
        }
        for name in ["accuracy", "test_loss", "loss"] {
            if let Some(last) = summary.metrics.get(name).and_then(|samples| samples.last()) {
                view::line(format!("{name:<10} {:.4}", last.value));
            }
        }
        for lost in &summary.lost_nodes {
            view::line(format!("lost on the way: {lost}"));
        }
        view::line(format!(
            "{} of {} rounds complete, {} events in {} virtual, {:.2} s of wall time\ntrace {}",
            summary.rounds_complete(),
            summary.rounds.len(),
            summary.events,
            seconds(summary.virtual_us),
            self.wall_s,
            summary.trace_sha256
        ));
        for checked in &self.checked {
            view::line(checked.to_string());
        }
    }
}
