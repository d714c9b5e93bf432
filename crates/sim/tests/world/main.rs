//! Stories in virtual time, over the real cores.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "measurements and failures are for people")]

mod ahead;
mod asynchronous;
mod determinism;
mod faults;
mod halves;
mod peers;
mod rounds;
mod scale;
mod stage;
mod swarm;
