//! Stories with containers: scenarios whose nodes run in them, and a platform with a proplet in one, beside the same
//! platform in virtual time.

#![allow(clippy::unwrap_used, reason = "tests")]

mod engine;
mod live;
mod mixed;
mod xedgesim;

use std::{fs, path::Path, process::Command};

use e2e::aileron;

/// A directory of the project, copied.
fn copy(from: &str, to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(from);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let copied = Command::new("cp").arg("-rT").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// `aileron sim` with an engine for its containers, in a directory of its own.
fn sim(dir: &Path, engine: Option<&engine::Engine>) -> Command {
    let mut command = Command::new(aileron());
    command.arg("sim").current_dir(dir);
    if let Some(engine) = engine {
        command.env("DOCKER_HOST", engine.address());
    }
    command
}

/// Runs it to its end, which must be a good one; what it says.
#[track_caller]
fn told(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said
}
