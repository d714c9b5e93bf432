//! Updates, made small: how an update is written relative to its base model, and read again.
//!
//! ```text
//! update - base --> top-k (rest kept) --> f16 | bf16 | int8 --> safetensors file --> zlib stream
//!        delta      topk:0.01             int8                                       deflate
//! ```
//! An [`Encoding`] is a text like `delta+topk:0.01+int8+deflate`, named in the round's start. To
//! add a stage: write `stage/<name>.rs`, add one line to [`STAGES`].
//!
//! It refuses to know rounds, proplets, topics and files: numbers come from a [`Source`], bytes
//! from a [`ReadAt`] or a `Read`. Memory is bounded by a few blocks and by what top-k keeps,
//! whatever the size of the model. Decoding gives the same bits on every machine: sums and products
//! are single operations of IEEE 754 in the order that the stages say, never fused.
//!
//! What is on the wire is a safetensors file; each tensor `w` of the model is in it as
//!
//! | encoding | tensors in the file |
//! |---|---|
//! | `delta`, `f16`, `bf16` | `w`, of its shape |
//! | `int8` | `w` of `I8`; in `.scale`, an `F32` for each 1024 values of each tensor, in the order of names |
//! | `topk` | `w.value`, of one dimension, and `w.index`: bytes, as the stage says |
//!
//! and `__metadata__` holds the encoding's canonical text under `encoding`. With `deflate` the
//! whole file is one zlib stream (RFC 1950) with the preset [`DICTIONARY`].

mod code;
mod decode;
mod dice;
mod dictionary;
mod encode;
mod entry;
mod error;
mod index;
mod number;
mod numbers;
mod source;
mod spec;
mod stage;
mod wire;
mod zlib;

pub use decode::{Decoded, Reader, decode};
pub use dictionary::DICTIONARY;
pub use encode::{Encoded, Job, encode};
pub use error::{DecodeError, EncodeError, SchemaError, SpecError};
pub use number::Element;
pub use source::{ReadAt, Source, Stored};
pub use spec::{Encoding, Fraction, Precision, SPEC_LEN_MAX};
pub use stage::{Place, STAGES, Stage};
pub use wire::{Wrapping, wrapping};
pub use zlib::{Deflate, Inflate, TAIL_LEN_MAX};
