//! What simulated proplets compute: real guests in virtual time, or only the time they take.

use std::{collections::BTreeMap, sync::Arc};

use agent::{ENV_ROUND_ID, Failure, GuestOutput};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use proplet::executor::{
    Limits, Program,
    virtual_time::{
        DataSet, FuelRate, Memo, VirtualJob, VirtualOutcome, VirtualSettings, VirtualWasm,
    },
};
use protocol::message::FailureCode;
use sim::{Cost, Job, Ran, Timed, Workload};

/// Outcomes that `memo` remembers, in bytes.
const MEMO_BYTES_MAX: usize = 256 << 20;

/// Each fidelity by its name.
pub(super) struct Guests {
    wasm: Option<Arc<VirtualWasm>>,
    memo: Option<Memo>,
    data: BTreeMap<String, DataSet>,
}

impl Guests {
    /// `data` is what each node has, by the node's name; the engine is only made if a node asks
    /// for real guests.
    pub(super) fn new(
        settings: Option<&VirtualSettings>,
        data: BTreeMap<String, DataSet>,
    ) -> anyhow::Result<Self> {
        let wasm = match settings {
            Some(settings) => Some(Arc::new(VirtualWasm::new(settings)?)),
            None => None,
        };
        let memo = wasm.clone().map(|wasm| Memo::new(wasm, MEMO_BYTES_MAX));
        Ok(Self { wasm, memo, data })
    }

    fn job(&self, job: &Job) -> Result<VirtualJob, Failure> {
        let program = program(job)?;
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
            data: self.data.get(&*job.node).cloned(),
            start_us: job.now.as_micros(),
            seed: job.seed,
            rate,
            limits,
        })
    }

    fn real(&self, job: &Job, run: impl FnOnce(&VirtualJob) -> Arc<VirtualOutcome>) -> Ran {
        match self.job(job) {
            Ok(virtual_job) => ran(&run(&virtual_job)),
            Err(why) => Ran { outcome: agent::Outcome::Failed(why), compute_us: 0, fuel: None },
        }
    }
}

impl Workload for Guests {
    fn run(&self, job: &Job) -> Ran {
        match (&*job.fidelity, &self.wasm, &self.memo) {
            ("model", _, _) => Timed.run(job),
            ("wasm", Some(wasm), _) => self.real(job, |job| Arc::new(wasm.run(job))),
            ("memo", _, Some(memo)) => self.real(job, |job| memo.run(job)),
            (other, _, _) => {
                let why = failure("fidelity", format!("{other:?} is no fidelity"));
                Ran { outcome: agent::Outcome::Failed(why), compute_us: 0, fuel: None }
            }
        }
    }

    fn cost(&self) -> Cost {
        if self.wasm.is_some() { Cost::Slow } else { Cost::Cheap }
    }
}

fn program(job: &Job) -> Result<Program, Failure> {
    match &job.start.file {
        Some(file) => {
            let bytes = BASE64_STANDARD.decode(file.trim());
            let bytes = bytes.map_err(|why| failure("file", format!("not base64: {why}")))?;
            Ok(Program::new(bytes))
        }
        None if job.start.env.contains_key(ENV_ROUND_ID) => Ok(Program::builtin()),
        None => Err(failure("no_program", "task has no file, and nothing is fetched in a world")),
    }
}

fn ran(done: &VirtualOutcome) -> Ran {
    let outcome = match &done.end {
        Ok(output) => agent::Outcome::Ok(GuestOutput {
            stdout: output.stdout.clone().into(),
            update_file: output.update_file.clone().map(Bytes::from),
        }),
        Err(why) => {
            let words = done.stderr_tail.trim();
            agent::Outcome::Failed(failure(why.code(), format!("{why}; {words}")))
        }
    };
    Ran { outcome, compute_us: done.virtual_us, fuel: Some(done.fuel) }
}

fn failure(code: &str, message: impl ToString) -> Failure {
    Failure { code: FailureCode(code.to_owned()), message: message.to_string() }
}
