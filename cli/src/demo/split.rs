//! An uneven split of rows between proplets, as real fleets have it.
//!
//! For each label, shares are drawn from a symmetric Dirichlet distribution: the smaller alpha,
//! the more a proplet sees of some labels and the less of others (Hsu, Qi and Brown, "Measuring
//! the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
//! section 3.1).

use anyhow::ensure;
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Gamma};

use super::rows::Rows;

/// Fewest rows that a proplet is left with.
const ROWS_MIN: usize = 10;
const DRAWS_MAX: usize = 1000;

/// How many rows each part gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// As it comes.
    Free,
    /// A part that has its fair share of all rows gets none of the labels that are still to be
    /// dealt (Li et al., "Federated learning on non-IID data silos", 2022, as their code does it;
    /// Flower's partitioner does so unless told otherwise).
    Balanced,
}

/// Splits rows into `parts`, the same way for the same seed.
pub(crate) fn dirichlet(
    rows: &Rows,
    parts: usize,
    alpha: f64,
    seed: u64,
) -> anyhow::Result<Vec<Rows>> {
    dirichlet_of(Sizes::Free, rows, parts, alpha, seed)
}

/// As [`dirichlet`], with parts of such sizes.
pub(crate) fn dirichlet_of(
    sizes: Sizes,
    rows: &Rows,
    parts: usize,
    alpha: f64,
    seed: u64,
) -> anyhow::Result<Vec<Rows>> {
    ensure!(parts > 0, "proplets takes at least 1, not 0");
    ensure!(alpha.is_finite() && alpha > 0.0, "alpha takes a number above 0, not {alpha}");
    ensure!(
        rows.len() >= parts * ROWS_MIN,
        "{} rows are too few for {parts} proplets; each needs {ROWS_MIN}",
        rows.len()
    );
    let gamma = Gamma::new(alpha, 1.0)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..DRAWS_MAX {
        let drawn = draw(sizes, rows, parts, gamma, &mut rng);
        if drawn.iter().all(|part| part.len() >= ROWS_MIN) {
            return Ok(drawn.into_iter().map(|numbers| rows.pick(&numbers)).collect());
        }
    }
    anyhow::bail!(
        "alpha {alpha} leaves some of {parts} proplets with fewer than {ROWS_MIN} of {} rows",
        rows.len()
    )
}

fn draw(
    sizes: Sizes,
    rows: &Rows,
    parts: usize,
    gamma: Gamma<f64>,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let mut drawn = vec![vec![]; parts];
    for mut of_label in rows.by_label() {
        of_label.shuffle(rng);
        // Independent gamma draws, divided by their sum, are one Dirichlet draw.
        let mut shares: Vec<f64> = (0..parts).map(|_| gamma.sample(rng)).collect();
        if sizes == Sizes::Balanced {
            let is_full = |part: &Vec<usize>| part.len() * parts >= rows.len();
            for (share, _) in shares.iter_mut().zip(&drawn).filter(|(_, part)| is_full(part)) {
                *share = 0.0;
            }
        }
        let sum: f64 = shares.iter().sum();
        let mut reached = 0.0;
        let mut from = 0;
        for (part, share) in drawn.iter_mut().zip(&shares) {
            reached += share / sum;
            let to = ((reached * of_label.len() as f64).round() as usize).min(of_label.len());
            part.extend_from_slice(&of_label[from..to.max(from)]);
            from = to.max(from);
        }
        // What rounding left, if anything.
        if let Some(last) = drawn.last_mut() {
            last.extend_from_slice(&of_label[from..]);
        }
    }
    for part in &mut drawn {
        part.shuffle(rng);
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_goes_to_one_proplet_and_the_seed_decides_which() {
        let digits = Rows::digits().unwrap();
        let split = |seed| dirichlet(&digits, 3, 0.5, seed).unwrap();
        assert_eq!(split(1).iter().map(Rows::len).sum::<usize>(), digits.len());
        assert_eq!(split(1), split(1));
        assert_ne!(split(1), split(2));
    }

    #[test]
    fn a_small_alpha_is_uneven_and_a_large_one_even() {
        let digits = Rows::digits().unwrap();
        let spread = |alpha| {
            let parts = dirichlet(&digits, 4, alpha, 3).unwrap();
            let most = parts.iter().map(|part| part.by_label()[0].len()).max().unwrap();
            let least = parts.iter().map(|part| part.by_label()[0].len()).min().unwrap();
            most - least
        };
        assert!(spread(0.1) > spread(1000.0) + 10);
    }

    #[test]
    fn balanced_parts_are_of_like_sizes_and_lose_no_row() {
        let digits = Rows::digits().unwrap();
        let most = |sizes| {
            let parts = dirichlet_of(sizes, &digits, 10, 0.5, 1).unwrap();
            assert_eq!(parts.iter().map(Rows::len).sum::<usize>(), digits.len());
            parts.iter().map(Rows::len).max().unwrap()
        };
        assert!(most(Sizes::Balanced) < most(Sizes::Free));
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        let digits = Rows::digits().unwrap();
        for (parts, alpha) in [(0, 0.5), (3, 0.0), (3, f64::NAN), (200, 0.5)] {
            assert!(dirichlet(&digits, parts, alpha, 1).is_err(), "{parts} {alpha}");
        }
    }
}
