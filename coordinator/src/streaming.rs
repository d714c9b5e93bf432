//! Averaging what is too large for memory: updates are read from their files block by block, and
//! the model is written to a file as its blocks come.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use aggregate::{
    Aggregator, Element, Out, ReadAt, Round, Rows, Sink, Stored, Work, aggregate, aggregate_rest,
    tempered,
};
use bytes::Bytes;
use protocol::{
    DType, Digest, FailReason, PropletId, Rejection, Schema,
    tensor::{
        CONTROL_PREFIX,
        safetensors::{Header, Metadata},
    },
};
use round::{
    Job, JobMember, Kept, StoredBlob, aggregator, each_base, facts, failed, left_out, usable_state,
};
use service::blobs::read_header;

use crate::state;

/// Why no model was made.
pub(crate) type Failed = (FailReason, String);

/// The numbers of one update, wherever they are. Cloning opens nothing.
#[derive(Clone)]
enum Source {
    Here(Bytes),
    /// The canonical bytes begin at this place of the file.
    File(Arc<File>, u64),
    /// These parts of another one after the other: where each begins there, and its length.
    Parts(Box<Self>, Vec<(u64, u64)>),
}

/// The updates of one round.
struct Sources(Vec<Source>);

/// The data of a file that is being written.
struct Target {
    file: File,
    start: u64,
}

/// The model's file, and that of the state, which has so many numbers a vector.
struct Targets {
    model: Target,
    state: Option<Target>,
    width: usize,
}

/// Where files are written.
pub(crate) struct Places {
    pub(crate) model: PathBuf,
    pub(crate) state: PathBuf,
}

/// What was written.
pub(crate) struct Streamed {
    /// The vectors of the state; without any, there is no file of it.
    pub(crate) vectors: Vec<String>,
    pub(crate) left_out: BTreeMap<PropletId, Rejection>,
}

/// Everything that is read.
struct Given {
    updates: Vec<Source>,
    /// Of each update, the change of its control variate; none where there are no such.
    controls: Vec<Source>,
    base: Option<Source>,
    bases: Vec<Source>,
    state: Vec<Source>,
}

/// Writes the model of this round, a safetensors file of the base model's tensors, and the state
/// that goes with it. `path` tells where a blob is.
pub(crate) fn average_to_file(
    job: &Job,
    path: impl Fn(&StoredBlob) -> Option<PathBuf>,
    to: &Places,
    work: &Work,
) -> Result<Streamed, Failed> {
    let source = |values: &Kept, schema: &Schema, what: &dyn Fn() -> String| match values {
        Kept::Here(bytes) => Ok(Source::Here(bytes.clone())),
        Kept::Stored(blob) => {
            let gone = || format!("{} (blob {}) is gone", what(), blob.sha256);
            let path = path(blob).ok_or_else(gone)?;
            open(&path, schema).map_err(|why| format!("{}: {why}", path.display()))
        }
    };
    let schema = job.member_schema();
    let update = |member: &JobMember| {
        source(&member.values, &schema, &|| format!("the update of {}", member.proplet))
    };
    let brought: Vec<Source> =
        job.members.iter().map(update).collect::<Result<_, _>>().map_err(aggregation)?;
    let (updates, controls) = if job.strategy.has_control() {
        apart(brought, &schema).map_err(|why| aggregation(why.to_string()))?
    } else {
        (brought, vec![])
    };
    let model = |values: &Kept| source(values, &job.schema, &|| "a base model".to_owned());
    let (base, bases) = base_models(job, model).map_err(aggregation)?;
    let state = match usable_state(job) {
        None => vec![],
        Some(state) => {
            let schema = state::schema(state.vectors.len(), job);
            let whole = source(&state.values, &schema, &|| "the strategy's state".to_owned());
            let whole = whole.map_err(aggregation)?;
            let each = schema.byte_len() / state.vectors.len();
            let rows = (0..state.vectors.len()).map(|row| whole.from(row * each));
            rows.collect::<Result<_, _>>().map_err(|why| aggregation(why.to_string()))?
        }
    };
    let aggregator = aggregator(&job.strategy).map_err(aggregation)?;
    let given = Given { updates, controls, base, bases, state };
    match job.schema.dtype() {
        Some(DType::F32) => make::<f32>(&*aggregator, job, given, to, work),
        Some(DType::F64) => make::<f64>(&*aggregator, job, given, to, work),
        Some(DType::F16 | DType::BF16 | DType::I8) | None => Err(aggregation(
            "a model in pieces is averaged if all of its tensors are F32, or all are F64"
                .to_owned(),
        )),
    }
}

/// The model that the round starts from, and that of each update where they differ. Many start from
/// the same one, which is opened once.
fn base_models(
    job: &Job,
    source: impl Fn(&Kept) -> Result<Source, String>,
) -> Result<(Option<Source>, Vec<Source>), String> {
    let mut files: BTreeMap<Digest, Source> = BTreeMap::new();
    let mut open = |values: &Kept| {
        let Kept::Stored(blob) = values else { return source(values) };
        if let Some(known) = files.get(&blob.sha256) {
            return Ok(known.clone());
        }
        let opened = source(values)?;
        files.insert(blob.sha256, opened.clone());
        Ok(opened)
    };
    let base = job.base_values.as_ref().map(&mut open).transpose()?;
    let missing = || "an earlier base model is missing".to_owned();
    let bases = each_base(job).into_iter().map(|values| open(values.ok_or_else(missing)?));
    Ok((base, bases.collect::<Result<_, _>>()?))
}

fn aggregation(why: String) -> Failed {
    (FailReason::Aggregation, why)
}

