//! What the coordinator does beside speaking: averaging, off the event loop, and logging.

use std::{fs, io, path::Path, sync::Arc, thread};

use aggregate::Work;
use protocol::{FailReason, Form, Manifest, OpenError, TraceField, tensor::safetensors};
use round::{Beside, Effect, Job, Kept, Made, Note, Report, Rounds, State, average};
use service::{Effects, Gate, StoreError};
use tokio::{
    sync::{Semaphore, mpsc},
    task,
    time::Instant,
};

use crate::{
    api::RoundAnswer,
    callers::Callers,
    state,
    status::Board,
    storage::Storage,
    streaming::{Failed, Places, Streamed, average_to_file},
    tally::Tally,
    timings::Timings,
    traces::RoundTraces,
};

/// Rounds that are averaged at once; each holds a second copy of its updates meanwhile.
const AT_ONCE_MAX: usize = 2;

/// What a message has beside the numbers, more or less: names, a header, a version.
const MESSAGE_ROOM: usize = 4 << 10;

/// Does what the core asks for.
#[derive(Debug)]
pub(crate) struct Averaging {
    permits: Arc<Semaphore>,
    storage: Storage,
    gate: Gate,
    /// To the thread that does the file work.
    files: mpsc::UnboundedSender<(Effect, mpsc::Sender<Report>)>,
    board: Board,
    callers: Callers<RoundAnswer>,
    timings: Timings,
    traces: RoundTraces,
}

/// To whom the rounds show themselves.
#[derive(Debug)]
pub(crate) struct Outward {
    pub(crate) board: Board,
    pub(crate) callers: Callers<RoundAnswer>,
    pub(crate) timings: Timings,
    pub(crate) traces: RoundTraces,
}

impl Averaging {
    pub(crate) fn new(
        storage: Storage,
        gate: Gate,
        Outward { board, callers, timings, traces }: Outward,
    ) -> io::Result<Self> {
        let permits = Arc::new(Semaphore::new(AT_ONCE_MAX));
        let files = storage.start()?;
        Ok(Self { permits, storage, gate, files, board, callers, timings, traces })
    }

    pub(crate) fn tally(&self) -> Tally {
        self.board.borrow().tally.clone()
    }

    /// Reads a piece once there is room for it in the transport.
    fn read_chunk(&self, blob: Manifest, index: u32, reports: mpsc::Sender<Report>) {
        let (gate, files) = (self.gate.clone(), self.files.clone());
        tokio::spawn(async move {
            gate.pass().await;
            if files.send((Effect::ReadChunk { blob, index }, reports)).is_err() {
                tracing::error!("the thread that does the file work is gone");
            }
        });
    }

    /// If the process ends meanwhile, the core asks again at the next start.
    fn average(&self, job: Job, reports: mpsc::Sender<Report>) {
        let (storage, permits) = (self.storage.clone(), Arc::clone(&self.permits));
        let (averages, below) = (self.timings.averages(), self.traces.below(&job.round));
        tokio::spawn(async move {
            let round = job.round.clone();
            let _permit = permits.acquire().await;
            let (begun, members) = (Instant::now(), job.members.len());
            let span = below.map(|below| below.begin("aggregate").with("aileron.updates", members));
            let report = task::spawn_blocking(move || make(job, &storage)).await;
            let report = report.unwrap_or_else(|panic| Report::AggregationFailed {
                round,
                reason: FailReason::Aggregation,
                error: panic.to_string(),
            });
            averages.observe(begun.elapsed().as_secs_f64());
            if let Some(span) = span {
                span.end(objection(&report));
            }
            if reports.send(report).await.is_err() {
                tracing::debug!("averaged for nobody: the coordinator has stopped");
            }
        });
    }
}

