//! Stories with programs for other processors, under qemu, and with the packages that carry them to a board.

#![allow(clippy::unwrap_used, reason = "tests")]

mod crossed;
mod packages;
mod page;
mod rounds;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Where the project is.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// What a command has said on stdout; it must have gone well.
#[track_caller]
fn good(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{}\n{said}", output.status, text(&output));
    text(&output)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
