//! `aileron bench aggregate`: averages of updates that lie in memory.
//!
//! The measure is a plain loop over the same memory, in the same run; other programs that print a
//! line of JSON for each figure, as those in `bench/` do, are run beside it.

use std::{
    collections::BTreeMap,
    fmt,
    process::{Command, ExitCode},
    str::FromStr,
    thread,
};

use aggregate::{Facts, Guard, Out, Slices, Strategy, Work};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::figures::{self, Times, rounded};
use crate::view::{self, Format};

/// What fits into the nearest cache.
const STRIP: usize = 4096;
/// What robust rules are told to expect, as the scripts in `bench/` tell the others.
const SHARE_OF_HOSTILE: f64 = 0.1;

#[derive(Debug, Args)]
pub(crate) struct Aggregate {
    /// Updates and numbers in each
    #[arg(value_name = "UPDATESxNUMBERS", default_values = ["10x10000000", "100x1000000"])]
    shapes: Vec<Shape>,
    /// Strategies, of those that need no more than updates
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "fedavg,fedmedian,trimmed_mean,krum,bulyan"
    )]
    rules: Vec<String>,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Runs that are timed
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Another program to compare with, run by a shell with the shapes as its words
    #[arg(long, value_name = "COMMAND")]
    beside: Vec<String>,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// How many updates, and how long each is.
#[derive(Clone, Copy, Debug)]
struct Shape {
    updates: usize,
    numbers: usize,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = |part: &str| part.parse().ok().filter(|n| *n >= 1);
        let parts = text.split_once('x').and_then(|(updates, numbers)| {
            Some(Self { updates: read(updates)?, numbers: read(numbers)? })
        });
        parts.ok_or_else(|| "it takes two whole numbers of at least 1, like 10x1000000".to_owned())
    }
}

