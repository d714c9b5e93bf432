//! The programs an engine has compiled: ready in memory, or on disk from an earlier process.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::Digest;
use wasmtime::{Config, Engine};

use super::{
    super::{Failure, Origin, Program},
    disk::Disk,
    heap,
    program::{Code, Kind},
    turn::Turn,
};

/// How much is kept, and where.
#[derive(Clone, Copy, Debug)]
pub(in crate::executor) struct Shelf<'a> {
    pub(in crate::executor) dir: &'a Path,
    pub(in crate::executor) bytes_max: u64,
    pub(in crate::executor) ready_max: usize,
}

/// An engine and its programs, each joined to the host as an `R`.
pub(in crate::executor) struct Programs<R> {
    engine: Engine,
    mark: String,
    disk: Disk,
    // Jobs come from several threads; held for a look-up only.
    ready: Mutex<Recent<R>>,
    // Held while compiling, so that a program many jobs want is compiled once.
    compiling: Mutex<()>,
}

impl<R> Programs<R> {
    pub(in crate::executor) fn new(config: &Config, shelf: Shelf<'_>) -> Result<Self, Failure> {
        let engine =
            Engine::new(config).map_err(|error| Failure::host("set up WebAssembly", error))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let mark = format!("{:016x}", hasher.finish());
        Ok(Self {
            disk: Disk::new(shelf.dir, shelf.bytes_max, mark.clone()),
            ready: Mutex::new(Recent::new(shelf.ready_max)),
            compiling: Mutex::new(()),
            engine,
            mark,
        })
    }

    pub(in crate::executor) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Tells engines apart whose code is not the same: by version, configuration and machine.
    pub(in crate::executor) fn mark(&self) -> &str {
        &self.mark
    }

    /// The program, ready to start, and where it came from.
    pub(in crate::executor) fn prepare(
        &self,
        program: &Program,
        link: impl FnOnce(&Code) -> Result<R, Failure>,
    ) -> Result<(Arc<R>, Origin), Failure> {
        let digest = program.digest();
        if let Some(ready) = self.ready().get(digest) {
            return Ok((ready, Origin::Memory));
        }
        let kind = Kind::of(program)?;
        let _one_at_a_time = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = self.ready().get(digest) {
            return Ok((ready, Origin::Memory));
        }
        let (code, origin) = self.load_or_compile(program, kind)?;
        let ready = Arc::new(link(&code)?);
        self.ready().put(digest, &ready);
        Ok((ready, origin))
    }

    fn load_or_compile(&self, program: &Program, kind: Kind) -> Result<(Code, Origin), Failure> {
        let digest = program.digest();
        let _turn = match self.disk.find_or_turn(digest) {
            Turn::Made(path) => match Code::load(&self.engine, kind, &path) {
                Ok(code) => return Ok((code, Origin::Disk)),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a compiled program does not load");
                    self.disk.forget(&path);
                    None
                }
            },
            Turn::Ours(turn) => turn,
        };
        let code = Code::compile(&self.engine, kind, program.bytes())?;
        self.keep(digest, &code);
        heap::give_back();
        Ok((code, Origin::Compiled))
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

    fn ready(&self) -> MutexGuard<'_, Recent<R>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The programs used last.
struct Recent<R> {
    max: usize,
    uses: u64,
    programs: BTreeMap<Digest, (u64, Arc<R>)>,
}

impl<R> Recent<R> {
    fn new(max: usize) -> Self {
        Self { max, uses: 0, programs: BTreeMap::new() }
    }

    fn get(&mut self, digest: Digest) -> Option<Arc<R>> {
        self.uses += 1;
        let (used, ready) = self.programs.get_mut(&digest)?;
        *used = self.uses;
        Some(Arc::clone(ready))
    }

    fn put(&mut self, digest: Digest, ready: &Arc<R>) {
        self.uses += 1;
        self.programs.insert(digest, (self.uses, Arc::clone(ready)));
        while self.programs.len() > self.max {
            let oldest = self.programs.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(digest, _)| *digest) else { return };
            self.programs.remove(&oldest);
        }
    }
}
