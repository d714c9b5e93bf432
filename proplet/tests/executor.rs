//! What every executor promises, tried on every executor with every kind of program it runs; then
//! what is particular to WebAssembly.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says so by panicking, and on stderr"
)]

#[path = "executor/ahead.rs"]
mod ahead;
#[path = "executor/cache.rs"]
mod cache;
#[path = "executor/conformance.rs"]
mod conformance;
#[path = "executor/device.rs"]
mod device;
#[path = "executor/inputs.rs"]
mod inputs;
#[path = "executor/native.rs"]
mod native;
#[path = "executor/wasm.rs"]
mod wasm;
