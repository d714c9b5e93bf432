//! The device's own rows: every CSV file of a directory, features first, label last.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use crate::TrainError;

/// Rows of a device that are never trained on.
pub const HELD_OUT_FILE: &str = "holdout.csv";

/// Rows of equal width; each knows the file and line it came from, so that a complaint about it
/// can say so however late it is found out.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    features: usize,
    values: Vec<f64>,
    labels: Vec<f64>,
    lines: Vec<usize>,
    files: Vec<SourceFile>,
}

#[derive(Clone, Debug)]
struct SourceFile {
    name: String,
    first_row: usize,
}

impl Dataset {
    /// Reads all `*.csv` files of a directory in the order of their names, [`HELD_OUT_FILE`] aside;
    /// other files are left alone. No row at all is an error.
    pub fn from_dir(dir: &Path) -> Result<Self, TrainError> {
        let mut dataset = Self::default();
        for path in guest::files(dir, "csv")? {
            if path.file_name().is_some_and(|name| name == HELD_OUT_FILE) {
                continue;
            }
            let file = File::open(&path).map_err(|source| unreadable(&path, source))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            dataset.append(&name, BufReader::new(file))?;
        }
        if dataset.is_empty() {
            return Err(TrainError::NoData { dir: dir.display().to_string() });
        }
        Ok(dataset)
    }

    /// The rows that the device evaluates models on: those of [`HELD_OUT_FILE`], if it is there.
    pub fn held_out(dir: &Path) -> Result<Option<Self>, TrainError> {
        let path = dir.join(HELD_OUT_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let mut dataset = Self::default();
        let file = File::open(&path).map_err(|source| unreadable(&path, source))?;
        dataset.append(HELD_OUT_FILE, BufReader::new(file))?;
        if dataset.is_empty() {
            return Err(TrainError::NoData { dir: path.display().to_string() });
        }
        Ok(Some(dataset))
    }

    /// Adds the rows of one CSV text; `name` is what errors call it. Blank lines are skipped.
    pub fn append(&mut self, name: &str, reader: impl BufRead) -> Result<(), TrainError> {
        self.files.push(SourceFile { name: name.to_owned(), first_row: self.len() });
        for (index, line) in reader.split(b'\n').enumerate() {
            let bytes = line.map_err(|source| unreadable(Path::new(name), source))?;
            let row = |why| TrainError::Row { file: name.to_owned(), line: index + 1, why };
            let line = str::from_utf8(&bytes).map_err(|_| row("not UTF-8 text".to_owned()))?;
            if !line.trim().is_empty() {
                self.append_row(line).map_err(row)?;
                self.lines.push(index + 1);
            }
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Numbers in a row, the label aside.
    pub fn features(&self) -> usize {
        self.features
    }

    pub(crate) fn row(&self, row: usize) -> (&[f64], f64) {
        (&self.values[row * self.features..(row + 1) * self.features], self.labels[row])
    }

    /// A complaint about a row, naming its file and line.
    pub(crate) fn complaint(&self, row: usize, why: String) -> TrainError {
        let after = self.files.partition_point(|file| file.first_row <= row);
        TrainError::Row { file: self.files[after - 1].name.clone(), line: self.lines[row], why }
    }

    fn append_row(&mut self, line: &str) -> Result<(), String> {
        let fields = line.split(',').count();
        if fields < 2 {
            return Err("a row needs at least one feature and a label".to_owned());
        }
        if self.is_empty() {
            self.features = fields - 1;
        } else if fields - 1 != self.features {
            return Err(format!(
                "{fields} fields, but the rows before have {}",
                self.features.saturating_add(1)
            ));
        }
        let before = self.values.len();
        for field in line.split(',') {
            match number(field) {
                Ok(value) => self.values.push(value),
                Err(why) => {
                    self.values.truncate(before);
                    return Err(why);
                }
            }
        }
        self.labels.extend(self.values.pop());
        Ok(())
    }
}

fn number(field: &str) -> Result<f64, String> {
    let field = field.trim();
    match field.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) | Err(_) => {
            let shown: String = field.chars().take(40).collect();
            Err(format!("{shown:?} is not a finite number"))
        }
    }
}

fn unreadable(path: &Path, source: io::Error) -> TrainError {
    guest::Error::Read { path: path.display().to_string(), source }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_several_texts_keep_their_origin() {
        let mut data = Dataset::default();
        data.append("empty.csv", &b""[..]).unwrap();
        data.append("a.csv", &b"1,2,0\n\n3, 4 ,1\r\n"[..]).unwrap();
        data.append("b.csv", &b"5,6,0"[..]).unwrap();
        assert_eq!((data.len(), data.features()), (3, 2));
        assert_eq!(data.row(1), (&[3.0, 4.0][..], 1.0));
        assert_eq!(data.complaint(1, "x".into()).to_string(), "a.csv, line 3: x");
        assert_eq!(data.complaint(2, "x".into()).to_string(), "b.csv, line 1: x");
    }

    #[test]
    fn bad_rows_are_named_by_file_and_line() {
        for (text, said) in [
            (&b"1,2\nx,2\n"[..], "d.csv, line 2: \"x\" is not a finite number"),
            (b"1,2\n1,nan", "d.csv, line 2: \"nan\" is not a finite number"),
            (b"1,1e999", "d.csv, line 1: \"1e999\" is not a finite number"),
            (b"1,", "d.csv, line 1: \"\" is not a finite number"),
            (b"1,2,3\n\n1,2", "d.csv, line 3: 2 fields, but the rows before have 3"),
            (b"7", "d.csv, line 1: a row needs at least one feature and a label"),
            (b"1,2\n\xff\xfe,1", "d.csv, line 2: not UTF-8 text"),
        ] {
            let error = Dataset::default().append("d.csv", text).unwrap_err();
            assert_eq!(error.to_string(), said);
        }
    }
}
