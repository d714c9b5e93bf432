//! The device's own files: which there are, and rows of numbers for those who need no more.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::Error;

/// The files of a directory whose names end in `.{extension}`, in the order of their names.
pub fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| unreadable(dir, source);
    let mut paths = vec![];
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|found| found.eq_ignore_ascii_case(OsStr::new(extension))) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// All rows of the `*.csv` files of a directory; no row at all is an error, and so are rows of
/// unequal width and fields that are no finite numbers.
pub fn rows_of(dir: &Path) -> Result<Vec<Vec<f64>>, Error> {
    let mut rows: Vec<Vec<f64>> = vec![];
    for path in files(dir, "csv")? {
        let mut bytes = vec![];
        let file = fs::File::open(&path).map_err(|source| unreadable(&path, source))?;
        io::BufReader::new(file)
            .read_to_end(&mut bytes)
            .map_err(|source| unreadable(&path, source))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let bad = |why| Error::Row { file: name.clone(), line: index + 1, why };
            let line = str::from_utf8(line).map_err(|_| bad("not UTF-8 text".to_owned()))?;
            if line.trim().is_empty() {
                continue;
            }
            let row: Vec<f64> =
                line.split(',').map(number).collect::<Result<_, _>>().map_err(bad)?;
            if let Some(first) = rows.first().filter(|first| first.len() != row.len()) {
                let why = format!("{} fields, but the rows before have {}", row.len(), first.len());
                return Err(bad(why));
            }
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Err(Error::NoData { dir: dir.display().to_string() });
    }
    Ok(rows)
}

fn number(field: &str) -> Result<f64, String> {
    let field = field.trim();
    field.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| {
        let shown: String = field.chars().take(40).collect();
        format!("{shown:?} is not a finite number")
    })
}

pub(crate) fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::Read { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_the_order_of_the_names_of_their_files() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("b.csv", "3,4\n"), ("a.CSV", "\n1, 2\r\n"), ("c.txt", "x")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(rows_of(dir.path()).unwrap(), [[1.0, 2.0], [3.0, 4.0]]);
    }

    #[test]
    fn bad_rows_are_named_by_file_and_line() {
        for (text, said) in [
            (&b"1,2\nx,2\n"[..], "d.csv, line 2: \"x\" is not a finite number"),
            (b"1,2\n\n1,2,3", "d.csv, line 3: 3 fields, but the rows before have 2"),
            (b"1e999", "d.csv, line 1: \"1e999\" is not a finite number"),
            (b"\xff", "d.csv, line 1: not UTF-8 text"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("d.csv"), text).unwrap();
            assert_eq!(rows_of(dir.path()).unwrap_err().to_string(), said);
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(rows_of(empty.path()).unwrap_err().to_string().starts_with("no rows"));
        assert!(rows_of(&empty.path().join("nowhere")).is_err());
    }
}
