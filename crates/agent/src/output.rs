//! Judging what a guest made: an update, or a result.

use bytes::Bytes;
use protocol::{
    PropletId,
    message::{Update, read_update},
};
use serde_json::Value;

use crate::{Failure, purpose::Contribution};

/// What a guest left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestOutput {
    /// All that it printed.
    pub stdout: Bytes,
    /// The file it wrote as its binary update.
    pub update_file: Option<Bytes>,
}

impl GuestOutput {
    /// The update that `sender` was asked for, or why this is none.
    pub(crate) fn update(
        &self,
        asked: &Contribution,
        sender: &PropletId,
    ) -> Result<Update, Failure> {
        let not_one = |why: String| {
            Failure::new("not_an_update", format!("output is not a valid update: {why}"))
        };
        if let Some(file) = &self.update_file {
            return Err(Failure::new(
                "unsupported",
                format!("a binary update ({} bytes) is not supported yet; print JSON", file.len()),
            ));
        }
        if self.stdout.trim_ascii().is_empty() {
            return Err(not_one("nothing was printed".to_owned()));
        }
        let update =
            read_update(&self.stdout, Some(sender)).map_err(|why| not_one(why.to_string()))?;
        if update.round_id != asked.round {
            return Err(not_one(format!(
                "it names round {}, the task's is {}",
                update.round_id, asked.round
            )));
        }
        if update.base_model_uri != asked.base {
            return Err(not_one(format!(
                "it is based on {}, the task on {}",
                update.base_model_uri, asked.base
            )));
        }
        Ok(update)
    }

    /// The printed text as a task's result: JSON if it is JSON, else the text itself.
    pub(crate) fn result(&self, bytes_max: usize) -> Result<Value, Failure> {
        if self.stdout.len() > bytes_max {
            let len = self.stdout.len();
            let message = format!("an output of {len} bytes is no result, at most {bytes_max} are");
            return Err(Failure::new("result_too_large", message));
        }
        Ok(serde_json::from_slice(&self.stdout).unwrap_or_else(|_| {
            // Most programs print, and are not JSON: their text is their result.
            Value::String(String::from_utf8_lossy(&self.stdout).into_owned())
        }))
    }
}
