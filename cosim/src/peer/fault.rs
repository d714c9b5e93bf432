//! Every way in which a node, or whoever drives it, can break the protocol.

use crate::{channel::ChannelError, wire::WireError};

/// What went wrong with a node.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("a malformed line: {0}")]
    Malformed(#[from] WireError),
    #[error("it answers {found} where {expected} was due")]
    Unexpected { expected: &'static str, found: &'static str },
    #[error("it says: {message}")]
    Told { message: String },
    #[error("it speaks out of turn")]
    OutOfTurn,
    #[error("DONE names time {echoed_us} us, asked was for {asked_us} us")]
    WrongTime { asked_us: u64, echoed_us: u64 },
    #[error("DONE at {now_us} us wants to be woken at {next_us} us, which is not later")]
    NextInThePast { now_us: u64, next_us: u64 },
    #[error("event {kind:?} at {time_us} us is outside of its window, {from_us} to {to_us} us")]
    OutsideWindow { kind: String, time_us: u64, from_us: u64, to_us: u64 },
    #[error("event {kind:?} is for {dst:?}, which is nobody's id")]
    UnknownDestination { kind: String, dst: String },
    #[error("event {kind:?} says that it comes from {src:?}")]
    ForeignSource { kind: String, src: String },
    #[error("time cannot go back from {now_us} us to {to_us} us")]
    Backwards { now_us: u64, to_us: u64 },
    #[error("event {kind:?} at {time_us} us cannot be given to it in {from_us} to {to_us} us")]
    GivenOutsideWindow { kind: String, time_us: u64, from_us: u64, to_us: u64 },
    #[error("it is still asked for {asked_us} us")]
    Busy { asked_us: u64 },
    #[error("it was not asked for anything")]
    NotAsked,
    #[error("it is no longer part of the run")]
    Over,
}

impl Fault {
    /// Whether the line that was read last is what is wrong.
    pub(super) fn is_about_a_line(&self) -> bool {
        match self {
            Self::Malformed(_)
            | Self::Unexpected { .. }
            | Self::Told { .. }
            | Self::OutOfTurn
            | Self::WrongTime { .. }
            | Self::NextInThePast { .. }
            | Self::OutsideWindow { .. }
            | Self::UnknownDestination { .. }
            | Self::ForeignSource { .. } => true,
            Self::Channel(_)
            | Self::Backwards { .. }
            | Self::GivenOutsideWindow { .. }
            | Self::Busy { .. }
            | Self::NotAsked
            | Self::Over => false,
        }
    }
}
