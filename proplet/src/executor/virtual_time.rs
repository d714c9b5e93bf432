//! Runs guests in virtual time: their clocks advance with their own fuel and their sleeps, and
//! nothing they can see comes from the host.
//!
//! A guest runs to its end in one go on the thread that calls [`VirtualWasm::run`]; a sleep takes no
//! time there. The same job gives the same outcome to the last byte, on any thread, at any time. A
//! guest cannot tell this from the live executor: it has the same arguments, environment, paths,
//! limits and ends.

mod calibrate;
mod clock;
mod data;
mod dice;
mod files;
mod memo;
mod preview1;
mod preview2;
mod volume;
mod world;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use wasmtime::{Config, Engine, InstancePre, Linker, Store, Trap, Val, component};
use wasmtime_wasi::{I32Exit, p2::bindings::CommandPre};

use self::{clock::TimeIsOver, preview2::Host, world::World};
use super::{
    Ahead, ENV_INPUTS, Failure, Limits, Origin, Output, Program, Variates,
    wasm::{
        ends::{self, Ended},
        inputs::{self, Number},
        program::{self, Code, INITIALIZE, RUN},
        programs::{Programs, Shelf},
    },
};

pub use self::{
    calibrate::Calibration,
    clock::{Activity, FuelRate, Span},
    data::{DataError, DataSet},
    memo::Memo,
};

/// What virtual time needs to know once.
#[derive(Clone, Debug)]
pub struct VirtualSettings {
    /// Where compiled programs are kept, as [`super::Settings::cache_dir`]; the two may be one, as
    /// the files of each engine bear its mark.
    pub cache_dir: PathBuf,
    /// How much may be kept there; the oldest go first.
    pub cache_bytes_max: u64,
    /// How many compiled programs are kept ready in memory.
    pub programs_ready_max: usize,
    /// How deep a guest may recurse. The threads that run guests need this much, and 1 MiB more.
    pub stack_bytes_max: usize,
    /// What becomes of the bits of a NaN.
    pub nans: Nans,
}

/// What becomes of the bits of a NaN, which the machine's processor may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nans {
    /// As the processor makes them: the same on processors of one kind.
    Native,
    /// Always the same bits, on every kind of processor; twice as slow or more.
    Canonical,
}

impl VirtualSettings {
    /// Settings with everything as [`super::Settings::below`] has it.
    pub fn below(state_dir: &std::path::Path) -> Self {
        let super::Settings {
            cache_dir, cache_bytes_max, programs_ready_max, stack_bytes_max, ..
        } = super::Settings::below(state_dir);
        let nans = Nans::Native;
        Self { cache_dir, cache_bytes_max, programs_ready_max, stack_bytes_max, nans }
    }
}

/// One run of a program in virtual time.
#[derive(Clone, Debug)]
pub struct VirtualJob {
    /// The program's name on its command line, and who its lines in the log are from.
    pub label: String,
    /// What to run.
    pub program: Program,
    /// What follows the program's name on its command line.
    pub args: Vec<String>,
    /// The guest's whole environment, to which the paths are added.
    pub env: BTreeMap<String, String>,
    /// The base model.
    pub model: Option<Bytes>,
    /// With these, the guest may leave a state.
    pub variates: Option<Variates>,
    /// The device's own data.
    pub data: Option<DataSet>,
    /// When it starts, in microseconds since 1970, by its own clock.
    pub start_us: u64,
    /// What its random numbers come from.
    pub seed: u64,
    /// How fast the device is with this program.
    pub rate: FuelRate,
    /// The owner's limits; the wall time in them is the guest's own.
    pub limits: Limits,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct VirtualOutcome {
    /// What the guest made, or why it did not.
    pub end: Result<Output, Failure>,
    /// Fuel used.
    pub fuel: u64,
    /// Time from the guest's start to its end, by its own clock.
    pub virtual_us: u64,
    /// What it did in that time, in order and without gaps.
    pub timeline: Vec<Span>,
    /// The most memory it had at once.
    pub memory_bytes_peak: u64,
    /// The last of what the guest wrote to standard error.
    pub stderr_tail: String,
}

/// Runs guests in virtual time, from as many threads as there are.
pub struct VirtualWasm {
    programs: Programs<Ready>,
    module: Linker<World>,
    component: component::Linker<Host>,
}

/// A program joined to the host.
enum Ready {
    Module { pre: InstancePre<World>, entry: &'static str, params: Vec<Number> },
    Component(CommandPre<Host>),
}

impl fmt::Debug for VirtualWasm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualWasm").field("engine", &self.engine_mark()).finish_non_exhaustive()
    }
}

