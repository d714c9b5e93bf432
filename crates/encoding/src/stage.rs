//! The stages that an encoding is made of.

mod bf16;
mod deflate;
mod delta;
mod f16;
pub(crate) mod int8;
pub(crate) mod topk;

use crate::Encoding;

/// Every stage, in the order in which they work.
pub const STAGES: &[Stage] =
    &[delta::STAGE, topk::STAGE, f16::STAGE, bf16::STAGE, int8::STAGE, deflate::STAGE];

/// A step on the way from an update to its bytes.
#[derive(Debug)]
pub struct Stage {
    pub name: &'static str,
    /// How it is written.
    pub form: &'static str,
    /// What may stand behind its name.
    pub takes: &'static str,
    /// Where it stands; of one place, an encoding has at most one stage.
    pub place: Place,
    /// A stage without which it makes no sense.
    pub needs: Option<&'static str>,
    /// Adds it to an encoding, unless this argument is not one that it takes.
    pub(crate) set: fn(&mut Encoding, Option<&str>) -> bool,
    /// Its canonical text, if the encoding has it.
    pub(crate) show: fn(&Encoding) -> Option<String>,
}

/// What a stage does, in the order of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Says what the values are relative to.
    Difference,
    /// Says which values are sent.
    Selection,
    /// Says how a value lies on the wire.
    Precision,
    /// Says how the file goes.
    Compression,
}

/// What stages without an argument take.
const NOTHING: &str = "no argument";
