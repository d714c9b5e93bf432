//! Federated rounds: the coordinator's core.
//!
//! ```text
//!            k counted, or nobody left to wait for,
//!            or deadline: with at least the minimum            newest version is known
//! Collecting ------------------------------> Aggregating --> Ready ----------> Publishing
//!     |                                          |                              |    ^
//!     | fewer than the minimum,                  | not finite,       latest is  |    | another
//!     | base model never came                    | or no result      our model  |    | took the
//!     v                                          v                              v    | version
//!   Failed <-------------------------------------+                           Complete +
//! ```
//!
//! Rounds of an asynchronous session linger after that, for those who were too slow: see
//! `lingering.rs`.
//!
//! [`Rounds`] is told what was said on the topics and answers with what should be done. It does no
//! IO, reads no clock and does no arithmetic on weights: it counts members, never messages, and
//! hands the frozen set of a closed round to the shell to be averaged. Everything that it must not
//! forget is kept in the step in which it happens: the acceptance of an update together with the
//! update, the closing of a round together with its members, a version together with its model.
//!
//! It says nothing where it cannot judge yet; whoever wants a verdict asks again.

mod arrival;
mod asking;
mod arriving;
mod average;
mod base;
mod claims;
mod decoding;
mod effect;
mod ending;
mod judging;
mod kept;
mod late;
mod leaving;
mod lingering;
mod making;
mod fetching;
mod memory;
mod handing;
mod news;
mod opening;
mod outcome;
mod record;
mod round;
mod rounds;
mod rules;
mod turn;
mod unknown;
mod values;
mod variate;
mod versions;
mod whole;

pub use arrival::Objection;
pub use asking::{Answer, Ask, ModelView, OpenRound, Refusal, RoundView, Stage, Taken};
pub use average::{
    aggregator, average, check_strategy, each_base, facts, failed, left_out, usable_state,
};
pub use base::Base;
pub use decoding::objection;
pub use effect::{Beside, Effect, Job, JobMember, Made, Note, Report, Undecoded};
pub use kept::{Kept, StoredBlob};
pub use memory::State;
pub use news::{BaseModel, News};
pub use record::TABLES;
pub use rounds::Rounds;
pub use rules::{LazyRounds, PAYLOAD_LEN_MAX, Rules};
