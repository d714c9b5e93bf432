//! What the coordinator does beside speaking: the real aggregation, for as long as its device
//! takes.

use aggregate::Work;
use round::{Effect, average};

use super::{Act, Acts, Mail, Notes, note};

/// Averages.
#[derive(Debug)]
pub(crate) struct Averaging {
    /// What one weight of one update costs.
    pub(crate) ns_per_weight: f64,
}

impl Averaging {
    pub(super) fn perform(&self, effect: Effect, notes: Notes, acts: &mut Acts) {
        match effect {
            Effect::Aggregate(job) => {
                let weights = job.schema.parameters() as f64 * job.members.len() as f64;
                let after_us = 1 + (weights * self.ns_per_weight.max(0.0) / 1e3) as u64;
                let mail = Mail::Round(Box::new(average(&job, &Work::default())));
                acts.push(Act::Tell { after_us, mail: Box::new(mail) });
            }
            // A simulated broker takes messages of any length: nothing goes in pieces.
            Effect::Begin(_)
            | Effect::Store { .. }
            | Effect::Finish { .. }
            | Effect::Decode { .. }
            | Effect::Pin(_)
            | Effect::Unpin(_)
            | Effect::Abandon(_)
            | Effect::ReadChunk { .. }
            | Effect::Hold(_)
            | Effect::Answer { .. }
            | Effect::Drop(_) => {}
            Effect::Note(said) => note(notes, acts, || format!("{said:?}")),
        }
    }
}
