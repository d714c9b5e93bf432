//! The bridge against nodes that behave, and against nodes that do not.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod node;
mod peer;
mod process;
mod python;
mod scenario;
mod support;
mod wire;
