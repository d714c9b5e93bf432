//! The wording of a task, as a caller gives or changes it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use protocol::{PropletId, message::TaskState};
use serde_json::Value;

use crate::{Spec, SpecError, spec::Placed};

/// What is to be different; what is `None` stays as it is. An inner `None` takes it away.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edit {
    pub name: Option<String>,
    /// Accepted where it says what is so already.
    pub state: Option<TaskState>,
    pub image_url: Option<Option<String>>,
    /// The module's bytes.
    pub file: Option<Option<Bytes>>,
    pub cli_args: Option<Vec<String>>,
    pub inputs: Option<Vec<Value>>,
    pub env: Option<BTreeMap<String, String>>,
    pub daemon: Option<bool>,
    /// The proplet that alone may run it.
    pub proplet: Option<Option<PropletId>>,
    pub broadcast: Option<bool>,
    pub retries: Option<u32>,
}

impl Edit {
    /// `spec` with the changes, but for the file; checked.
    pub(super) fn apply(&self, mut spec: Spec) -> Result<Spec, SpecError> {
        if let Some(name) = &self.name {
            spec.name = name.clone();
        }
        if let Some(image_url) = &self.image_url {
            spec.image_url = image_url.clone();
        }
        if let Some(cli_args) = &self.cli_args {
            spec.cli_args = cli_args.clone();
        }
        if let Some(inputs) = &self.inputs {
            spec.inputs = inputs.clone();
        }
        if let Some(env) = &self.env {
            let text = |text: &String| Arc::from(text.as_str());
            let pairs = env.iter().map(|(name, value)| (text(name), text(value)));
            spec.env = pairs.collect();
        }
        if let Some(daemon) = self.daemon {
            spec.daemon = daemon;
        }
        if let Some(retries) = self.retries {
            spec.retries = retries;
        }
        spec.placed = self.placed(&spec)?;
        spec.check()?;
        Ok(spec)
    }

    fn placed(&self, spec: &Spec) -> Result<Placed, SpecError> {
        let pinned = match &self.proplet {
            Some(pinned) => pinned.clone(),
            None => spec.pinned().cloned(),
        };
        let broadcast = self.broadcast.unwrap_or_else(|| spec.is_broadcast());
        match (broadcast, pinned) {
            (true, Some(proplet)) => Err(SpecError::BroadcastPinned(proplet)),
            (true, None) => Ok(Placed::Everywhere),
            (false, Some(proplet)) => Ok(Placed::Pinned(proplet)),
            (false, None) => Ok(Placed::Anywhere),
        }
    }
}
