//! Squared distances, summed in an order that nothing changes.
//!
//! Differences are squared and added in the element type over sixteen lanes of a chunk, and the
//! chunks in `f64`. Where a chunk's sum overflows or vanishes it is taken again in `f64`, so that
//! neither an update of enormous weights nor a model of tiny ones blinds the rules that compare.

use crate::{
    CHUNK, Element,
    linear::Broken,
    simd::{Vectorised, dispatch},
};

const LANES: usize = 16;
/// Rows that are compared with one while it is held in registers.
const GROUP: usize = 4;
/// Below this a chunk's sum may be made of squares that vanished.
const SMALL: f64 = 1e-24;

/// Squared distances of rows `i < j`, at [`pair`].
pub(crate) struct Pairs<'a, T> {
    pub(crate) rows: &'a [&'a [T]],
    pub(crate) sums: &'a mut [f64],
}

/// Squared distances of each row from a center.
pub(crate) struct FromCenter<'a, T> {
    pub(crate) rows: &'a [&'a [T]],
    pub(crate) center: &'a [T],
    pub(crate) sums: &'a mut [f64],
}

/// Pairs of `count` rows.
pub(crate) const fn pairs(count: usize) -> usize {
    count * count.saturating_sub(1) / 2
}

/// Where the pair of `low < high` is kept: all pairs of a row with lower ones lie side by side.
pub(crate) const fn pair(low: usize, high: usize) -> usize {
    pairs(high) + low
}

impl<T: Element> Pairs<'_, T> {
    pub(crate) fn add(self) -> Result<(), Broken> {
        dispatch(self)
    }
}

impl<T: Element> FromCenter<'_, T> {
    pub(crate) fn add(self) -> Result<(), Broken> {
        dispatch(self)
    }
}

impl<T: Element> Vectorised for Pairs<'_, T> {
    type Output = Result<(), Broken>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let width = self.rows.first().map_or(0, |row| row.len());
        for start in (0..width).step_by(CHUNK) {
            let range = start..(start + CHUNK).min(width);
            finite(self.rows, &range)?;
            for (high, row) in self.rows.iter().enumerate() {
                let lower = &self.rows[..high];
                compare(&row[range.clone()], lower, &range, &mut self.sums[pairs(high)..]);
            }
        }
        Ok(())
    }
}

impl<T: Element> Vectorised for FromCenter<'_, T> {
    type Output = Result<(), Broken>;

    #[inline(always)]
    fn run(self) -> Self::Output {
        for start in (0..self.center.len()).step_by(CHUNK) {
            let range = start..(start + CHUNK).min(self.center.len());
            finite(self.rows, &range)?;
            compare(&self.center[range.clone()], self.rows, &range, self.sums);
        }
        Ok(())
    }
}

/// Zero times what is not finite is no number.
#[inline(always)]
fn finite<T: Element>(rows: &[&[T]], range: &std::ops::Range<usize>) -> Result<(), Broken> {
    for (row, values) in rows.iter().enumerate() {
        let mut probe = [T::ZERO; LANES];
        let (whole, rest) = values[range.clone()].as_chunks::<LANES>();
        for values in whole {
            for lane in 0..LANES {
                probe[lane] = probe[lane] + values[lane] * T::ZERO;
            }
        }
        let rest = rest.iter().all(|value| value.finite());
        if !(rest && probe.iter().all(|lane| *lane == T::ZERO)) {
            return Err(Broken { row });
        }
    }
    Ok(())
}

/// Adds to `sums[i]` the squared distance of a chunk from that of `others[i]`.
#[inline(always)]
fn compare<T: Element>(
    chunk: &[T],
    others: &[&[T]],
    range: &std::ops::Range<usize>,
    sums: &mut [f64],
) {
    let mut place = 0;
    while place + GROUP <= others.len() {
        let mut group = [chunk; GROUP];
        for (slot, row) in group.iter_mut().zip(&others[place..]) {
            *slot = &row[range.clone()];
        }
        let found = squares(chunk, &group);
        for (slot, row) in group.iter().enumerate() {
            sums[place + slot] += sound(found[slot], chunk, row);
        }
        place += GROUP;
    }
    while place < others.len() {
        let row = &others[place][range.clone()];
        sums[place] += sound(squares(chunk, &[row])[0], chunk, row);
        place += 1;
    }
}

#[inline(always)]
fn squares<T: Element, const N: usize>(chunk: &[T], others: &[&[T]; N]) -> [f64; N] {
    let len = chunk.len();
    let mut lanes = [[T::ZERO; LANES]; N];
    let whole = len - len % LANES;
    let mut start = 0;
    while start < whole {
        let a: &[T; LANES] = chunk[start..start + LANES].try_into().expect("lanes");
        for row in 0..N {
            let b: &[T; LANES] = others[row][start..start + LANES].try_into().expect("lanes");
            let mut sum = lanes[row];
            for lane in 0..LANES {
                let difference = a[lane] - b[lane];
                sum[lane] = sum[lane] + difference * difference;
            }
            lanes[row] = sum;
        }
        start += LANES;
    }
    let mut sums = [0.0; N];
    for row in 0..N {
        for at in whole..len {
            let difference = chunk[at] - others[row][at];
            lanes[row][at - whole] = lanes[row][at - whole] + difference * difference;
        }
        sums[row] = fold(lanes[row]).to_f64();
    }
    sums
}

/// The sum of the lanes, by halves.
#[inline(always)]
fn fold<T: Element>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = lanes[lane] + lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum itself, or that taken in `f64` where the element type may have failed it.
#[inline(always)]
fn sound<T: Element>(sum: f64, a: &[T], b: &[T]) -> f64 {
    if sum > SMALL && sum <= f64::MAX { sum } else { wide(a, b) }
}

#[cold]
#[inline(never)]
fn wide<T: Element>(a: &[T], b: &[T]) -> f64 {
    dispatch(Wide { a, b })
}

struct Wide<'a, T> {
    a: &'a [T],
    b: &'a [T],
}

impl<T: Element> Vectorised for Wide<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        wide_sum(self.a, self.b)
    }
}

#[inline(always)]
fn wide_sum<T: Element>(a: &[T], b: &[T]) -> f64 {
    let mut lanes = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            let difference = a[lane].to_f64() - b[lane].to_f64();
            lanes[lane] += difference * difference;
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        let difference = a.to_f64() - b.to_f64();
        lanes[lane] += difference * difference;
    }
    fold(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the processor is, and whether an element type holds the squares or not.
    #[test]
    fn vectors_have_the_bits_of_plain_loops() {
        for scale in [1.0, 1e-30, 1e30] {
            let value = |row: usize, at: usize| ((row * 7919 + at * 104_729) % 1009) as f32 * scale;
            let rows: Vec<Vec<f32>> =
                (0..9).map(|row| (0..3003).map(|at| value(row, at)).collect()).collect();
            let views: Vec<&[f32]> = rows.iter().map(|row| &**row).collect();
            let (mut plain, mut fast) = (vec![0.0; pairs(9)], vec![0.0; pairs(9)]);
            Pairs { rows: &views, sums: &mut plain }.run().unwrap();
            Pairs { rows: &views, sums: &mut fast }.add().unwrap();
            assert_eq!(plain, fast);
            for high in 0..9 {
                for low in 0..high {
                    let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
                    let exact: f64 = rows[low].iter().zip(&rows[high]).map(square).sum();
                    let off = (fast[pair(low, high)] - exact).abs() / exact;
                    assert!(off < 1e-5, "{low} {high}: {off}");
                }
            }
        }
    }
}
