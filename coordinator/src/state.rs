//! What strategies remember, on disk: a short state stands in the store, a long one is a file.

use std::{fs, path::Path};

use bytes::Bytes;
use protocol::{
    DType, FailReason, Manifest, Schema, Tensors,
    tensor::{
        Slot,
        safetensors::{self, Metadata},
    },
};
use round::{Beside, Job, Kept, StoredBlob};

use crate::{storage::Storage, streaming::Failed};

/// Longest state that stands in the store, in bytes.
const HERE_MAX: usize = 1 << 20;
/// The one tensor of a state's file: a row for each vector.
const TENSOR: &str = "state";

/// What a state's file is made of.
pub(crate) fn schema(vectors: usize, job: &Job) -> Schema {
    let dtype = match job.schema.dtype() {
        Some(DType::F32) => DType::F32,
        Some(DType::F64 | DType::F16 | DType::BF16 | DType::I8) | None => DType::F64,
    };
    let shape = vec![vectors, job.schema.parameters()];
    [(TENSOR.to_owned(), Slot { dtype, shape })].into_iter().collect()
}

/// Reads the state into memory where it is a file.
pub(crate) fn load(job: &mut Job, storage: &Storage) -> Result<(), Failed> {
    let Some(state) = &job.state else { return Ok(()) };
    let Kept::Stored(blob) = &state.values else { return Ok(()) };
    let failed = |why: String| (FailReason::Aggregation, format!("state {}: {why}", blob.sha256));
    let path = storage.path(blob).ok_or_else(|| failed("it is gone".to_owned()))?;
    let file = Bytes::from(fs::read(&path).map_err(|why| failed(why.to_string()))?);
    let read = safetensors::read(&file).map_err(|why| failed(why.to_string()))?;
    let values = Kept::Here(read.tensors.canonical());
    if let Some(state) = &mut job.state {
        state.values = values;
    }
    Ok(())
}

/// A state that was written to a file and is to stand in the store: control variates do, which are
/// said in one message.
pub(crate) fn take_in(place: &Path) -> Result<Kept, Failed> {
    let failed = |why: String| (FailReason::Aggregation, format!("{}: {why}", place.display()));
    let file = Bytes::from(fs::read(place).map_err(|why| failed(why.to_string()))?);
    let read = safetensors::read(&file).map_err(|why| failed(why.to_string()))?;
    fs::remove_file(place).map_err(|why| failed(why.to_string()))?;
    Ok(Kept::Here(read.tensors.canonical()))
}

/// A long state in memory becomes a file.
pub(crate) fn shorten(mut beside: Beside, job: &Job, storage: &Storage) -> Result<Beside, Failed> {
    let Some(state) = &mut beside.state else { return Ok(beside) };
    let Kept::Here(bytes) = &state.values else { return Ok(beside) };
    if bytes.len() <= HERE_MAX || job.strategy.has_control() {
        return Ok(beside);
    }
    let failed = |why: String| (FailReason::Aggregation, why);
    let schema = schema(state.vectors.len(), job);
    let tensors = Tensors::from_canonical(&schema, bytes).map_err(|why| failed(why.to_string()))?;
    let file = safetensors::write(&tensors, &Metadata::new());
    let blob = storage.put(&file).map_err(|why| failed(service::run::chain(&why)))?;
    state.values = Kept::Stored(stored(&blob));
    Ok(beside)
}

pub(crate) fn stored(blob: &Manifest) -> StoredBlob {
    StoredBlob { sha256: blob.sha256(), bytes: blob.bytes() }
}
