//! What the coordinator wants done beside speaking and remembering, and what comes of it.

use protocol::{
    Digest, FailReason, ModelVersion, PropletId, Rejection, RoundId, Schema, Tensors, Timestamp,
};

use crate::Kept;

/// Something for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Average these and report.
    Aggregate(Job),
    /// Log and count this.
    Note(Note),
}

/// The frozen set of a closed round.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub round: RoundId,
    pub base: ModelVersion,
    /// What the values of each member fill.
    pub schema: Schema,
    /// In the order of their ids, so that the result does not depend on the order of arrival.
    pub members: Vec<JobMember>,
}

/// One counted update.
#[derive(Clone, Debug, PartialEq)]
pub struct JobMember {
    pub proplet: PropletId,
    pub num_samples: u64,
    pub values: Kept,
}

/// What came of an aggregation.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    Aggregated { round: RoundId, tensors: Tensors },
    AggregationFailed { round: RoundId, reason: FailReason, error: String },
}

/// One thing that an operator may want to see.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    Opened {
        round: RoundId,
        base: ModelVersion,
        /// `None` where members are taken as they come.
        participants: Option<usize>,
        k: usize,
        deadline: Timestamp,
    },
    /// A start that was not taken up.
    StartRefused {
        round: RoundId,
        what: String,
    },
    Accepted {
        round: RoundId,
        proplet: PropletId,
        num_samples: u64,
    },
    Rejected {
        reason: Rejection,
        round: Option<RoundId>,
        proplet: Option<PropletId>,
        what: String,
    },
    /// Not taken now; the proplet will send it again.
    NoRoom {
        round: RoundId,
        proplet: PropletId,
        kept_len: u64,
    },
    Absent {
        round: RoundId,
        proplet: PropletId,
    },
    Closed {
        round: RoundId,
        counted: usize,
    },
    Made {
        round: RoundId,
        version: ModelVersion,
        digest: Digest,
    },
    /// The model server has not shown this version in spite of several publications.
    Unconfirmed {
        round: RoundId,
        version: ModelVersion,
        attempts: u32,
        /// What it shows instead.
        shown: Option<ModelVersion>,
    },
    /// Somebody else published this version; the round's model takes the next one.
    VersionTaken {
        round: RoundId,
        version: ModelVersion,
        ours: Digest,
        theirs: Digest,
    },
    Complete {
        round: RoundId,
        version: ModelVersion,
        num_updates: usize,
        total_samples: u64,
    },
    Failed {
        round: RoundId,
        reason: FailReason,
        counted: usize,
        error: Option<String>,
    },
}
