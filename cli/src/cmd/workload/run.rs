//! `aileron workload run`: rounds of one proplet, without a broker, under the device owner's limits
//! and the coordinator's rules.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use modelfile::FileFormat;
use proplet::executor::{Limits, Program};
use protocol::{
    Form, ModelVersion, PropletId, RoundId, Tensor, Tensors,
    message::{Hyperparams, Model, Update},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    view::{self, Format},
    workload::{Coordinator, Device, Judgement, Try},
};

/// More numbers than this are not unpacked from a model file, in bytes.
const MODEL_BYTES_MAX: u64 = 4 << 30;
const SCALARS_MAX: usize = 1 << 28;
/// Where the compiled program is kept from one try to the next.
const DIR: &str = ".aileron/workload";
/// More fuel than anything burns; it is there to be counted.
const FUEL_PLENTY: u64 = u64::MAX >> 1;
const ACCEPTED: &str = "A coordinator would count every one of these updates.";

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A WebAssembly module or component
    file: PathBuf,
    /// The base model: a JSON, safetensors or npz file
    #[arg(long, value_name = "FILE", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Make up a base model of zeros: names with their extents, as in w=64x10,b=10; a name alone is
    /// a scalar. Without this and --model it is the platform's default model 0, w=3,b
    #[arg(long, value_name = "SHAPES")]
    shape: Option<String>,
    /// The device's data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Handed to the workload as it stands
    #[arg(long, value_name = "JSON", default_value = "{}")]
    hyperparams: String,
    /// Rounds; the update of each is averaged with itself into the next base model
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rounds: u64,
    /// Seconds that the device's owner allows one run
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().wall_max.as_secs(), value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    timeout: u64,
    /// Memory that the owner allows, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().memory_bytes_max as u64)]
    memory: u64,
    /// Instructions, roughly, that the owner allows; they are counted in any case, which takes time
    #[arg(long, value_name = "UNITS", default_value_t = FUEL_PLENTY, hide_default_value = true, value_parser = clap::value_parser!(u64).range(1..))]
    fuel: u64,
    /// Write the last model to this file; its name ends in .json, .safetensors or .npz
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        service::telemetry::init_quiet();
        let path = self.file.display();
        let program = Program::new(fs::read(&self.file).with_context(|| format!("read {path}"))?);
        let base = self.base()?;
        Hyperparams::parse(&self.hyperparams)
            .with_context(|| format!("hyperparams {:?}", self.hyperparams))?;
        if let Some(dir) = &self.data {
            ensure!(dir.is_dir(), "data {} is no directory", dir.display());
        }
        super::super::on_runtime(async |stop| self.rounds(&program, base, &stop).await)
    }

    async fn rounds(
        &self,
        program: &Program,
        mut base: Model,
        stop: &CancellationToken,
    ) -> anyhow::Result<ExitCode> {
        let proplet: PropletId = "proplet-1".parse()?;
        let dir = PathBuf::from(DIR);
        let device = Device::new(&dir, self.limits()?, self.data.clone(), proplet.clone())?;
        let mut coordinator = Coordinator::new(proplet);
        let (mut seen, mut code) = (vec![], ExitCode::SUCCESS);
        for number in 1..=self.rounds {
            let round: RoundId = format!("r-{number}").parse()?;
            coordinator.open(&round, &base)?;
            let tried = device.run(program, (&round, &base), &self.hyperparams, stop).await;
            if stop.is_cancelled() {
                return Ok(ExitCode::from(130));
            }
            let judged = match &tried.end {
                Ok(update) => Some(coordinator.judge(update)?),
                Err(_) => None,
            };
            let row = row(number, &tried, judged.as_ref());
            if self.format == Format::Text {
                view::line(said(number, &row));
                words(&tried);
            }
            seen.push(row);
            match judged {
                Some(Judgement::Accepted(model)) => base = *model,
                Some(Judgement::Rejected { .. }) | None => {
                    code = ExitCode::FAILURE;
                    break;
                }
            }
        }
        match self.format {
            Format::Json => view::json(&Value::Array(seen)),
            Format::Text if code == ExitCode::SUCCESS => view::line(ACCEPTED),
            Format::Text => view::line("A coordinator would count nothing of this."),
        }
        if let Some(out) = &self.out {
            let format = FileFormat::of_name(&out.display().to_string())?;
            let file = modelfile::write(&base.tensors, base.version, format)?;
            fs::write(out, file).with_context(|| format!("write {}", out.display()))?;
        }
        Ok(code)
    }

    fn limits(&self) -> anyhow::Result<Limits> {
        let memory_bytes_max = usize::try_from(self.memory)
            .with_context(|| format!("memory {} is more than this machine has", self.memory))?;
        Ok(Limits {
            memory_bytes_max,
            wall_max: Duration::from_secs(self.timeout),
            fuel_max: Some(self.fuel),
            ..Limits::default()
        })
    }

    fn base(&self) -> anyhow::Result<Model> {
        let (tensors, form) = match &self.model {
            Some(path) => {
                let named = || path.display().to_string();
                let file = fs::read(path).with_context(|| format!("read {}", named()))?;
                let file = bytes::Bytes::from(file);
                let form = match FileFormat::of(&file) {
                    FileFormat::Json => Form::Json,
                    FileFormat::Safetensors | FileFormat::Npz => Form::Safetensors,
                };
                (modelfile::read(&file, MODEL_BYTES_MAX).with_context(named)?, form)
            }
            None => (zeros(self.shape.as_deref().unwrap_or("w=3,b"))?, Form::Json),
        };
        Ok(Model { version: ModelVersion(0), tensors, form })
    }
}

