//! A node that classifies: softmax regression with the tensors `w` and `b` of a model file.
//!
//! Settings: `model`, a path; `compute_us`, the virtual time of one inference (1000).
//! `inference_request {input: [..]}` is answered by `inference_result {label, confidence}`.

use std::{fs, process::ExitCode};

use cosim::{
    node::{self, Agenda, Service, Start, Step, Window},
    wire::Event,
};
use serde_json::{Value, json};

#[derive(Default)]
struct Inference {
    /// For each class its weights and its bias.
    classes: Vec<(Vec<f64>, f64)>,
    compute_us: u64,
    free_us: u64,
    agenda: Agenda,
}

impl Service for Inference {
    fn init(&mut self, start: Start) -> Result<(), String> {
        let path = start.config["model"].as_str().ok_or("the setting `model` names no file")?;
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let model: Value =
            serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
        self.classes = classes(&model).ok_or(format!("{path} holds no tensors `w` and `b`"))?;
        self.compute_us = start.config["compute_us"].as_u64().unwrap_or(1000);
        Ok(())
    }

    fn advance(&mut self, window: Window) -> Result<Step, String> {
        for event in window.events.into_iter().filter(|event| event.kind == "inference_request") {
            // One at a time: a request waits for those before it.
            let begin_us = event.time_us.unwrap_or(window.from_us).max(self.free_us);
            self.free_us = begin_us.saturating_add(self.compute_us);
            let payload = self.classify(&event.payload["input"]);
            let kind = "inference_result".to_owned();
            let answer =
                Event { kind, dst: event.src, payload, size_bytes: 64, ..Event::default() };
            self.agenda.put(self.free_us, answer);
        }
        let events = self.agenda.take_until(window.to_us);
        Ok(Step { events, next_us: Some(self.agenda.next_us()) })
    }
}

impl Inference {
    fn classify(&self, input: &Value) -> Value {
        let width = self.classes[0].0.len();
        let Some(input) = numbers(input).filter(|input| input.len() == width) else {
            return json!({"error": format!("`input` should be a list of {width} numbers")});
        };
        let scores = self.classes.iter().map(|(weights, bias)| {
            bias + weights.iter().zip(&input).map(|(weight, x)| weight * x).sum::<f64>()
        });
        let scores: Vec<f64> = scores.collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
        let label = scores.iter().position(|score| *score >= most).unwrap_or(0);
        json!({"label": label, "confidence": 1.0 / sum})
    }
}

/// `w` is a row for each input and a column for each class, as the training guest has it.
fn classes(model: &Value) -> Option<Vec<(Vec<f64>, f64)>> {
    let rows = model["w"].as_array()?.iter().map(numbers).collect::<Option<Vec<_>>>()?;
    let biases = numbers(&model["b"]).filter(|biases| !biases.is_empty())?;
    let fits = !rows.is_empty() && rows.iter().all(|row| row.len() == biases.len());
    let column = |class: usize| rows.iter().map(|row| row[class]).collect();
    let each = biases.iter().enumerate();
    fits.then(|| each.map(|(class, bias)| (column(class), *bias)).collect())
}

fn numbers(list: &Value) -> Option<Vec<f64>> {
    list.as_array()?.iter().map(Value::as_f64).collect()
}

fn main() -> ExitCode {
    match node::run(Inference::default()) {
        Ok(()) => ExitCode::SUCCESS,
        // The harness has been told why.
        Err(_) => ExitCode::FAILURE,
    }
}
