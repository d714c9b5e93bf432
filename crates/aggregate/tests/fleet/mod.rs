//! A made-up round with everything that any strategy may ask for.

use aggregate::{Element, Facts, Guard, Round, Slices};

/// An element that can be made of an `f64`.
pub(crate) trait Number: Element {
    fn of(value: f64) -> Self {
        Self::from_f64(value)
    }
}

impl<T: Element> Number for T {}

#[derive(Clone)]
pub(crate) struct Fleet<T> {
    pub(crate) base: Vec<T>,
    pub(crate) updates: Vec<Vec<T>>,
    pub(crate) bases: Vec<Vec<T>>,
    pub(crate) controls: Vec<Vec<T>>,
    pub(crate) facts: Vec<Facts>,
    pub(crate) guard: Guard,
}

impl<T: Number> Fleet<T> {
    /// Updates around a base, each by a generator of its own.
    pub(crate) fn new(count: usize, width: usize, seed: u64) -> Self {
        let base = row(&vec![T::of(0.0); width], 1.0, seed);
        let around = |spread: f64, salt: u64| -> Vec<Vec<T>> {
            (0..count as u64)
                .map(|it| row(&base, spread, seed * 7919 + salt * 104_729 + it))
                .collect()
        };
        let fact = |it: u64| Facts {
            num_samples: 20 + it * 37 % 101,
            loss: Some(0.3 + it as f64 / 7.0),
            staleness: it % 4,
            steps: Some(1 + it % 5),
        };
        Self {
            updates: around(0.3, 1),
            bases: around(0.1, 2),
            controls: around(0.1, 3),
            facts: (0..count as u64).map(fact).collect(),
            guard: Guard::default(),
            base,
        }
    }

    /// Puts the updates, and what goes with them, into another order.
    #[allow(dead_code, reason = "not every test permutes")]
    pub(crate) fn permute(&mut self, turn: usize) {
        let count = self.updates.len();
        let swaps = (0..count).map(|at| (at, (at * 7 + turn * 3) % count));
        for (a, b) in swaps {
            self.updates.swap(a, b);
            self.bases.swap(a, b);
            self.controls.swap(a, b);
            self.facts.swap(a, b);
        }
    }

    pub(crate) fn with_round<R>(&self, then: impl FnOnce(&Round<'_, T>) -> R) -> R {
        let [updates, bases, controls] =
            [&self.updates, &self.bases, &self.controls].map(|rows| views(rows));
        let base = [&*self.base];
        let [updates, bases, controls, base] = [&updates[..], &bases, &controls, &base]
            .map(|rows| Slices::new(rows).expect("rows of one length"));
        let mut round = Round::new(&updates, &self.facts);
        round.base = Some(&base);
        round.bases = Some(&bases);
        round.controls = Some(&controls);
        then(&round)
    }
}

fn views<T>(rows: &[Vec<T>]) -> Vec<&[T]> {
    rows.iter().map(|row| &**row).collect()
}

fn row<T: Number>(around: &[T], spread: f64, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    around.iter().map(|center| T::of(center.to_f64() + spread * uniform())).collect()
}
