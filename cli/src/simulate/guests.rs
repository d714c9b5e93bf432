//! What simulated proplets compute: real guests in virtual or in real time, programs of their own,
//! or only the time they take.

use std::{collections::BTreeMap, sync::Arc};

use agent::{ENV_ROUND_ID, Failure, GuestOutput};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use cosim::harness::CONTAINER;
use proplet::executor::{
    Limits, Program, Variates,
    virtual_time::{
        DataSet, FuelRate, Memo, VirtualJob, VirtualOutcome, VirtualSettings, VirtualWasm,
    },
};
use protocol::message::FailureCode;
use sim::{Cost, Job, Ran, Timed, Workload};

use super::{paced::Paced, workers::Workers};

/// Outcomes that `memo` remembers, in bytes.
const MEMO_BYTES_MAX: usize = 256 << 20;

/// Each fidelity by its name.
pub(super) const FIDELITIES: [&str; 5] = [MODEL, WASM, MEMO, CONTAINER, PACED];
const MODEL: &str = "model";
const WASM: &str = "wasm";
const MEMO: &str = "memo";
const PACED: &str = "paced";

/// Whoever can run a task, by the fidelity that its node asks for.
pub(super) struct Guests {
    wasm: Option<Arc<VirtualWasm>>,
    memo: Option<Memo>,
    data: BTreeMap<String, DataSet>,
    images: BTreeMap<String, Program>,
    pub(super) workers: Workers,
    pub(super) paced: Option<Paced>,
}

impl Guests {
    /// The engine is only made if a node asks for real guests.
    pub(super) fn new(
        settings: Option<&VirtualSettings>,
        data: BTreeMap<String, DataSet>,
        images: BTreeMap<String, Program>,
    ) -> anyhow::Result<Self> {
        let wasm = match settings {
            Some(settings) => Some(Arc::new(VirtualWasm::new(settings)?)),
            None => None,
        };
        let memo = wasm.clone().map(|wasm| Memo::new(wasm, MEMO_BYTES_MAX));
        Ok(Self { wasm, memo, data, images, workers: Workers::default(), paced: None })
    }

    fn job(&self, job: &Job) -> Result<VirtualJob, Failure> {
        let program = self.program(job)?;
        let rate = FuelRate::per_ms((job.device.fuel_per_us * 1_000.0) as u64)
            .ok_or_else(|| failure("device", "fuel_per_us takes a number above 0"))?;
        let limits = Limits {
            memory_bytes_max: usize::try_from(job.device.memory_bytes).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        Ok(VirtualJob {
            label: job.start.id.to_string(),
            program,
            args: job.start.cli_args.clone(),
            env: job.start.env.clone(),
            model: job.model.clone(),
            variates: job.variates.as_deref().map(|given| Variates {
                control: given.control.clone(),
                state: given.state.clone(),
            }),
            data: self.data.get(&*job.node).cloned(),
            start_us: job.now.as_micros(),
            seed: job.seed,
            rate,
            limits,
        })
    }

    fn real(&self, job: &Job, run: impl FnOnce(&VirtualJob) -> Ran) -> Ran {
        self.job(job).map_or_else(failed, |virtual_job| run(&virtual_job))
    }

    fn program(&self, job: &Job) -> Result<Program, Failure> {
        let image = job.start.image_url.as_ref();
        match (&job.start.file, image.and_then(|image| self.images.get(image))) {
            (Some(file), _) => {
                let bytes = BASE64_STANDARD.decode(file.trim());
                let bytes = bytes.map_err(|why| failure("file", format!("not base64: {why}")))?;
                Ok(Program::new(bytes))
            }
            (None, Some(program)) => Ok(program.clone()),
            (None, None) if job.start.env.contains_key(ENV_ROUND_ID) => Ok(Program::builtin()),
            (None, None) => {
                Err(failure("no_program", "task has no file, and nothing is fetched in a world"))
            }
        }
    }
}

impl Workload for Guests {
    fn run(&self, job: &Job) -> Ran {
        match (&*job.fidelity, &self.wasm, &self.memo, &self.paced) {
            (MODEL, ..) => Timed.run(job),
            (CONTAINER, ..) => self.workers.run(job),
            (WASM, Some(wasm), ..) => self.real(job, |job| ran(&wasm.run(job))),
            (MEMO, _, Some(memo), _) => self.real(job, |job| ran(&memo.run(job))),
            (PACED, _, _, Some(paced)) => {
                self.real(job, |virtual_job| paced.run(&job.node, virtual_job))
            }
            (other, ..) => failed(failure("fidelity", format!("{other:?} is no fidelity"))),
        }
    }

    fn cost(&self) -> Cost {
        let is_cheap = self.wasm.is_none() && self.paced.is_none() && self.workers.is_empty();
        if is_cheap { Cost::Cheap } else { Cost::Slow }
    }
}

/// Whether a node's tasks are run in the sandbox.
pub(super) fn is_guest(fidelity: &str) -> bool {
    [WASM, MEMO].contains(&fidelity)
}

/// Whether a node's tasks take the time that they take.
pub(super) fn is_paced(fidelity: &str) -> bool {
    fidelity == PACED
}

fn ran(done: &VirtualOutcome) -> Ran {
    let outcome = match &done.end {
        Ok(output) => agent::Outcome::Ok(GuestOutput {
            stdout: output.stdout.clone().into(),
            update_file: output.update_file.clone().map(Bytes::from),
            state: output.state.clone().map(Bytes::from),
        }),
        Err(why) => {
            let words = done.stderr_tail.trim();
            agent::Outcome::Failed(failure(why.code(), format!("{why}; {words}")))
        }
    };
    Ran { outcome, compute_us: done.virtual_us, fuel: Some(done.fuel) }
}

pub(super) fn failed(why: Failure) -> Ran {
    Ran { outcome: agent::Outcome::Failed(why), compute_us: 0, fuel: None }
}

pub(super) fn failure(code: &str, message: impl ToString) -> Failure {
    Failure { code: FailureCode(code.to_owned()), message: message.to_string() }
}
