//! `bf16`: values as the upper half of a binary32, rounded to nearest, ties to even. The range of
//! `f32`, with 8 significant bits.

use super::{NOTHING, Place, Stage};
use crate::Precision;

pub(super) const STAGE: Stage = Stage {
    name: "bf16",
    form: "bf16",
    takes: NOTHING,
    place: Place::Precision,
    needs: None,
    set: |encoding, argument| {
        encoding.precision = Precision::Bf16;
        argument.is_none()
    },
    show: |encoding| (encoding.precision == Precision::Bf16).then(|| "bf16".to_owned()),
};