fn make<T: Element>(
    aggregator: &dyn Aggregator,
    job: &Job,
    given: Given,
    to: &Places,
    work: &Work,
) -> Result<Streamed, Failed> {
    let names = aggregate::find(&job.strategy.name).map_or(&[][..], |strategy| strategy.vectors);
    let failed_to_write = |place: &Path| {
        let place = place.display().to_string();
        move |why: io::Error| aggregation(format!("{place}: {why}"))
    };
    let model = Target::create(&to.model, &job.schema).map_err(failed_to_write(&to.model))?;
    let state = match names {
        [] => None,
        _ => {
            let schema = state::schema(names.len(), job);
            Some(Target::create(&to.state, &schema).map_err(failed_to_write(&to.state))?)
        }
    };
    let width = job.schema.parameters();
    let targets = Targets { model, state, width };
    let rows = |rows: Vec<Source>| {
        let count = rows.len();
        Stored { source: Sources(rows), count, width }
    };
    let (updates, facts) = (rows(given.updates), facts(job));
    let controls = rows(given.controls);
    let controls = (controls.count > 0).then(|| tempered::<T>(&controls)).transpose();
    let controls = controls.map_err(|why| aggregation(why.to_string()))?;
    let base = given.base.map(|base| rows(vec![base]));
    let (bases, state) = (rows(given.bases), rows(given.state));
    let mut round: Round<'_, T> = Round::new(&updates, &facts);
    round.base = base.as_ref().map(|base| base as &dyn Rows<T>);
    round.bases = (bases.count > 0).then_some(&bases);
    round.state = (state.count > 0).then_some(&state);
    round.controls = controls.as_ref().map(|rows| rows as &dyn Rows<T>);
    let rest = aggregate_rest(&round, work, |part| {
        let out = Out::Sink { sink: &targets, vectors: 1 + names.len() };
        aggregate(aggregator, &job.guard, part, work, out)
    });
    let rest = rest.map_err(|why| failed(&why))?;
    targets.model.file.sync_all().map_err(failed_to_write(&to.model))?;
    if let Some(state) = &targets.state {
        state.file.sync_all().map_err(failed_to_write(&to.state))?;
    }
    let vectors = names.iter().map(|name| (*name).to_owned()).collect();
    Ok(Streamed { vectors, left_out: left_out(job, &rest, &rest.made) })
}

impl Target {
    /// An empty file of these tensors.
    fn create(place: &Path, schema: &Schema) -> io::Result<Self> {
        let header = Header::of(schema, Metadata::new()).write();
        let file = File::create(place)?;
        file.set_len((header.len() + schema.byte_len()) as u64)?;
        file.write_all_at(&header, 0)?;
        Ok(Self { file, start: header.len() as u64 })
    }

    fn write<T: Element>(&self, start: usize, values: &[T]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(values.len() * T::BYTES);
        values.iter().for_each(|value| value.put_le(&mut bytes));
        self.file.write_all_at(&bytes, self.start + (start * T::BYTES) as u64)
    }
}

impl Source {
    /// It, from so many bytes on.
    fn from(&self, bytes: usize) -> io::Result<Self> {
        match self {
            Self::Here(all) if bytes <= all.len() => Ok(Self::Here(all.slice(bytes..))),
            Self::Here(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::File(file, start) => Ok(Self::File(Arc::clone(file), start + bytes as u64)),
            Self::Parts(..) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file, start) => file.read_exact_at(buffer, start + offset),
            Self::Here(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(buffer.len());
                buffer.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::Parts(whole, parts) => read_parts(whole, parts, offset, buffer),
        }
    }
}

/// Fills a buffer from parts that follow one another.
fn read_parts(
    whole: &Source,
    parts: &[(u64, u64)],
    mut offset: u64,
    mut buffer: &mut [u8],
) -> io::Result<()> {
    for (start, len) in parts {
        if buffer.is_empty() {
            return Ok(());
        }
        if offset >= *len {
            offset -= len;
            continue;
        }
        let here = usize::try_from(len - offset).unwrap_or(usize::MAX).min(buffer.len());
        let (own, rest) = buffer.split_at_mut(here);
        whole.read_at(start + offset, own)?;
        (offset, buffer) = (0, rest);
    }
    if buffer.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// What each update has of the model's tensors, and of the change of its control variate.
fn apart(brought: Vec<Source>, schema: &Schema) -> io::Result<(Vec<Source>, Vec<Source>)> {
    let (mut own, mut control, mut at) = (vec![], vec![], 0);
    for (name, slot) in schema.iter() {
        let len = slot.byte_len() as u64;
        let parts = if name.starts_with(CONTROL_PREFIX) { &mut control } else { &mut own };
        parts.push((at, len));
        at += len;
    }
    let mut updates = vec![];
    let mut controls = vec![];
    for whole in brought {
        let same = Box::new(whole.from(0)?);
        updates.push(Source::Parts(Box::new(whole), own.clone()));
        controls.push(Source::Parts(same, control.clone()));
    }
    Ok((updates, controls))
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
    Ok(Source::File(Arc::new(file), start))
}

impl ReadAt for Sources {
    fn read_at(&self, row: usize, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0[row].read_at(offset_bytes, buffer)
    }
}

impl<T: Element> Sink<T> for Targets {
    fn write(&self, vector: usize, start: usize, values: &[T]) -> io::Result<()> {
        match (vector, &self.state) {
            (0, _) => self.model.write(start, values),
            (_, Some(state)) => state.write((vector - 1) * self.width + start, values),
            (_, None) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

#[cfg(test)]
mod tests;
