//! Rules that look at the values of each coordinate in their order: median, trimmed mean, mean of
//! those nearest to the median.
//!
//! Sixteen coordinates are sorted side by side by a network of comparisons. Sums are of sorted
//! values, so the order of the updates cannot show. Zero has one sign here, plus.

use crate::{
    Element,
    linear::Broken,
    network::{LANES, Network},
    simd::{Vectorised, dispatch},
};

/// Coordinates whose values of all rows are gathered at once, to lie in a near cache.
const STRIP: usize = 256;

/// Which of the sorted values make the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    Median,
    /// The mean of all but the `cut` least and the `cut` greatest.
    Trimmed {
        cut: usize,
    },
    /// The mean of the `keep` nearest to the median; of two equally near, the lesser.
    Nearest {
        keep: usize,
    },
}

/// A pick from so many rows.
pub(crate) struct Ordered {
    rows: usize,
    pick: Pick,
    network: Network,
}

impl Ordered {
    pub(crate) fn new(rows: usize, pick: Pick) -> Self {
        let wanted = match pick {
            Pick::Median => (rows - 1) / 2..rows / 2 + 1,
            Pick::Trimmed { cut } => cut..rows - cut,
            Pick::Nearest { .. } => 0..rows,
        };
        assert!(!wanted.is_empty(), "something is left of {rows} rows by {pick:?}");
        Self { rows, pick, network: Network::new(rows, wanted) }
    }

    pub(crate) fn block<T: Element>(
        &self,
        rows: &[&[T]],
        out: &mut [T],
        strip: &mut Vec<[T; LANES]>,
    ) -> Result<(), Broken> {
        assert_eq!(rows.len(), self.rows, "the network is made for these rows");
        dispatch(Blockwise { ordered: self, rows, out, strip })
    }
}

struct Blockwise<'a, T> {
    ordered: &'a Ordered,
    rows: &'a [&'a [T]],
    out: &'a mut [T],
    strip: &'a mut Vec<[T; LANES]>,
}

impl<T: Element> Vectorised for Blockwise<'_, T> {
    type Output = Result<(), Broken>;

    #[inline(always)]
    fn run(self) -> Result<(), Broken> {
        let count = self.rows.len();
        self.strip.resize(STRIP / LANES * count, [T::ZERO; LANES]);
        for (index, out) in self.out.chunks_mut(STRIP).enumerate() {
            let start = index * STRIP;
            for (row, values) in self.rows.iter().enumerate() {
                let values = &values[start..start + out.len()];
                if !gather(values, self.strip, row, count) {
                    return Err(Broken { row });
                }
            }
            for (tile, out) in self.strip.chunks_mut(count).zip(out.chunks_mut(LANES)) {
                self.ordered.network.sort(tile);
                let picked = match self.ordered.pick {
                    Pick::Median => median(tile),
                    Pick::Trimmed { cut } => mean(&tile[cut..count - cut]),
                    Pick::Nearest { keep } => nearest(tile, keep),
                };
                out.copy_from_slice(&picked[..out.len()]);
            }
        }
        Ok(())
    }
}

