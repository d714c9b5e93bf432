//! `aileron bench strategies`: how well each strategy learns the digits, and what is left of it
//! when some participants turn their updates around.
//!
//! In one process: the participants' training step and the coordinator's arithmetic are those that
//! ship, without a broker, a sandbox or a clock between them.

mod export;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use aggregate::{
    Facts, Guard, Need, Round, Rows as _, STRATEGIES, Slices, Strategy, Work, aggregate_in_memory,
    aggregate_rest, find, tempered,
};
use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use client_wasm::{
    Dataset, Hyperparams, Model, Report, Tensor, evaluate, initial_model, train, train_corrected,
};
use serde_json::{Value, json};

use super::figures;
use crate::{
    demo::{Rows, Sizes, dirichlet_of},
    view::{self, Format},
};

/// Share of the rows that nobody trains on.
const TEST_SHARE: f64 = 0.2;
/// How many times as far the hostile go, the other way.
const FLIPPED: f64 = -5.0;
/// The pull of FedProx, which its participants are told.
const MU: f64 = 0.1;

#[derive(Debug, Args)]
pub(crate) struct Strategies {
    /// Strategies; by default all that rounds can use
    #[arg(long, value_delimiter = ',')]
    rules: Vec<String>,
    /// Participants, between whom the digits are split unevenly
    #[arg(long, default_value_t = 10)]
    participants: usize,
    /// How evenly: the smaller, the less
    #[arg(long, default_value_t = 0.5)]
    alpha: f64,
    /// balanced (as Flower splits) or free: whether participants have like numbers of rows
    #[arg(long, value_enum, default_value_t)]
    sizes: Shares,
    /// Participants that send five times their update, turned around
    #[arg(long, default_value_t = 2)]
    hostile: usize,
    /// Rounds
    #[arg(long, default_value_t = 30)]
    rounds: u64,
    /// Passes over its rows that a participant makes in a round
    #[arg(long, value_delimiter = ',', default_values_t = [5, 1])]
    epochs: Vec<u64>,
    /// The participants' learning rate
    #[arg(long, default_value_t = 0.1)]
    lr: f64,
    /// What features, 0 to 16, are divided by
    #[arg(long, default_value_t = 16.0)]
    scale: f64,
    /// Different splits
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Also writes the splits there, as CSV: what others are to be compared on
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// text (a table of Markdown) or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// How many rows each participant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shares {
    #[default]
    Balanced,
    Free,
}

impl From<Shares> for Sizes {
    fn from(shares: Shares) -> Self {
        match shares {
            Shares::Balanced => Self::Balanced,
            Shares::Free => Self::Free,
        }
    }
}

/// One split of the rows.
struct Split {
    parts: Vec<Dataset>,
    test: Dataset,
    train: Dataset,
}

/// Accuracies over the seeds.
#[derive(Clone, Debug, Default)]
struct Accuracies(Vec<f64>);

/// Whether the hostile are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Clean,
    Attacked,
}

/// What one participant made.
struct Learned {
    update: Vec<f64>,
    facts: Facts,
    /// Of its control variate.
    change: Option<Vec<f64>>,
}

/// What all of them made.
#[derive(Default)]
struct Brought {
    updates: Vec<Vec<f64>>,
    facts: Vec<Facts>,
    changes: Vec<Vec<f64>>,
}

impl Learned {
    /// As the hostile send it.
    fn flipped(mut self, base: &[f64]) -> Self {
        let turn = |(w, x): (&mut f64, &f64)| *w = x + FLIPPED * (*w - x);
        self.update.iter_mut().zip(base).for_each(turn);
        self.change.iter_mut().flatten().for_each(|change| *change *= FLIPPED);
        self
    }
}

impl Extend<Learned> for Brought {
    fn extend<I: IntoIterator<Item = Learned>>(&mut self, learned: I) {
        for Learned { update, facts, change } in learned {
            self.updates.push(update);
            self.facts.push(facts);
            self.changes.extend(change);
        }
    }
}