impl VirtualWasm {
    /// An engine with these settings.
    pub fn new(settings: &VirtualSettings) -> Result<Self, Failure> {
        let shelf = Shelf {
            dir: &settings.cache_dir,
            bytes_max: settings.cache_bytes_max,
            ready_max: settings.programs_ready_max,
        };
        let programs = Programs::new(&config(settings), shelf, Ahead::default())?;
        let failed = |error: wasmtime::Error| Failure::host("set up WebAssembly", error);
        let module = preview1::linker(programs.engine()).map_err(failed)?;
        let component = preview2::linker(programs.engine()).map_err(failed)?;
        Ok(Self { programs, module, component })
    }

    /// A word for the engine's version and configuration: where it differs, fuel may differ.
    pub fn engine_mark(&self) -> &str {
        self.programs.mark()
    }

    /// Makes a program ready, so that no run has to wait for the compiler.
    pub fn prepare(&self, program: &Program) -> Result<Origin, Failure> {
        self.ready(program).map(|(_, origin)| origin)
    }

    /// Runs the job to its end. The same job has the same outcome.
    pub fn run(&self, job: &VirtualJob) -> VirtualOutcome {
        let outcome = self
            .ready(&job.program)
            .and_then(|(ready, _)| run_ready(self.programs.engine(), &ready, job));
        outcome.unwrap_or_else(|failure| VirtualOutcome {
            end: Err(failure),
            fuel: 0,
            virtual_us: 0,
            timeline: Vec::new(),
            memory_bytes_peak: 0,
            stderr_tail: String::new(),
        })
    }

    fn ready(&self, program: &Program) -> Result<(Arc<Ready>, Origin), Failure> {
        // Nobody calls a run off.
        let never = CancellationToken::new();
        self.programs.prepare(program, &never, |code| match code {
            Code::Module(module) => {
                let (entry, params) = program::way_in(module)?;
                let pre = self.module.instantiate_pre(module);
                let pre = pre.map_err(|error| program::missing(&error))?;
                Ok(Ready::Module { pre, entry, params })
            }
            Code::Component(component) => {
                let pre = self.component.instantiate_pre(component);
                let pre = pre.map_err(|error| program::missing(&error))?;
                let pre = CommandPre::new(pre);
                let wanted = "wasi:cli/run";
                pre.map(Ready::Component).map_err(|_| Failure::MissingExport { wanted })
            }
        })
    }
}

/// Starts the program in a fresh store, and runs it to its end.
fn run_ready(engine: &Engine, ready: &Ready, job: &VirtualJob) -> Result<VirtualOutcome, Failure> {
    let world = World::new(job)?;
    let fuel = world.clock.left();
    match ready {
        Ready::Module { pre, entry, params } => {
            let args = inputs::arguments(params, job.env.get(ENV_INPUTS).map(String::as_str))?;
            let mut store = Store::new(engine, world);
            store.limiter(|world| &mut world.budget);
            let ended = store.set_fuel(fuel).and_then(|()| call(&mut store, pre, entry, &args));
            let left = store.get_fuel().unwrap_or_default();
            Ok(outcome(ended, left, store.into_data(), &job.limits))
        }
        Ready::Component(pre) => {
            let mut store = Store::new(engine, Host::new(world));
            store.limiter(|host| &mut host.world.budget);
            let ended = store.set_fuel(fuel).and_then(|()| call_command(&mut store, pre));
            let left = store.get_fuel().unwrap_or_default();
            Ok(outcome(ended, left, store.into_data().world, &job.limits))
        }
    }
}

