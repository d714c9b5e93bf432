//! `f16`: values as IEEE 754 binary16, rounded to nearest, ties to even. Up to 65504, with 11
//! significant bits.

use super::{NOTHING, Place, Stage};
use crate::Precision;

pub(super) const STAGE: Stage = Stage {
    name: "f16",
    form: "f16",
    takes: NOTHING,
    place: Place::Precision,
    needs: None,
    set: |encoding, argument| {
        encoding.precision = Precision::F16;
        argument.is_none()
    },
    show: |encoding| (encoding.precision == Precision::F16).then(|| "f16".to_owned()),
};
