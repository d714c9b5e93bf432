//! Runs WebAssembly modules (WASI p1) and components (WASI p2) in wasmtime.
//!
//! A guest runs on a blocking thread of its own, inside a future: every few milliseconds it yields,
//! and the supervisor looks at the clock, at the cancellation and at what the guest has written. A
//! guest that sleeps in the host is stopped in the same way.

pub(super) mod ahead;
mod disk;
pub(super) mod ends;
pub(super) mod guest;
#[cfg(feature = "compiler")]
mod heap;
pub(super) mod inputs;
#[cfg(feature = "compiler")]
pub(super) mod inspect;
pub(super) mod program;
pub(super) mod programs;
pub(super) mod runtime;
pub(super) mod stdio;
mod ticker;
mod turn;

use std::{
    cell::Cell,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{runtime::Handle, task, time};
use tokio_util::sync::CancellationToken;

use self::{
    ends::Ended,
    runtime::{Metering, Runtime},
    stdio::{Capture, Log, Shared},
};
use super::{
    ENV_INPUTS, Executor, Failure, Job, Metrics, Outcome, Output, Run, Settings, cpu, sandbox,
    sandbox::Sandbox, stopwatch::Stopwatch,
};

/// How often the guest's files are measured.
const QUOTA_CHECK: Duration = Duration::from_millis(20);

pub(super) fn build(settings: &Settings) -> Arc<dyn Executor> {
    sandbox::clear(&settings.scratch_dir);
    Arc::new(Wasm(Arc::new(Inner {
        settings: settings.clone(),
        plain: OnceLock::new(),
        metered: OnceLock::new(),
    })))
}

#[derive(Debug)]
struct Wasm(Arc<Inner>);

/// Engines are made at the first job that needs them: an idle device has none in memory.
struct Inner {
    settings: Settings,
    plain: OnceLock<Result<Runtime, Failure>>,
    metered: OnceLock<Result<Runtime, Failure>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Executor for Wasm {
    fn name(&self) -> &'static str {
        "wasm"
    }

    fn run(&self, job: Job) -> Run {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let stop = job.cancel.child_token();
            let _stop_when_dropped = stop.clone().drop_guard();
            let handle = Handle::current();
            let run = task::spawn_blocking(move || inner.run(&job, &stop, &handle));
            run.await.unwrap_or_else(|error| Outcome {
                end: Err(Failure::host("run the guest", error)),
                metrics: Metrics::default(),
                stderr_tail: String::new(),
            })
        })
    }
}

impl Inner {
    fn run(&self, job: &Job, stop: &CancellationToken, handle: &Handle) -> Outcome {
        let mut metrics = Metrics::default();
        let log = Shared::new(Log::new(job.label.clone(), job.limits.stderr_bytes_max));
        let end = self.try_run(job, stop, handle, (&mut metrics, &log));
        Outcome { end, metrics, stderr_tail: log.lock().finish() }
    }

    fn try_run(
        &self,
        job: &Job,
        stop: &CancellationToken,
        handle: &Handle,
        (metrics, log): (&mut Metrics, &Shared<Log>),
    ) -> Result<Output, Failure> {
        let runtime = self.runtime(job.limits.fuel_max)?;
        let sandbox =
            Sandbox::stage(&self.settings.scratch_dir, job.model.as_ref(), job.variates.as_ref())?;
        let _entered = handle.enter();

        let preparing = Stopwatch::start();
        let (ready, origin) = runtime.prepare(&job.program, stop)?;
        metrics.prepare_us = preparing.elapsed_us();
        metrics.origin = Some(origin);

        let args = ready.arguments(job.env.get(ENV_INPUTS).map(String::as_str))?;
        let starting = Stopwatch::start();
        let cpu_before = cpu::thread_us();
        let stdout = Shared::new(Capture::new(job.limits.stdout_bytes_max));
        let stdio = (stdout.clone(), log.clone());
        let mut store = guest::store(runtime.engine(), job, &sandbox, stdio)?;
        let _ticking = runtime.ticker.guest_runs();
        let start_us = Cell::new(0);
        let call = ready.run(&mut store, &args, || start_us.set(starting.elapsed_us()));
        let ended = handle.block_on(supervise(call, job, stop, &sandbox));

        metrics.start_us = start_us.get();
        metrics.wall_us = starting.elapsed_us();
        let cpu_used = |before| Some(cpu::thread_us()?.saturating_sub(before));
        metrics.cpu_us = cpu_before.and_then(cpu_used).unwrap_or_default();
        metrics.memory_bytes_peak = store.data().budget.bytes_peak();
        metrics.fuel_used = job.limits.fuel_max.and_then(|max| Some(max - store.get_fuel().ok()?));
        let refused = store.data().budget.refused();
        drop(store);

        let mut stdout = stdout.lock();
        ends::judge(ended, &job.limits, &stdout, refused)?;
        sandbox.check_quota(job.limits.update_bytes_max)?;
        let inline_max = self.settings.update_inline_bytes_max;
        let left = sandbox.take_update(job.limits.update_bytes_max, inline_max)?;
        let state = sandbox.take_state(job.limits.state_bytes_max)?;
        Ok(Output { stdout: stdout.take(), state, ..left })
    }

    fn runtime(&self, fuel_max: Option<u64>) -> Result<&Runtime, Failure> {
        let (slot, metering) = match fuel_max {
            None => (&self.plain, Metering::Off),
            Some(_) => (&self.metered, Metering::Fuel),
        };
        slot.get_or_init(|| Runtime::new(&self.settings, metering)).as_ref().map_err(Clone::clone)
    }
}

/// Lets the guest run until it ends or has to.
async fn supervise(
    call: impl Future<Output = wasmtime::Result<()>>,
    job: &Job,
    stop: &CancellationToken,
    sandbox: &Sandbox,
) -> Ended {
    let mut call = std::pin::pin!(call);
    let mut too_late = std::pin::pin!(time::sleep(job.limits.wall_max));
    let mut quota = time::interval(QUOTA_CHECK);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ended::Cancelled,
            end = &mut call => return Ended::Itself(end),
            () = &mut too_late => return Ended::Timeout,
            _ = quota.tick() => {
                if let Err(failure) = sandbox.check_quota(job.limits.update_bytes_max) {
                    return Ended::Quota(failure);
                }
            }
        }
    }
}
