//! What a guest has while it runs: its WASI world, and a budget of memory.

use std::path::Path;

use wasmtime::{Engine, ResourceLimiter, Store};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder, WasiCtxView, WasiView, p1::WasiP1Ctx};

use super::{
    super::{ENV_DATA_DIR, Failure, Job, PATHS, sandbox::Sandbox},
    stdio::{Capture, Log, Shared},
};

pub(in crate::executor) const GUEST_DATA: &str = "/data";
pub(in crate::executor) const GUEST_MODEL: &str = "/model";
pub(in crate::executor) const GUEST_OUT: &str = "/out";
/// A component is made of several instances with a table and a memory each; a bomb of thousands.
const INSTANCES_MAX: usize = 64;

/// The state of one run, inside the store.
pub(super) struct Guest {
    wasi: WasiP1Ctx,
    pub(super) budget: Budget,
}

impl Guest {
    /// The state as the functions of WASI p1 see it; those of p2 see [`WasiView`].
    pub(super) fn p1(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// Makes the store for one run, with all limits set.
pub(super) fn store(
    engine: &Engine,
    job: &Job,
    sandbox: &Sandbox,
    (stdout, log): (Shared<Capture>, Shared<Log>),
) -> Result<Store<Guest>, Failure> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.stdout(stdout).stderr(log).arg(&job.label).args(&job.args);
    wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
    for (name, value) in &job.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Failure::Environment { name: name.clone() });
        }
        if !PATHS.contains(&name.as_str()) {
            wasi.env(name, value);
        }
    }
    open_directories(&mut wasi, job, sandbox)?;
    let budget = Budget::new(job.limits.memory_bytes_max, job.limits.table_elements_max);
    let mut store = Store::new(engine, Guest { wasi: wasi.build_p1(), budget });
    store.limiter(|guest| &mut guest.budget);
    // Every tick of the engine the guest yields, and whoever supervises it decides.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    if let Some(fuel) = job.limits.fuel_max {
        store.set_fuel(fuel).map_err(|error| Failure::host("give the guest its fuel", error))?;
    }
    Ok(store)
}

fn open_directories(
    wasi: &mut WasiCtxBuilder,
    job: &Job,
    sandbox: &Sandbox,
) -> Result<(), Failure> {
    if let Some(path) = &job.data_dir {
        open(wasi, path, GUEST_DATA, FsPerms::ReadOnly)
            .map_err(|reason| Failure::DataDir { path: path.clone(), reason })?;
        wasi.env(ENV_DATA_DIR, GUEST_DATA);
    }
    let host = |reason| Failure::host("open a run's directory", reason);
    if let Some(dir) = sandbox.given() {
        open(wasi, &dir, GUEST_MODEL, FsPerms::ReadOnly).map_err(host)?;
        for (name, file) in sandbox.given_files() {
            wasi.env(name, format!("{GUEST_MODEL}/{file}"));
        }
    }
    open(wasi, &sandbox.out(), GUEST_OUT, FsPerms::ReadWrite).map_err(host)?;
    for (name, file) in sandbox.out_files() {
        wasi.env(name, format!("{GUEST_OUT}/{file}"));
    }
    Ok(())
}

fn open(wasi: &mut WasiCtxBuilder, host: &Path, guest: &str, perms: FsPerms) -> Result<(), String> {
    let opened = wasi.preopened_dir(host, guest, perms);
    opened.map(|_| ()).map_err(|error| error.root_cause().to_string())
}

/// Grants memory up to a limit, and remembers that it had to refuse.
#[derive(Debug)]
pub(in crate::executor) struct Budget {
    bytes_max: usize,
    bytes: usize,
    bytes_peak: usize,
    table_elements_max: usize,
    last_grant: usize,
    refused: bool,
}

impl Budget {
    pub(in crate::executor) fn new(bytes_max: usize, table_elements_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            bytes_peak: 0,
            table_elements_max,
            last_grant: 0,
            refused: false,
        }
    }

    /// The most bytes the guest had at once, over all its memories.
    pub(in crate::executor) fn bytes_peak(&self) -> u64 {
        self.bytes_peak as u64
    }

    /// Whether the guest wanted more than it could have.
    pub(in crate::executor) fn refused(&self) -> bool {
        self.refused
    }
}

impl ResourceLimiter for Budget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grant = desired.saturating_sub(current);
        self.last_grant = 0;
        if self.bytes.saturating_add(grant) > self.bytes_max {
            self.refused = true;
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.bytes += grant;
        self.bytes_peak = self.bytes_peak.max(self.bytes);
        self.last_grant = grant;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // The device itself has no more, or cannot give it.
        self.bytes -= std::mem::take(&mut self.last_grant);
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = desired <= self.table_elements_max;
        self.refused |= !granted;
        Ok(granted)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        INSTANCES_MAX
    }
}
