//! Why something was not counted: the words that peers and operators see, stable for ever.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

words! {
    /// Why the coordinator did not count an update.
    Rejection {
        /// No such round was started.
        UnknownRound = "unknown_round",
        /// The round had already closed.
        RoundClosed = "round_closed",
        /// The sender is not a participant of the round.
        Stranger = "stranger",
        /// The sender has been counted already, with another update.
        Duplicate = "duplicate",
        /// The update is not based on the round's model.
        StaleBase = "stale_base",
        /// Names or shapes of the tensors differ from the base model's.
        Shape = "shape",
        /// A number is NaN or infinite.
        NotFinite = "not_finite",
        /// `num_samples` is missing, not a whole number, zero, or above the limit.
        NumSamples = "num_samples",
        /// Not an update at all.
        Malformed = "malformed",
        /// More bytes than the coordinator takes.
        TooLarge = "too_large",
        /// The payload names another sender or round than its topic.
        SenderMismatch = "sender_mismatch",
        /// Farther from the base model than the round allows.
        TooFar = "too_far",
        /// It does not say what the round's strategy needs, or says what it cannot use.
        Unusable = "unusable",
        /// It is not signed by its sender, or not at all. The sender is not told: it may have
        /// nothing to do with it.
        Signature = "signature",
    }
    /// Why a participant will not contribute to a round.
    AbsentReason {
        /// The manager has never heard of it.
        Unknown = "unknown",
        /// It is known but not connected.
        NotAlive = "not_alive",
        /// Its task ended without an update.
        TaskFailed = "task_failed",
    }
    /// Why a round made no model.
    FailReason {
        /// The round's start was not valid.
        BadStart = "bad_start",
        /// Fewer updates than the minimum were counted by the deadline.
        TooFewUpdates = "too_few_updates",
        /// Fewer updates than the minimum were counted, and nobody was left to wait for.
        AllAbsent = "all_absent",
        /// The base model did not arrive by the deadline.
        UnknownModel = "unknown_model",
        /// The aggregate is not finite.
        NotFinite = "not_finite",
        /// The updates could not be aggregated.
        Aggregation = "aggregation",
        /// An operator stopped it.
        Cancelled = "cancelled",
    }
}
