//! Stories of one proplet's agent, and the invariants that hold in all of them.

mod device;
mod encoded;
mod invariants;
mod modules;
mod pieces;
mod restarts;
mod tasks;
mod updates;
mod variates;
