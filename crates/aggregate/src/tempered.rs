//! Rows of which none counts for much more than the others: what stands in front of control
//! variates, which no bound on updates reaches.

use std::{io, ops::Range};

use crate::{Element, Rows};

/// How many times the median of all norms a row may have; claims of losses and steps are held to
/// as much.
const TIMES_MAX: f64 = 10.0;
/// Elements read at once.
const BLOCK: usize = 1 << 14;

/// Rows, those that are longer than ten times the median shortened to that. The median is the lower
/// one of two: of two rows, the longer is the one that may be wrong.
pub struct Tempered<'a, T> {
    rows: &'a dyn Rows<T>,
    factors: Vec<f64>,
}

impl<'a, T: Element> Tempered<'a, T> {
    /// Reads all rows once.
    ///
    /// # Errors
    /// That of the first row that cannot be read.
    pub fn new(rows: &'a dyn Rows<T>) -> io::Result<Self> {
        let norms: Vec<f64> =
            (0..rows.count()).map(|row| norm(rows, row)).collect::<io::Result<_>>()?;
        let mut sorted = norms.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
        let most = median * TIMES_MAX;
        // A norm beyond all numbers leaves nothing of its row.
        let factor = |norm: f64| if norm <= most { 1.0 } else { most / norm };
        let factors = norms.into_iter().map(factor).collect();
        Ok(Self { rows, factors })
    }

    /// How many rows were shortened.
    pub fn shortened(&self) -> usize {
        self.factors.iter().filter(|factor| **factor < 1.0).count()
    }
}

fn norm<T: Element>(rows: &dyn Rows<T>, row: usize) -> io::Result<f64> {
    let (mut sum, mut scratch) = (0.0, vec![]);
    let width = rows.width();
    for start in (0..width).step_by(BLOCK) {
        let values = rows.read(row, start..width.min(start + BLOCK), &mut scratch)?;
        sum += values.iter().map(|value| value.to_f64() * value.to_f64()).sum::<f64>();
    }
    Ok(sum.sqrt())
}

impl<T: Element> Rows<T> for Tempered<'_, T> {
    fn count(&self) -> usize {
        self.rows.count()
    }

    fn width(&self) -> usize {
        self.rows.width()
    }

    fn read<'a>(
        &'a self,
        row: usize,
        range: Range<usize>,
        scratch: &'a mut Vec<T>,
    ) -> io::Result<&'a [T]> {
        let factor = self.factors[row];
        if factor == 1.0 {
            return self.rows.read(row, range, scratch);
        }
        let mut own = vec![];
        let shortened = self
            .rows
            .read(row, range, &mut own)?
            .iter()
            .map(|it| T::from_f64(it.to_f64() * factor));
        scratch.clear();
        scratch.extend(shortened);
        Ok(scratch)
    }
}

impl<T> std::fmt::Debug for Tempered<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rows by factors {:?}", self.factors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slices;

    fn read(rows: &[&[f64]], row: usize) -> Vec<f64> {
        let slices = Slices::new(rows).unwrap();
        let tempered = Tempered::new(&slices).unwrap();
        let width = Rows::<f64>::width(&tempered);
        tempered.read(row, 0..width, &mut vec![]).unwrap().to_vec()
    }

    #[test]
    fn a_row_that_is_much_longer_than_the_others_is_shortened() {
        let (fine, long) = ([3.0, 4.0], [-3000.0, 4000.0]);
        let rows: &[&[f64]] = &[&fine, &long, &fine];
        assert_eq!(read(rows, 0), fine);
        assert_eq!(read(rows, 1), [-30.0, 40.0]);
        let ten: &[&[f64]] = &[&fine, &[30.0, -40.0]];
        assert_eq!(read(ten, 1), [30.0, -40.0], "ten times is not too much");
        assert_eq!(Tempered::new(&Slices::new(rows).unwrap()).unwrap().shortened(), 1);
    }

    #[test]
    fn a_row_of_no_length_that_can_be_said_counts_for_nothing() {
        let (fine, huge) = ([1.0, 1.0], [1e300, -1e300]);
        assert_eq!(read(&[&huge, &fine], 0), [0.0, -0.0]);
        assert_eq!(read(&[&huge, &fine], 1), fine);
        assert_eq!(read(&[&huge], 0), huge, "whoever is alone is the median");
    }
}
