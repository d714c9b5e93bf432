//! What a program is, and whether the sandbox could run it, without running it.

use wasmtime::{Engine, Linker, Module, Store, component::Component};
use wasmtime_wasi::{
    WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
};

use super::{
    super::{Failure, Program, Settings, stopwatch::Stopwatch},
    program::{Code, Kind, Linkers, RUN, way_in},
    runtime::{Metering, config},
};

const PAGE_BYTES: u64 = 1 << 16;

/// What was found out about a program.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `module` or `component`.
    pub kind: &'static str,
    /// What is called to run it, or why it cannot run.
    pub entry: Result<String, Failure>,
    /// All that it wants from the host, in its own order.
    pub imports: Vec<Import>,
    /// All that it offers.
    pub exports: Vec<String>,
    /// Memory it has from the beginning; not known of every component.
    pub memory_bytes_initial: Option<u64>,
    /// The most that it says it will ever want, if it says so.
    pub memory_bytes_max: Option<u64>,
    /// How long it took to compile here.
    pub compile_us: u64,
}

/// Something that a program wants from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    pub name: String,
    pub given: Given,
}

/// Whether the sandbox has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    Yes,
    No,
}

/// Compiles a program as a device would, and looks at it.
pub fn inspect(program: &Program, settings: &Settings) -> Result<Inspection, Failure> {
    let kind = Kind::of(program)?;
    let engine = Engine::new(&config(settings.stack_bytes_max, Metering::Off))
        .map_err(|error| Failure::host("set up WebAssembly", error))?;
    let watch = Stopwatch::start();
    let code = Code::compile(&engine, kind, program.bytes())?;
    let compile_us = watch.elapsed_us();
    let linked = Linkers::new(&engine)
        .map_err(|error| Failure::host("set up WebAssembly", error))?
        .link(&code)
        .map(drop);
    match &code {
        Code::Module(module) => of_module(&engine, module, linked, compile_us),
        Code::Component(component) => Ok(of_component(&engine, component, linked, compile_us)),
    }
}

fn of_module(
    engine: &Engine,
    module: &Module,
    linked: Result<(), Failure>,
    compile_us: u64,
) -> Result<Inspection, Failure> {
    let failed = |error| Failure::host("set up WebAssembly", error);
    let mut linker: Linker<WasiP1Ctx> = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |wasi| wasi).map_err(failed)?;
    let mut store = Store::new(engine, WasiCtxBuilder::new().build_p1());
    let imports = module.imports().map(|import| {
        let given = match linker.get(&mut store, import.module(), import.name()) {
            Ok(_) => Given::Yes,
            Err(_) => Given::No,
        };
        Import { name: format!("{}::{}", import.module(), import.name()), given }
    });
    let imports = imports.collect();
    let memories = module.exports().filter_map(|export| export.ty().memory().cloned());
    let memory_bytes_max = memories.filter_map(|memory| memory.maximum()).max();
    Ok(Inspection {
        kind: "module",
        entry: linked.and_then(|()| way_in(module)).map(|(name, params)| match params.len() {
            0 => name.to_owned(),
            count => format!("{RUN}, which takes {count} inputs"),
        }),
        imports,
        exports: module.exports().map(|export| export.name().to_owned()).collect(),
        memory_bytes_initial: module.resources_required().max_initial_memory_size.map(in_bytes),
        memory_bytes_max: memory_bytes_max.map(in_bytes),
        compile_us,
    })
}

fn of_component(
    engine: &Engine,
    component: &Component,
    linked: Result<(), Failure>,
    compile_us: u64,
) -> Inspection {
    let interface = component.component_type();
    let missing = match &linked {
        Err(Failure::Link { import }) => Some(import.as_str()),
        Ok(()) | Err(_) => None,
    };
    let imports = interface.imports(engine).map(|(name, _)| {
        // The linker names the first that it does not have.
        let given = match missing {
            Some(why) if why.contains(name) => Given::No,
            Some(_) | None => Given::Yes,
        };
        Import { name: name.to_owned(), given }
    });
    let imports = imports.collect();
    let initial = component.resources_required().and_then(|needs| needs.max_initial_memory_size);
    Inspection {
        kind: "component",
        entry: linked.map(|()| "wasi:cli/run".to_owned()),
        imports,
        exports: interface.exports(engine).map(|(name, _)| name.to_owned()).collect(),
        memory_bytes_initial: initial.map(in_bytes),
        memory_bytes_max: None,
        compile_us,
    }
}

const fn in_bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE_BYTES)
}
