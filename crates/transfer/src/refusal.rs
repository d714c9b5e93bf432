//! Why a piece was not taken, and how often that was so.

use std::{collections::BTreeMap, fmt};

/// Why a piece was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There is no piece of that number.
    OutOfRange,
    /// It is there, or on its way to the disk.
    Repeated,
    /// Nobody asked for it, as yet or any more.
    Unasked,
    /// It has no bytes: a broker's word that it does not hold the piece any more.
    Empty,
    /// It has more or fewer bytes than the manifest says.
    Length,
    /// It has other bytes than the manifest says.
    Corrupt,
    /// The transfer has ended.
    Ended,
}

/// What an assembly has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pieces that were taken.
    pub accepted: u64,
    /// Pieces that were asked for once more.
    pub repeated_asks: u64,
    pub refused: BTreeMap<Refusal, u64>,
}

impl Refusal {
    /// Every reason, in the order of the documentation.
    pub const ALL: &[Self] = &[
        Self::OutOfRange,
        Self::Repeated,
        Self::Unasked,
        Self::Empty,
        Self::Length,
        Self::Corrupt,
        Self::Ended,
    ];

    /// A word for counters and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutOfRange => "out_of_range",
            Self::Repeated => "repeated",
            Self::Unasked => "unasked",
            Self::Empty => "empty",
            Self::Length => "length",
            Self::Corrupt => "corrupt",
            Self::Ended => "ended",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
