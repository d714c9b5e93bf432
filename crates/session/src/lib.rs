//! Training sessions: many rounds without a human between them.
//!
//! ```text
//!  start        a round is asked for      it made a model
//! ------> Running -----------------------------------------> the next one, or Complete
//!            ^  |   \  it failed: once more, then          (rounds, target, patience, deadline)
//!     resume |  | stop  `---------------------> Failed
//!            |  v                                  |
//!          Stopped <------- resume ----------------+
//! ```
//!
//! [`Sessions`] does what an operator would do, over the same topics and no others: it asks for a
//! round, says so again until it is opened, hears what came of it, and asks for the next. It knows
//! of proplets what they say of themselves. What it is asked for, and the round that it has asked
//! for, are kept before they are said: killed anywhere, it goes on with the same round.

mod asking;
mod beginning;
mod candidates;
mod effect;
mod evaluating;
mod news;
mod plan;
mod record;
pub mod selection;
mod session;
mod sessions;
mod turn;

pub use asking::{Answer, Order, Refusal, Report, Taken};
pub use effect::{Effect, Note, SessionView};
pub use evaluating::{Evaluation, Leg};
pub use news::News;
pub use record::TABLES;
pub use session::HistoryRow;
pub use sessions::Sessions;

/// Sessions that are remembered, ended ones included; above it the oldest that ended is forgotten.
pub const SESSIONS_MAX: usize = 1000;

/// Rounds of one session that stay in its history, and those of all sessions; above either, the
/// oldest rows are forgotten.
pub const HISTORY_ROWS_MAX: u64 = 10_000;
pub const HISTORY_ALL_MAX: u64 = 200_000;
