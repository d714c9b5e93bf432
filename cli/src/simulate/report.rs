//! One run from its file to its verdict.

use std::{
    collections::BTreeMap,
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
    scenario::{Known, Loaded, Mistake},
    trace::{Ndjson, Pcap, Perfetto},
};
use proplet::executor::virtual_time::VirtualSettings;
use service::{Clock as _, SystemClock};
use sim::{
    Assertion, Checked, NoTrace, NodeSpec, RunError, Scenario, Setup, Summary, TraceSink, Workload,
    World,
};
use tokio_util::sync::CancellationToken;

use super::{
    Wishes, devices,
    guests::{self, FIDELITIES, Guests},
    paced::{Paced, Spread},
    stage::{self, Stage},
    watch::Watch,
    workers::Workers,
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
    /// How far the times of nodes are spread that ran in real time: two runs differ by that.
    pub(crate) paced: BTreeMap<String, Spread>,
}

/// A scenario that can be run, or all that is wrong with it.
#[derive(Debug)]
pub(crate) enum Judged {
    Fine(Box<Loaded>),
    Wrong { mistakes: Vec<Mistake>, missing: Vec<String> },
}

/// Reads a scenario, and looks for everything that is wrong with it.
pub(crate) fn judge(file: &Path) -> anyhow::Result<Judged> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let known = Known {
        classes: devices()?.into_keys().collect(),
        fidelities: FIDELITIES.map(str::to_owned).into(),
    };
    let loaded = match cosim::scenario::read(&text, &known) {
        Ok(loaded) => loaded,
        Err(mistakes) => return Ok(Judged::Wrong { mistakes, missing: vec![] }),
    };
    let dir = beside(file);
    let mut missing = harness::missing_files(&loaded.scenario, dir);
    missing.extend(stage::missing_images(&loaded.scenario, dir));
    let absent = loaded.files.iter().filter(|(_, path)| !dir.join(path).exists());
    missing.extend(absent.map(|(what, path)| format!("{what}: {path} is not there")));
    if missing.is_empty() {
        Ok(Judged::Fine(Box::new(loaded)))
    } else {
        Ok(Judged::Wrong { mistakes: vec![], missing })
    }
}

/// Reads a scenario; says everything that is wrong with it.
pub(super) fn check(file: &Path) -> anyhow::Result<Scenario> {
    match judge(file)? {
        Judged::Fine(loaded) => {
            for note in &loaded.notes {
                view::aside(format!("{}: {note}", file.display()));
            }
            Ok(loaded.scenario)
        }
        Judged::Wrong { mistakes, missing } => Err(wrong(file, &mistakes, &missing)),
    }
}

/// Says all of it, and sums it up.
pub(crate) fn wrong(file: &Path, mistakes: &[Mistake], missing: &[String]) -> anyhow::Error {
    let file = file.display();
    for mistake in mistakes {
        view::aside(format!("{file}:{mistake}"));
    }
    for what in missing {
        view::aside(format!("{file}: {what}"));
    }
    match missing.len() {
        0 => anyhow::anyhow!("{file}: {} to mend", mistakes.len()),
        count => anyhow::anyhow!("{file}: {count} files are missing"),
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
    let state = PathBuf::from(".aileron/sim");
    let Stage { data, images, model0, judge } = stage::set(scenario, dir)?;
    let named = |wanted: fn(&str) -> bool| -> Vec<String> {
        let asks = |node: &&NodeSpec| node.fidelity.as_deref().is_some_and(wanted);
        scenario.nodes.iter().filter(asks).flat_map(NodeSpec::names).collect()
    };
    let paced = named(guests::is_paced);
    // What is started, and what is written for it, is gone with this, whatever the way out.
    let outside = (harness::has_outside(scenario) || !paced.is_empty())
        .then(|| Run::start(janitor()?).map_err(anyhow::Error::from));
    let outside = outside.transpose()?;
    let settings = VirtualSettings::below(&state);
    let sets = data.iter().map(|(node, data)| (node.clone(), data.set.clone())).collect();
    let real = !named(guests::is_guest).is_empty();
    let mut guests = Guests::new(real.then_some(&settings), sets, images)?;
    // Also when a program is lost without which the run must not go on.
    let stop = stop.child_token();
    let mut peers = BTreeMap::new();
    if let Some(run) = &outside {
        peers = harness::peers(scenario, dir, run)?;
        let workers = harness::workers(scenario, dir, run)?;
        guests.workers = Workers::new(scenario, workers, stop.clone());
        if !paced.is_empty() {
            let places = (run.dir(), state.as_path());
            guests.paced = Some(Paced::new(&paced, &data, places, stop.clone())?);
        }
    }
    let guests = Arc::new(guests);
    let workload: Arc<dyn Workload> = guests.clone();
    let setup = Setup { workload, peers, model0, classes: devices()?, judge };
    let world = World::new(scenario, setup)?;
    let mut watch = Watch::new(scenario.simulation.until.micros(), wishes.pace, stop);
    let ran = traced(world, wishes.trace.as_deref(), &mut watch);
    watch.finish();
    let lost = guests.workers.lost()?;
    let mut summary = ran?;
    summary.lost_nodes.extend(lost);
    let paced = guests.paced.as_ref().map(Paced::spreads).unwrap_or_default();
    drop((guests, outside));
    if let Some(path) = &wishes.plot {
        let drawn = plot::svg(&scenario.name, &summary, &["accuracy", "loss", "test_loss"]);
        let drawn = drawn.context("the run has no metric to plot")?;
        fs::write(path, drawn).with_context(|| format!("write {}", path.display()))?;
    }
    let claims = scenario.assertions.iter().map(|text| text.parse::<Assertion>());
    let claims: Vec<Assertion> = claims.collect::<Result<_, _>>()?;
    let checked = claims.iter().map(|claim| claim.check(&summary)).collect();
    let wall_s = SystemClock.now().since(began).as_secs_f64();
    Ok(Outcome { summary, checked, wall_s, paced })
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
