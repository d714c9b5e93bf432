//! One engine with what belongs to it: what guests are linked to, the programs it has compiled, and
//! its ticker.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::Digest;
use wasmtime::{Config, Engine};

use super::{
    super::{Failure, Origin, Program, Settings},
    disk::Disk,
    program::{Code, Kind, Linkers, Ready},
    ticker::Ticker,
};

/// Whether instructions are counted, which is decided when code is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metering {
    Off,
    Fuel,
}

/// An engine and its programs.
pub(super) struct Runtime {
    pub(super) engine: Engine,
    pub(super) ticker: Ticker,
    linkers: Linkers,
    disk: Disk,
    // Jobs come from several threads; held for a look-up only.
    ready: Mutex<Recent>,
    // Held while compiling, so that a program many jobs want is compiled once.
    compiling: Mutex<()>,
}

impl Runtime {
    pub(super) fn new(settings: &Settings, metering: Metering) -> Result<Self, Failure> {
        let failed = |error: wasmtime::Error| Failure::host("set up WebAssembly", error);
        let engine = Engine::new(&config(settings, metering)).map_err(failed)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let mark = format!("{:016x}", hasher.finish());
        Ok(Self {
            ticker: Ticker::new(engine.clone())
                .map_err(|error| Failure::host("start a thread", error))?,
            linkers: Linkers::new(&engine).map_err(failed)?,
            disk: Disk::new(&settings.cache_dir, settings.cache_bytes_max, mark),
            ready: Mutex::new(Recent::new(settings.programs_ready_max)),
            compiling: Mutex::new(()),
            engine,
        })
    }

    /// The program, ready to start, and where it came from.
    pub(super) fn prepare(&self, program: &Program) -> Result<(Arc<Ready>, Origin), Failure> {
        let digest = program.digest();
        if let Some(ready) = self.ready().get(digest) {
            return Ok((ready, Origin::Memory));
        }
        let kind = Kind::of(program)?;
        let _one_at_a_time = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = self.ready().get(digest) {
            return Ok((ready, Origin::Memory));
        }
        let (code, origin) = match self.load(digest, kind) {
            Some(code) => (code, Origin::Disk),
            None => (Code::compile(&self.engine, kind, program.bytes())?, Origin::Compiled),
        };
        let ready = Arc::new(self.linkers.link(&code)?);
        if origin == Origin::Compiled {
            self.keep(digest, &code);
        }
        self.ready().put(digest, &ready);
        Ok((ready, origin))
    }

    fn load(&self, digest: Digest, kind: Kind) -> Option<Code> {
        let path = self.disk.find(digest)?;
        match Code::load(&self.engine, kind, &path) {
            Ok(code) => Some(code),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a compiled program does not load");
                self.disk.forget(&path);
                None
            }
        }
    }

    /// Without the file the next process compiles again: slower, and not a failure of this job.
    fn keep(&self, digest: Digest, code: &Code) {
        let kept = code
            .serialize()
            .map_err(|error| error.to_string())
            .and_then(|bytes| self.disk.keep(digest, &bytes).map_err(|error| error.to_string()));
        if let Err(error) = kept {
            tracing::warn!(program = %digest, error, "the compiled program cannot be kept on disk");
        }
    }

    fn ready(&self) -> MutexGuard<'_, Recent> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn config(settings: &Settings, metering: Metering) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.consume_fuel(metering == Metering::Fuel);
    config.max_wasm_stack(settings.stack_bytes_max);
    // Room for the host's own functions, which run on the guest's stack.
    config.async_stack_size(settings.stack_bytes_max + (1 << 20));
    // The same last bit on every machine.
    config.relaxed_simd_deterministic(true);
    config
}

/// The programs used last.
struct Recent {
    max: usize,
    uses: u64,
    programs: BTreeMap<Digest, (u64, Arc<Ready>)>,
}

impl Recent {
    fn new(max: usize) -> Self {
        Self { max, uses: 0, programs: BTreeMap::new() }
    }

    fn get(&mut self, digest: Digest) -> Option<Arc<Ready>> {
        self.uses += 1;
        let (used, ready) = self.programs.get_mut(&digest)?;
        *used = self.uses;
        Some(Arc::clone(ready))
    }

    fn put(&mut self, digest: Digest, ready: &Arc<Ready>) {
        self.uses += 1;
        self.programs.insert(digest, (self.uses, Arc::clone(ready)));
        while self.programs.len() > self.max {
            let oldest = self.programs.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(digest, _)| *digest) else { return };
            self.programs.remove(&oldest);
        }
    }
}
