//! Turning many updates into one model: numbers in, numbers out.
//!
//! It refuses to know rounds, names, shapes and files: an update is a row of numbers, in memory or
//! behind a reader, and a few facts. The answer depends on the set of updates alone, bit by bit,
//! never on their order, the number of threads, the size of the blocks, or the processor.
//!
//! ```text
//! Rows (slices | bytes | reader) --> Guard --> Aggregator --recipe--> blocks --> Out (slices | sink)
//!                                   norms,     asks a Survey          exact means, networks,
//!                                   shares     (distances, facts)     the server's step
//! ```
//!
//! Linear rules can also be summed as the updates arrive, in a tree of any shape: [`Partial`].
//!
//! To add a strategy: write `strategy/<name>.rs`, add one line to [`STRATEGIES`]. The conformance
//! test runs over the list, so the new strategy is tested the moment it is listed.

mod batch;
mod distance;
mod element;
mod error;
mod exact;
mod guard;
mod linear;
mod making;
pub mod narrow;
mod network;
mod ordered;
mod partial;
mod recipe;
mod rest;
mod round;
mod rows;
mod settings;
mod simd;
mod strategy;
mod survey;
mod tempered;
mod work;

pub use batch::{Batch, Update, run};
pub use element::Element;
pub use error::{AggregateError, RunError};
pub use guard::{Guard, Guarded, NormBound};
pub use linear::weighted_mean;
pub use making::{Made, aggregate, aggregate_in_memory};
pub use partial::{Partial, PartialError};
pub use recipe::{Aggregator, Center, Distances, Facts, Recipe, Step, Strip, Survey};
pub use rest::{Rest, aggregate_rest};
pub use round::Round;
pub use rows::{LeBytes, ReadAt, Rows, Slices, Stored};
pub use settings::{Kind, Setting, SettingError, Settings};
pub use strategy::{Need, STATE_VERSION, STRATEGIES, Strategy, find};
pub use tempered::tempered;
pub use work::{Out, Sink, Work};

use work::CHUNK;

/// The most samples one update may claim: up to here every count is exact as an `f64`.
pub const NUM_SAMPLES_MAX: u64 = 1 << 53;
