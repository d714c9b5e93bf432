//! round.
