//! What the model server does beside speaking: files, on a thread of their own, and logging.

use std::{collections::BTreeSet, path::PathBuf};

use lineage::{Effect, Lines, Note, OfLine, Report};
use protocol::{Manifest, ModelLine, ModelUri, ModelVersion};
use service::{BlobError, Blobs, Effects, Gate, StoreError, settings::Limits};
use tokio::{
    sync::mpsc,
    task::{self, JoinHandle},
};

use crate::{pieces::AdoptError, shelf::Shelf, traces::ModelTraces, watching::Watching};

type Reports = mpsc::Sender<OfLine<Report>>;
type Job = (OfLine<Effect>, Reports);

/// All that the thread owns.
#[derive(Debug)]
pub(crate) struct Library {
    /// The directory of all model files.
    pub(crate) dir: PathBuf,
    /// What is coming in pieces.
    pub(crate) blobs: Blobs,
    pub(crate) limits: Limits,
}

/// Hands file work to the thread that owns the files, in order.
#[derive(Debug)]
pub(crate) struct Librarian {
    /// Not bounded here: the core asks for a handful of loads and one write at a time.
    jobs: mpsc::UnboundedSender<Job>,
    worker: JoinHandle<()>,
    /// For reading pieces, which waits for the broker and not for the thread.
    dir: PathBuf,
    gate: Gate,
    /// Pieces of models that were not taken; said now and then.
    refused_chunks: u64,
    /// Versions that could not be written yet; said once.
    failing: BTreeSet<ModelUri>,
    watching: Watching,
    traces: ModelTraces,
}

impl Librarian {
    pub(crate) fn new(
        library: Library,
        gate: Gate,
        (watching, traces): (Watching, ModelTraces),
    ) -> Self {
        let (jobs, queue) = mpsc::unbounded_channel();
        let dir = library.dir.clone();
        let worker = task::spawn_blocking(move || work(library, queue));
        let (refused_chunks, failing) = (0, BTreeSet::new());
        Self { jobs, worker, dir, gate, refused_chunks, failing, watching, traces }
    }

    /// Waits until what was begun is done.
    pub(crate) async fn finish(self) {
        drop(self.jobs);
        if let Err(why) = self.worker.await {
            tracing::error!(%why, "the thread that writes models has panicked");
        }
    }

    fn read_chunk(&self, model: ModelUri, manifest: Manifest, index: u32, reports: Reports) {
        let ModelUri { line, version } = model;
        let (shelf, gate) = (Shelf::new(&self.dir, &line), self.gate.clone());
        tokio::spawn(async move {
            gate.pass().await;
            let read = move || shelf.read_chunk(version, &manifest, index);
            let content = match task::spawn_blocking(read).await {
                Ok(content) => content.map_err(|why| why.to_string()),
                Err(why) => Err(why.to_string()),
            };
            let it = Report::ChunkRead { version, index, content };
            if reports.send(OfLine { line, it }).await.is_err() {
                tracing::debug!("a piece read for nobody: the model server has stopped");
            }
        });
    }

    fn log(&mut self, line: &ModelLine, note: &Note) {
        let uri = |version: &ModelVersion| ModelUri { line: line.clone(), version: *version };
        match note {
            Note::Ready { intact, damaged, newest } => {
                let newest = newest.map(|newest| newest.0);
                tracing::info!(%line, intact, damaged, newest, "model files read");
            }
            Note::ScanFailed { error } => {
                tracing::error!(%line, error, "cannot read the model files")
            }
            Note::Missing { version } => tracing::error!(%line, %version, "model file is missing"),
            Note::Damaged { version, what } => {
                tracing::error!(%line, %version, what, "model file is damaged; moved aside");
            }
            Note::Adopted { version } => {
                tracing::warn!(%line, %version, "model file without a record taken over");
            }
            Note::Stray { version } => {
                tracing::warn!(%line, %version, "model file does not continue the line; left alone");
            }
            Note::Written { version, len, digest } => {
                if self.failing.remove(&uri(version)) {
                    tracing::info!(%line, %version, "models can be written again");
                }
                tracing::info!(%line, %version, len, %digest, "model written");
            }
            Note::WriteFailed { version, error } => {
                if self.failing.insert(uri(version)) {
                    tracing::error!(%line, %version, error, "cannot write a model; trying again");
                }
            }
            Note::Refused { version, why } => {
                tracing::warn!(%line, %version, ?why, "model refused")
            }
            Note::Fetching { version, len, chunks } => {
                tracing::info!(%line, %version, len, chunks, "model comes in pieces");
            }
            Note::FetchFailed { version, why } => {
                tracing::warn!(%line, %version, %why, "model in pieces given up");
            }
            Note::FetchedBad { version, what } => {
                tracing::error!(%line, %version, what, "what came in pieces is not the model; thrown away");
            }
            Note::ChunkRefused { version, index, why } => {
                self.refused_chunks += 1;
                let count = self.refused_chunks;
                if count.is_power_of_two() {
                    tracing::warn!(%line, %version, index, %why, count, "piece of a model refused");
                }
            }
            Note::Unshowable { version, why } => {
                tracing::error!(%line, %version, why, "this model cannot be shown: raise payload_bytes_max");
            }
            Note::Shown { version } => {
                tracing::info!(%line, %version, "all pieces of the model are with the broker");
            }
            Note::Replayed { versions } => {
                tracing::info!(%line, versions, "models published again")
            }
        }
    }
}

