//! What the coordinator wants done beside speaking and remembering, and what comes of it.

use std::collections::BTreeMap;

use aggregate::Guard;
use bytes::Bytes;
use encoding::Encoding;
use protocol::{
    Digest, FailReason, Form, Manifest, ModelUri, ModelVersion, PropletId, Rejection, RoundId,
    Schema, Tensors, Timestamp, TraceField, message::StrategySpec,
};
use transfer::Bitmap;

use crate::{Answer, Ask, Kept, Objection, Refusal, State, StoredBlob};

/// Something for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Average these and report.
    Aggregate(Job),
    /// Make ready for a blob, and report what of it is there: [`Report::Begun`].
    Begin(Manifest),
    /// Write this piece and report [`Report::Stored`].
    Store { blob: Manifest, index: u32, bytes: Bytes },
    /// All pieces are there: check the whole, and that it is a safetensors file of these tensors,
    /// all finite; pin it and report [`Report::Received`].
    Finish { blob: Manifest, schema: Schema },
    /// As [`Effect::Finish`], of an update in this encoding: decode it to a safetensors file of
    /// these tensors, pin that, give what came back, and report [`Report::Decoded`].
    Decode { blob: Manifest, schema: Schema, encoding: Encoding, base_values: Option<Kept> },
    /// This blob is needed once more.
    Pin(Digest),
    /// This blob is needed once less; it stays while there is room, since it may be asked for again.
    Unpin(Digest),
    /// Nobody waits for this blob any longer.
    Abandon(Manifest),
    /// Read a piece of a model that was made here and report [`Report::ChunkRead`].
    ReadChunk { blob: Manifest, index: u32 },
    /// Said once at the start: of all blobs that are there, only these are still needed; pin each
    /// as often as it stands here.
    Hold(Vec<Digest>),
    /// This blob is no longer needed.
    Drop(Digest),
    /// To the caller with this number.
    Answer { ticket: u64, answer: Result<Box<Answer>, Refusal> },
    /// Log and count this.
    Note(Note),
}

/// The frozen set of a closed round.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub round: RoundId,
    pub base: ModelUri,
    /// What the values of each member fill.
    pub schema: Schema,
    /// How the base model was published, and the new one will be if it fits one message.
    pub form: Form,
    /// The numbers of the base model, where the round needs them.
    pub base_values: Option<Kept>,
    /// How they become a model.
    pub strategy: StrategySpec,
    /// What stands in front of it.
    pub guard: Guard,
    /// What the strategy left beside the base model, if it did.
    pub state: Option<State>,
    /// In the order of their ids, so that the result does not depend on the order of arrival.
    pub members: Vec<JobMember>,
}

/// One counted update.
#[derive(Clone, Debug, PartialEq)]
pub struct JobMember {
    pub proplet: PropletId,
    pub num_samples: u64,
    /// What it says of the base model's loss on its data, and of the steps that it took.
    pub loss: Option<f64>,
    pub steps: Option<u64>,
    pub values: Kept,
    /// Versions that it is behind, and the numbers of the model that it starts from where that is
    /// not the round's.
    pub staleness: u64,
    pub base_values: Option<Kept>,
}

/// What came of an aggregation.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A caller wants to know, or wants something done.
    Asked {
        ticket: u64,
        ask: Ask,
    },
    Aggregated {
        round: RoundId,
        model: Made,
        beside: Beside,
    },
    AggregationFailed {
        round: RoundId,
        reason: FailReason,
        error: String,
    },
    /// What is there of a blob; or why it cannot come.
    Begun {
        sha256: Digest,
        have: Result<Bitmap, String>,
    },
    Stored {
        sha256: Digest,
        index: u32,
        result: Result<(), String>,
    },
    Received {
        sha256: Digest,
        result: Result<(), Objection>,
    },
    Decoded {
        sha256: Digest,
        result: Result<StoredBlob, Undecoded>,
    },
    ChunkRead {
        sha256: Digest,
        index: u32,
        result: Result<Bytes, String>,
    },
}

/// Why an update was not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecoded {
    Refused(Objection),
    /// It is not the update's fault; it may be offered again.
    Failed(String),
}

/// What came of an aggregation beside the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// What the strategy left for the next round.
    pub state: Option<State>,
    /// Members that the model is not made of.
    pub left_out: BTreeMap<PropletId, Rejection>,
}

/// What became of the updates of a round.
#[derive(Clone, Debug, PartialEq)]
pub enum Made {
    Here(Tensors),
    /// Too large for one message: a safetensors file in the shell's directory, pinned.
    Stored {
        blob: Manifest,
        schema: Schema,
    },
}

/// One thing that an operator may want to see.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    Opened {
        round: RoundId,
        base: ModelUri,
        /// `None` where members are taken as they come.
        participants: Option<usize>,
        k: usize,
        deadline: Timestamp,
        /// What its start says of a trace.
        traceparent: Option<TraceField>,
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
    /// Pieces of an update begin to come.
    Receiving {
        round: RoundId,
        proplet: PropletId,
        len: u64,
        chunks: u32,
        have: u32,
    },
    /// Pieces of an update do not come any longer; the proplet will offer it again.
    ReceptionFailed {
        round: RoundId,
        proplet: PropletId,
        what: String,
    },
    Absent {
        round: RoundId,
        proplet: PropletId,
    },
    /// Not taken now: no round of its session is open, or this one has one of the proplet already.
    Held {
        round: RoundId,
        proplet: PropletId,
    },
    /// An update of an earlier round counts in this one.
    Late {
        round: RoundId,
        made_for: RoundId,
        proplet: PropletId,
        staleness: u64,
    },
    Closed {
        round: RoundId,
        counted: usize,
    },
    /// An update that counted is not in the model.
    LeftOut {
        round: RoundId,
        proplet: PropletId,
        reason: Rejection,
    },
    Made {
        round: RoundId,
        model: ModelUri,
        digest: Digest,
    },
    /// The model server has not shown this version in spite of several publications.
    Unconfirmed {
        round: RoundId,
        model: ModelUri,
        attempts: u32,
        /// What it shows instead.
        shown: Option<ModelVersion>,
    },
    /// A base model whose tensors cannot be read.
    BadBase {
        model: ModelUri,
        what: String,
    },
    /// Somebody else published this version; the round's model takes the next one.
    VersionTaken {
        round: RoundId,
        model: ModelUri,
        ours: Digest,
        theirs: Digest,
    },
    Complete {
        round: RoundId,
        model: ModelUri,
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
