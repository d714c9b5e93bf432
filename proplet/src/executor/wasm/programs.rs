//! The programs an engine has compiled: ready in memory, or on disk from an earlier process.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::Digest;
use tokio_util::sync::CancellationToken;
use wasmtime::{Config, Engine};

use super::{
    super::{Failure, Origin, Program},
    ahead::{self, Ahead},
    disk::Disk,
    program::{Code, Kind},
    turn::{self, Turn},
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
    ahead: Ahead,
    // Jobs come from several threads; held for a look-up only.
    ready: Mutex<Recent<R>>,
    // Of each program that is being made ready, held by whoever does: that many jobs want it makes
    // it no more work, and one that another process is about to make holds up no other.
    under_way: Mutex<BTreeMap<Digest, Arc<Mutex<()>>>>,
    // Held while compiling, which takes all of a small device.
    compiling: Mutex<()>,
}

impl<R> Programs<R> {
    pub(in crate::executor) fn new(
        config: &Config,
        shelf: Shelf<'_>,
        ahead: Ahead,
    ) -> Result<Self, Failure> {
        let engine =
            Engine::new(config).map_err(|error| Failure::host("set up WebAssembly", error))?;
        let mark = mark_of(&engine);
        Ok(Self {
            disk: Disk::new(shelf.dir, shelf.bytes_max, mark.clone()),
            ahead,
            ready: Mutex::new(Recent::new(shelf.ready_max)),
            under_way: Mutex::default(),
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

    /// The program, ready to start, and where it came from. Whoever has to wait for others hears
    /// `stop`.
    pub(in crate::executor) fn prepare(
        &self,
        program: &Program,
        stop: &CancellationToken,
        link: impl FnOnce(&Code) -> Result<R, Failure>,
    ) -> Result<(Arc<R>, Origin), Failure> {
        let digest = program.digest();
        if let Some(ready) = self.ready().get(digest) {
            return Ok((ready, Origin::Memory));
        }
        let form = Form::of(program)?;
        let own = Arc::clone(lock(&self.under_way).entry(digest).or_default());
        let made = self.make(program, form, (&own, stop), link);
        let mut under_way = lock(&self.under_way);
        drop(own);
        // Whoever else holds it is about to make it, or waits for that.
        if under_way.get(&digest).is_some_and(|own| Arc::strong_count(own) == 1) {
            under_way.remove(&digest);
        }
        made
    }

    fn make(
        &self,
        program: &Program,
        form: Form,
        (own, stop): (&Mutex<()>, &CancellationToken),
        link: impl FnOnce(&Code) -> Result<R, Failure>,
    ) -> Result<(Arc<R>, Origin), Failure> {
        let digest = program.digest();
        let _one_at_a_time = turn::take_unless(own, stop).ok_or(Failure::Cancelled)?;
        if let Some(ready) = self.ready().get(digest) {
            return Ok((ready, Origin::Memory));
        }
        let (code, origin) = self.code(program, form, stop)?;
        let ready = Arc::new(link(&code)?);
        self.ready().put(digest, &ready);
        Ok((ready, origin))
    }

    fn code(
        &self,
        program: &Program,
        form: Form,
        stop: &CancellationToken,
    ) -> Result<(Code, Origin), Failure> {
        let digest = program.digest();
        let kind = match form {
            Form::Compiled(kind) => {
                let code = self.ahead.allowed(&self.engine, kind, program)?;
                return Ok((code, Origin::Ahead));
            }
            Form::Wasm(kind) => kind,
        };
        match self.ahead.find(&self.engine, kind, digest) {
            Ok(Some(code)) => return Ok((code, Origin::Ahead)),
            Ok(None) => {}
            Err(why) if cfg!(feature = "compiler") => {
                tracing::warn!(program = %digest, "{why}; compiling it here");
            }
            Err(why) => return Err(why),
        }
        self.load_or_compile(program, kind, stop)
    }

    fn load_or_compile(
        &self,
        program: &Program,
        kind: Kind,
        stop: &CancellationToken,
    ) -> Result<(Code, Origin), Failure> {
        let digest = program.digest();
        let _turn = match self.disk.find_or_turn(digest, stop) {
            Turn::Made(path) => match Code::load(&self.engine, kind, &path) {
                Ok(code) => return Ok((code, Origin::Disk)),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a compiled program does not load");
                    self.disk.forget(&path);
                    None
                }
            },
            Turn::Ours(turn) => turn,
            Turn::Cancelled => return Err(Failure::Cancelled),
        };
        let _one_at_a_time = lock(&self.compiling);
        let code = compile(&self.engine, kind, program)?;
        self.keep(digest, &code);
        Ok((code, Origin::Compiled))
    }

    /// Without the file the next process compiles again: slower, and not a failure of this job.
    #[cfg(feature = "compiler")]
    fn keep(&self, digest: Digest, code: &Code) {
        let kept = code
            .serialize()
            .map_err(|error| error.to_string())
            .and_then(|bytes| self.disk.keep(digest, &bytes).map_err(|error| error.to_string()));
        if let Err(error) = kept {
            tracing::warn!(program = %digest, error, "the compiled program cannot be kept on disk");
        }
        super::heap::give_back();
    }

    #[cfg(not(feature = "compiler"))]
    fn keep(&self, _: Digest, _: &Code) {}

    fn ready(&self) -> MutexGuard<'_, Recent<R>> {
        lock(&self.ready)
    }
}

#[cfg(feature = "compiler")]
fn mark_of(engine: &Engine) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Nothing is compiled here, so there is nothing to tell apart.
#[cfg(not(feature = "compiler"))]
fn mark_of(_: &Engine) -> String {
    "ahead".to_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program as it was fetched.
#[derive(Clone, Copy, Debug)]
enum Form {
    Wasm(Kind),
    Compiled(Kind),
}

impl Form {
    fn of(program: &Program) -> Result<Self, Failure> {
        match ahead::kind(program.bytes()) {
            Some(kind) => Ok(Self::Compiled(kind)),
            None => Kind::of(program).map(Self::Wasm),
        }
    }
}

#[cfg(feature = "compiler")]
fn compile(engine: &Engine, kind: Kind, program: &Program) -> Result<Code, Failure> {
    Code::compile(engine, kind, program.bytes())
}

#[cfg(not(feature = "compiler"))]
fn compile(_: &Engine, _: Kind, program: &Program) -> Result<Code, Failure> {
    let target = ahead::Target::HERE.map_or("TARGET", ahead::Target::name);
    Err(Failure::NoCompiler { program: program.digest(), target })
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

#[cfg(all(test, feature = "compiler"))]
mod tests {
    use std::{fs::File, thread};

    use super::{
        super::runtime::{Metering, config},
        *,
    };

    /// A module that says nothing but its name.
    fn module(name: u8) -> Program {
        Program::new([b"\0asm\x01\0\0\0", &[0, 2, 1, name][..]].concat())
    }

    #[test]
    fn a_program_that_another_process_compiles_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf { dir: dir.path(), bytes_max: 1 << 30, ready_max: 8 };
        let config = config(1 << 20, Metering::Off);
        let programs = Programs::<()>::new(&config, shelf, Ahead::default()).unwrap();
        let (theirs, ours) = (module(b'a'), module(b'b'));
        let name = format!("{}-{}.cwasm.lock", theirs.digest(), programs.mark());
        let lock = File::create(dir.path().join(name)).unwrap();
        lock.lock().unwrap();
        let stop = CancellationToken::new();
        let prepare = |program: &Program, stop: &CancellationToken| {
            programs.prepare(program, stop, |_| Ok(())).map(|(_, origin)| origin)
        };
        thread::scope(|scope| {
            let waiting = scope.spawn(|| prepare(&theirs, &stop));
            while programs.under_way.lock().unwrap().is_empty() {
                thread::yield_now();
            }
            let never = CancellationToken::new();
            assert!(matches!(prepare(&ours, &never), Ok(Origin::Compiled)));
            assert!(!waiting.is_finished());
            stop.cancel();
            assert!(matches!(waiting.join().unwrap(), Err(Failure::Cancelled)));
        });
        assert!(programs.under_way.lock().unwrap().is_empty(), "nothing is left over");
    }
}
