//! One run of a task, from its start message to its outcome: fetch the program, run it, say what
//! came of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use access::ModuleSigners;
use agent::{
    BaseModel, ENV_ROUND_ID, Failure, GuestOutput, Outcome, PackedUpdate, RunMetrics, Variates,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use protocol::{
    Digest,
    message::{FailureCode, TaskStart},
};
use serde_json::Value;
use tokio::task;
use tokio_util::sync::CancellationToken;

use super::vouch;
use crate::{
    executor::{self, ENV_INPUTS, Executor, Job, Limits, Metrics, Model, Output, Program},
    fetch::{self, Source},
    storage::Storage,
    traces::RunTrace,
};

/// How much of a failed guest's last words goes into its result.
const LAST_WORDS_LEN_MAX: usize = 400;

/// What every run on this device shares.
#[derive(Clone, Debug)]
pub(crate) struct Bench {
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) fetch: fetch::Settings,
    pub(crate) limits: Limits,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) storage: Storage,
    /// Whose modules may run; anybody's without it.
    pub(crate) signers: Option<ModuleSigners>,
}

impl Bench {
    /// Runs a task to its end. Cancelling ends it early.
    pub(super) async fn run(
        &self,
        start: Box<TaskStart>,
        given: (Option<BaseModel>, Option<Box<Variates>>),
        cancel: CancellationToken,
        trace: Option<RunTrace>,
    ) -> (Outcome, RunMetrics) {
        let (outcome, metrics) = self.run_traced(start, given, cancel, trace.as_ref()).await;
        if let Some(trace) = trace {
            trace.end(&outcome);
        }
        (outcome, metrics)
    }