/// `w=64x10,b=10`, all zeros.
fn zeros(shapes: &str) -> anyhow::Result<Tensors> {
    let takes = "shape takes names with their extents, as in w=64x10,b=10,bias";
    let mut tensors = vec![];
    for part in shapes.split(',').map(str::trim) {
        let (name, extents) = part.split_once('=').map_or((part, None), |(n, e)| (n, Some(e)));
        ensure!(!name.is_empty() && name != "version", "{takes}; not {part:?}");
        ensure!(tensors.iter().all(|(known, _)| known != name), "shape names {name:?} twice");
        let extents: Result<Vec<usize>, _> = match extents {
            Some(extents) => extents.split('x').map(str::parse).collect(),
            None => Ok(vec![]),
        };
        let Ok(shape) = extents else { bail!("{takes}; not {part:?}") };
        let count = shape.iter().try_fold(1_usize, |count, extent| count.checked_mul(*extent));
        let Some(count) = count.filter(|count| *count <= SCALARS_MAX) else {
            bail!("shape {part:?} has more than {SCALARS_MAX} numbers")
        };
        tensors.push((name.to_owned(), Tensor::new(shape, vec![0.0; count])?));
    }
    Ok(tensors.into_iter().collect())
}

/// Everything that came of a round.
fn row(number: u64, tried: &Try, judged: Option<&Judgement>) -> Value {
    let (verdict, reason) = match (judged, &tried.end) {
        (Some(Judgement::Accepted(_)), _) => ("accepted", None),
        (Some(Judgement::Rejected { reason, what }), _) => {
            ("rejected", Some(format!("{reason}: {what}")))
        }
        (None, Err(why)) => ("failed", Some(why.clone())),
        (None, Ok(_)) => ("failed", None),
    };
    let update = tried.end.as_ref().ok();
    json!({
        "round": number,
        "verdict": verdict,
        "reason": reason,
        "num_samples": update.map(|update| update.num_samples),
        "metrics": update.map(|update| &update.metrics),
        "update_bytes": update.map(|update| update.write().len()),
        "form": update.map(|update: &Update| update.form.as_str()),
        "prepare_ms": tried.metrics.prepare_us as f64 / 1e3,
        "wall_ms": tried.metrics.wall_us as f64 / 1e3,
        "fuel": tried.metrics.fuel_used,
        "memory_bytes": tried.metrics.memory_bytes_peak,
        "stderr": tried.stderr,
    })
}

fn said(number: u64, row: &Value) -> String {
    let took = format!(
        "{} ms, fuel {}, memory {} bytes",
        row["wall_ms"], row["fuel"], row["memory_bytes"]
    );
    let verdict = row["verdict"].as_str().unwrap_or_default();
    let made = row["num_samples"].as_u64().map(|samples| {
        let metrics = row["metrics"].as_object().into_iter().flatten();
        let metric = |(name, value): (&String, &Value)| {
            format!("{name} {:.6}, ", value.as_f64().unwrap_or(f64::NAN))
        };
        let metrics: String = metrics.map(metric).collect();
        let form = row["form"].as_str().unwrap_or_default();
        format!("{samples} samples, {metrics}{} bytes of {form}, ", row["update_bytes"])
    });
    let made = made.unwrap_or_default();
    let why = row["reason"].as_str().map(|why| format!("\n  because: {why}")).unwrap_or_default();
    format!("round {number}: {verdict}; {made}{took}{why}")
}

/// What the guest had to say beside its update.
fn words(tried: &Try) {
    for line in tried.stderr.lines() {
        view::aside(format!("  | {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_become_zeros() {
        let made = zeros("w=2x3, b=3,scalar").unwrap();
        let shapes: Vec<_> = made.iter().map(|(name, it)| (name, it.shape().to_vec())).collect();
        assert_eq!(shapes, [("b", vec![3]), ("scalar", vec![]), ("w", vec![2, 3])]);
        for (text, said) in [
            ("", "not \"\""),
            ("w=2y", "not \"w=2y\""),
            ("w=2,w=3", "\"w\" twice"),
            ("version=1", "not \"version=1\""),
            ("w=99999999999x99999999999", "more than"),
        ] {
            let error = zeros(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
