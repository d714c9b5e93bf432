//! The wire, and what it means to take part: ids, topics, messages, tensors, and the shape of a
//! participant. It refuses to know sockets, files, clocks and who is on the other side.

mod digest;
mod entry;
mod envelope;
mod id;
mod image;
mod json;
mod machine;
mod reason;
mod time;
mod trace;
mod uri;

pub mod ledger;
pub mod manifest;
pub mod message;
pub mod tensor;
pub mod topic;

pub use digest::{Digest, DigestBuilder};
pub use entry::{Entry, EntryError};
pub use envelope::{Envelope, Letter, OpenError};
pub use id::{
    ChannelId, DomainId, IdError, ModelLine, ModelVersion, PropletId, RoundId, SessionId, TaskId,
};
pub use image::{ImageRef, ImageRefError};
pub use machine::{Input, Machine, Output, Records};
pub use manifest::{Manifest, ManifestBuilder};
pub use reason::{AbsentReason, FailReason, Rejection};
pub use tensor::{DType, Form, Schema, Slot, Tensor, Tensors};
pub use time::{Timestamp, TimestampError};
pub use topic::{Filter, Namespace, Topic, TopicError};
pub use trace::{
    Sampled, SpanId, TRACEPARENT_ENV, TraceField, TraceId, Traceparent, TraceparentError,
};
pub use uri::{ModelUri, ModelUriError};
