//! The manager's core: which proplets there are, which tasks run on them, and what of that is
//! said to whom. It refuses to know federated learning, but for one thing: a task whose
//! environment has `ROUND_ID` is federated, and when it fails for good, somebody waits for it.
//!
//! ```text
//! RoundStart ------> rounds -----+                       +--> TaskStart, TaskStop
//! Ask (HTTP) ------> api --------+--> tasks ---- change -+--> RoundAbsent
//! create, alive ---> proplets ---+      ^  |             +--> what is kept
//! results, metrics -> results ---+      |  +--> files
//!                    reconcile: what a proplet holds against what was sent to it
//! RoundUpdate -----> forward ------------------------------> the same bytes, forwarded
//! ```

mod act;
mod api;
mod dispatch;
mod file;
mod fleet;
mod forward;
mod image;
mod interrupt;
mod limits;
mod load;
mod metrics;
mod news;
mod proplet;
mod reconcile;
mod record;
mod results;
mod rollout;
mod rounds;
mod showing;
mod spec;
mod state;
mod task;
mod tasks;
mod trace;

pub use act::{Counts, Effect, Notice};
pub use api::{
    Answer, Ask, Census, Edit, Page, PageOf, PropletView, Refusal, RefusalKind, Report, TaskFilter,
    TaskView,
};
pub use fleet::{Fleet, TABLES};
pub use image::{Delivery, Found, Part, Seeker, Wanted};
pub use limits::Limits;
pub use news::News;
pub use results::SealedResults;
pub use showing::Piece;
pub use spec::{Env, FileRef, Placed, Spec, SpecError};
pub use task::{Illegal, JsonText};
pub use trace::TracedTask;

#[cfg(test)]
mod tests;
