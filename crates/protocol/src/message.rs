//! What is said on the topics, one file a message. Readers ignore unknown fields.

mod bounds;
mod evaluation;
mod forward;
mod model;
mod proplet;
mod round;
mod session;
mod signed;
mod start;
mod task;
mod traced;
mod transfer;
mod update;
mod variate;
mod verdict;

pub use bounds::{ClipMode, ClipSpec, RESERVED_ENV, check_norm, check_share};
pub use evaluation::{EvaluateSpec, Evaluators, PURPOSE_ENV, Purpose, Quantiles};
pub use forward::{FORWARD_TAIL_LEN_MAX, Forwarded, Origin, forward, is_zlib};
pub use model::{Model, ModelError, ModelLatest};
pub use proplet::{
    AliveStatus, HeldTask, PropletAlive, PropletCreate, PropletMetrics, TaskMetrics,
};
pub use round::{Contribution, RoundAbsent, RoundComplete, RoundFailed, RoundOpened};
pub use session::{
    AsynchronousSpec, Best, Better, Command, Patience, SESSION_ROUNDS_MAX, SESSION_START_LEN_MAX,
    SelectionSpec, SessionCommand, SessionStart, SessionState, SessionStatus, Target,
};
pub use signed::{
    SignedFacts, read_signature_refused, signature_refused, signed_facts, split_base_digest,
    with_base_digest, with_signature,
};
pub use start::{Hyperparams, PARTICIPANTS_MAX, RoundStart, StrategySpec, TIMEOUT_S_MAX};
pub use task::{FailureCode, TaskResults, TaskStart, TaskState, TaskStop};
pub use traced::{TRACEPARENT_ROOM, read_traceparent, split_traceparent, with_traceparent};
pub use transfer::{
    ModelBlob, ModelPublishWants, ModelWants, ModuleWants, UpdateOffer, UpdateWants, WANTS_MAX,
    Wants, WantsError, is_blob_form, read_update_offer,
};
pub use update::{
    METRICS_MAX, Update, UpdateAsked, UpdateError, read_update, read_update_address,
    read_update_encoding,
};
pub use variate::{RoundVariate, STRATEGY_ENV, read_variate_series, variate_withdrawn};
pub use verdict::{UpdateAck, Verdict};