impl Effects<Rounds> for Averaging {
    fn perform(&mut self, effect: Effect, report: &mpsc::Sender<Report>) {
        match effect {
            Effect::Aggregate(job) => self.average(job, report.clone()),
            Effect::ReadChunk { blob, index } => self.read_chunk(blob, index, report.clone()),
            Effect::Begin(_)
            | Effect::Store { .. }
            | Effect::Finish { .. }
            | Effect::Decode { .. }
            | Effect::Pin(_)
            | Effect::Unpin(_)
            | Effect::Abandon(_)
            | Effect::Hold(_)
            | Effect::Drop(_) => {
                if self.files.send((effect, report.clone())).is_err() {
                    tracing::error!("the thread that does the file work is gone");
                }
            }
            Effect::Answer { ticket, answer } => self.callers.answer(ticket, answer),
            Effect::Note(note) => {
                self.board.send_modify(|status| status.tally.count(&note));
                self.timings.note(&note);
                self.traces.note(&note);
                log(&note);
            }
        }
    }

    fn unreadable(&mut self, _why: &OpenError) {
        self.board.send_modify(|status| status.tally.count_unreadable());
    }

    fn connection(&mut self, connected: bool) {
        self.board.send_modify(|status| status.rounds.connection(connected));
    }

    fn storage(&mut self, why: Option<&StoreError>) {
        self.board.send_modify(|status| status.rounds.storage(why));
    }
}

/// Why there is no model.
fn objection(report: &Report) -> Option<String> {
    match report {
        Report::AggregationFailed { error, .. } => Some(error.clone()),
        Report::Aggregated { .. }
        | Report::Asked { .. }
        | Report::Begun { .. }
        | Report::Stored { .. }
        | Report::Received { .. }
        | Report::Decoded { .. }
        | Report::ChunkRead { .. } => None,
    }
}

/// The model of a round: in memory if it fits one message, else as a file.
fn make(mut job: Job, storage: &Storage) -> Report {
    let work = Work::threads(thread::available_parallelism().map_or(1, Into::into));
    let is_stored = |values: &Kept| matches!(values, Kept::Stored(_));
    let stored = job.members.iter().any(|member| is_stored(&member.values))
        || job.base_values.as_ref().is_some_and(is_stored)
        || job.members.iter().any(|member| member.base_values.as_ref().is_some_and(is_stored));
    let long = job.schema.byte_len() + MESSAGE_ROOM > storage.limits.message_bytes_max;
    let made = match job.form {
        _ if stored => make_file(&job, storage, &work),
        Form::Safetensors if long => make_file(&job, storage, &work),
        // Text may be longer than its numbers, and is known to be only when it is written.
        Form::Json | Form::Safetensors => match state::load(&mut job, storage) {
            Ok(()) => return shorten(average(&job, &work), &job, storage),
            Err(why) => Err(why),
        },
    };
    let round = job.round;
    match made {
        Ok((model, beside)) => Report::Aggregated { round, model, beside },
        Err((reason, error)) => Report::AggregationFailed { round, reason, error },
    }
}

/// A model in memory whose text does not fit one message goes as a file, and so does a long state.
fn shorten(report: Report, job: &Job, storage: &Storage) -> Report {
    let Report::Aggregated { round, model: Made::Here(tensors), beside } = report else {
        return report;
    };
    let made = state::shorten(beside, job, storage).and_then(|beside| {
        let text = serde_json::to_vec(&tensors).map_or(usize::MAX, |text| text.len());
        let fits = text + MESSAGE_ROOM <= storage.limits.message_bytes_max;
        if job.form == Form::Safetensors || fits {
            return Ok((Made::Here(tensors), beside));
        }
        let file = safetensors::write(&tensors, &safetensors::Metadata::new());
        let blob = storage.put(&file);
        let blob = blob.map_err(|why| (FailReason::Aggregation, service::run::chain(&why)))?;
        storage.is_model(blob.sha256());
        Ok((Made::Stored { blob, schema: job.schema.clone() }, beside))
    });
    match made {
        Ok((model, beside)) => Report::Aggregated { round, model, beside },
        Err((reason, error)) => Report::AggregationFailed { round, reason, error },
    }
}