fn config(settings: &VirtualSettings) -> Config {
    let mut config = Config::new();
    config.consume_fuel(true);
    config.max_wasm_stack(settings.stack_bytes_max);
    config.async_stack_size(settings.stack_bytes_max + (1 << 20));
    config.relaxed_simd_deterministic(true);
    config.cranelift_nan_canonicalization(settings.nans == Nans::Canonical);
    config
}

fn call(
    store: &mut Store<World>,
    pre: &InstancePre<World>,
    entry: &str,
    args: &[Val],
) -> wasmtime::Result<()> {
    let instance = pre.instantiate(&mut *store)?;
    let function = instance
        .get_func(&mut *store, entry)
        .ok_or_else(|| wasmtime::format_err!("{entry} vanished"))?;
    if entry == RUN
        && let Ok(first) = instance.get_typed_func::<(), ()>(&mut *store, INITIALIZE)
    {
        first.call(&mut *store, ())?;
    }
    let results = function.ty(&*store).results().len();
    let mut results = vec![Val::I32(0); results];
    function.call(store, args, &mut results)
}

fn call_command(store: &mut Store<Host>, pre: &CommandPre<Host>) -> wasmtime::Result<()> {
    let call = pin!(async {
        let command = pre.instantiate_async(&mut *store).await?;
        command.wasi_cli_run().call_run(store).await
    });
    // The guest waits inside of its calls to the host; the future itself has nothing to wait for.
    match call.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(end) => end?.map_err(|()| I32Exit(1).into()),
        Poll::Pending => Err(wasmtime::format_err!("the guest waits for the host")),
    }
}

/// Judges the end of a guest as the live executor does, with its own clock for the wall's.
fn outcome(
    ended: wasmtime::Result<()>,
    fuel_left: u64,
    mut world: World,
    limits: &Limits,
) -> VirtualOutcome {
    world.clock.see(fuel_left);
    let end = judge(ended, &world, limits).and_then(|()| {
        let update_file = world.files.lock().take_update()?;
        let state = world.files.lock().take_state(limits.state_bytes_max)?;
        let stdout = world.stdout.lock().take();
        Ok(Output { stdout, update_file, update_left: None, state })
    });
    VirtualOutcome {
        end,
        fuel: world.clock.used(),
        virtual_us: world.clock.elapsed_ns() / 1_000,
        timeline: world.clock.timeline(),
        memory_bytes_peak: world.budget.bytes_peak(),
        stderr_tail: world.log.lock().finish(),
    }
}

fn judge(ended: wasmtime::Result<()>, world: &World, limits: &Limits) -> Result<(), Failure> {
    let time_is_over = match &ended {
        Ok(()) => false,
        Err(error) => error.downcast_ref::<TimeIsOver>().is_some(),
    };
    let out_of_fuel = match &ended {
        Ok(()) => false,
        Err(error) => matches!(error.downcast_ref::<Trap>(), Some(Trap::OutOfFuel)),
    };
    let ended = match ended {
        _ if time_is_over => Ended::Timeout,
        Err(_) if world.files.lock().over_quota() => {
            let limit_bytes = limits.update_bytes_max;
            let kind = super::OutputKind::Files;
            Ended::Quota(Failure::OutputTooLarge { kind, limit_bytes })
        }
        Err(_) if out_of_fuel => Ended::Quota(world.clock.exhausted()),
        ended => Ended::Itself(ended),
    };
    let stdout = world.stdout.lock();
    ends::judge(ended, limits, &stdout, world.budget.refused())
}
