//! Rows of which none counts for much more than the others: what stands in front of control
//! variates, which no bound on updates reaches.

use std::{io, ops::Range};

use crate::{
    Element, Rows,
    rows::{Remade, Row},
};

/// How many times the median of all norms a row may have; claims of losses and steps are held to
/// as much.
const TIMES_MAX: f64 = 10.0;
/// Elements read at once.
const BLOCK: usize = 1 << 14;

/// Rows, those that are longer than ten times the median shortened to that. The median is the lower
/// one of two: of two rows, the longer is the one that may be wrong. Reads all rows once.
///
/// # Errors
/// That of the first row that cannot be read.
pub fn tempered<'a, T: Element>(rows: &'a dyn Rows<T>) -> io::Result<impl Rows<T> + use<'a, T>> {
    let norms: Vec<f64> =
        (0..rows.count()).map(|row| norm(rows, row)).collect::<io::Result<_>>()?;
    let mut sorted = norms.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
    let most = median * TIMES_MAX;
    let make = move |row: usize, range: Range<usize>, made: &mut Vec<T>| {
        if norms[row] <= most {
            return Ok(Row::AsItIs);
        }
        // A norm beyond all numbers leaves nothing of its row.
        let factor = most / norms[row];
        let mut own = vec![];
        let values = rows.read(row, range, &mut own)?;
        made.clear();
        made.extend(values.iter().map(|it| T::from_f64(it.to_f64() * factor)));
        Ok(Row::Made)
    };
    Ok(Remade { rows, make })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slices;

    fn read(rows: &[&[f64]], row: usize) -> Vec<f64> {
        let slices = Slices::new(rows).unwrap();
        let tempered = tempered(&slices).unwrap();
        let width = tempered.width();
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
    }

    #[test]
    fn a_row_of_no_length_that_can_be_said_counts_for_nothing() {
        let (fine, huge) = ([1.0, 1.0], [1e300, -1e300]);
        assert_eq!(read(&[&huge, &fine], 0), [0.0, -0.0]);
        assert_eq!(read(&[&huge, &fine], 1), fine);
        assert_eq!(read(&[&huge], 0), huge, "whoever is alone is the median");
    }
}