fn make_file(job: &Job, storage: &Storage, work: &Work) -> Result<(Made, Beside), Failed> {
    let places = Places { model: storage.place(), state: storage.place() };
    let made = average_to_file(job, |blob| storage.path(blob), &places, work);
    let adopt = |place: &Path| {
        let len = fs::metadata(place).map_or(0, |meta| meta.len());
        let blob = storage.adopt(place, len);
        blob.map_err(|why| (FailReason::Aggregation, service::run::chain(&why)))
    };
    let made = made.and_then(|Streamed { vectors, left_out }| {
        let blob = adopt(&places.model)?;
        let state = if vectors.is_empty() {
            None
        } else if job.strategy.has_control() {
            Some(State { vectors, values: state::take_in(&places.state)? })
        } else {
            Some(State { vectors, values: Kept::Stored(state::stored(&adopt(&places.state)?)) })
        };
        storage.is_model(blob.sha256());
        let model = Made::Stored { blob, schema: job.schema.clone() };
        Ok((model, Beside { state, left_out }))
    });
    if made.is_err() {
        // The room that a half-written model takes may be what the next attempt lacks.
        drop((fs::remove_file(&places.model), fs::remove_file(&places.state)));
    }
    made
}

fn log(note: &Note) {
    match note {
        Note::Opened { round, base, participants, k, deadline, traceparent } => {
            tracing::info!(%round, %base, ?participants, k, %deadline, "round opened");
            if let Some(TraceField::Unreadable(text)) = traceparent {
                tracing::warn!(%round, text, "traceparent cannot be read; the round has its own");
            }
        }
        Note::StartRefused { round, what } => tracing::warn!(%round, what, "start not taken"),
        Note::Accepted { round, proplet, num_samples } => {
            tracing::info!(%round, %proplet, num_samples, "update accepted");
        }
        Note::Rejected { reason, round, proplet, what } => {
            let round = round.as_ref().map(tracing::field::display);
            let proplet = proplet.as_ref().map(tracing::field::display);
            tracing::warn!(round, proplet, %reason, what, "update rejected");
        }
        Note::NoRoom { round, proplet, kept_len } => {
            tracing::warn!(%round, %proplet, kept_len, "no memory for an update; it has to wait");
        }
        Note::Receiving { round, proplet, len, chunks, have } => {
            tracing::info!(%round, %proplet, len, chunks, have, "update comes in pieces");
        }
        Note::ReceptionFailed { round, proplet, what } => {
            tracing::warn!(%round, %proplet, what, "pieces of an update do not come");
        }
        Note::BadBase { model, what } => {
            tracing::warn!(%model, what, "the base model cannot be read");
        }
        Note::Absent { round, proplet } => {
            tracing::info!(%round, %proplet, "participant will not contribute");
        }
        Note::Held { round, proplet } => {
            tracing::debug!(%round, %proplet, "late update waits for a round of its session");
        }
        Note::Late { round, made_for, proplet, staleness } => {
            tracing::info!(%round, %made_for, %proplet, staleness, "late update counts");
        }
        Note::Closed { round, counted } => tracing::info!(%round, counted, "round closed"),
        Note::LeftOut { round, proplet, reason } => {
            tracing::warn!(%round, %proplet, %reason, "the model is made without an update");
        }
        Note::Made { round, model, digest } => {
            tracing::info!(%round, %model, %digest, "model made");
        }
        Note::Unconfirmed { round, model, attempts, shown } => {
            let shown = shown.map(|shown| shown.0);
            tracing::warn!(
                %round, %model, attempts, shown,
                "the model server does not show the model; if the newest that it shows is older than \
                 the one before this, it has lost its state directory, and needs it back"
            );
        }
        Note::VersionTaken { round, model, ours, theirs } => tracing::error!(
            %round, %model, %ours, %theirs,
            "somebody else published this version; publishing ours as the next one"
        ),
        Note::Complete { round, model, num_updates, total_samples } => {
            tracing::info!(%round, %model, num_updates, total_samples, "round complete");
        }
        Note::Failed { round, reason, counted, error } => {
            tracing::warn!(%round, %reason, counted, error, "round failed");
        }
    }
}