impl Shape {
    fn figure(&self, system: &str, what: &str, times: &Times) -> Value {
        json!({
            "system": system, "what": what, "updates": self.updates, "parameters": self.numbers,
            "median_ms": times.median_ms(), "times": times.json(),
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.updates, self.numbers)
    }
}

impl Aggregate {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(self.threads >= 1, "threads takes at least 1, not {}", self.threads);
        let mut report = figures::about("aggregate");
        report.insert("threads".to_owned(), json!(self.threads));
        let mut figures: Vec<Value> = vec![];
        for shape in &self.shapes {
            figures.extend(self.measure(*shape)?);
        }
        for command in &self.beside {
            figures.extend(self.beside(command)?);
        }
        relate(&mut figures);
        match self.format {
            Format::Json => {
                report.insert("figures".to_owned(), Value::Array(figures));
                view::json(&Value::Object(report));
            }
            Format::Text => {
                let columns =
                    ["updates", "parameters", "what", "system", "median_ms", "to_plain", "to_ours"];
                let row = |figure: &Value| columns.map(|name| view::cell(&figure[name])).to_vec();
                view::table(&columns, figures.iter().map(row));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self, shape: Shape) -> anyhow::Result<Vec<Value>> {
        let updates: Vec<Vec<f32>> =
            (0..shape.updates).map(|row| numbers(shape.numbers, row as u64)).collect();
        let rows: Vec<&[f32]> = updates.iter().map(Vec::as_slice).collect();
        let samples: Vec<u64> = (0..shape.updates as u64).map(|row| 400 + row * 37 % 211).collect();
        let mut plain = vec![0.0_f32; shape.numbers];
        let loops = Times::of(self.runs, || plain_mean(&rows, &samples, &mut plain, self.threads));
        let mut figures = vec![shape.figure("plain loop", "fedavg", &loops)];
        for rule in &self.rules {
            view::aside(format!("{rule} of {shape}"));
            let (times, made) = self.rule(rule, &rows, &samples)?;
            if rule == "fedavg" {
                let far = plain.iter().zip(&made).find(|(a, b)| (*a - *b).abs() > 1e-4);
                ensure!(far.is_none(), "the plain loop and fedavg differ: {far:?}");
            }
            figures.push(shape.figure("aileron", rule, &times));
        }
        Ok(figures)
    }

    fn rule(
        &self,
        rule: &str,
        rows: &[&[f32]],
        samples: &[u64],
    ) -> anyhow::Result<(Times, Vec<f32>)> {
        let Some(strategy) = aggregate::find(rule) else { bail!("there is no strategy {rule:?}") };
        let aggregator = strategy.configured(&expecting(strategy))?;
        let facts: Vec<Facts> = samples.iter().map(|n| Facts::new(*n)).collect();
        let slices = Slices::new(rows)?;
        let round = aggregate::Round::new(&slices, &facts);
        let (guard, work) = (Guard::default(), Work::threads(self.threads));
        let mut made = vec![0.0_f32; rows[0].len()];
        let mut end = Ok(());
        let times = Times::of(self.runs, || {
            let out = Out::Slices(vec![&mut made]);
            if let Err(why) = aggregate::aggregate(&*aggregator, &guard, &round, &work, out) {
                end = Err(why);
            }
        });
        end.with_context(|| format!("{rule} of {} updates", rows.len()))?;
        Ok((times, made))
    }

    fn beside(&self, command: &str) -> anyhow::Result<Vec<Value>> {
        view::aside(format!("running {command}"));
        let shapes: Vec<String> = self.shapes.iter().map(Shape::to_string).collect();
        let output = Command::new("sh")
            .args(["-c", &format!("{command} {}", shapes.join(" "))])
            .stderr(std::process::Stdio::inherit())
            .output()
            .with_context(|| format!("run {command:?}"))?;
        ensure!(output.status.success(), "{command:?} ended with {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let read = |line: &str| {
            serde_json::from_str(line).with_context(|| format!("{command:?} says {line:?}"))
        };
        text.lines().filter(|line| line.starts_with('{')).map(read).collect()
    }
}

/// Adds to each figure how many times as long it took as the plain average of the same shape, and
/// as ours of the same rule and shape.
fn relate(figures: &mut [Value]) {
    let shape = |figure: &Value| (figure["updates"].as_u64(), figure["parameters"].as_u64());
    let rule = |figure: &Value| figure["what"].as_str().map(str::to_owned);
    let of = |system: &str| {
        let of_system = figures.iter().filter(|figure| figure["system"] == system);
        let entry = |it: &Value| Some(((shape(it), rule(it)), it["median_ms"].as_f64()?));
        of_system.filter_map(entry).collect::<BTreeMap<_, _>>()
    };
    let (plain, ours) = (of("plain loop"), of("aileron"));
    for figure in figures {
        let Some(took) = figure["median_ms"].as_f64() else { continue };
        let average = (shape(figure), Some("fedavg".to_owned()));
        if let Some(floor) = plain.get(&average) {
            figure["to_plain"] = json!(rounded(took / floor));
        }
        if let Some(own) = ours.get(&(shape(figure), rule(figure))) {
            figure["to_ours"] = json!(rounded(took / own));
        }
    }
}

/// The rule's settings; the share of the hostile where it wants one.
fn expecting(strategy: &Strategy) -> BTreeMap<String, f64> {
    let shares = strategy.settings.iter().filter(|setting| setting.name.ends_with("_share"));
    shares.map(|setting| (setting.name.to_owned(), SHARE_OF_HOSTILE)).collect()
}

/// What anybody would write: each thread its part, strips that stay in the cache, `f32` sums.
fn plain_mean(rows: &[&[f32]], samples: &[u64], out: &mut [f32], threads: usize) {
    let total: u64 = samples.iter().sum();
    let part = out.len().div_ceil(threads);
    thread::scope(|scope| {
        for (index, out) in out.chunks_mut(part).enumerate() {
            scope.spawn(move || {
                for (strip, out) in out.chunks_mut(STRIP).enumerate() {
                    let start = index * part + strip * STRIP;
                    out.fill(0.0);
                    for (row, n) in rows.iter().zip(samples) {
                        let share = *n as f32 / total as f32;
                        for (sum, number) in out.iter_mut().zip(&row[start..]) {
                            *sum += share * number;
                        }
                    }
                }
            });
        }
    });
}

/// Numbers that look like a model's: sums of four uniform ones, the same in every run.
pub(super) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..len).map(|_| (uniform() + uniform() + uniform() + uniform()) * 0.1).collect()
}
