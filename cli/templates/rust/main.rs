//! The workload {{name}}: one training step on this device's rows.

use std::process::ExitCode;

use guest::{Assignment, BaseModel, StepError, Tensor, Update};

fn main() -> ExitCode {
    guest::main(step)
}

/// Least squares by gradient descent: `y = w . x + b`.
fn step(asked: &Assignment, base: &BaseModel) -> Result<Update, StepError> {
    let lr = asked.hyperparams.number("lr", 0.1)?;
    let epochs = asked.hyperparams.whole("epochs", 1)?;
    let rows = asked.rows()?;
    let mut w = base.tensor("w")?.values.clone();
    let mut b = base.tensor("b")?.values.first().copied().ok_or("tensor \"b\" is empty")?;
    if rows[0].len() != w.len() + 1 {
        return Err(format!("rows have {} fields, w and a label {}", rows[0].len(), w.len() + 1).into());
    }
    let mut loss = 0.0;
    for _ in 0..epochs {
        loss = 0.0;
        for row in &rows {
            let (x, label) = row.split_at(w.len());
            let error = x.iter().zip(&w).map(|(x, w)| x * w).sum::<f64>() + b - label[0];
            loss += 0.5 * error * error / rows.len() as f64;
            for (w, x) in w.iter_mut().zip(x) {
                *w -= lr * error * x;
            }
            b -= lr * error;
        }
    }
    // The shapes are those of the base model.
    let shaped = |name: &str, values| {
        let shape = base.tensor(name)?.shape.clone();
        Ok::<_, guest::Error>((name.to_owned(), Tensor { shape, values }))
    };
    let tensors = [shaped("w", w)?, shaped("b", vec![b])?].into();
    Ok(Update::new(rows.len() as u64, tensors).with("loss", loss))
}
