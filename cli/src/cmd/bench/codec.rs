//! `aileron bench codec`: a model as text and as bytes.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Args;
use protocol::{Form, ModelVersion, Tensor, message::Model};
use serde_json::{Value, json};

use super::{
    aggregate::numbers,
    figures::{self, Times, rounded},
};
use crate::view::Format;

#[derive(Debug, Args)]
pub(crate) struct Codec {
    /// Numbers in the model, of 32 bits each
    #[arg(long, default_value_t = 1_000_000)]
    params: usize,
    /// Runs that are timed
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

impl Codec {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(self.params >= 1, "params takes at least 1, not {}", self.params);
        let mut report = figures::about("codec");
        report.insert("params".to_owned(), json!(self.params));
        for form in Form::ALL {
            report.insert(form.as_str().to_owned(), self.measure(form)?);
        }
        figures::show(report, self.format);
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self, form: Form) -> anyhow::Result<Value> {
        let weights = Tensor::from_f32(vec![self.params], &numbers(self.params, 1))?;
        let tensors = [("w".to_owned(), weights)].into_iter().collect();
        let model = Model { version: ModelVersion(1), tensors, form };
        let bytes = model.write();
        let back = Model::read(&bytes).context("read what was written")?;
        ensure!(same(&model, &back), "{form:?} does not give back what it was given");
        let write = Times::of(self.runs, || drop(std::hint::black_box(model.write())));
        let read = Times::of(self.runs, || drop(std::hint::black_box(Model::read(&bytes))));
        Ok(json!({
            "bytes": bytes.len(),
            "bytes_a_number": rounded(bytes.len() as f64 / self.params as f64),
            "write_ms": write.median_ms(), "read_ms": read.median_ms(),
        }))
    }
}

/// JSON has no types: it reads as the widest, with the same values.
fn same(left: &Model, right: &Model) -> bool {
    let schema = left.tensors.schema();
    right.tensors.cast_to(&schema).is_ok_and(|right| right.canonical() == left.tensors.canonical())
}
