//! The bridge against nodes that behave, and against nodes that do not.

mod node;
mod peer;
mod process;
mod python;
mod support;
mod wire;
