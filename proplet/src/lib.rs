//! The edge agent's shell: it fetches programs, runs them in a sandbox and reports how they ended.

pub mod executor;
pub mod fetch;
