//! Krum: the one update that has the nearest neighbours.
//!
//! The update of the least score, which is the sum of its squared distances to the `n - f - 2`
//! nearest others, when up to `f` of `n` are hostile (Blanchard et al., "Machine learning with
//! adversaries: Byzantine tolerant gradient descent", 2017, section 4). The paper asks for
//! `2 f + 2 < n`: `f` is the given share of `n`, or as much of it as that allows.

use super::Strategy;
use crate::{
    Aggregator, Center, Distances, Recipe, RunError, Setting, Settings, Survey, settings::real,
};

pub(super) const BYZANTINE_SHARE: Setting =
    real("byzantine_share", "share that may be hostile (f / n)", 0.2, (0.0, 0.5));

const SETTINGS: &[Setting] = &[BYZANTINE_SHARE];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "krum",
    summary: "the update nearest to its neighbours; holds while fewer than half are hostile",
    settings: SETTINGS,
    vectors: &[],
    needs: &[],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(Krum { byzantine_share: settings.get(BYZANTINE_SHARE.name) })
}

struct Krum {
    byzantine_share: f64,
}

impl Aggregator for Krum {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        let count = survey.facts().len();
        let hostile = hostile(self.byzantine_share, count, count.saturating_sub(3) / 2);
        let mut race = Race::new(survey, hostile)?;
        let winner = race.next()?;
        Recipe::of(Center::Mean((0..count).map(|it| u64::from(it == winner)).collect()))
    }
}

/// How many of `count` may be hostile: the share, as far as a rule can bear it.
pub(super) fn hostile(share: f64, count: usize, bearable: usize) -> usize {
    ((share * count as f64) as usize).min(bearable)
}

/// Krum again and again, each time without those that won before.
pub(super) struct Race<'a> {
    survey: &'a dyn Survey,
    distances: Distances,
    hostile: usize,
    left: Vec<usize>,
    gone: Vec<bool>,
    /// Of each update, all others from the nearest on.
    neighbours: Vec<Vec<usize>>,
}

impl<'a> Race<'a> {
    pub(super) fn new(survey: &'a dyn Survey, hostile: usize) -> Result<Self, RunError> {
        let distances = survey.distances()?;
        let left: Vec<usize> = (0..survey.facts().len()).collect();
        let sorted = |from: usize| {
            let mut others: Vec<usize> = left.iter().copied().filter(|it| *it != from).collect();
            let distance = |to: &usize| distances.squared(from, *to);
            others.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
            others
        };
        let neighbours = left.iter().map(|from| sorted(*from)).collect();
        let gone = vec![false; left.len()];
        Ok(Self { survey, distances, hostile, left, gone, neighbours })
    }

    /// The update of the least score among those left, which it then is no more.
    pub(super) fn next(&mut self) -> Result<usize, RunError> {
        let scores: Vec<f64> = self.left.iter().map(|update| self.score(*update)).collect();
        let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let equal = self.left.iter().zip(&scores).filter(|(_, score)| **score == least);
        let tied: Vec<usize> = equal.map(|(update, _)| *update).collect();
        let winner = self.survey.first_of(&tied)?;
        self.left.retain(|update| *update != winner);
        self.gone[winner] = true;
        Ok(winner)
    }

    /// The updates of the least scores, all scored once.
    pub(super) fn best(self, keep: usize) -> Result<Vec<usize>, RunError> {
        let mut scored: Vec<(f64, usize)> =
            self.left.iter().map(|update| (self.score(*update), *update)).collect();
        scored.sort_by(|a, b| a.0.total_cmp(&b.0));
        let last = scored[keep - 1].0;
        let better = scored.iter().filter(|(score, _)| *score < last);
        let mut best: Vec<usize> = better.map(|(_, update)| *update).collect();
        let equal = scored.iter().filter(|(score, _)| *score == last);
        let mut tied: Vec<usize> = equal.map(|(_, update)| *update).collect();
        while best.len() < keep {
            let next = self.survey.first_of(&tied)?;
            tied.retain(|update| *update != next);
            best.push(next);
        }
        Ok(best)
    }

    fn score(&self, update: usize) -> f64 {
        let near = self.left.len().saturating_sub(self.hostile + 2).max(1);
        let others = self.neighbours[update].iter().filter(|other| !self.gone[**other]);
        others.take(near).map(|other| self.distances.squared(update, *other)).sum()
    }
}
