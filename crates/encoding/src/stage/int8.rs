//! `int8`: blocks of 1024 values as whole numbers of -127 to 127 times a scale, by stochastic
//! rounding.
//!
//! The scale is the largest magnitude of the block over 127, in `f32`. A value `x` between the
//! steps `q` and `q + 1` becomes `q + 1` with probability `x / scale - q`: what is read is right on
//! average, so that the errors of many clients cancel (QSGD: Alistarh, Grubic, Li, Tomioka,
//! Vojnovic, "QSGD: communication-efficient SGD via gradient quantization and encoding", NeurIPS
//! 2017, section 3.1, here with the largest magnitude for the norm). Read again by one product in
//! `f32`. The dice are seeded: the same update, seed and tensor give the same bytes.

use super::{NOTHING, Place, Stage};
use crate::{Element, Precision, dice::Dice};

pub(super) const STAGE: Stage = Stage {
    name: "int8",
    form: "int8",
    takes: NOTHING,
    place: Place::Precision,
    needs: None,
    set: |encoding, argument| {
        encoding.precision = Precision::Int8;
        argument.is_none()
    },
    show: |encoding| (encoding.precision == Precision::Int8).then(|| "int8".to_owned()),
};

/// Values that share a scale.
pub(crate) const BLOCK: usize = 1024;

const STEPS: f32 = 127.0;

/// The scale of a block; infinite if no `f32` is large enough.
pub(crate) fn scale(block: &[f32]) -> f32 {
    let largest = block.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    // A subnormal scale would have too few bits to divide by.
    let scale = (largest / STEPS).max(f32::MIN_POSITIVE);
    // Rounded down, it could ask for a step more than there is.
    let scale = if largest / scale > STEPS { scale.next_up() } else { scale };
    if (scale * STEPS).is_finite() { scale } else { f32::INFINITY }
}

/// Whole numbers for a block whose first value is number `first` of its tensor.
pub(crate) fn round(block: &[f32], scale: f32, dice: Dice, first: usize, out: &mut Vec<u8>) {
    if scale == 0.0 {
        out.resize(out.len() + block.len(), 0);
        return;
    }
    out.extend(block.iter().enumerate().map(|(at, value)| {
        let steps = value / scale;
        let below = steps.floor();
        // Both exact: the fraction of an `f32`, and 24 random bits.
        let up = dice.unit(first + at) < steps - below;
        ((below as i8) + i8::from(up)).cast_unsigned()
    }));
}

/// The values of a block again.
pub(crate) fn widen<T: Element>(whole: &[u8], scale: f32, out: &mut [T]) {
    for (out, whole) in out.iter_mut().zip(whole) {
        *out = T::from_f32(f32::from(whole.cast_signed()) * scale);
    }
}
