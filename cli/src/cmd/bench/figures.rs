//! Times of repeated runs, and how figures are shown.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::view::{self, Format};

/// What repeated runs took, shortest first; at least one.
#[derive(Clone, Debug)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    /// Runs `work` once to warm up and then `runs` times.
    pub(super) fn of(runs: usize, mut work: impl FnMut()) -> Self {
        work();
        let timed = |_| {
            let began = Instant::now();
            work();
            began.elapsed()
        };
        (0..runs.max(1)).map(timed).collect()
    }

    /// Milliseconds that a part of the runs, 0 to 1, did not exceed.
    #[expect(clippy::cast_precision_loss, reason = "few runs")]
    pub(super) fn ms(&self, part: f64) -> f64 {
        let place = ((self.0.len() - 1) as f64 * part).round() as usize;
        rounded(self.0[place].as_secs_f64() * 1e3)
    }

    pub(super) fn median_ms(&self) -> f64 {
        self.ms(0.5)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "runs": self.0.len(), "median": self.median_ms(), "p95": self.ms(0.95),
            "min": self.ms(0.0), "max": self.ms(1.0),
        })
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        assert!(!times.is_empty(), "something was timed");
        times.sort();
        Self(times)
    }
}

/// To three places: nothing here is known better.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// What figures are worth without: version and machine.
pub(super) fn about(bench: &str) -> Map<String, Value> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "unoptimised" } else { "optimised" };
    let about = json!({
        "bench": bench, "version": env!("CARGO_PKG_VERSION"), "build": build,
        "cores": cores, "cpu": model.map(|(_, name)| name),
    });
    about.as_object().cloned().unwrap_or_default()
}

/// Shows a report: as it is for programs, as rows of two columns for eyes.
pub(super) fn show(report: Map<String, Value>, format: Format) {
    let report = Value::Object(report);
    match format {
        Format::Json => view::json(&report),
        Format::Text => {
            let mut rows = vec![];
            flatten("", &report, &mut rows);
            view::table(&["figure", "value"], rows);
        }
    }
}

fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path} {key}") };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| flatten(&below(key), value, rows));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = item["what"].as_str().map_or_else(|| index.to_string(), str::to_owned);
                flatten(&below(&name), item, rows);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            rows.push(vec![path.to_owned(), view::cell(value)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle() {
        let times: Times = [9, 1, 5].map(Duration::from_millis).into_iter().collect();
        assert_eq!((times.ms(0.0), times.median_ms(), times.ms(1.0)), (1.0, 5.0, 9.0));
    }

    #[test]
    fn nested_figures_become_rows() {
        let mut rows = vec![];
        flatten("", &json!({"a": {"b": 1}, "c": [{"what": "x", "ms": 2}]}), &mut rows);
        let rows: Vec<_> = rows.iter().map(|row| row.join("=")).collect();
        assert_eq!(rows, ["a b=1", "c x ms=2", "c x what=x"]);
    }
}
