//! What an operator can tell the model server.

use std::fs;

use bytes::Bytes;
use http_api::VitalsArgs;
use lineage::{MODEL_LEN_MAX, Offer, Rules};
use modelfile::FileFormat;
use protocol::{
    Form, ModelVersion,
    manifest::{CHUNK_BYTES_MAX, CHUNKS_MAX},
    message::{FORWARD_TAIL_LEN_MAX, Model},
};
use service::{
    settings::{Limits, MqttArgs, Settings, SettingsError, StateArgs},
    telemetry::LogArgs,
    transport::mqtt::Config,
};

/// The largest blob that a manifest can name.
const BLOB_LEN_MAX: u64 = CHUNKS_MAX as u64 * CHUNK_BYTES_MAX as u64;

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
    #[command(flatten)]
    pub vitals: VitalsArgs,
    /// Initial model, version 0, used if there is none yet: a JSON file with an object of tensors, a
    /// safetensors file, or an npz file
    #[arg(long, value_name = "FILE", value_parser = initial_model)]
    pub model_file: Option<InitialModel>,
    /// Longest model that is taken, 1 to 17179869184 bytes; one that comes in a single message has at most 268435456
    #[arg(long, value_name = "BYTES", default_value = "1073741824", value_parser = clap::value_parser!(u64).range(1..=BLOB_LEN_MAX))]
    pub model_bytes_max: u64,
    /// Of how many models that are too large for one message the pieces stay at the broker, 1 to 1000
    #[arg(long, value_name = "COUNT", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub large_models_shown: u16,
}

/// A model that was read from a file, as version 0.
#[derive(Clone, Debug)]
pub struct InitialModel(Offer);

impl Settings for ModelServerSettings {
    const SERVICE: &'static str = "model-server";
    const ABOUT: &'static str = "Stores every version of the model and serves it to whoever asks";

    fn check(&self) -> Result<(), SettingsError> {
        self.vitals.check()?;
        let Some(InitialModel(offer)) = &self.model_file else { return Ok(()) };
        if offer.len() as u64 <= self.model_bytes_max {
            return Ok(());
        }
        let takes = format!("at least the {} bytes of the initial model", offer.len());
        Err(SettingsError::invalid("model_bytes_max", self.model_bytes_max, takes))
    }
}

impl ModelServerSettings {
    pub(crate) fn rules(&self, limits: Limits) -> Rules {
        Rules {
            model_len_max: self.model_bytes_max,
            message_len_max: limits.message_bytes_max,
            shown_max: self.large_models_shown.into(),
        }
    }

    /// Text that does not fit one message goes in pieces, as the file that says what it is made of
    /// at its beginning: text is for small models.
    pub(crate) fn initial(&self, limits: Limits) -> Offer {
        let Some(InitialModel(offer)) = &self.model_file else {
            return Offer::read(Bytes::from_static(DEFAULT)).expect("the default is a model");
        };
        let is_long = offer.payload().len() > limits.message_bytes_max;
        let model = is_long.then(|| Model::read(offer.payload()).ok()).flatten();
        let filed = model.map(|model| Model { form: Form::Safetensors, ..model }.write());
        filed.and_then(|payload| Offer::read(payload).ok()).unwrap_or_else(|| offer.clone())
    }

    /// Takes in a little more than the longest model, so that a longer one is refused by name.
    pub(crate) fn transport(&self) -> Result<Config, SettingsError> {
        let mut config = self.mqtt.config(Self::SERVICE, None)?;
        let longest = usize::try_from(self.model_bytes_max).unwrap_or(usize::MAX);
        let longest = longest.min(MODEL_LEN_MAX).saturating_add(FORWARD_TAIL_LEN_MAX);
        config.payload_bytes_max = config.payload_bytes_max.max(longest);
        Ok(config)
    }
}

/// Whatever version the file claims, it is version 0 here. Text stays text; what has types keeps
/// them, in the form that has them.
fn initial_model(path: &str) -> Result<InitialModel, String> {
    let file: Bytes = fs::read(path).map_err(|why| format!("cannot be read: {why}"))?.into();
    let form = match FileFormat::of(&file) {
        FileFormat::Json => Form::Json,
        FileFormat::Safetensors | FileFormat::Npz => Form::Safetensors,
    };
    let tensors = modelfile::read(&file, MODEL_LEN_MAX as u64).map_err(|why| why.to_string())?;
    let payload = Model { version: ModelVersion(0), tensors, form }.write();
    if payload.len() > MODEL_LEN_MAX {
        let len = payload.len();
        return Err(format!("holds a model of {len} bytes, at most {MODEL_LEN_MAX} are taken"));
    }
    Offer::read(payload).map(InitialModel).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use protocol::{Tensor, Tensors};

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
    fn an_initial_model_with_types_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let w = Tensor::from_f32(vec![2], &[0.1, -0.0]).unwrap();
        let tensors: Tensors = [("w".to_owned(), w)].into_iter().collect();
        for format in [FileFormat::Safetensors, FileFormat::Npz] {
            let path = dir.path().join("model");
            let file = modelfile::write(&tensors, ModelVersion(3), format).unwrap();
            fs::write(&path, file).unwrap();
            let InitialModel(offer) = initial_model(path.to_str().unwrap()).unwrap();
            let model = Model::read(offer.payload()).unwrap();
            let expected = (ModelVersion(0), &tensors, Form::Safetensors);
            assert_eq!((model.version, &model.tensors, model.form), expected, "{format}");
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
            (b"PK\x03\x04", "npz"),
            (b"\x00\x00\x00\x00\x00\x00\x00\x00", "safetensors"),
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
