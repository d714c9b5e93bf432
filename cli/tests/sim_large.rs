//! The large scenarios of `bench/scenarios/`, with fewer nodes: what they claim holds; how long the
//! whole takes is measured by command.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{path::Path, process::Command};

#[test]
fn the_large_scenarios_hold_what_they_claim_with_fewer_nodes() {
    for (file, groups) in [("hundred-thousand", 2), ("ten-thousand-trained", 4)] {
        let file = format!("../bench/scenarios/{file}.yaml");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_aileron"));
        command.args(["sim", "sweep", "--seeds", "1"]).arg(&file);
        for group in 0..groups {
            command.args(["--vary", &format!("nodes.{group}.count=20")]);
        }
        let output = command.current_dir(dir.path()).output().unwrap();
        let said =
            String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{}\n{said}", file.display());
        assert!(said.contains("10 of 10") && said.contains("hold"), "{said}");
    }
}
