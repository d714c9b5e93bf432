//! The `model` fidelity: the time of a task and an update of the right shape, without training.

use agent::{ENV_MODEL_URI, ENV_ROUND_ID, GuestOutput, Outcome};
use bytes::Bytes;

use super::{Cost, Job, Ran};
use crate::Dice;

/// Sends the base model back as the update, after as long as the device takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timed;

/// Most samples that a proplet claims to have.
const SAMPLES_MAX: u64 = 1_000;

impl super::Workload for Timed {
    fn run(&self, job: &Job) -> Ran {
        let stdout = update(job).unwrap_or_default();
        let outcome = Outcome::Ok(GuestOutput { stdout, update_file: None, state: None });
        Ran { outcome, compute_us: compute_us(job), fuel: None }
    }

    fn cost(&self) -> Cost {
        Cost::Cheap
    }
}

/// How long the job takes: the device's time for a task, spread by the job's seed.
pub(super) fn compute_us(job: &Job) -> u64 {
    let mut dice = Dice::of(job.seed, "", "compute");
    let spread = job.device.task_spread.clamp(0.0, 1.0);
    let factor = 1.0 + spread * (2.0 * dice.unit() - 1.0);
    (job.device.task_us as f64 * factor) as u64
}

/// The model's own text with its version taken out is the text of its tensors.
fn update(job: &Job) -> Option<Bytes> {
    let round = job.start.env.get(ENV_ROUND_ID)?;
    let base = job.start.env.get(ENV_MODEL_URI)?;
    let model = std::str::from_utf8(job.model.as_ref()?).ok()?;
    let version = model.rfind("\"version\":")?;
    let tensors = model[..version].trim_end().strip_suffix(',')?;
    let samples = Dice::of(job.seed, "", "samples").between(1, SAMPLES_MAX);
    let text = format!(
        "{{\"round_id\":\"{round}\",\"base_model_uri\":\"{base}\",\"num_samples\":{samples},\
         \"metrics\":{{}},\"update\":{tensors}}}}}"
    );
    Some(text.into_boxed_str().into_boxed_bytes().into())
}