impl Effects<Lines> for Librarian {
    fn perform(&mut self, effect: OfLine<Effect>, report: &Reports) {
        let OfLine { line, it } = effect;
        match it {
            Effect::Note(note) => {
                self.watching.note(&line, &note);
                self.traces.note(&line, &note);
                self.log(&line, &note);
            }
            Effect::ReadChunk { version, manifest, index } => {
                let model = ModelUri { line, version };
                self.read_chunk(model, manifest, index, report.clone());
            }
            Effect::Scan { .. }
            | Effect::Quarantine { .. }
            | Effect::Write { .. }
            | Effect::Load { .. }
            | Effect::BeginBlob { .. }
            | Effect::StoreChunk { .. }
            | Effect::FinishBlob { .. }
            | Effect::DropBlob { .. }
            | Effect::Survey { .. } => {
                if self.jobs.send((OfLine { line, it }, report.clone())).is_err() {
                    tracing::error!("the thread that writes models is gone");
                }
            }
        }
    }

    fn connection(&mut self, connected: bool) {
        self.watching.standing.send_modify(|standing| standing.connection(connected));
    }

    fn storage(&mut self, why: Option<&StoreError>) {
        self.watching.standing.send_modify(|standing| standing.storage(why));
    }
}

fn work(mut library: Library, mut queue: mpsc::UnboundedReceiver<Job>) {
    while let Some((OfLine { line, it }, reports)) = queue.blocking_recv() {
        let Some(it) = perform(&mut library, &line, it) else { continue };
        if reports.blocking_send(OfLine { line, it }).is_err() {
            tracing::debug!("file work done for nobody: the model server has stopped");
        }
    }
}

fn perform(library: &mut Library, line: &ModelLine, effect: Effect) -> Option<Report> {
    let Library { dir, blobs, limits } = library;
    let shelf = Shelf::new(dir, line);
    match effect {
        Effect::Scan { unknown_from } => Some(match shelf.scan(unknown_from) {
            Ok(found) => Report::Scanned(found),
            Err(why) => Report::ScanFailed { error: why.to_string() },
        }),
        Effect::Quarantine { version } => {
            match shelf.quarantine(version) {
                Ok(aside) => tracing::warn!(%version, aside = %aside.display(), "moved aside"),
                Err(why) => tracing::error!(%version, %why, "cannot move a damaged model aside"),
            }
            None
        }
        Effect::Write { version, payload } => Some(match shelf.write(version, &payload) {
            Ok(()) => Report::Written { version },
            Err(why) => Report::WriteFailed { version, error: why.to_string() },
        }),
        Effect::Load { version } => {
            let content = shelf.read(version).map_err(|why| why.to_string());
            Some(Report::Loaded { version, content })
        }
        Effect::BeginBlob { manifest } => {
            let content = blobs.begin(&manifest).map_err(|why| why.to_string());
            Some(Report::BlobBegun { sha256: manifest.sha256(), content })
        }
        Effect::StoreChunk { manifest, index, bytes } => {
            let result = blobs.write(&manifest, index, &bytes).map_err(|why| why.to_string());
            Some(Report::ChunkStored { sha256: manifest.sha256(), index, result })
        }
        Effect::FinishBlob { version, manifest } => {
            Some(match shelf.adopt(version, blobs, &manifest) {
                Ok(form) => Report::BlobFinished { version, form },
                Err(AdoptError::NoModel(what)) => Report::BlobBad { version, what },
                Err(why) => Report::FinishFailed { version, error: why.to_string() },
            })
        }
        Effect::DropBlob { manifest } => {
            blobs.abandon(&manifest);
            None
        }
        Effect::Survey { version } => Some(match shelf.survey(version, *limits) {
            Ok(manifest) => Report::Surveyed { version, content: Ok(manifest) },
            Err(BlobError::Manifest(why)) => Report::Unshowable { version, why: why.to_string() },
            Err(why) => Report::Surveyed { version, content: Err(why.to_string()) },
        }),
        Effect::ReadChunk { .. } | Effect::Note(_) => None,
    }
}

