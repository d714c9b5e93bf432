//! What every training guest does beside training: read what was asked, the base model and the
//! device's files, and answer with an update in the model's own form.
//!
//! It knows no broker, no topic and no learning: a guest sees variables, files and stdout. It
//! builds for `wasm32-wasip1`, `wasm32-wasip2` and natively, and a workload that `aileron workload
//! new` makes carries it along.
//!
//! ```text
//! ROUND_ID, MODEL_URI, HYPERPARAMS, ... -> Assignment --\
//! MODEL_PATH (JSON or safetensors) ------> BaseModel ----> your step -> Update --> JSON on stdout, or
//! DATA_DIR ------------------------------> files, rows --/                         UPDATE_PATH
//! ```
//!
//! In a round with control variates, [`Assignment::variates`] has them: a step adds their
//! correction to its gradients, and what they have become to its update.
//!
//! A whole guest:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use guest::{Assignment, BaseModel, StepError, Update};
//!
//! fn main() -> ExitCode {
//!     guest::main(step)
//! }
//!
//! /// Moves every weight a little towards the mean of the first column.
//! fn step(asked: &Assignment, base: &BaseModel) -> Result<Update, StepError> {
//!     let lr = asked.hyperparams.number("lr", 0.1)?;
//!     let rows = asked.rows()?;
//!     let mean = rows.iter().map(|row| row[0]).sum::<f64>() / rows.len() as f64;
//!     let mut tensors = base.tensors().clone();
//!     for value in tensors.values_mut().flat_map(|tensor| &mut tensor.values) {
//!         *value += lr * (mean - *value);
//!     }
//!     Ok(Update::new(rows.len() as u64, tensors).with("mean", mean))
//! }
//! ```

mod assignment;
mod base;
mod data;
mod entry;
mod error;
mod hyperparams;
mod safetensors;
mod tensor;
mod update;
mod variates;

pub use assignment::Assignment;
pub use base::BaseModel;
pub use data::{files, rows_of};
pub use entry::{StepError, main};
pub use error::Error;
pub use hyperparams::Hyperparams;
pub use safetensors::Width;
pub use tensor::Tensor;
pub use update::{Answer, Update};
pub use variates::{Change, Variates};
