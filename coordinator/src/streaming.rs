//! Averaging what is too large for memory: updates are read from their files block by block, and
//! the model is written to a file as its blocks come.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use aggregate::{
    Aggregator, Element, Guard, Out, ReadAt, Round, RunError, Sink, Stored, Strategy, Work,
    aggregate,
};
use bytes::Bytes;
use protocol::{
    DType, FailReason, Schema,
    tensor::safetensors::{Header, Metadata},
};
use round::{Job, Kept, aggregator, facts, failed};
use service::blobs::read_header;

/// Why no model was made.
pub(crate) type Failed = (FailReason, String);

/// The numbers of one update, wherever they are.
enum Source {
    Here(Bytes),
    /// The canonical bytes begin at this place of the file.
    File(File, u64),
}

/// The updates of one round.
struct Sources(Vec<Source>);

/// The data of the model's file.
struct Target {
    file: File,
    start: u64,
}

/// Writes the model of this round to `to`: a safetensors file of the base model's tensors.
/// `path` tells where the blob of an update is.
pub(crate) fn average_to_file(
    strategy: &Strategy,
    job: &Job,
    path: impl Fn(&round::StoredBlob) -> Option<PathBuf>,
    to: &Path,
    work: &Work,
) -> Result<(), Failed> {
    let aggregation = |why: String| (FailReason::Aggregation, why);
    let source = |member: &round::JobMember| match &member.values {
        Kept::Here(bytes) => Ok(Source::Here(bytes.clone())),
        Kept::Stored(blob) => {
            let proplet = &member.proplet;
            let gone = || format!("the update of {proplet} (blob {}) is gone", blob.sha256);
            let path = path(blob).ok_or_else(gone)?;
            open(&path, &job.schema).map_err(|why| format!("{}: {why}", path.display()))
        }
    };
    let rows =
        job.members.iter().map(source).collect::<Result<Vec<_>, _>>().map_err(aggregation)?;
    let aggregator = aggregator(strategy, job.strategy.as_ref()).map_err(aggregation)?;
    let header = Header::of(&job.schema, Metadata::new()).write();
    let failed_to_write = |why: io::Error| aggregation(format!("{}: {why}", to.display()));
    let file = File::create(to).map_err(failed_to_write)?;
    file.set_len((header.len() + job.schema.byte_len()) as u64).map_err(failed_to_write)?;
    file.write_all_at(&header, 0).map_err(failed_to_write)?;
    let target = Target { file, start: header.len() as u64 };
    match job.schema.dtype() {
        Some(DType::F32) => make::<f32>(&*aggregator, job, rows, &target, work),
        Some(DType::F64) => make::<f64>(&*aggregator, job, rows, &target, work),
        Some(DType::F16 | DType::BF16 | DType::I8) | None => Err(aggregation(
            "a model in pieces is averaged if all of its tensors are F32, or all are F64"
                .to_owned(),
        )),
    }?;
    target.file.sync_all().map_err(failed_to_write)
}

fn make<T: Element>(
    aggregator: &dyn Aggregator,
    job: &Job,
    rows: Vec<Source>,
    target: &Target,
    work: &Work,
) -> Result<(), Failed> {
    let (count, width) = (rows.len(), job.schema.parameters());
    let sources = Stored { source: Sources(rows), count, width };
    let facts = facts(job);
    let round: Round<'_, T> = Round::new(&sources, &facts);
    let out = Out::Sink { sink: target, vectors: 1 };
    let made: Result<_, RunError> = aggregate(aggregator, &Guard::default(), &round, work, out);
    made.map(|_| ()).map_err(|why| failed(&why))
}

/// A file whose tensors are those of `schema`, in the order of their names.
fn open(path: &Path, schema: &Schema) -> io::Result<Source> {
    let file = File::open(path)?;
    let header = read_header(&file)?;
    if header.schema() != *schema {
        let what = "its tensors are not those of the base model";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let start = header.data_start() as u64;
    Ok(Source::File(file, start))
}

impl ReadAt for Sources {
    fn read_at(&self, row: usize, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.0[row] {
            Source::File(file, start) => file.read_exact_at(buffer, start + offset_bytes),
            Source::Here(bytes) => {
                let start = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
                let end = start.saturating_add(buffer.len());
                buffer.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

impl<T: Element> Sink<T> for Target {
    fn write(&self, _vector: usize, start: usize, values: &[T]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(values.len() * T::BYTES);
        values.iter().for_each(|value| value.put_le(&mut bytes));
        self.file.write_all_at(&bytes, self.start + (start * T::BYTES) as u64)
    }
}