    async fn run_traced(
        &self,
        mut start: Box<TaskStart>,
        (base, variates): (Option<BaseModel>, Option<Box<Variates>>),
        cancel: CancellationToken,
        trace: Option<&RunTrace>,
    ) -> (Outcome, RunMetrics) {
        let federated = start.env.contains_key(ENV_ROUND_ID);
        let fetched = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(failure("cancelled", "the job was cancelled")),
            ready = self.ready(&mut start, base) => ready,
        };
        if let Some(trace) = trace {
            trace.fetched(fetched.as_ref().err().map(|why| why.message.clone()));
        }
        let (program, model) = match fetched {
            Ok(ready) => ready,
            Err(failure) => return (Outcome::Failed(failure), RunMetrics::default()),
        };
        let variates = variates.map(|it| {
            let Variates { control, state } = *it;
            executor::Variates { control, state }
        });
        let job = Job { variates, ..self.job(*start, program, model, cancel) };
        let done = self.executor.run(job).await;
        if let Some(trace) = trace {
            trace.ran(&done.metrics, done.end.as_ref().err().map(ToString::to_string));
        }
        let metrics = metrics(&done.metrics);
        let outcome = match done.end {
            Ok(Output { update_left: Some(file), state, .. }) if federated => {
                let packed = self.storage.adopt(file).await;
                let state = state.map(Bytes::from);
                packed.map_or_else(Outcome::Failed, |packed| {
                    Outcome::Packed(PackedUpdate { state, ..packed })
                })
            }
            Ok(output) => Outcome::Ok(GuestOutput {
                stdout: output.stdout.into(),
                update_file: output.update_file.map(Bytes::from),
                state: output.state.map(Bytes::from),
            }),
            Err(why) => Outcome::Failed(with_last_words(&why, &done.stderr_tail)),
        };
        (outcome, metrics)
    }

    /// What it takes to run: the program, and the base model if there is one.
    async fn ready(
        &self,
        start: &mut TaskStart,
        base: Option<BaseModel>,
    ) -> Result<(Program, Option<Model>), Failure> {
        let program = self.program(start).await?;
        let model = match base {
            None => None,
            Some(BaseModel::Here(payload)) => Some(Model::Bytes(payload)),
            Some(BaseModel::Stored(sha256)) => {
                let gone = || failure("no_model", format!("the base model {sha256} is gone"));
                Some(Model::File(self.storage.find(sha256).await.ok_or_else(gone)?))
            }
        };
        Ok((program, model))
    }

    /// The task's own file, in the start or fetched in pieces, or what its address names, or the
    /// built-in client of a federated task, which is the owner's own.
    async fn program(&self, start: &mut TaskStart) -> Result<Program, Failure> {
        let file = start.file.take().filter(|file| !file.is_empty());
        let blob = start.file_blob.take();
        let image = start.image_url.take().filter(|url| !url.is_empty());
        let given = start.module_signature.take();
        let source = match (file, blob, image) {
            (Some(file), _, _) => Source::Inline(self.decode(file).await?),
            (None, Some(blob), _) => Source::Inline(self.stored(blob.sha256()).await?),
            (None, None, Some(url)) => {
                url.parse().map_err(|why: fetch::SourceError| failure("image_url", why))?
            }
            (None, None, None) if start.env.contains_key(ENV_ROUND_ID) => {
                return Ok(Program::builtin());
            }
            (None, None, None) => {
                return Err(failure("no_program", "task has neither file nor image_url"));
            }
        };
        let fetched = fetch::fetch(source, &self.fetch).await;
        let fetched = fetched.map_err(|why| failure(why.code(), why))?;
        if let Some(signers) = &self.signers {
            vouch::check(signers, &fetched, given.as_deref(), &self.fetch).await?;
        }
        Ok(fetched.program)
    }

    /// A module that came in pieces. It was checked as a whole when it came, and is pinned.
    async fn stored(&self, sha256: Digest) -> Result<Bytes, Failure> {
        let gone = || failure("no_module", format!("the module {sha256} is gone"));
        let path = self.storage.find(sha256).await.ok_or_else(gone)?;
        let read = task::spawn_blocking(move || std::fs::read(path));
        let read = read.await.map_err(|why| failure("host", why))?;
        let unread = |why| failure("host", format!("the module {sha256} cannot be read: {why}"));
        read.map(Bytes::from).map_err(unread)
    }

    /// Decoding many megabytes takes a while: it blocks no thread of the runtime.
    async fn decode(&self, file: String) -> Result<Bytes, Failure> {
        let bytes_max = self.fetch.bytes_max;
        if (file.len() / 4 * 3) as u64 > bytes_max.saturating_add(3) {
            let message = format!("the task's own file is larger than {bytes_max} bytes");
            return Err(failure("fetch_too_large", message));
        }
        let decoding = task::spawn_blocking(move || STANDARD.decode(file.trim_ascii()));
        let decoded = decoding.await.map_err(|why| failure("host", why))?;
        decoded
            .map(Bytes::from)
            .map_err(|why| failure("file", format!("the task's file is not base64: {why}")))
    }

    fn job(
        &self,
        start: TaskStart,
        program: Program,
        model: Option<Model>,
        cancel: CancellationToken,
    ) -> Job {
        let mut env = start.env;
        if !start.inputs.is_empty() {
            env.insert(ENV_INPUTS.to_owned(), Value::Array(start.inputs).to_string());
        }
        let mut limits = self.limits.clone();
        if start.daemon {
            limits.wall_max = Duration::MAX;
        }
        Job {
            label: start.id.to_string(),
            program,
            args: start.cli_args,
            env,
            model,
            variates: None,
            data_dir: self.data_dir.clone(),
            limits,
            cancel,
        }
    }
}

pub(super) fn failure(code: &str, message: impl ToString) -> Failure {
    Failure { code: FailureCode(code.to_owned()), message: message.to_string() }
}

/// A guest that gave up mostly said why.
fn with_last_words(why: &executor::Failure, stderr_tail: &str) -> Failure {
    let words = stderr_tail.trim();
    let from = words.char_indices().rev().nth(LAST_WORDS_LEN_MAX - 1).map_or(0, |(at, _)| at);
    match &words[from..] {
        "" => failure(why.code(), why),
        words => failure(why.code(), format!("{why}; its last words: {words}")),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a duration, for the eye")]
fn metrics(took: &Metrics) -> RunMetrics {
    RunMetrics {
        wall_ms: took.wall_us as f64 / 1e3,
        cpu_ms: took.cpu_us as f64 / 1e3,
        memory_bytes: took.memory_bytes_peak,
        fuel: took.fuel_used,
        module: took.origin.map_or("", executor::Origin::as_str),
        compile_ms: took.prepare_us as f64 / 1e3,
        start_us: took.start_us as f64,
    }
}
