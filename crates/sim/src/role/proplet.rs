//! What a proplet's shell does beside speaking: it runs tasks, and measures itself.

use std::sync::Arc;

use agent::{Agent, BaseModel, Config, Effect, Measurement, Report};
use protocol::{
    Envelope, Letter as _, PropletId, Records,
    message::{AliveStatus, PropletAlive},
};

use super::{Act, Acts, Mail, Notes, note};
use crate::PlatformSpec;

/// What a proplet is made of, again and again.
#[derive(Debug)]
pub(crate) struct Bench {
    proplet: PropletId,
    /// What proplets have in common.
    config: Arc<Config>,
    seed: u64,
}

impl Bench {
    pub(crate) const fn new(proplet: PropletId, config: Arc<Config>, seed: u64) -> Self {
        Self { proplet, config, seed }
    }

    /// What proplets of this platform have in common.
    pub(crate) fn config(habits: &PlatformSpec, records: Records) -> Config {
        let anybody = "proplet".parse().expect("a word is an id");
        Config {
            alive_every: habits.alive_every.duration(),
            metrics_every: habits.metrics_every.map(crate::Span::duration),
            model_wait: habits.model_wait.duration(),
            concurrency: habits.concurrency,
            results_kept_max: habits.results_kept,
            records,
            ..Config::new(anybody)
        }
    }

    /// A new process.
    pub(crate) fn agent(&self) -> Agent {
        Agent::alike(self.proplet.clone(), self.seed, Arc::clone(&self.config))
    }

    pub(crate) fn records(&self) -> Records {
        self.config.records
    }

    pub(super) fn last_will(&self) -> Envelope {
        last_will(self.proplet.clone())
    }

    pub(super) fn perform(&self, effect: Effect, notes: Notes, acts: &mut Acts) {
        match effect {
            Effect::Run { start, model, variates } => {
                let model = match model {
                    Some(BaseModel::Here(payload)) => Some(payload),
                    Some(BaseModel::Stored(_)) | None => None,
                };
                acts.push(Act::Run { start, model, variates });
            }
            Effect::Cancel { task, attempt } => acts.push(Act::Cancel { task, attempt }),
            Effect::Measure => {
                let measured = Measurement { cpu_percent: 0.0, memory_bytes: 0, uptime_s: 0 };
                let mail = Mail::Agent(Report::Measured(measured));
                acts.push(Act::Tell { after_us: 1, mail: Box::new(mail) });
            }
            Effect::Encode(encode) => {
                let result = encode.here().map(|(file, residual)| {
                    let payload = agent::EncodedPayload::Here(file);
                    agent::Encoded { payload, residual }
                });
                let (task, attempt) = (encode.task, encode.attempt);
                let mail = Mail::Agent(Report::Encoded { task, attempt, result });
                acts.push(Act::Tell { after_us: 1, mail: Box::new(mail) });
            }
            // A broker here takes messages of any length: nothing goes in pieces.
            Effect::Pack { .. }
            | Effect::Begin(_)
            | Effect::Store { .. }
            | Effect::Finish(_)
            | Effect::Abandon(_)
            | Effect::Hold(_)
            | Effect::Release(_)
            | Effect::Drop(_)
            | Effect::ReadChunk { .. }
            | Effect::Stopped => {}
            Effect::Note(said) => note(notes, acts, || said.to_string()),
        }
    }
}

/// What the broker says in this proplet's name when it is gone.
pub(crate) fn last_will(proplet_id: PropletId) -> Envelope {
    let status = AliveStatus::Offline;
    PropletAlive { proplet_id, status, namespace: String::new(), tasks: None }.seal()
}
