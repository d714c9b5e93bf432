//! What an operator can tell the model server.

use std::fs;

use bytes::Bytes;
use lineage::{MODEL_LEN_MAX, Offer, Rules};
use protocol::{
    Letter as _, ModelVersion, Tensors,
    message::{FORWARD_TAIL_LEN_MAX, Model},
};
use service::{
    settings::{MqttArgs, Settings, SettingsError, StateArgs},
    telemetry::LogArgs,
    transport::mqtt::Config,
};

/// Version 0 where nobody says what it is.
const DEFAULT: &[u8] = br#"{"w":[0.0,0.0,0.0],"b":0.0,"version":0}"#;

/// Settings of the model server.
#[derive(Debug, clap::Args)]
pub struct ModelServerSettings {
    #[command(flatten)]
    pub mqtt: MqttArgs,
    #[command(flatten)]
    pub state: StateArgs,
    #[command(flatten)]
    pub log: LogArgs,
    /// Initial model, version 0, used if there is none yet: a JSON file with an object of tensors
    #[arg(long, value_name = "FILE", value_parser = initial_model)]
    pub model_file: Option<InitialModel>,
    /// Longest model that is taken, 1 to 268435456 bytes
    #[arg(long, value_name = "BYTES", default_value = "67108864", value_parser = clap::value_parser!(u64).range(1..=MODEL_LEN_MAX as u64))]
    pub model_bytes_max: u64,
}

/// A model that was read from a file, as version 0.
#[derive(Clone, Debug)]
pub struct InitialModel(Offer);

impl Settings for ModelServerSettings {
    const SERVICE: &'static str = "model-server";
    const ABOUT: &'static str = "Stores every version of the model and serves it to whoever asks";

    fn check(&self) -> Result<(), SettingsError> {
        let Some(InitialModel(offer)) = &self.model_file else { return Ok(()) };
        if offer.len() as u64 <= self.model_bytes_max {
            return Ok(());
        }
        let takes = format!("at least the {} bytes of the initial model", offer.len());
        Err(SettingsError::invalid("model_bytes_max", self.model_bytes_max, takes))
    }
}

impl ModelServerSettings {
    pub(crate) fn rules(&self) -> Rules {
        Rules { model_len_max: usize::try_from(self.model_bytes_max).unwrap_or(usize::MAX) }
    }

    pub(crate) fn initial(&self) -> Offer {
        match &self.model_file {
            Some(InitialModel(offer)) => offer.clone(),
            None => Offer::read(Bytes::from_static(DEFAULT)).expect("the default is a model"),
        }
    }

    /// Takes in a little more than the longest model, so that a longer one is refused by name.
    pub(crate) fn transport(&self) -> Result<Config, SettingsError> {
        let mut config = self.mqtt.config(Self::SERVICE, None)?;
        let longest = self.rules().model_len_max.saturating_add(FORWARD_TAIL_LEN_MAX);
        config.payload_bytes_max = config.payload_bytes_max.max(longest);
        Ok(config)
    }
}

/// Whatever version the file claims, it is version 0 here.
fn initial_model(path: &str) -> Result<InitialModel, String> {
    let bytes = fs::read(path).map_err(|why| format!("cannot be read: {why}"))?;
    let tensors = match serde_json::from_slice::<Model>(&bytes) {
        Ok(model) => model.tensors,
        Err(_) => serde_json::from_slice::<Tensors>(&bytes)
            .map_err(|why| format!("does not hold an object of tensors: {why}"))?,
    };
    if tensors.is_empty() {
        return Err("holds no tensor".to_owned());
    }
    let payload = Model { version: ModelVersion(0), tensors }.seal().payload;
    if payload.len() > MODEL_LEN_MAX {
        let len = payload.len();
        return Err(format!("holds a model of {len} bytes, at most {MODEL_LEN_MAX} are taken"));
    }
    Offer::read(payload).map(InitialModel).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initial_model_is_version_0_whatever_its_file_claims() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.json");
        for text in [r#"{"w":[1.5],"version":7}"#, r#"{"w":[1.5]}"#] {
            fs::write(&path, text).unwrap();
            let InitialModel(offer) = initial_model(path.to_str().unwrap()).unwrap();
            assert_eq!(offer.version(), ModelVersion(0));
        }
    }

    #[test]
    fn a_file_that_is_no_model_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.json");
        for (text, word) in [
            (&b"{\"w\":[1,[2]]}"[..], "ragged"),
            (b"[]", "object of tensors"),
            (b"{}", "no tensor"),
            (b"{\"w\":[1e999]}", "out of range"),
            (b"\xff\xfe", "object of tensors"),
        ] {
            fs::write(&path, text).unwrap();
            let why = initial_model(path.to_str().unwrap()).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
        assert!(initial_model("no-such-file").unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn the_default_is_a_model() {
        assert_eq!(Offer::read(Bytes::from_static(DEFAULT)).unwrap().version(), ModelVersion(0));
    }
}
