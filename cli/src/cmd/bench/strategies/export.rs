//! Writing splits down, so that others can be compared on the very same ones.

use std::{fs, path::Path};

use anyhow::Context as _;

use crate::demo::Rows;

/// Writes `participant-01.csv` and so on, and `test.csv`.
pub(super) fn export(dir: &Path, parts: &[Rows], test: &Rows) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let write = |name: String, rows: &Rows| {
        let path = dir.join(name);
        fs::write(&path, rows.to_csv()).with_context(|| format!("write {}", path.display()))
    };
    for (number, part) in (1..).zip(parts) {
        write(format!("participant-{number:02}.csv"), part)?;
    }
    write("test.csv".to_owned(), test)
}