impl Strategies {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(self.seeds >= 1, "seeds takes at least 1, not 0");
        ensure!(
            self.hostile <= self.participants,
            "hostile takes at most as many as participate, not {}",
            self.hostile
        );
        let mut splits: Vec<Split> = vec![];
        for seed in 1..=self.seeds {
            let (parts, train, test) = self.rows(seed)?;
            if let Some(dir) = &self.export {
                export::export(&dir.join(format!("seed-{seed}")), &parts, &test)?;
            }
            let parts = parts.iter().map(dataset).collect::<Result<_, _>>()?;
            splits.push(Split { parts, train: dataset(&train)?, test: dataset(&test)? });
        }
        let mut figures: Vec<Value> = vec![];
        for epochs in &self.epochs {
            let central: Accuracies = splits
                .iter()
                .map(|split| self.central(split, *epochs))
                .collect::<Result<_, _>>()?;
            figures.push(json!({
                "strategy": "all rows in one place", "epochs": epochs, "clean": central.json(),
                "attacked": null,
            }));
            for strategy in self.strategies()? {
                let under = |weather| -> anyhow::Result<Accuracies> {
                    let run = |(seed, split)| self.learn(strategy, split, (*epochs, seed), weather);
                    (1..).zip(&splits).map(run).collect()
                };
                let [clean, attacked] = [under(Weather::Clean)?, under(Weather::Attacked)?];
                figures.push(json!({
                    "strategy": strategy.name, "epochs": epochs, "clean": clean.json(),
                    "attacked": attacked.json(),
                }));
            }
        }
        self.show(figures);
        Ok(ExitCode::SUCCESS)
    }

    fn strategies(&self) -> anyhow::Result<Vec<&'static Strategy>> {
        if self.rules.is_empty() {
            return Ok(STRATEGIES.iter().collect());
        }
        let named = |name: &String| find(name).with_context(|| format!("no strategy is {name:?}"));
        self.rules.iter().map(named).collect()
    }

    /// Each participant's rows, all of these, and those that nobody trains on.
    fn rows(&self, seed: u64) -> anyhow::Result<(Vec<Rows>, Rows, Rows)> {
        let (train, test) = Rows::digits()?.hold_out(TEST_SHARE, seed);
        let (sizes, all, alpha) = (self.sizes.into(), self.participants, self.alpha);
        Ok((dirichlet_of(sizes, &train, all, alpha, seed)?, train, test))
    }

    fn hyperparams(&self, epochs: u64, seed: u64, mu: f64) -> anyhow::Result<Hyperparams> {
        let told = json!({
            "model": "softmax", "batch_size": 16, "holdout": 0, "lr": self.lr, "epochs": epochs,
            "seed": seed, "mu": mu, "scale": self.scale,
        });
        Ok(Hyperparams::from_json(&told.to_string())?)
    }

    fn central(&self, split: &Split, epochs: u64) -> anyhow::Result<f64> {
        let told = self.hyperparams(epochs * self.rounds, 1, 0.0)?;
        let mut model = first(&split.train)?;
        train(&mut model, &split.train, &told, 0)?;
        accuracy(&model, split, self.scale)
    }

    fn learn(
        &self,
        strategy: &Strategy,
        split: &Split,
        (epochs, seed): (u64, u64),
        weather: Weather,
    ) -> anyhow::Result<f64> {
        let mu = if strategy.name == "fedprox" { MU } else { 0.0 };
        let told = self.hyperparams(epochs, seed, mu)?;
        let aggregator = (strategy.build)();
        let mut model = first(&split.train)?;
        let mut state: Vec<Vec<f64>> = vec![];
        let has_control = strategy.needs.contains(&Need::Controls);
        let width = flat(&model).len();
        let mut variates = has_control.then(|| vec![vec![0.0; width]; split.parts.len()]);
        for round in 0..self.rounds {
            let base = flat(&model);
            let mut brought = Brought::default();
            for (index, part) in split.parts.iter().enumerate() {
                let flips = weather == Weather::Attacked && index < self.hostile;
                let variate = variates.as_mut().map(|all| &mut all[index]);
                let server = state.first().map(Vec::as_slice);
                let control = variate.map(|own| (server, own));
                let learned = self.step((&model, part), (&told, round), control);
                // Whoever is thrown far enough cannot train any longer: that one says nothing.
                brought.extend(learned.map(|it| if flips { it.flipped(&base) } else { it }));
            }
            let Brought { updates, facts, changes } = brought;
            if updates.is_empty() {
                break;
            }
            let rows: Vec<&[f64]> = updates.iter().map(Vec::as_slice).collect();
            let rows = Slices::new(&rows)?;
            let base = [&base[..]];
            let base = Slices::new(&base)?;
            let before: Vec<&[f64]> = state.iter().map(Vec::as_slice).collect();
            let before = Slices::new(&before)?;
            let mut given: Round<'_, f64> = Round::new(&rows, &facts);
            given.base = Some(&base);
            given.state = (before.count() > 0).then_some(&before);
            let changes: Vec<&[f64]> = changes.iter().map(Vec::as_slice).collect();
            let changes = Slices::new(&changes)?;
            let changes = tempered(&changes)?;
            given.controls = has_control.then_some(&changes);
            let work = Work::default();
            let rest = aggregate_rest(&given, &work, |part| {
                aggregate_in_memory(&*aggregator, &Guard::default(), part, &work)
            })?;
            model = filled(&model, &rest.made.weights)?;
            state = rest.made.state.into_iter().map(|(_, vector)| vector).collect();
        }
        accuracy(&model, split, self.scale)
    }

    /// What one participant makes of its rows; `control` is the server's control variate and its
    /// own, which moves.
    fn step(
        &self,
        (model, part): (&Model, &Dataset),
        (told, round): (&Hyperparams, u64),
        control: Option<(Option<&[f64]>, &mut Vec<f64>)>,
    ) -> Option<Learned> {
        let mut own = model.clone();
        let facts = |report: &Report| {
            let (loss, steps) = (Some(report.before.loss), Some(report.steps));
            Facts { loss, steps, ..Facts::new(report.num_samples as u64) }
        };
        let Some((server, variate)) = control else {
            let report = train(&mut own, part, told, round).ok()?;
            return Some(Learned { update: flat(&own), facts: facts(&report), change: None });
        };
        let zeros = vec![0.0; variate.len()];
        let server = server.unwrap_or(&zeros);
        let correction: Vec<f64> = server.iter().zip(&*variate).map(|(c, own)| c - own).collect();
        let tensors = named(model, &correction);
        let report = train_corrected(&mut own, part, told, round, &tensors).ok()?;
        let (base, update) = (flat(model), flat(&own));
        let length = report.steps as f64 * self.lr;
        let moved = base.iter().zip(&update).map(|(x, y)| (x - y) / length);
        let change: Vec<f64> = moved.zip(server).map(|(moved, c)| moved - c).collect();
        variate.iter_mut().zip(&change).for_each(|(own, change)| *own += change);
        Some(Learned { update, facts: facts(&report), change: Some(change) })
    }

    fn show(&self, figures: Vec<Value>) {
        match self.format {
            Format::Json => {
                let mut report = figures::about("strategies");
                report.insert("figures".to_owned(), Value::Array(figures));
                view::json(&Value::Object(report));
            }
            Format::Text => {
                for epochs in &self.epochs {
                    let (all, hostile) = (self.participants, self.hostile);
                    view::line(format!("\n| E = {epochs} | clean | {hostile} of {all} hostile |"));
                    view::line("|---|---|---|");
                    for figure in figures.iter().filter(|it| it["epochs"] == *epochs) {
                        let cell = |field: &str| {
                            let [mean, min, max] = ["mean", "min", "max"]
                                .map(|name| figure[field][name].as_f64().unwrap_or_default());
                            if figure[field].is_null() {
                                return String::new();
                            }
                            format!("{mean:.3} ({min:.3} to {max:.3})")
                        };
                        let name = figure["strategy"].as_str().unwrap_or_default();
                        view::line(format!(
                            "| {name} | {} | {} |",
                            cell("clean"),
                            cell("attacked")
                        ));
                    }
                }
            }
        }
    }
}