/// Puts a row's values where the tiles want them; tells whether all were finite (zero
/// times what is not is no number).
#[inline(always)]
fn gather<T: Element>(values: &[T], strip: &mut [[T; LANES]], row: usize, count: usize) -> bool {
    let mut probe = [T::ZERO; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for (tile, values) in whole.iter().enumerate() {
        let place = &mut strip[tile * count + row];
        for lane in 0..LANES {
            place[lane] = values[lane] + T::ZERO;
            probe[lane] = probe[lane] + values[lane] * T::ZERO;
        }
    }
    if !rest.is_empty() {
        let place = &mut strip[whole.len() * count + row];
        for (lane, value) in rest.iter().enumerate() {
            place[lane] = *value + T::ZERO;
            probe[lane] = probe[lane] + *value * T::ZERO;
        }
    }
    probe.iter().all(|lane| *lane == T::ZERO)
}

#[inline(always)]
fn median<T: Element>(sorted: &[[T; LANES]]) -> [T; LANES] {
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    let mut middle = low;
    for lane in 0..LANES {
        let (a, b) = (low[lane].to_f64(), high[lane].to_f64());
        let sum = a + b;
        let half = if sum.abs() <= f64::MAX { sum * 0.5 } else { a * 0.5 + b * 0.5 };
        middle[lane] = T::from_f64(half);
    }
    middle
}

/// The mean of sorted rows, never outside of them.
#[inline(always)]
fn mean<T: Element>(sorted: &[[T; LANES]]) -> [T; LANES] {
    let mut sum = [0.0; LANES];
    for row in sorted {
        for lane in 0..LANES {
            sum[lane] += row[lane].to_f64();
        }
    }
    let count = sorted.len() as f64;
    let mut mean = [T::ZERO; LANES];
    for lane in 0..LANES {
        let terms = sorted.iter().map(|row| row[lane].to_f64());
        let (least, most) = (sorted[0][lane], sorted[sorted.len() - 1][lane]);
        mean[lane] = within(divide(sum[lane], count, terms), least, most);
    }
    mean
}

/// The quotient of a sum, taken again term by term if the sum overflowed.
#[inline(always)]
fn divide(sum: f64, count: f64, terms: impl Iterator<Item = f64>) -> f64 {
    if sum.abs() <= f64::MAX { sum / count } else { terms.map(|term| term / count).sum() }
}

#[inline(always)]
fn within<T: Element>(mean: f64, least: T, most: T) -> T {
    let mean = T::from_f64(mean);
    let mean = if mean < least { least } else { mean };
    if mean > most { most } else { mean }
}

/// The values nearest to the median lie side by side: the window of `keep` whose farther end is
/// the nearest, and of several such the lowest.
#[inline(always)]
fn nearest<T: Element>(sorted: &[[T; LANES]], keep: usize) -> [T; LANES] {
    let middle = median(sorted);
    let mut best = [f64::INFINITY; LANES];
    let mut start = [0.0; LANES];
    for (at, (first, last)) in sorted.iter().zip(&sorted[keep - 1..]).enumerate() {
        for lane in 0..LANES {
            let middle = middle[lane].to_f64() * 0.5;
            let below = middle - first[lane].to_f64() * 0.5;
            let above = last[lane].to_f64() * 0.5 - middle;
            let far = if below > above { below } else { above };
            let nearer = far < best[lane];
            best[lane] = if nearer { far } else { best[lane] };
            start[lane] = if nearer { at as f64 } else { start[lane] };
        }
    }
    let mut sum = [0.0; LANES];
    for (at, row) in sorted.iter().enumerate() {
        for lane in 0..LANES {
            let inside = (at as f64 >= start[lane]) & ((at as f64) < start[lane] + keep as f64);
            sum[lane] += if inside { row[lane].to_f64() } else { 0.0 };
        }
    }
    let mut mean = [T::ZERO; LANES];
    for lane in 0..LANES {
        let window = &sorted[start[lane] as usize..][..keep];
        let terms = window.iter().map(|row| row[lane].to_f64());
        let (least, most) = (window[0][lane], window[keep - 1][lane]);
        mean[lane] = within(divide(sum[lane], keep as f64, terms), least, most);
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_the_bits_of_plain_loops() {
        for pick in [Pick::Median, Pick::Trimmed { cut: 2 }, Pick::Nearest { keep: 4 }] {
            for count in [9, 10] {
                let value =
                    |row: usize, at: usize| ((row * 7919 + at * 104_729) % 1009) as f32 * 0.1;
                let rows: Vec<Vec<f32>> =
                    (0..count).map(|row| (0..777).map(|at| value(row, at)).collect()).collect();
                let views: Vec<&[f32]> = rows.iter().map(|row| &**row).collect();
                let ordered = Ordered::new(count, pick);
                let (mut plain, mut fast) = (vec![0.0; 777], vec![0.0; 777]);
                ordered.block(&views, &mut fast, &mut vec![]).unwrap();
                let strip = &mut vec![];
                Blockwise { ordered: &ordered, rows: &views, out: &mut plain, strip }
                    .run()
                    .unwrap();
                assert_eq!(plain, fast);
            }
        }
    }
}
