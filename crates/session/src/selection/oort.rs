//! By statistical utility, with a part of the places for those of whom nothing is known yet: after
//! Lai et al., "Oort: efficient federated learning via guided participant selection", OSDI 2021.
//!
//! Utility is `|B| sqrt(1/|B| sum loss^2)`, taken here as samples times the reported loss, plus the
//! paper's bonus for those not heard lately, `sqrt(0.1 ln(R) / last)`. The share of places for the
//! unknown falls from 0.9 by a factor of 0.98 a round, to 0.2 at least.

use super::Draw;

const EXPLORE_FIRST: f64 = 0.9;
const EXPLORE_DECAY: f64 = 0.98;
const EXPLORE_LEAST: f64 = 0.2;

pub(super) fn choose(draw: &Draw<'_>, count: usize) -> Vec<usize> {
    let is_known = |index: &usize| draw.candidates[*index].utility.is_some();
    let known = (0..draw.candidates.len()).filter(is_known).count();
    let unknown = draw.candidates.len() - known;
    let decay = EXPLORE_DECAY.powi(i32::try_from(draw.round).unwrap_or(i32::MAX));
    let share = (EXPLORE_FIRST * decay).max(EXPLORE_LEAST);
    let explored = (count as f64 * share).round() as usize;
    let explored = explored.clamp(count.saturating_sub(known), unknown.min(count));
    let everybody = draw.highest(draw.candidates.len(), |candidate| {
        let Some(utility) = candidate.utility else { return draw.lot(candidate) };
        let last = candidate.counted_in.unwrap_or(0).max(1) as f64;
        let bonus = (0.1 * (draw.round.max(1) as f64).ln() / last).sqrt();
        utility * (1.0 + bonus)
    });
    let unknown = everybody.iter().copied().filter(|index| !is_known(index)).take(explored);
    let known = everybody.iter().copied().filter(is_known).take(count - explored);
    unknown.chain(known).collect()
}