impl Accuracies {
    fn json(&self) -> Value {
        let Self(found) = self;
        let mean = found.iter().sum::<f64>() / found.len() as f64;
        let (min, max) =
            found.iter().fold((1.0_f64, 0.0_f64), |(min, max), it| (min.min(*it), max.max(*it)));
        json!({ "mean": mean, "min": min, "max": max, "seeds": found })
    }
}

impl FromIterator<f64> for Accuracies {
    fn from_iter<I: IntoIterator<Item = f64>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

fn dataset(rows: &Rows) -> anyhow::Result<Dataset> {
    let mut dataset = Dataset::default();
    dataset.append("rows", rows.to_csv().as_bytes())?;
    Ok(dataset)
}

fn first(rows: &Dataset) -> anyhow::Result<Model> {
    Ok(initial_model(client_wasm::Kind::Softmax, rows.features(), 10, 0)?)
}

fn accuracy(model: &Model, split: &Split, scale: f64) -> anyhow::Result<f64> {
    let score = evaluate(model, &split.test, scale)?;
    score.accuracy.context("a model of classes has an accuracy")
}

/// All numbers, in the order of the tensors' names.
fn flat(model: &Model) -> Vec<f64> {
    model.tensors().into_values().flat_map(|tensor| tensor.values).collect()
}

/// Tensors of the model's shapes with these numbers.
fn named(model: &Model, mut values: &[f64]) -> BTreeMap<String, Tensor> {
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in model.tensors() {
        let (own, rest) = values.split_at(tensor.values.len());
        values = rest;
        tensors.insert(name.to_owned(), Tensor { shape: tensor.shape, values: own.to_vec() });
    }
    tensors
}

/// A model of the same shapes with these numbers.
fn filled(model: &Model, values: &[f64]) -> anyhow::Result<Model> {
    let tensors = named(model, values);
    Ok(Model::from_tensors(tensors, client_wasm::Kind::Softmax, model_features(model))?)
}

fn model_features(model: &Model) -> usize {
    model.tensors().get("w").map_or(0, |tensor| tensor.shape[0])
}
