//! The directory of what is too large for one message: updates on their way in, models on their
//! way out. File work is done by one thread, in the order in which it is asked for.

mod decode;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use protocol::{DType, Digest, Manifest, Rejection, Schema, manifest::Format};
use round::{Effect, Objection, Report, StoredBlob};
use service::{
    blobs::{BlobError, BlobRules, Blobs, read_header},
    settings::Limits,
};
use tokio::sync::mpsc;

/// What is read at once where a whole file is looked at.
const BLOCK: usize = 1 << 20;
/// Models made last that stay when nobody needs them any longer, as long as there is room: rounds
/// to come may need their numbers, and would fetch them piece by piece.
const MODELS_KEPT_MAX: usize = 2;
/// Where a model stands while it is being made.
const MAKING: &str = "model.making";

/// The blobs, for the thread that moves pieces and for those that average.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    held: Arc<Mutex<Held>>,
    dir: PathBuf,
    pub(crate) limits: Limits,
}

#[derive(Debug)]
struct Held {
    blobs: Blobs,
    /// How often each blob is needed.
    needed: BTreeMap<Digest, u32>,
    /// Models that are being made.
    making: u64,
    /// The models made last, the newest at the end.
    models: VecDeque<Digest>,
}

impl Storage {
    pub(crate) fn open(dir: &Path, bytes_max: u64, limits: Limits) -> Result<Self, BlobError> {
        let blobs = Blobs::open(dir, BlobRules { bytes_max })?;
        let held = Held { blobs, needed: BTreeMap::new(), making: 0, models: VecDeque::new() };
        Ok(Self { held: Arc::new(Mutex::new(held)), dir: dir.to_owned(), limits })
    }

    /// Begins the thread that does the file work.
    pub(crate) fn start(
        &self,
    ) -> io::Result<mpsc::UnboundedSender<(Effect, mpsc::Sender<Report>)>> {
        let (sender, mut queue) = mpsc::unbounded_channel::<(Effect, mpsc::Sender<Report>)>();
        let storage = self.clone();
        thread::Builder::new().name("blobs".to_owned()).spawn(move || {
            while let Some((effect, reports)) = queue.blocking_recv() {
                if let Some(report) = storage.perform(effect)
                    && reports.blocking_send(report).is_err()
                {
                    tracing::debug!("file work done for nobody: the coordinator has stopped");
                }
            }
        })?;
        Ok(sender)
    }

    /// Where the blob of an update is.
    pub(crate) fn path(&self, blob: &StoredBlob) -> Option<PathBuf> {
        self.lock().blobs.path(&blob.sha256)
    }

    /// A place for a model that is being made.
    pub(crate) fn place(&self) -> PathBuf {
        let mut held = self.lock();
        held.making += 1;
        self.dir.join(format!("{MAKING}-{}.tmp", held.making))
    }

    /// Takes a model over that was made, and needs it from now on.
    pub(crate) fn adopt(&self, from: &Path, bytes: u64) -> Result<Manifest, BlobError> {
        let chunk_bytes = self.limits.chunk_bytes_for(bytes)?;
        let mut held = self.lock();
        let manifest = held.blobs.adopt(from, chunk_bytes, Format::safetensors())?;
        held.need(manifest.sha256());
        Ok(manifest)
    }

    /// As [`Storage::adopt`], of a file in memory.
    pub(crate) fn put(&self, file: &[u8]) -> Result<Manifest, BlobError> {
        let chunk_bytes = self.limits.chunk_bytes_for(file.len() as u64)?;
        let mut held = self.lock();
        let manifest = held.blobs.put(file, chunk_bytes, Format::safetensors())?;
        held.need(manifest.sha256());
        Ok(manifest)
    }

    /// A blob that was adopted or put is a model, and may be the base of a round to come.
    pub(crate) fn is_model(&self, sha256: Digest) {
        let mut held = self.lock();
        held.models.retain(|other| *other != sha256);
        held.models.push_back(sha256);
        while held.models.len() > MODELS_KEPT_MAX {
            let oldest = held.models.pop_front().expect("there are more than are kept");
            if !held.needed.contains_key(&oldest)
                && let Err(why) = held.blobs.remove(&oldest)
            {
                tracing::warn!(%why, "cannot remove an old model");
            }
        }
    }

