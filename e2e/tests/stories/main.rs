//! End-to-end stories: real brokers, real processes, and what an outsider sees of them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod asynchronous;
mod chaos;
mod encodings;
mod evaluation;
mod goodbye;
mod hostile;
mod introductions;
mod kills;
mod ledger;
mod lines;
mod metrics;
mod modules;
mod pieces;
mod poison;
mod scaffold;
mod sessions;
mod settings;
mod shared;
mod traces;
mod walk;
mod weather;
mod wire;

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A guest of `client-wasm/hostile`, compiled, base64.
#[track_caller]
fn guest(name: &str) -> String {
    STANDARD.encode(guest_bytes(name))
}

#[track_caller]
fn guest_bytes(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client-wasm/hostile");
    wat::parse_file(dir.join(name).with_extension("wat")).unwrap()
}
