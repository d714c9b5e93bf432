//! The rows that a demo learns from: the digits that come with the program, or the user's CSV.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use flate2::read::GzDecoder;
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

/// UCI digits, 8x8 pixels 0..16 and a label 0..9; see `data/README.md`.
const DIGITS: &[u8] = include_bytes!("../../../data/digits.csv.gz");
/// Small tales by a small grammar; see `data/README.md`.
const TALES: &str = include_str!("../../../data/tales.txt");
/// Characters that a row of the tales has before the one that follows.
const WINDOW: usize = 12;

/// Lines of CSV, features first, label last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    lines: Vec<String>,
    labels: Vec<String>,
    /// Labels that there are at least, whether or not a row has them.
    classes_min: usize,
}

impl Rows {
    /// The digits.
    pub(crate) fn digits() -> anyhow::Result<Self> {
        let mut text = String::new();
        GzDecoder::new(DIGITS).read_to_string(&mut text).context("unpack the digits")?;
        Self::parse(&text)
    }

    /// The tales, cut into snippets that do not overlap, so that none that is held out was seen.
    pub(crate) fn tales() -> anyhow::Result<Self> {
        let mut rows = Self::parse(&client_wasm::read_tokens(TALES, WINDOW, WINDOW + 1)?)?;
        // A character that nothing ends in may still stand in the middle.
        rows.classes_min = client_wasm::tokens_of();
        Ok(rows)
    }

    /// All CSV files of a directory, in the order of their names.
    pub(crate) fn from_dir(dir: &Path) -> anyhow::Result<Self> {
        let mut paths: Vec<PathBuf> = vec![];
        for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
            let path = entry.with_context(|| format!("read {}", dir.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "csv") {
                paths.push(path);
            }
        }
        paths.sort();
        ensure!(!paths.is_empty(), "{} holds no .csv file", dir.display());
        let mut text = String::new();
        for path in paths {
            let file =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            text.push_str(&file);
            text.push('\n');
        }
        Self::parse(&text).with_context(|| format!("read {}", dir.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut rows = Self { lines: vec![], labels: vec![], classes_min: 0 };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let Some((_, label)) = line.rsplit_once(',') else {
                bail!("{line:?} is not a row of features and a label");
            };
            rows.labels.push(label.trim().to_owned());
            rows.lines.push(line.to_owned());
        }
        ensure!(!rows.lines.is_empty(), "there are no rows");
        Ok(rows)
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Values in a row before the label.
    pub(crate) fn features(&self) -> usize {
        self.lines[0].split(',').count() - 1
    }

    /// How many labels there are; they must be 0, 1, 2 and so on.
    pub(crate) fn classes(&self) -> anyhow::Result<usize> {
        let mut most = 0_usize;
        for label in &self.labels {
            match label.parse::<f64>() {
                Ok(value) if value >= 0.0 && value.fract() == 0.0 && value < 10_000.0 => {
                    most = most.max(value as usize);
                }
                Ok(_) | Err(_) => bail!("label {label:?} takes a whole number from 0"),
            }
        }
        Ok(self.classes_min.max(most + 1))
    }

    /// Row numbers by label, labels in order.
    pub(crate) fn by_label(&self) -> Vec<Vec<usize>> {
        let mut labels: Vec<&String> = self.labels.iter().collect();
        labels.sort();
        labels.dedup();
        labels
            .into_iter()
            .map(|label| (0..self.len()).filter(|row| self.labels[*row] == *label).collect())
            .collect()
    }

    /// The rows with these numbers.
    pub(crate) fn pick(&self, numbers: &[usize]) -> Self {
        Self {
            lines: numbers.iter().map(|row| self.lines[*row].clone()).collect(),
            labels: numbers.iter().map(|row| self.labels[*row].clone()).collect(),
            classes_min: self.classes_min,
        }
    }

    /// Sets `share` of the rows aside, the same ones for the same seed: (kept, set aside).
    pub(crate) fn hold_out(&self, share: f64, seed: u64) -> (Self, Self) {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let aside = ((self.len() as f64 * share) as usize).clamp(1, self.len() - 1);
        (self.pick(&order[aside..]), self.pick(&order[..aside]))
    }

    /// The rows as a CSV text.
    pub(crate) fn to_csv(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_are_all_there() {
        let digits = Rows::digits().unwrap();
        assert_eq!((digits.len(), digits.features(), digits.classes().unwrap()), (1797, 64, 10));
        assert_eq!(digits.by_label().iter().map(Vec::len).sum::<usize>(), 1797);
    }

    #[test]
    fn the_tales_are_rows_of_tokens() {
        let tales = Rows::tales().unwrap();
        assert_eq!((tales.len(), tales.features(), tales.classes().unwrap()), (2218, 12, 30));
    }

    #[test]
    fn what_is_held_out_is_gone_from_the_rest() {
        let digits = Rows::digits().unwrap();
        let (kept, aside) = digits.hold_out(0.2, 7);
        assert_eq!((kept.len(), aside.len()), (1438, 359));
        let mut all: Vec<_> = kept.lines.iter().chain(&aside.lines).collect();
        let mut whole: Vec<_> = digits.lines.iter().collect();
        all.sort();
        whole.sort();
        assert_eq!(all, whole);
    }

    #[test]
    fn bad_rows_are_named() {
        for (text, said) in
            [("", "there are no rows"), ("7", "\"7\" is not a row of features and a label")]
        {
            assert_eq!(Rows::parse(text).unwrap_err().to_string(), said);
        }
        assert!(Rows::parse("1,x").unwrap().classes().unwrap_err().to_string().contains("\"x\""));
    }
}