#[cfg(test)]
mod tests {
    //! Whatever happens to a file between two lives of the process, it is never published as a
    //! model that it is not.

    use std::{fs, path::Path};

    use bytes::Bytes;
    use lineage::{Offer, Rules};
    use protocol::{Digest, Entry, Envelope, Input, Machine as _, Output, Timestamp, Topic};

    use service::BlobRules;

    use super::*;

    const RULES: Rules = Rules { model_len_max: 1000, message_len_max: 1000, shown_max: 1 };
    const MODEL: &[u8] = br#"{"b":-0.125,"w":[0.5,1.25,3e-5],"version":1}"#;

    /// One life: starts, connects, does all file work; returns what was published and kept.
    fn live(dir: &Path, kept: &[Entry], offer: Option<Bytes>) -> (Vec<Envelope>, Vec<Entry>) {
        let blobs = Blobs::open(&dir.join("incoming"), BlobRules { bytes_max: 1 << 20 }).unwrap();
        let mut library = Library { dir: dir.to_owned(), blobs, limits: Limits::default() };
        let initial = Offer::read(Bytes::from_static(br#"{"w":[0.0],"version":0}"#)).unwrap();
        let mut lineage = Lines::new(RULES, initial);
        lineage.restore(kept.to_vec()).unwrap();
        let offer = offer.map(|payload| Envelope {
            topic: Topic::ModelPublish { line: ModelLine::default() },
            payload,
        });
        let offer = offer.map(|envelope| Input::News(OfLine::try_from(envelope).unwrap()));
        let mut inputs: Vec<_> = offer.into_iter().collect();
        inputs.push(Input::Connected { resumed: false });
        let (mut said, mut kept) = (vec![], kept.to_vec());
        while let Some(input) = inputs.pop() {
            for output in lineage.step(input, Timestamp::ZERO) {
                match output {
                    Output::Publish(envelope) => said.push(envelope),
                    Output::Keep(entry) => kept.push(entry),
                    Output::Effect(OfLine { line, it }) => {
                        let report = perform(&mut library, &line, it);
                        inputs.extend(report.map(|it| Input::Report(OfLine { line, it })));
                    }
                    Output::Promise(_) | Output::Listen(_) | Output::Unlisten(_) => {
                        panic!("a model server does not {output:?}")
                    }
                }
            }
        }
        (said, kept)
    }

    fn published(said: &[Envelope]) -> Option<&Bytes> {
        let uri = ModelUri::global(ModelVersion(1));
        said.iter()
            .find(|said| said.topic == Topic::Model { uri: uri.clone() })
            .map(|said| &said.payload)
    }

    #[test]
    fn a_file_that_was_cut_or_has_rotten_is_never_published() {
        let dir = tempfile::tempdir().unwrap();
        let (said, kept) = live(dir.path(), &[], Some(MODEL.into()));
        assert_eq!(published(&said).unwrap(), MODEL);
        let path = dir.path().join("global_model_v1.json");
        assert_eq!(Digest::of(&fs::read(&path).unwrap()), Digest::of(MODEL));

        let cuts = (0..MODEL.len()).map(|len| MODEL[..len].to_vec());
        let flips = (0..MODEL.len() * 8).map(|bit| {
            let mut bytes = MODEL.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        let mut tried = 0;
        for damaged in cuts.chain(flips) {
            fs::write(&path, &damaged).unwrap();
            let (said, _) = live(dir.path(), &kept, None);
            assert_eq!(published(&said), None, "{damaged:?}");
            assert!(!path.exists(), "moved aside");
            tried += 1;
        }
        assert_eq!(tried, MODEL.len() * 9);
        let aside = fs::read_dir(dir.path()).unwrap().count();
        assert!(aside > tried, "nothing is thrown away");
        let (said, _) = live(dir.path(), &kept, Some(MODEL.into()));
        assert_eq!(published(&said).unwrap(), MODEL, "the same bytes heal it");
    }

    #[test]
    fn a_torn_file_without_a_record_is_not_taken_over() {
        for len in 0..MODEL.len() {
            let dir = tempfile::tempdir().unwrap();
            let (_, kept) = live(dir.path(), &[], None);
            fs::write(dir.path().join("global_model_v1.json"), &MODEL[..len]).unwrap();
            assert_eq!(published(&live(dir.path(), &kept, None).0), None);
        }
    }
}
