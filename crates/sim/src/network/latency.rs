//! Latency, jitter, loss and bandwidth, per directed link.

use super::{Line, Medium};
use crate::LinkSpec;

/// The shortest time after which a connection sends a lost packet again (RFC 6298 lets
/// implementations go below its second; Linux takes 200 ms).
const RETRANSMIT_US_MIN: u64 = 200_000;
/// Losses of one packet in a row that are counted; more would only make it later still.
const LOSSES_MAX: u32 = 8;

/// When a packet of a connection arrives; a lost one is sent again, each time after twice as long.
pub(super) fn connection(
    spec: &LinkSpec,
    line: &mut Line,
    medium: Option<&mut Medium>,
    bytes: u64,
    now_us: u64,
) -> u64 {
    let left = queue(spec, line, medium, bytes, now_us);
    let mut wait = RETRANSMIT_US_MIN.max(2 * spec.latency_us);
    let mut late = 0_u64;
    for _ in 0..LOSSES_MAX {
        if !line.dice.chance(spec.loss_rate) {
            break;
        }
        late = late.saturating_add(wait);
        wait = wait.saturating_mul(2);
    }
    left.saturating_add(late).saturating_add(travel(spec, line))
}

/// When copies of a plain event arrive.
pub(super) fn datagram(
    spec: &LinkSpec,
    line: &mut Line,
    medium: Option<&mut Medium>,
    bytes: u64,
    now_us: u64,
) -> Vec<u64> {
    let left = queue(spec, line, medium, bytes, now_us);
    if line.dice.chance(spec.loss_rate) {
        return vec![];
    }
    let copies = if line.dice.chance(spec.duplicate_rate) { 2 } else { 1 };
    let arrive = |line: &mut Line| {
        let detour = if line.dice.chance(spec.reorder_rate) {
            line.dice.between(1, 2 * spec.latency_us.max(1))
        } else {
            0
        };
        left.saturating_add(travel(spec, line)).saturating_add(detour)
    };
    (0..copies).map(|_| arrive(line)).collect()
}

fn travel(spec: &LinkSpec, line: &mut Line) -> u64 {
    let jitter = if spec.jitter_us > 0 { line.dice.between(0, spec.jitter_us) } else { 0 };
    spec.latency_us.saturating_add(jitter)
}

/// When the last bit has left, behind everything that was to be sent before.
fn queue(
    spec: &LinkSpec,
    line: &mut Line,
    medium: Option<&mut Medium>,
    bytes: u64,
    now_us: u64,
) -> u64 {
    let mut left = now_us;
    if let Some(bandwidth_bps) = spec.bandwidth_bps {
        line.free_us = line.free_us.max(left).saturating_add(airtime_us(bytes, bandwidth_bps));
        left = line.free_us;
    }
    if let Some(medium) = medium {
        let airtime = airtime_us(bytes, medium.bandwidth_bps);
        medium.free_us = medium.free_us.max(left).saturating_add(airtime);
        left = medium.free_us;
    }
    left
}

fn airtime_us(bytes: u64, bandwidth_bps: u64) -> u64 {
    bytes.saturating_mul(8_000_000) / bandwidth_bps.max(1)
}
