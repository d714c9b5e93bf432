//! The directory of what is too large for one message: base models on their way in, updates on
//! their way out. One thread owns it, and does what it is asked for in that order.

mod encode;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use agent::{BaseModel, Effect, Failure, PackedUpdate, Report};
use protocol::{
    Digest, Form, Manifest, Schema,
    manifest::Format,
    message::{FailureCode, Model, Update},
    tensor::{
        CONTROL_PREFIX,
        safetensors::{self, Metadata},
    },
};
use service::{
    blobs::{BlobError, BlobRules, Blobs, read_header},
    settings::Limits,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    canonical::{self, Canonical},
    executor::LeftFile,
};

/// Where an update stands while its tensors are put in order.
const PUTTING_IN_ORDER: &str = "update.tmp";

/// The way to the thread that owns the blobs. All clones lead to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Storage(mpsc::UnboundedSender<Work>);

/// What the thread is asked for. Not bounded here: the core asks for a few pieces at a time, and
/// each run for one file.
#[derive(Debug)]
enum Work {
    Effect(Box<Effect>, mpsc::Sender<Report>),
    Find { sha256: Digest, reply: oneshot::Sender<Option<PathBuf>> },
    Adopt { file: Arc<LeftFile>, reply: oneshot::Sender<Result<PackedUpdate, Failure>> },
}

