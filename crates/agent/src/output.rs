//! Judging what a guest made: an update, or a result.

use bytes::Bytes;
use protocol::{
    ModelUri, PropletId, RoundId, Tensors,
    message::{Update, UpdateAsked, UpdateError},
    tensor::safetensors,
};
use serde_json::Value;

use crate::{Failure, PackedUpdate, purpose::Contribution};

/// What a guest left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestOutput {
    /// All that it printed.
    pub stdout: Bytes,
    /// The file it wrote as its binary update.
    pub update_file: Option<Bytes>,
    /// The file it wrote as its state, where one was asked for.
    pub state: Option<Bytes>,
}

impl GuestOutput {
    /// The update that `sender` would publish, had it been asked for one to this round on this
    /// base, or why the task would fail.
    pub fn update_for(
        &self,
        round: &RoundId,
        base: &ModelUri,
        sender: &PropletId,
    ) -> Result<Update, Failure> {
        let asked = Contribution {
            round: round.clone(),
            base: base.clone(),
            encoding: None,
            has_control: false,
        };
        self.update(&asked, sender)
    }

    /// The update that `sender` was asked for, or why this is none.
    pub(crate) fn update(
        &self,
        asked: &Contribution,
        sender: &PropletId,
    ) -> Result<Update, Failure> {
        if self.update_file.is_none() && self.stdout.trim_ascii().is_empty() {
            return Err(not_one("nothing was printed, and no file was written".to_owned()));
        }
        let update = self.read(asked, sender).map_err(|why| not_one(why.to_string()))?;
        asked_for(update, asked)
    }

    /// A file is the update, whatever else was printed; without one, what was printed is.
    fn read(&self, asked: &Contribution, sender: &PropletId) -> Result<Update, UpdateError> {
        let Some(file) = &self.update_file else {
            return Update::read(&self.stdout, Some(sender));
        };
        let asked =
            UpdateAsked { round_id: &asked.round, proplet_id: sender, base_model_uri: &asked.base };
        Update::read_file(file, &asked)
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

impl PackedUpdate {
    /// The update that `sender` was asked for, its tensors aside, or why this is none.
    pub(crate) fn update(
        &self,
        asked: &Contribution,
        sender: &PropletId,
    ) -> Result<Update, Failure> {
        // A file that says the same of no tensors is judged as any other.
        let file = safetensors::write(&Tensors::default(), &self.metadata);
        let known =
            UpdateAsked { round_id: &asked.round, proplet_id: sender, base_model_uri: &asked.base };
        let update = Update::read_file(&file, &known).map_err(|why| not_one(why.to_string()))?;
        asked_for(update, asked)
    }
}

fn asked_for(update: Update, asked: &Contribution) -> Result<Update, Failure> {
    let (round, base) = (&update.round_id, &update.base_model_uri);
    if *round != asked.round {
        return Err(not_one(format!("it names round {round}, the task's is {}", asked.round)));
    }
    if *base != asked.base {
        return Err(not_one(format!("it is based on {base}, the task on {}", asked.base)));
    }
    Ok(update)
}

fn not_one(why: String) -> Failure {
    Failure::new("not_an_update", format!("output is not a valid update: {why}"))
}
