//! A uniform sample without replacement: the highest lots.

use super::Draw;

pub(super) fn choose(draw: &Draw<'_>, count: usize) -> Vec<usize> {
    draw.highest(count, |candidate| draw.lot(candidate))
}
