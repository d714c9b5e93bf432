//! Who is asked in a round: the list of methods. One line each.
//!
//! A method is given those that could be asked and says whom it wants, in a way that follows from
//! the session's seed and the round alone: the same candidates give the same choice, whoever asks
//! and whenever.

mod all;
mod oort;
mod random;
mod weighted;

use std::collections::BTreeMap;

use protocol::{Digest, PropletId};

/// One that could be asked, and what is known of it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    pub id: &'a PropletId,
    /// Rounds of this session that it was asked in.
    pub asked: u64,
    /// Samples: of its last counted update, else what it says of itself, else 1.
    pub samples: f64,
    /// The utility of its last counted update: samples times root mean square loss.
    pub utility: Option<f64>,
    /// The round of its last counted update.
    pub counted_in: Option<u64>,
}

/// Everything that a choice depends on.
#[derive(Clone, Debug)]
pub struct Draw<'a> {
    /// In the order of their ids.
    pub candidates: Vec<Candidate<'a>>,
    pub seed: u64,
    pub round: u64,
}

/// A way to choose.
pub struct Method {
    pub name: &'static str,
    pub summary: &'static str,
    /// The indexes of `count` different candidates, of which there are at least so many.
    pub choose: fn(draw: &Draw<'_>, count: usize) -> Vec<usize>,
}

pub const SELECTIONS: &[Method] = &[
    Method { name: "all", summary: "everybody, or those asked least so far", choose: all::choose },
    Method { name: "random", summary: "by lot", choose: random::choose },
    Method {
        name: "weighted",
        summary: "by lot, in proportion to samples",
        choose: weighted::choose,
    },
    Method {
        name: "oort",
        summary: "by utility, with some room for the unknown",
        choose: oort::choose,
    },
];

/// The method called `name`.
pub fn find(name: &str) -> Option<&'static Method> {
    SELECTIONS.iter().find(|method| method.name == name)
}

impl std::fmt::Debug for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Draw<'_> {
    /// A number in 0..1, never 0, that belongs to one candidate in one round.
    pub fn lot(&self, candidate: &Candidate<'_>) -> f64 {
        let (seed, round) = (self.seed.to_le_bytes(), self.round.to_le_bytes());
        let digest = Digest::of_parts([&seed[..], &round, candidate.id.as_str().as_bytes()]);
        let bytes = digest.as_bytes().first_chunk::<8>().copied().unwrap_or_default();
        // 53 bits, in the middle of their intervals.
        ((u64::from_le_bytes(bytes) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// The `count` candidates with the highest keys; equal keys in the order of ids.
    fn highest(&self, count: usize, key: impl Fn(&Candidate<'_>) -> f64) -> Vec<usize> {
        let keys: Vec<f64> = self.candidates.iter().map(key).collect();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by(|a, b| keys[*b].total_cmp(&keys[*a]));
        order.truncate(count);
        order
    }
}

/// What a session remembers of each proplet's part in it.
pub(crate) type Shares = BTreeMap<PropletId, crate::session::Share>;

#[cfg(test)]
mod tests;
