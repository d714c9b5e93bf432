//! Guests in virtual time: the same bytes on every run, no wall time for a sleep, and in all else
//! what the live executor does.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says so by panicking, and a measurement on stderr"
)]

#[path = "virtual_time/clock.rs"]
mod clock;
#[path = "virtual_time/conformance.rs"]
mod conformance;
#[path = "virtual_time/files.rs"]
mod files;
#[path = "virtual_time/guests.rs"]
mod guests;
#[path = "virtual_time/measurements.rs"]
mod measurements;
#[path = "virtual_time/memo.rs"]
mod memo;
#[path = "virtual_time/training.rs"]
mod training;
