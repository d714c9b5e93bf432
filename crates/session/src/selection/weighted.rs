//! A sample without replacement in proportion to samples: the highest `u^(1/w)` (Efraimidis and
//! Spirakis, "Weighted random sampling with a reservoir", Information Processing Letters 97, 2006),
//! taken as `ln(u)/w`, which has the same order and does not underflow.

use super::Draw;

pub(super) fn choose(draw: &Draw<'_>, count: usize) -> Vec<usize> {
    draw.highest(count, |candidate| draw.lot(candidate).ln() / candidate.samples.max(1.0))
}
