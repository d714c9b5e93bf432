//! Updates by which a published model can be held against what was submitted, member by member
//! (see [`protocol::ledger`]).

use std::collections::BTreeMap;

use agent::{ENV_MODEL_URI, ENV_PROPLET_ID, ENV_ROUND_ID, Failure, GuestOutput, Outcome};
use protocol::{
    Letter as _, PropletId, ledger,
    message::{FailureCode, Model, Update},
};

use super::{Cost, Job, Ran, timed};

/// Every proplet submits a one at a position of its own, and a number of samples of its own.
#[derive(Clone, Debug, Default)]
pub struct OneHot {
    places: BTreeMap<PropletId, usize>,
}

impl OneHot {
    /// Proplets in the order of their positions.
    pub fn new(proplets: impl IntoIterator<Item = PropletId>) -> Self {
        Self { places: proplets.into_iter().enumerate().map(|(i, id)| (id, i)).collect() }
    }

    /// The position and the number of samples of a proplet.
    pub fn member(&self, proplet: &PropletId) -> Option<(usize, u64)> {
        let place = *self.places.get(proplet)?;
        Some((place, prime(place)))
    }

    fn update(&self, job: &Job) -> Result<Update, String> {
        let env = |name: &str| job.start.env.get(name).ok_or_else(|| format!("{name} is missing"));
        let proplet_id: PropletId =
            env(ENV_PROPLET_ID)?.parse().map_err(|why| format!("{ENV_PROPLET_ID}: {why}"))?;
        let (place, num_samples) =
            self.member(&proplet_id).ok_or_else(|| format!("{proplet_id} has no position"))?;
        let model = job.model.as_ref().ok_or("there is no base model")?;
        let model: Model = serde_json::from_slice(model).map_err(|why| why.to_string())?;
        let schema = model.tensors.schema();
        let update = ledger::one_hot(&schema, place)
            .ok_or_else(|| format!("the model has no position {place}"))?;
        Ok(Update {
            round_id: env(ENV_ROUND_ID)?.parse().map_err(|why| format!("{why}"))?,
            base_model_uri: env(ENV_MODEL_URI)?.parse().map_err(|why| format!("{why}"))?,
            proplet_id,
            num_samples,
            metrics: BTreeMap::new(),
            update,
            form: protocol::Form::Json,
        })
    }
}

impl super::Workload for OneHot {
    fn run(&self, job: &Job) -> Ran {
        let outcome = match self.update(job) {
            Ok(update) => Outcome::Ok(GuestOutput {
                stdout: update.seal().payload,
                update_file: None,
                state: None,
            }),
            Err(message) => {
                Outcome::Failed(Failure { code: FailureCode("one_hot".to_owned()), message })
            }
        };
        Ran { outcome, compute_us: timed::compute_us(job), fuel: None }
    }

    fn cost(&self) -> Cost {
        Cost::Cheap
    }
}

/// The `n`th prime, from 2 on: sums of different members do not coincide.
fn prime(n: usize) -> u64 {
    (2_u64..)
        .filter(|n| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d)))
        .nth(n)
        .unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::prime;

    #[test]
    fn primes_are_primes() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(prime), [2, 3, 5, 7, 11, 13]);
    }
}
