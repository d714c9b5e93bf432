//! What a scenario claims of its run, like `accuracy >= 0.9 by 60s`, `rounds == 10` or
//! `trace_sha256 == "..."`.

use std::{fmt, str::FromStr};

use crate::{Span, Summary};

/// One claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    text: String,
    name: String,
    relation: Relation,
    value: String,
    /// At the latest then; at the end, if nothing is said.
    by: Option<Span>,
}

/// A claim that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an assertion; it takes NAME RELATION VALUE, and `by TIME`: `loss <= 0.3 by 60s`"
)]
pub struct AssertionError(String);

/// Whether a claim holds, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub assertion: String,
    pub holds: bool,
    pub found: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

const RELATIONS: &[(&str, Relation)] = &[
    ("==", Relation::Equal),
    ("!=", Relation::Unequal),
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("<", Relation::Less),
    (">", Relation::More),
];

impl FromStr for Assertion {
    type Err = AssertionError;

    fn from_str(text: &str) -> Result<Self, AssertionError> {
        let bad = || AssertionError(text.chars().take(120).collect());
        let words: Vec<&str> = text.split_whitespace().collect();
        let (name, relation, value, by) = match words[..] {
            [name, relation, value] => (name, relation, value, None),
            [name, relation, value, "by", by] => {
                (name, relation, value, Some(by.parse().map_err(|_| bad())?))
            }
            [..] => return Err(bad()),
        };
        let relation = RELATIONS.iter().find(|(sign, _)| *sign == relation).ok_or_else(bad)?.1;
        let value = value.trim_matches('"').to_owned();
        let is_ordered = !matches!(relation, Relation::Equal | Relation::Unequal);
        if is_ordered && value.parse::<f64>().is_err() {
            return Err(bad());
        }
        Ok(Self { text: text.to_owned(), name: name.to_owned(), relation, value, by })
    }
}

impl Assertion {
    /// Holds the claim against a run. With `by`, it is enough that it held once by then.
    pub fn check(&self, summary: &Summary) -> Checked {
        let (holds, found) = self.judge(summary);
        Checked { assertion: self.text.clone(), holds, found }
    }

    fn judge(&self, summary: &Summary) -> (bool, String) {
        if self.name == "trace_sha256" {
            let found = summary.trace_sha256.clone();
            return (self.relation.holds_of_texts(&found, &self.value), found);
        }
        let Ok(wanted) = self.value.parse::<f64>() else {
            return (false, format!("{:?} is not a number", self.value));
        };
        let totals = match self.name.as_str() {
            "rounds_complete" => Some(summary.rounds_complete() as f64),
            "versions" => Some(summary.versions.len() as f64),
            "events" => Some(summary.events as f64),
            "virtual_s" => Some(summary.virtual_us as f64 / 1e6),
            "lost_nodes" => Some(summary.lost_nodes.len() as f64),
            _ => None,
        };
        if let Some(found) = totals {
            return (self.relation.holds(found, wanted), found.to_string());
        }
        let by = self.by.map_or(u64::MAX, Span::micros);
        let samples = summary.metrics.get(&self.name).into_iter().flatten();
        let in_time: Vec<f64> =
            samples.filter(|sample| sample.time_us <= by).map(|sample| sample.value).collect();
        let Some(last) = in_time.last() else {
            // What was never counted did not happen.
            let counts = ["rejected_", "events_"].iter().any(|kind| self.name.starts_with(kind))
                || self.name == "rounds";
            let holds = counts && self.relation.holds(0.0, wanted);
            return (holds, "nothing".to_owned());
        };
        let holds = match self.by {
            Some(_) => in_time.iter().any(|value| self.relation.holds(*value, wanted)),
            None => self.relation.holds(*last, wanted),
        };
        (holds, last.to_string())
    }
}

impl Relation {
    fn holds(self, found: f64, wanted: f64) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::Unequal => found != wanted,
            Self::Less => found < wanted,
            Self::AtMost => found <= wanted,
            Self::More => found > wanted,
            Self::AtLeast => found >= wanted,
        }
    }

    fn holds_of_texts(self, found: &str, wanted: &str) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::Unequal => found != wanted,
            Self::Less | Self::AtMost | Self::More | Self::AtLeast => false,
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.holds { "holds" } else { "FAILS" };
        write!(f, "{word}: {} (found {})", self.assertion, self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_held_against_the_run() {
        let mut summary = Summary { trace_sha256: "abc".into(), ..Summary::default() };
        for (time_us, value) in [(1_000_000, 0.5), (2_000_000, 0.95), (9_000_000, 0.8)] {
            summary.sample("accuracy", time_us, value);
        }
        for (text, holds) in [
            ("accuracy >= 0.9 by 60s", true),
            ("accuracy >= 0.9 by 1s", false),
            ("accuracy >= 0.9", false),
            ("accuracy < 0.9", true),
            ("loss < 1", false),
            ("rejected_not_finite == 0", true),
            ("rejected_not_finite > 0", false),
            ("versions == 0", true),
            ("trace_sha256 == \"abc\"", true),
            ("trace_sha256 != abc", false),
        ] {
            let claim: Assertion = text.parse().unwrap();
            assert_eq!(claim.check(&summary).holds, holds, "{text}");
        }
        for text in ["", "accuracy", "accuracy ~ 3", "loss < low", "a == 1 until 3s", "a == 1 by x"]
        {
            assert!(text.parse::<Assertion>().is_err(), "{text}");
        }
    }
}
