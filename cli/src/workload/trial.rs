//! One run of a workload as a proplet would run it: same executor, same limits, no broker.

use std::{collections::BTreeMap, path::Path, path::PathBuf, sync::Arc};

use agent::{ENV_MODEL_URI, ENV_PROPLET_ID, ENV_ROUND_ID, GuestOutput};
use anyhow::Context as _;
use proplet::executor::{self, EXECUTORS, Executor, Job, Limits, Metrics, Program, Settings};
use protocol::{
    ModelUri, PropletId, RoundId,
    message::{Model, Update},
};
use tokio_util::sync::CancellationToken;

/// What the manager calls the settings of a training step in a task's environment.
const ENV_HYPERPARAMS: &str = "HYPERPARAMS";

/// A device of the owner's making.
#[derive(Debug)]
pub(crate) struct Device {
    executor: Arc<dyn Executor>,
    limits: Limits,
    data_dir: Option<PathBuf>,
    proplet: PropletId,
}

/// What came of one run.
#[derive(Debug)]
pub(crate) struct Try {
    /// The update, or why the task would fail.
    pub(crate) end: Result<Update, String>,
    pub(crate) metrics: Metrics,
    /// The last of what it wrote to standard error.
    pub(crate) stderr: String,
}

impl Device {
    /// Compiled programs and scratch files go below `dir`.
    pub(crate) fn new(
        dir: &Path,
        limits: Limits,
        data_dir: Option<PathBuf>,
        proplet: PropletId,
    ) -> anyhow::Result<Self> {
        let entry = EXECUTORS.first().context("there is no executor")?;
        let executor = (entry.build)(&Settings::below(dir));
        Ok(Self { executor, limits, data_dir, proplet })
    }

    /// Runs the program once, for `round`, on `base`.
    pub(crate) async fn run(
        &self,
        program: &Program,
        (round, base): (&RoundId, &Model),
        hyperparams: &str,
        stop: &CancellationToken,
    ) -> Try {
        let uri = ModelUri::global(base.version);
        let env = BTreeMap::from([
            (ENV_ROUND_ID.to_owned(), round.to_string()),
            (ENV_MODEL_URI.to_owned(), uri.to_string()),
            (ENV_PROPLET_ID.to_owned(), self.proplet.to_string()),
            (ENV_HYPERPARAMS.to_owned(), hyperparams.to_owned()),
        ]);
        let job = Job {
            label: round.to_string(),
            program: program.clone(),
            args: vec![],
            env,
            model: Some(executor::Model::Bytes(base.write())),
            variates: None,
            data_dir: self.data_dir.clone(),
            limits: self.limits.clone(),
            cancel: stop.child_token(),
        };
        let outcome = self.executor.run(job).await;
        let end = outcome.end.map_err(|why| why.to_string()).and_then(|output| {
            let output = GuestOutput {
                stdout: output.stdout.into(),
                update_file: output.update_file.map(Into::into),
                state: None,
            };
            let update = output.update_for(round, &uri, &self.proplet);
            update.map_err(|why| why.message)
        });
        Try { end, metrics: outcome.metrics, stderr: outcome.stderr_tail }
    }
}
