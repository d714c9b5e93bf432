//! The guest of the one-hot ledger: its update is 1 at the proplet's own place and 0 elsewhere, so
//! that a published model tells who was counted. It is for tests. It learns nothing, unless it is
//! told to keep a share of its base model: then a model shows the whole history that led to it.

use std::{
    env, fs,
    io::{self, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

fn main() -> ExitCode {
    let written = update().and_then(|update| {
        writeln!(io::stdout(), "{update}")
            .and_then(|()| io::stdout().flush())
            .map_err(|why| why.to_string())
    });
    let Err(why) = written else { return ExitCode::SUCCESS };
    // Nothing is left to tell of a failure to write to stderr.
    let _ = writeln!(io::stderr(), "one_hot: {why}");
    ExitCode::FAILURE
}

/// `HYPERPARAMS` is `{"members":{"proplet-1":[place,num_samples],...},"dims":n,"work_ms":n,"keep":x}`;
/// a member's third number is the time that it alone works for.
fn update() -> Result<Value, String> {
    let proplet = variable("PROPLET_ID")?;
    let text = variable("HYPERPARAMS")?;
    let hyperparams: Value = serde_json::from_str(&text).map_err(|why| format!("{text}: {why}"))?;
    let own = &hyperparams["members"][&proplet];
    let place = number(&own[0], "place")?;
    let num_samples = number(&own[1], "number of samples")?;
    let dims = number(&hyperparams["dims"], "dims")?;
    let (mut w, b) = match hyperparams["keep"].as_f64() {
        Some(keep) => kept(keep, dims)?,
        None => (vec![0.0; dims], 0.0),
    };
    let seat = w.get_mut(place).ok_or_else(|| format!("place {place} is not below dims"))?;
    *seat += 1.0;
    // Long enough for somebody to pull the plug meanwhile.
    let work_ms = own[2].as_u64().or(hyperparams["work_ms"].as_u64()).unwrap_or(0);
    thread::sleep(Duration::from_millis(work_ms));
    // An evaluation has no tensors, and the device's seat as its metric.
    if env::var("PURPOSE").is_ok_and(|purpose| purpose == "evaluate") {
        return Ok(json!({
            "round_id": variable("ROUND_ID")?,
            "proplet_id": proplet,
            "base_model_uri": variable("MODEL_URI")?,
            "num_samples": num_samples,
            "metrics": {"accuracy": place as f64 / 10.0},
            "update": {},
        }));
    }
    Ok(json!({
        "round_id": variable("ROUND_ID")?,
        "proplet_id": proplet,
        "base_model_uri": variable("MODEL_URI")?,
        "num_samples": num_samples,
        "metrics": {"loss": 0.5},
        "update": {"w": w, "b": b},
    }))
}

/// That share of the base model.
fn kept(keep: f64, dims: usize) -> Result<(Vec<f64>, f64), String> {
    let path = variable("MODEL_PATH")?;
    let text = fs::read_to_string(&path).map_err(|why| format!("{path}: {why}"))?;
    let model: Value = serde_json::from_str(&text).map_err(|why| format!("{path}: {why}"))?;
    let share = |value: &Value| {
        value.as_f64().map(|value| keep * value).ok_or_else(|| format!("{path}: {value} in it"))
    };
    let w = (0..dims).map(|place| share(&model["w"][place])).collect::<Result<_, _>>()?;
    Ok((w, share(&model["b"])?))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|why| format!("{name}: {why}"))
}

fn number(value: &Value, what: &str) -> Result<usize, String> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("{what} is {value}, not a whole number"))
}
