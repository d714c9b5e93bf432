//! Everybody; where fewer are wanted, those who were asked least so far, and among equals by lot.

use super::Draw;

pub(super) fn choose(draw: &Draw<'_>, count: usize) -> Vec<usize> {
    draw.highest(count, |candidate| draw.lot(candidate) - candidate.asked as f64)
}
