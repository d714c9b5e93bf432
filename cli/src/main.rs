//! `aileron`: every service, the demo, and the operator's commands, in one program.

mod archive;
mod cmd;
mod demo;
mod device;
mod export;
mod guard;
mod http;
mod operator;
mod platform;
mod preflight;
mod simulate;
mod view;
mod workload;

use std::process::ExitCode;

/// A simulation of many devices asks for small pieces of memory all the time; this one finds them
/// faster than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cmd::run(std::env::args_os().skip(1).collect())
}
