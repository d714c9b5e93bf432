//! Stories with what is shipped to run a platform: `compose.yaml`, the image, and the configurations of brokers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod configurations;
#[allow(dead_code, reason = "the stories with containers use more of it")]
#[path = "../containers/engine.rs"]
mod engine;
mod platform;
mod supervised;
mod walk;

use std::path::{Path, PathBuf};

/// Where the project is.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}