/// All that the thread owns.
#[derive(Debug)]
struct Owner {
    blobs: Blobs,
    dir: PathBuf,
    limits: Limits,
    /// How often each blob is needed.
    needed: BTreeMap<Digest, u32>,
    /// The last piece could not be written; said once.
    failing: bool,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("open the directory of models and updates")]
    Blobs(#[from] BlobError),
    #[error("start the thread that moves pieces")]
    Thread(#[source] io::Error),
}

impl Storage {
    /// Takes over what is in `dir`.
    pub(crate) fn open(dir: &Path, bytes_max: u64, limits: Limits) -> Result<Self, StorageError> {
        let blobs = Blobs::open(dir, BlobRules { bytes_max })?;
        let dir = dir.to_owned();
        let mut owner = Owner { blobs, dir, limits, needed: BTreeMap::new(), failing: false };
        let (sender, mut queue) = mpsc::unbounded_channel();
        let working = move || {
            while let Some(work) = queue.blocking_recv() {
                owner.work(work);
            }
        };
        let started = thread::Builder::new().name("blobs".to_owned()).spawn(working);
        started.map_err(StorageError::Thread)?;
        Ok(Self(sender))
    }

    /// Does the file work of an effect, in its turn.
    pub(crate) fn perform(&self, effect: Effect, reports: mpsc::Sender<Report>) {
        self.send(Work::Effect(Box::new(effect), reports));
    }

    /// Where a blob is.
    pub(crate) async fn find(&self, sha256: Digest) -> Option<PathBuf> {
        let (reply, found) = oneshot::channel();
        self.send(Work::Find { sha256, reply });
        found.await.ok().flatten()
    }

    /// Makes the file that a guest has left a blob, and pins it.
    pub(crate) async fn adopt(&self, file: Arc<LeftFile>) -> Result<PackedUpdate, Failure> {
        let (reply, adopted) = oneshot::channel();
        self.send(Work::Adopt { file, reply });
        adopted.await.unwrap_or_else(|_| Err(failure("host", "the thread of the blobs is gone")))
    }

    fn send(&self, work: Work) {
        if self.0.send(work).is_err() {
            tracing::error!("the thread that does the file work is gone");
        }
    }
}

impl Owner {
    fn work(&mut self, work: Work) {
        // Whoever does not wait for an answer any more does not need it.
        match work {
            Work::Effect(effect, reports) => {
                if let Some(report) = self.perform(*effect)
                    && reports.blocking_send(report).is_err()
                {
                    tracing::debug!("file work done for nobody: the proplet has stopped");
                }
            }
            Work::Find { sha256, reply } => drop(reply.send(self.blobs.path(&sha256))),
            Work::Adopt { file, reply } => {
                if let Err(Ok(packed)) = reply.send(self.adopt(file.path())) {
                    self.give_back(&packed.blob.sha256());
                }
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Report> {
        match effect {
            Effect::Begin(blob) => {
                let have = self.blobs.begin(&blob).map_err(|why| chain(&why));
                Some(Report::Begun { sha256: blob.sha256(), have })
            }
            Effect::Store { blob, index, bytes } => {
                let result = self.blobs.write(&blob, index, &bytes).map_err(|why| chain(&why));
                match &result {
                    Err(why) if !self.failing => {
                        tracing::warn!(%why, index, "a piece of a model cannot be written");
                    }
                    Ok(()) | Err(_) => {}
                }
                self.failing = result.is_err();
                Some(Report::Stored { sha256: blob.sha256(), index, result })
            }
            Effect::Finish(blob) => {
                let sha256 = blob.sha256();
                let result = self.blobs.finish(&blob).map_err(|why| chain(&why));
                let result = result.map(|_| self.need(sha256));
                Some(Report::Fetched { sha256, result })
            }
            Effect::ReadChunk { round, blob, index } => {
                let result = self.blobs.read_chunk(&blob, index).map_err(|why| chain(&why));
                Some(Report::ChunkRead { round, sha256: blob.sha256(), index, result })
            }
            Effect::Pack { task, attempt, update, base } => {
                let result = self.pack(*update, base);
                Some(Report::Packed { task, attempt, result })
            }
            Effect::Encode(encode) => {
                let result = self.encode(&encode);
                let (task, attempt) = (encode.task, encode.attempt);
                Some(Report::Encoded { task, attempt, result })
            }
            Effect::Abandon(blob) => {
                self.blobs.abandon(&blob);
                None
            }
            Effect::Hold(blobs) => {
                blobs.into_iter().for_each(|sha256| self.need(sha256));
                None
            }
            Effect::Release(sha256) => {
                self.release(&sha256);
                None
            }
            Effect::Drop(sha256) => {
                self.give_back(&sha256);
                None
            }
            Effect::Run { .. }
            | Effect::Cancel { .. }
            | Effect::Measure
            | Effect::Stopped
            | Effect::Note(_) => None,
        }
    }

    /// Makes a blob of an update that is in memory.
    fn pack(&mut self, update: Update, base: Option<BaseModel>) -> Result<Manifest, Failure> {
        let tensors = match update.form {
            Form::Safetensors => update.update,
            Form::Json => {
                let schema = self.schema(base)?;
                let is_control = |name: &str| name.starts_with(CONTROL_PREFIX);
                let brings_control = update.update.iter().any(|(name, _)| is_control(name));
                let schema = if brings_control && !schema.iter().any(|(name, _)| is_control(name)) {
                    schema.with_control().map_err(|why| not_one(&why))?
                } else {
                    schema
                };
                update.update.cast_to(&schema).map_err(|why| not_one(&why))?
            }
        };
        if let Some(name) = tensors.not_finite() {
            return Err(not_one(&format!("tensor {name:?} does not fit the model's type")));
        }
        let file = safetensors::write(&tensors, &Metadata::new());
        let chunk_bytes = self.chunk_bytes(file.len() as u64)?;
        let put = self.blobs.put(&file, chunk_bytes, Format::safetensors());
        let manifest = put.map_err(|why| unkept(&why))?;
        self.need(manifest.sha256());
        Ok(manifest)
    }

    /// The tensors of a base model.
    fn schema(&mut self, base: Option<BaseModel>) -> Result<Schema, Failure> {
        let unread = |why: String| failure("host", format!("the base model cannot be read: {why}"));
        let payload = match base {
            None => return Err(unread("there is none".to_owned())),
            Some(BaseModel::Here(payload)) => payload,
            Some(BaseModel::Stored(sha256)) => {
                let path = self.blobs.path(&sha256).ok_or_else(|| unread("it is gone".into()))?;
                let header = File::open(&path).and_then(|file| read_header(&file));
                match header {
                    Ok(header) => return Ok(header.schema()),
                    // It may be text, which nobody publishes that is too long for memory.
                    Err(_) => std::fs::read(&path).map_err(|why| unread(why.to_string()))?.into(),
                }
            }
        };
        let model = Model::read(&payload).map_err(|why| unread(why.to_string()))?;
        Ok(model.tensors.schema())
    }

    /// Makes a blob of a file whose tensors are in the order of their names, or will be.
    fn adopt(&mut self, file: &Path) -> Result<PackedUpdate, Failure> {
        let ordered = self.dir.join(PUTTING_IN_ORDER);
        let Canonical { metadata, place, bytes } =
            canonical::put_in_order(file, &ordered).map_err(|why| disordered(&why))?;
        let chunk_bytes = self.chunk_bytes(bytes)?;
        let blob = self.blobs.adopt(&place, chunk_bytes, Format::safetensors());
        let blob = blob.map_err(|why| {
            // The room that it takes may be what the next attempt lacks.
            drop(std::fs::remove_file(&ordered));
            unkept(&why)
        })?;
        self.need(blob.sha256());
        Ok(PackedUpdate { metadata, blob, state: None })
    }

    fn chunk_bytes(&self, bytes: u64) -> Result<u32, Failure> {
        let chunk_bytes = self.limits.chunk_bytes_for(bytes);
        chunk_bytes.map_err(|why| failure("update_too_large", format!("the update: {why}")))
    }

    fn need(&mut self, sha256: Digest) {
        *self.needed.entry(sha256).or_default() += 1;
        self.blobs.pin(&sha256);
    }

    /// Whether nobody needs it any more.
    fn release(&mut self, sha256: &Digest) -> bool {
        let Some(count) = self.needed.get_mut(sha256) else { return true };
        self.blobs.unpin(sha256);
        *count -= 1;
        if *count == 0 {
            self.needed.remove(sha256);
        }
        !self.needed.contains_key(sha256)
    }

    fn give_back(&mut self, sha256: &Digest) {
        if self.release(sha256)
            && let Err(why) = self.blobs.remove(sha256)
        {
            tracing::warn!(%why, "cannot remove a blob");
        }
    }
}

fn failure(code: &str, message: impl Into<String>) -> Failure {
    Failure { code: FailureCode(code.to_owned()), message: message.into() }
}

fn not_one(why: &str) -> Failure {
    failure("not_an_update", format!("output is not a valid update: {why}"))
}

fn disordered(why: &io::Error) -> Failure {
    if matches!(why.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) {
        not_one(&format!("not a safetensors file: {why}"))
    } else {
        failure("host", format!("the update cannot be put in order: {why}"))
    }
}

fn unkept(why: &BlobError) -> Failure {
    let code = if why.is_lack_of_room() { "updates_full" } else { "host" };
    failure(code, format!("the update cannot be kept: {}", chain(why)))
}

fn chain(why: &BlobError) -> String {
    service::run::chain(why)
}
