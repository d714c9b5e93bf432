//! The proplet's core: the life of every task on one device, from its start to the word of the
//! coordinator on what it made.
//!
//! ```text
//!  Start --> queued --> waiting for its parts --> running --> result, kept and promised
//!                |              |                    |             |
//!                +--- Stop -----+------- Stop -------+             +--> update, kept and published
//!                               (cancelled)                             until its verdict is heard
//! ```
//!
//! It refuses to know what runs a program, where programs come from, and what an update's numbers
//! mean. A task that has ended keeps its result: a repeated start is answered with it.

mod agent;
mod backoff;
mod config;
mod effect;
mod encode;
mod fetches;
mod models;
mod news;
mod output;
mod purpose;
mod record;
mod residuals;
mod results;
mod slots;
mod turn;
mod updates;

pub use agent::Agent;
pub use config::Config;
pub use effect::{
    BaseModel, Effect, Failure, Finished, Measurement, Note, Outcome, PackedUpdate, Report,
    RunMetrics, Variates,
};
pub use encode::{Encode, Encoded, EncodedPayload, failed, schema_digest};
pub use fetches::Need;
pub use news::News;
pub use output::GuestOutput;
pub use purpose::{ENV_ENCODING, ENV_MODEL_URI, ENV_PROPLET_ID, ENV_ROUND_ID};
pub use record::TABLES;
pub use residuals::{Residual, ResidualValues};
