//! Sorting networks: the same comparisons whatever the numbers, so that lanes sort side by side.

use crate::Element;

/// Columns that are sorted at once.
pub(crate) const LANES: usize = 16;

/// Comparators that put `len` rows in order, as far as the wanted rows go.
///
/// Batcher's merge exchange, which is defined for any number of rows (Knuth, TAOCP 3, algorithm
/// 5.2.2M), without the comparators that no wanted row depends on.
pub(crate) struct Network(Vec<(usize, usize)>);

impl Network {
    pub(crate) fn new(len: usize, wanted: std::ops::Range<usize>) -> Self {
        let mut pairs = merge_exchange(len);
        let mut needed: Vec<bool> = (0..len).map(|row| wanted.contains(&row)).collect();
        let mut kept: Vec<(usize, usize)> = pairs
            .drain(..)
            .rev()
            .filter(|(low, high)| {
                let keep = needed[*low] || needed[*high];
                needed[*low] |= keep;
                needed[*high] |= keep;
                keep
            })
            .collect();
        kept.reverse();
        Self(kept)
    }

    /// Sorts each lane of the rows.
    #[inline(always)]
    pub(crate) fn sort<T: Element>(&self, rows: &mut [[T; LANES]]) {
        for (low, high) in &self.0 {
            let (a, b) = (rows[*low], rows[*high]);
            let (mut least, mut most) = (a, b);
            for lane in 0..LANES {
                least[lane] = if a[lane] < b[lane] { a[lane] } else { b[lane] };
                most[lane] = if b[lane] > a[lane] { b[lane] } else { a[lane] };
            }
            rows[*low] = least;
            rows[*high] = most;
        }
    }
}

fn merge_exchange(len: usize) -> Vec<(usize, usize)> {
    let top = len.next_power_of_two() / 2;
    let mut pairs = vec![];
    let mut p = top;
    while p > 0 {
        let (mut q, mut r, mut d) = (top, 0, p);
        loop {
            let low = (0..len.saturating_sub(d)).filter(|low| low & p == r);
            pairs.extend(low.map(|low| (low, low + d)));
            if q == p {
                break;
            }
            (d, q, r) = (q - p, q / 2, p);
        }
        p /= 2;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What sorts every row of zeros and ones sorts anything (Knuth, theorem 5.3.4Z).
    #[test]
    fn networks_sort() {
        for len in 0..=12_usize {
            for wanted in [0..len, len / 2..(len / 2 + 1).min(len), len / 4..len - len / 4] {
                let network = Network::new(len, wanted.clone());
                for pattern in 0..1_u32 << len {
                    let bit = |row: usize| (pattern >> row & 1) as f32;
                    let mut rows: Vec<_> = (0..len).map(|row| [bit(row); LANES]).collect();
                    network.sort(&mut rows);
                    let zeros = len - pattern.count_ones() as usize;
                    for row in wanted.clone() {
                        assert_eq!(rows[row], [f32::from(u8::from(row >= zeros)); LANES]);
                    }
                }
            }
        }
    }

    #[test]
    fn large_networks_sort() {
        for len in [33, 100, 257] {
            let network = Network::new(len, 0..len);
            let mut rows: Vec<_> =
                (0..len).map(|row| [((row * 7919) % 1009) as f64; LANES]).collect();
            network.sort(&mut rows);
            assert!(rows.is_sorted());
        }
    }
}