    fn perform(&self, effect: Effect) -> Option<Report> {
        match effect {
            Effect::Begin(blob) => {
                let have = self.lock().blobs.begin(&blob).map_err(|why| chain(&why));
                Some(Report::Begun { sha256: blob.sha256(), have })
            }
            Effect::Store { blob, index, bytes } => {
                let result = self.lock().blobs.write(&blob, index, &bytes);
                let result = result.map_err(|why| chain(&why));
                Some(Report::Stored { sha256: blob.sha256(), index, result })
            }
            Effect::Finish { blob, schema } => {
                let result = self.finish(&blob, &schema);
                Some(Report::Received { sha256: blob.sha256(), result })
            }
            Effect::Decode { blob, schema, encoding, base_values } => {
                let result = self.decode(&blob, &schema, (&encoding, base_values));
                Some(Report::Decoded { sha256: blob.sha256(), result })
            }
            Effect::Pin(sha256) => {
                self.lock().need(sha256);
                None
            }
            Effect::Unpin(sha256) => {
                self.lock().let_go(&sha256);
                None
            }
            Effect::Abandon(blob) => {
                self.lock().blobs.abandon(&blob);
                None
            }
            Effect::ReadChunk { blob, index } => {
                let result = self.lock().blobs.read_chunk(&blob, index);
                let result = result.map_err(|why| chain(&why));
                Some(Report::ChunkRead { sha256: blob.sha256(), index, result })
            }
            Effect::Hold(needed) => {
                let mut held = self.lock();
                needed.into_iter().for_each(|sha256| held.need(sha256));
                if let Err(why) = held.blobs.sweep(&BTreeSet::new()) {
                    tracing::warn!(%why, "cannot remove what was left unfinished");
                }
                None
            }
            Effect::Drop(sha256) => {
                if let Err(why) = self.lock().release(&sha256) {
                    tracing::warn!(%why, "cannot remove a blob");
                }
                None
            }
            Effect::Aggregate(_) | Effect::Answer { .. } | Effect::Note(_) => None,
        }
    }

