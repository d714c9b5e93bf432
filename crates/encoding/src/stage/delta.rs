//! `delta`: update minus base, one subtraction in the model's element type (for `F16` and `BF16`
//! in `f32`, then rounded); read again by one addition.
//!
//! What training changed is small beside the weights: it takes fewer bits to say.

use super::{NOTHING, Place, Stage};

pub(super) const STAGE: Stage = Stage {
    name: "delta",
    form: "delta",
    takes: NOTHING,
    place: Place::Difference,
    needs: None,
    set: |encoding, argument| {
        encoding.delta = true;
        argument.is_none()
    },
    show: |encoding| encoding.delta.then(|| "delta".to_owned()),
};
