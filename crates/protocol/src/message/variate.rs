//! The server's control variate, as the participants of a round are given it (SCAFFOLD): tensors as
//! a model has them, in the form of its model.

use bytes::Bytes;
use serde::{
    Deserialize, Serialize, Serializer,
    ser::{Error as _, SerializeMap},
};

use crate::{
    Envelope, Form, Letter, ModelVersion, RoundId, Tensors, Topic,
    tensor::safetensors::{self, Header, Metadata},
};

/// The environment variable that names the strategy of a round to those of its tasks that have to
/// do something about it; others have none.
pub const STRATEGY_ENV: &str = "STRATEGY";

const SERIES: &str = "series";
const VERSION: &str = "version";

/// What the server's control variate is, beside a model.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundVariate {
    /// From the topic.
    pub round_id: RoundId,
    /// The round in which it was zero last: control variates of participants from any other series
    /// of rounds do not belong to it.
    pub series: RoundId,
    /// Of the model beside which it stands.
    pub version: ModelVersion,
    /// Names and shapes are those of the model.
    pub tensors: Tensors,
    pub form: Form,
}

impl RoundVariate {
    /// It as it travels, in its form; nothing for tensors that have no such form.
    pub fn write(&self) -> Result<Bytes, String> {
        match self.form {
            Form::Json => {
                let text = serde_json::to_vec(self).map_err(|why| why.to_string())?;
                Ok(text.into())
            }
            Form::Safetensors => {
                let metadata = [
                    (SERIES.to_owned(), self.series.to_string()),
                    (VERSION.to_owned(), self.version.to_string()),
                ];
                Ok(safetensors::write(&self.tensors, &Metadata::from(metadata)))
            }
        }
    }
}

/// Of which series a control variate is, as it travels; or why it is none.
pub fn read_variate_series(payload: &[u8]) -> Result<RoundId, String> {
    #[derive(Deserialize)]
    struct Said {
        series: RoundId,
    }
    match Form::of(payload) {
        Form::Json => {
            let said: Said = serde_json::from_slice(payload).map_err(|why| why.to_string())?;
            Ok(said.series)
        }
        Form::Safetensors => {
            let metadata = Header::metadata_of(payload).ok_or("it has no header")?;
            let series = metadata.get(SERIES).ok_or("series is missing")?;
            series.parse().map_err(|why: crate::IdError| format!("series: {why}"))
        }
    }
}

/// What stands there when the round needs none any longer.
pub fn variate_withdrawn(round: &RoundId) -> Envelope {
    Envelope { topic: Topic::RoundVariate { round: round.clone() }, payload: Bytes::new() }
}

impl Letter for RoundVariate {
    fn topic(&self) -> Topic {
        Topic::RoundVariate { round: self.round_id.clone() }
    }

    fn seal(&self) -> Envelope {
        let payload = self.write().expect("its names were looked at before");
        Envelope { topic: self.topic(), payload }
    }
}

/// The form in JSON.
impl Serialize for RoundVariate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        for taken in [VERSION, SERIES] {
            if self.tensors.get(taken).is_some() {
                let why = format!("a model of JSON with a tensor called {taken:?} can have none");
                return Err(S::Error::custom(why));
            }
        }
        let mut map = serializer.serialize_map(Some(self.tensors.len() + 2))?;
        for (name, tensor) in self.tensors.iter() {
            map.serialize_entry(name, tensor)?;
        }
        map.serialize_entry(SERIES, &self.series)?;
        map.serialize_entry(VERSION, &self.version)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    fn variate(name: &str, form: Form) -> RoundVariate {
        let tensor = Tensor::from_f32(vec![2], &[0.5, -1.0]).unwrap();
        RoundVariate {
            round_id: "r-2".parse().unwrap(),
            series: "r-1".parse().unwrap(),
            version: ModelVersion(3),
            tensors: [(name.to_owned(), tensor)].into_iter().collect(),
            form,
        }
    }

    #[test]
    fn its_series_is_read_back_from_either_form() {
        for form in [Form::Json, Form::Safetensors] {
            let payload = variate("w", form).write().unwrap();
            assert_eq!(read_variate_series(&payload).unwrap().as_str(), "r-1");
        }
        let text = variate("w", Form::Json).write().unwrap();
        assert_eq!(text, r#"{"w":[0.5,-1.0],"series":"r-1","version":3}"#);
        for nonsense in [&b""[..], b"{}", b"[]", br#"{"series":"a/b"}"#, b"\x01\0\0\0\0\0\0\0"] {
            assert!(read_variate_series(nonsense).is_err());
        }
    }

    #[test]
    fn a_tensor_of_a_name_that_is_taken_is_refused_in_text() {
        assert!(variate("series", Form::Json).write().unwrap_err().contains("series"));
        assert!(variate("series", Form::Safetensors).write().is_ok());
    }
}