    /// The whole has to be what its manifest says, and an update of this model.
    fn finish(&self, blob: &Manifest, schema: &Schema) -> Result<(), Objection> {
        let path = self.lock().blobs.finish(blob).map_err(|why| {
            Objection::new(
                Rejection::Malformed,
                format!("what came is not what was offered: {why}"),
            )
        })?;
        let checked = check(&path, schema);
        let mut held = self.lock();
        match &checked {
            Ok(()) => held.need(blob.sha256()),
            Err(_) if !held.is_of_use(&blob.sha256()) => {
                if let Err(why) = held.blobs.remove(&blob.sha256()) {
                    tracing::warn!(%why, "cannot remove a blob");
                }
            }
            Err(_) => {}
        }
        checked
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn need(&mut self, sha256: Digest) {
        *self.needed.entry(sha256).or_default() += 1;
        self.blobs.pin(&sha256);
    }

    fn is_of_use(&self, sha256: &Digest) -> bool {
        self.needed.contains_key(sha256) || self.models.contains(sha256)
    }

    /// It is needed once less; whether that was the last time. Not pinned, it goes as soon as
    /// something else needs the room.
    fn let_go(&mut self, sha256: &Digest) -> bool {
        self.blobs.unpin(sha256);
        let Some(count) = self.needed.get_mut(sha256) else { return false };
        *count -= 1;
        let was_last = *count == 0;
        if was_last {
            self.needed.remove(sha256);
        }
        was_last
    }

    /// As [`Held::let_go`]; what is no model goes at once.
    fn release(&mut self, sha256: &Digest) -> Result<(), BlobError> {
        if self.let_go(sha256) && !self.models.contains(sha256) {
            self.blobs.remove(sha256)?;
        }
        Ok(())
    }
}

/// Whether a file holds the tensors of `schema`, all finite, in the order of their names.
fn check(path: &Path, schema: &Schema) -> Result<(), Objection> {
    let malformed = |why: io::Error| Objection::new(Rejection::Malformed, why.to_string());
    let mut file = File::open(path).map_err(malformed)?;
    let header = read_header(&file).map_err(malformed)?;
    if let Some(difference) = schema.difference(&header.schema()) {
        return Err(Objection::new(Rejection::Shape, difference));
    }
    let mut expected = 0;
    for (name, span) in &header.spans {
        if span.begin != expected {
            let what = format!("tensor {name:?} does not stand in the order of names");
            return Err(Objection::new(Rejection::Malformed, what));
        }
        expected = span.end;
    }
    file.seek(SeekFrom::Start(header.data_start() as u64)).map_err(malformed)?;
    let mut block = vec![0; BLOCK];
    for (name, span) in &header.spans {
        let mut left = span.end - span.begin;
        while left > 0 {
            // Blocks end between two numbers: a block is a multiple of every type's size.
            let part = &mut block[..left.min(BLOCK)];
            file.read_exact(part).map_err(malformed)?;
            if !all_finite(span.slot.dtype, part) {
                let what = format!("tensor {name:?} holds a number that is not finite");
                return Err(Objection::new(Rejection::NotFinite, what));
            }
            left -= part.len();
        }
    }
    Ok(())
}

/// A float is finite unless all bits of its exponent are set.
fn all_finite(dtype: DType, bytes: &[u8]) -> bool {
    match dtype {
        DType::F64 => {
            let (numbers, _) = bytes.as_chunks::<8>();
            numbers.iter().all(|it| f64::from_le_bytes(*it).is_finite())
        }
        DType::F32 => {
            let (numbers, _) = bytes.as_chunks::<4>();
            numbers.iter().all(|it| f32::from_le_bytes(*it).is_finite())
        }
        DType::F16 => {
            let (numbers, _) = bytes.as_chunks::<2>();
            numbers.iter().all(|it| u16::from_le_bytes(*it) & 0x7c00 != 0x7c00)
        }
        DType::BF16 => {
            let (numbers, _) = bytes.as_chunks::<2>();
            numbers.iter().all(|it| u16::from_le_bytes(*it) & 0x7f80 != 0x7f80)
        }
        DType::I8 => true,
    }
}

fn chain(why: &BlobError) -> String {
    service::run::chain(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Storage {
        Storage::open(dir, 1 << 20, Limits::default()).unwrap()
    }

    fn made(storage: &Storage, number: u8) -> Manifest {
        let manifest = storage.put(&[number; 100]).unwrap();
        storage.is_model(manifest.sha256());
        manifest
    }

    fn is_here(storage: &Storage, blob: &Manifest) -> bool {
        storage.lock().blobs.holds(&blob.sha256())
    }

    #[test]
    fn a_model_that_was_handed_over_need_not_be_fetched_by_the_round_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path());
        let models: Vec<Manifest> = (1..=3).map(|number| made(&storage, number)).collect();
        assert!(models.iter().all(|model| is_here(&storage, model)), "nobody has them yet");
        for model in &models {
            storage.perform(Effect::Drop(model.sha256()));
        }
        let [oldest, older, newest] = &models[..] else { panic!("three were made") };
        assert!(!is_here(&storage, oldest));
        assert!(is_here(&storage, older) && is_here(&storage, newest));
        let Some(Report::Begun { have, .. }) = storage.perform(Effect::Begin(newest.clone()))
        else {
            panic!("it begins")
        };
        assert!(have.unwrap().is_full(), "no piece is asked for");
        // The oldest of those that are kept goes when another is made.
        made(&storage, 4);
        assert!(!is_here(&storage, older) && is_here(&storage, newest));
    }

    #[test]
    fn what_may_be_asked_for_again_stays_until_something_else_needs_the_room() {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path());
        let waits = storage.put(&[9; 100]).unwrap();
        storage.perform(Effect::Unpin(waits.sha256()));
        assert!(is_here(&storage, &waits));
        let Some(Report::Begun { have, .. }) = storage.perform(Effect::Begin(waits.clone())) else {
            panic!("it begins")
        };
        assert!(have.unwrap().is_full(), "no piece is asked for");
        storage.put(&vec![1; 1 << 20]).unwrap();
        assert!(!is_here(&storage, &waits));
    }

    #[test]
    fn what_is_no_model_goes_when_nobody_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path());
        let state = storage.put(&[9; 100]).unwrap();
        storage.perform(Effect::Drop(state.sha256()));
        assert!(!is_here(&storage, &state));
    }
}
