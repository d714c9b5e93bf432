//! From bytes to something that can be started: what kind of program it is, where it is entered,
//! and what it wants from the host.

use std::path::Path;

use wasmtime::{Engine, InstancePre, Linker, Module, UnknownImportError, Val, component};
use wasmtime_wasi::{I32Exit, p1, p2, p2::bindings::CommandPre};

use super::{
    super::{Failure, Program},
    guest::Guest,
    inputs::{self, Number},
};

const START: &str = "_start";
pub(in crate::executor) const RUN: &str = "run";
/// What a module without `_start` wants called first.
pub(in crate::executor) const INITIALIZE: &str = "_initialize";

/// The two kinds of WebAssembly program, told apart by their first eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) enum Kind {
    Module,
    Component,
}

impl Kind {
    pub(in crate::executor) fn of(program: &Program) -> Result<Self, Failure> {
        match program.bytes() {
            [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Self::Module),
            [0, b'a', b's', b'm', _, 0, 1, 0, ..] => Ok(Self::Component),
            other => Err(Failure::NotWasm {
                size: other.len(),
                start: other.iter().copied().take(8).collect(),
            }),
        }
    }
}

/// Machine code, not yet joined to the host.
pub(in crate::executor) enum Code {
    Module(Module),
    Component(component::Component),
}

impl Code {
    #[cfg(feature = "compiler")]
    pub(in crate::executor) fn compile(
        engine: &Engine,
        kind: Kind,
        bytes: &[u8],
    ) -> Result<Self, Failure> {
        let compiled = match kind {
            Kind::Module => Module::from_binary(engine, bytes).map(Self::Module),
            Kind::Component => {
                component::Component::from_binary(engine, bytes).map(Self::Component)
            }
        };
        compiled.map_err(|error| Failure::Compile { reason: error.root_cause().to_string() })
    }

    /// Maps machine code that lies in a file.
    #[expect(unsafe_code, reason = "machine code has to be mapped as such")]
    pub(in crate::executor) fn load(
        engine: &Engine,
        kind: Kind,
        path: &Path,
    ) -> wasmtime::Result<Self> {
        // SAFETY: the file lies in a directory that only we write to, or the owner of the device,
        // who trusts it; was written by an engine, which the engine checks against its own
        // configuration; and had the digest of what was written a moment ago.
        match kind {
            Kind::Module => unsafe { Module::deserialize_file(engine, path) }.map(Self::Module),
            Kind::Component => {
                unsafe { component::Component::deserialize_file(engine, path) }.map(Self::Component)
            }
        }
    }

    /// Takes machine code that lies in memory.
    #[expect(unsafe_code, reason = "machine code has to be mapped as such")]
    pub(in crate::executor) fn take(
        engine: &Engine,
        kind: Kind,
        bytes: &[u8],
    ) -> wasmtime::Result<Self> {
        // SAFETY: the owner of the device has named the digest of these bytes as that of code to
        // trust, and the engine checks that they were made for its own configuration.
        match kind {
            Kind::Module => unsafe { Module::deserialize(engine, bytes) }.map(Self::Module),
            Kind::Component => {
                unsafe { component::Component::deserialize(engine, bytes) }.map(Self::Component)
            }
        }
    }

    #[cfg(feature = "compiler")]
    pub(in crate::executor) fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        match self {
            Self::Module(module) => module.serialize(),
            Self::Component(component) => component.serialize(),
        }
    }
}

/// What the host offers to guests: WASI, and nothing else.
pub(super) struct Linkers {
    module: Linker<Guest>,
    component: component::Linker<Guest>,
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut module = Linker::new(engine);
        p1::add_to_linker_async(&mut module, Guest::p1)?;
        // As given, this function takes codes from 126 on for a fault of the host.
        module.allow_shadowing(true);
        module.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| {
            Err::<(), _>(I32Exit(code).into())
        })?;
        let mut component = component::Linker::new(engine);
        p2::add_to_linker_async(&mut component)?;
        Ok(Self { module, component })
    }

    /// Joins the code to the host, and finds where it is entered.
    pub(super) fn link(&self, code: &Code) -> Result<Ready, Failure> {
        match code {
            Code::Module(module) => {
                let (entry, params) = way_in(module)?;
                let pre = self.module.instantiate_pre(module).map_err(|error| missing(&error))?;
                Ok(Ready::Module { pre, entry, params })
            }
            Code::Component(component) => {
                let pre =
                    self.component.instantiate_pre(component).map_err(|error| missing(&error))?;
                let pre = CommandPre::new(pre)
                    .map_err(|_| Failure::MissingExport { wanted: "wasi:cli/run" })?;
                Ok(Ready::Component(pre))
            }
        }
    }
}

/// A program that can be started at once, again and again.
pub(super) enum Ready {
    Module { pre: InstancePre<Guest>, entry: &'static str, params: Vec<Number> },
    Component(CommandPre<Guest>),
}

impl Ready {
    /// What its entry is called with, out of the task's inputs.
    pub(super) fn arguments(&self, inputs: Option<&str>) -> Result<Vec<Val>, Failure> {
        match self {
            Self::Module { params, .. } => inputs::arguments(params, inputs),
            Self::Component(_) => Ok(vec![]),
        }
    }

    /// Starts the program in a fresh store and runs it to its end; `started` is called before the
    /// first instruction of its entry.
    pub(super) async fn run(
        &self,
        store: &mut wasmtime::Store<Guest>,
        args: &[Val],
        started: impl FnOnce(),
    ) -> wasmtime::Result<()> {
        match self {
            Self::Module { pre, entry, .. } => {
                let instance = pre.instantiate_async(&mut *store).await?;
                let function = instance
                    .get_func(&mut *store, entry)
                    .ok_or_else(|| wasmtime::format_err!("{entry} vanished"))?;
                if *entry == RUN
                    && let Ok(first) = instance.get_typed_func::<(), ()>(&mut *store, INITIALIZE)
                {
                    first.call_async(&mut *store, ()).await?;
                }
                let results = function.ty(&*store).results().len();
                let mut results = vec![Val::I32(0); results];
                started();
                function.call_async(store, args, &mut results).await
            }
            Self::Component(pre) => {
                let command = pre.instantiate_async(&mut *store).await?;
                started();
                let end = command.wasi_cli_run().call_run(store).await?;
                end.map_err(|()| I32Exit(1).into())
            }
        }
    }
}

/// Where a module is entered, and which numbers that takes: `_start` wherever there is one, since a
/// Go program also exports a `run`, which is not for us.
pub(in crate::executor) fn way_in(module: &Module) -> Result<(&'static str, Vec<Number>), Failure> {
    let takes = |name: &str| {
        let export = module.get_export(name)?;
        export.func().and_then(inputs::numbers)
    };
    let start = takes(START).filter(Vec::is_empty).map(|none| (START, none));
    let wanted = "function `_start`, or `run` without parameters other than numbers";
    start.or_else(|| Some((RUN, takes(RUN)?))).ok_or(Failure::MissingExport { wanted })
}

/// The import that the sandbox does not have.
pub(in crate::executor) fn missing(error: &wasmtime::Error) -> Failure {
    let import = match error.downcast_ref::<UnknownImportError>() {
        Some(unknown) => format!("{}::{}", unknown.module(), unknown.name()),
        None => format!("{error:#}"),
    };
    Failure::Link { import }
}
