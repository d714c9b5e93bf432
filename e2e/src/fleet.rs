//! A fleet whose updates tell who was counted: member *i* submits a model that is 1 at its own
//! place and 0 elsewhere, with a prime number of samples of its own.

use protocol::{
    PropletId,
    ledger::{Member, Standing},
};
use serde_json::{Map, Value, json};

/// Distinct primes, so that no sum of some is a multiple of another by accident.
const PRIMES: &[u64] = &[101, 211, 307, 401, 503, 601, 701, 809, 907, 1009, 1103, 1201];

/// Members of one-hot rounds over a tensor `w` of `dims` values and a scalar `b`.
#[derive(Clone, Debug)]
pub struct OneHotFleet {
    pub members: Vec<PropletId>,
    pub dims: usize,
}

impl OneHotFleet {
    /// `proplet-1` to `proplet-{count}`.
    pub fn of(count: usize) -> Self {
        let ids = (1..=count).map(|number| format!("proplet-{number}"));
        Self::named(&ids.collect::<Vec<_>>())
    }

    /// Members of these names.
    pub fn named(names: &[String]) -> Self {
        assert!(
            names.len() <= PRIMES.len(),
            "{} members, there are {} primes",
            names.len(),
            PRIMES.len()
        );
        let members = names.iter().map(|name| name.parse().expect("a story names good ids"));
        Self { members: members.collect(), dims: names.len().max(3) }
    }

    /// Model 0 for this fleet.
    pub fn model_0(&self) -> Value {
        json!({"w": vec![0.0; self.dims], "b": 0.0, "version": 0})
    }

    /// Whether model 0 is what a model server makes of itself.
    pub const fn fits_default_model(&self) -> bool {
        self.dims == 3
    }

    /// The guest's hyperparameters: who sits where, with how many samples, and how long it works.
    pub fn hyperparams(&self, work_ms: u64) -> Value {
        let seats: Map<String, Value> = self
            .members
            .iter()
            .enumerate()
            .map(|(seat, id)| (id.to_string(), json!([seat, PRIMES[seat]])))
            .collect();
        json!({"members": seats, "dims": self.dims, "work_ms": work_ms})
    }

    /// How many samples a member has.
    pub fn samples(&self, id: &PropletId) -> u64 {
        PRIMES[self.seat(id)]
    }

    /// The update that a member makes of a round.
    pub fn update(&self, id: &PropletId, round: &str, model_uri: &str) -> Value {
        let mut w = vec![0.0; self.dims];
        w[self.seat(id)] = 1.0;
        json!({
            "round_id": round, "proplet_id": id.as_str(), "base_model_uri": model_uri,
            "num_samples": self.samples(id), "metrics": {"loss": 0.5}, "update": {"w": w, "b": 0.0},
        })
    }

    /// The ledger's view of the fleet; `standing` is what each member was told.
    pub fn ledger(&self, standing: impl Fn(&PropletId) -> Standing) -> Vec<Member> {
        // `b` comes first among the flattened values.
        let place = |seat: usize| seat + 1;
        let member = |(seat, id): (usize, &PropletId)| Member {
            index: place(seat),
            num_samples: PRIMES[seat],
            standing: standing(id),
        };
        self.members.iter().enumerate().map(member).collect()
    }

    fn seat(&self, id: &PropletId) -> usize {
        let seat = self.members.iter().position(|member| member == id);
        seat.unwrap_or_else(|| panic!("{id} is not of this fleet"))
    }
}
