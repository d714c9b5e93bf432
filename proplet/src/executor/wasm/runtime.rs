//! One engine with what belongs to it: what guests are linked to, the programs it has compiled, and
//! its ticker.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wasmtime::{Config, Engine};

use super::{
    super::{Failure, Origin, Program, Settings},
    program::{Linkers, Ready},
    programs::{Programs, Shelf},
    ticker::Ticker,
};

/// Whether instructions are counted, which is decided when code is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metering {
    /// They are not.
    Off,
    /// They are, for a device that has a limit of them.
    Fuel,
}

/// An engine and its programs.
pub(super) struct Runtime {
    pub(super) ticker: Ticker,
    linkers: Linkers,
    programs: Programs<Ready>,
}

impl Runtime {
    pub(super) fn new(settings: &Settings, metering: Metering) -> Result<Self, Failure> {
        let shelf = Shelf {
            dir: &settings.cache_dir,
            bytes_max: settings.cache_bytes_max,
            ready_max: settings.programs_ready_max,
        };
        let config = config(settings.stack_bytes_max, metering);
        let programs = Programs::new(&config, shelf, settings.ahead.clone())?;
        let engine = programs.engine();
        Ok(Self {
            ticker: Ticker::new(engine.clone())
                .map_err(|error| Failure::host("start a thread", error))?,
            linkers: Linkers::new(engine)
                .map_err(|error| Failure::host("set up WebAssembly", error))?,
            programs,
        })
    }

    pub(super) fn engine(&self) -> &Engine {
        self.programs.engine()
    }

    /// The program, ready to start, and where it came from.
    pub(super) fn prepare(
        &self,
        program: &Program,
        stop: &CancellationToken,
    ) -> Result<(Arc<Ready>, Origin), Failure> {
        self.programs.prepare(program, stop, |code| self.linkers.link(code))
    }
}

pub(super) fn config(stack_bytes_max: usize, metering: Metering) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.consume_fuel(metering == Metering::Fuel);
    config.max_wasm_stack(stack_bytes_max);
    // Room for the host's own functions, which run on the guest's stack.
    config.async_stack_size(stack_bytes_max + (1 << 20));
    // The same last bit on every machine.
    config.relaxed_simd_deterministic(true);
    config
}
