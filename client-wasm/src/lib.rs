//! The training step of a federated client: read the device's rows, descend, report what came of it.
//!
//! The same code runs as a WASI command on a proplet (see `main.rs`) and natively, where a test or a
//! central baseline calls [`train`] and [`evaluate`] directly.
//!
//! ```text
//! HYPERPARAMS -> Hyperparams --\
//! DATA_DIR/*.csv -> Dataset ----> train(&mut Model) -> Report --> one JSON object on stdout, or
//! MODEL_PATH -> Model ---------/                                  a safetensors file, as the model was
//! ```
//!
//! To add a model: write `network/<name>.rs`, add one variant to [`Kind`]; the compiler names the rest.

mod data;
mod error;
mod exact;
mod guest;
mod hyperparams;
mod kernel;
mod model;
mod network;
mod random;
mod text;
mod train;

pub use ::guest::{Answer, Tensor};

pub use self::guest::{Assignment, Purpose, run};
pub use data::{Dataset, HELD_OUT_FILE};
pub use error::TrainError;
pub use hyperparams::{HIDDEN_DEFAULT, Hyperparams};
pub use model::{Model, initial_model};
pub use network::{Examples, Kind, Network, Score};
pub use text::{TextError, read_tokens, tokens_of};
pub use train::{Report, evaluate, evaluate_held_out, train, train_corrected};
