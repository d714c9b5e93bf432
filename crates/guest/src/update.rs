//! What a guest answers: an update in the form of its base model.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeMap as _},
};

use crate::{
    Assignment, BaseModel, Error, Tensor, Width,
    safetensors::{self, Typed},
    variates::{Change, PREFIX},
};

/// What was learned, from how much.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Rows that were trained on, at least 1: the weight of this update in the average.
    pub num_samples: u64,
    /// Scalars for those who watch, by name; what is not finite is left out.
    pub metrics: BTreeMap<String, f64>,
    /// The new values of all tensors of the base model.
    pub tensors: BTreeMap<String, Tensor>,
    /// In a round with control variates, what became of the participant's own.
    pub control: Option<Change>,
}

/// An update as it leaves the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One line of JSON, for stdout.
    Json(String),
    /// A safetensors file, and where it goes.
    File { path: PathBuf, bytes: Vec<u8> },
    /// One of these, and a state for the next round.
    Stateful { answer: Box<Self>, path: PathBuf, state: Vec<u8> },
}

struct Wire<'a> {
    asked: &'a Assignment,
    num_samples: u64,
    metrics: &'a BTreeMap<String, f64>,
    update: &'a BTreeMap<String, Tensor>,
}

impl Update {
    pub const fn new(num_samples: u64, tensors: BTreeMap<String, Tensor>) -> Self {
        Self { num_samples, metrics: BTreeMap::new(), tensors, control: None }
    }

    /// With one more metric.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.metrics.insert(name.to_owned(), value);
        self
    }

    /// With what became of the participant's control variate.
    #[must_use]
    pub fn with_control(mut self, change: Change) -> Self {
        self.control = Some(change);
        self
    }

    /// The update to `base` that was asked for. It must have the names and shapes of its base, and
    /// only finite numbers: anything else would be rejected by the coordinator.
    pub fn answer(&self, asked: &Assignment, base: &BaseModel) -> Result<Answer, Error> {
        self.check(base)?;
        let answer = match base.widths() {
            None => self.text(asked, &self.with_changes()),
            Some(widths) => self.file(asked, &self.finite(), widths),
        };
        let Some(change) = &self.control else { return answer };
        let (path, state) = change.state()?;
        Ok(Answer::Stateful { answer: Box::new(answer?), path, state })
    }

    /// All that goes to the server.
    fn with_changes(&self) -> BTreeMap<String, Tensor> {
        let mut all = self.tensors.clone();
        for (name, (change, _)) in self.control.iter().flat_map(|control| &control.change) {
            all.insert(format!("{PREFIX}{name}"), change.clone());
        }
        all
    }

    /// What was asked for where `PURPOSE` is `evaluate`: metrics, and no tensors.
    pub fn evaluation(&self, asked: &Assignment) -> Result<Answer, Error> {
        if self.num_samples == 0 {
            return Err(Error::NoSamples);
        }
        self.text(asked, &BTreeMap::new())
    }

    fn finite(&self) -> BTreeMap<String, f64> {
        let finite = self.metrics.iter().filter(|(_, value)| value.is_finite());
        finite.map(|(name, value)| (name.clone(), *value)).collect()
    }

    fn text(&self, asked: &Assignment, update: &BTreeMap<String, Tensor>) -> Result<Answer, Error> {
        let (num_samples, metrics) = (self.num_samples, &self.finite());
        let wire = Wire { asked, num_samples, metrics, update };
        let text = serde_json::to_string(&wire);
        text.map(Answer::Json).map_err(|source| Error::Encode { source })
    }

    fn check(&self, base: &BaseModel) -> Result<(), Error> {
        if self.num_samples == 0 {
            return Err(Error::NoSamples);
        }
        let misfit = |name: &str, why| Err(Error::Misfit { name: name.to_owned(), why });
        for name in base.tensors().keys() {
            if !self.tensors.contains_key(name) {
                return misfit(name, "it is missing".to_owned());
            }
        }
        for (name, tensor) in &self.tensors {
            let Some(wanted) = base.tensors().get(name) else {
                return misfit(name, format!("that has {}", base.described()));
            };
            let count: usize = tensor.shape.iter().product();
            if tensor.shape != wanted.shape || tensor.values.len() != count {
                let (shape, len) = (&tensor.shape, tensor.values.len());
                let why = format!("{len} values of shape {shape:?}, not {:?}", wanted.shape);
                return misfit(name, why);
            }
            let width = base.widths().and_then(|widths| widths.get(name)).copied();
            let holds = |value: &f64| width.unwrap_or(Width::F64).holds(*value);
            if !tensor.values.iter().all(holds) {
                return Err(Error::NotFinite { name: name.clone() });
            }
        }
        Ok(())
    }

    fn file(
        &self,
        asked: &Assignment,
        metrics: &BTreeMap<String, f64>,
        widths: &BTreeMap<String, Width>,
    ) -> Result<Answer, Error> {
        let path = asked.update_path.clone().ok_or(Error::MissingVar { name: "UPDATE_PATH" })?;
        let changes = self.control.iter().flat_map(|control| &control.change);
        let changes = changes.map(|(name, typed)| (format!("{PREFIX}{name}"), typed.clone()));
        let typed: Typed = self
            .tensors
            .iter()
            .map(|(name, tensor)| {
                // They have the names of the base: each has a type.
                let width = widths.get(name).copied().unwrap_or(Width::F64);
                (name.clone(), (tensor.clone(), width))
            })
            .chain(changes)
            .collect();
        let metrics = serde_json::to_string(metrics).map_err(|source| Error::Encode { source })?;
        let mut metadata = BTreeMap::from([
            ("round_id", asked.round_id.clone()),
            ("base_model_uri", asked.model_uri.clone()),
            ("num_samples", self.num_samples.to_string()),
            ("metrics", metrics),
        ]);
        metadata.extend(asked.proplet_id.clone().map(|id| ("proplet_id", id)));
        Ok(Answer::File { path, bytes: safetensors::write(&typed, &metadata)? })
    }
}

impl Answer {
    /// Hands the update over.
    pub fn write(&self) -> io::Result<()> {
        match self {
            Self::Json(text) => {
                let mut out = io::stdout();
                writeln!(out, "{text}")?;
                out.flush()
            }
            Self::File { path, bytes } => fs::write(path, bytes),
            Self::Stateful { answer, path, state } => {
                fs::write(path, state)?;
                answer.write()
            }
        }
    }
}

impl Serialize for Wire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let num_samples = i64::try_from(self.num_samples).map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("round_id", &self.asked.round_id)?;
        if let Some(id) = &self.asked.proplet_id {
            map.serialize_entry("proplet_id", id)?;
        }
        map.serialize_entry("base_model_uri", &self.asked.model_uri)?;
        map.serialize_entry("num_samples", &num_samples)?;
        map.serialize_entry("metrics", self.metrics)?;
        map.serialize_entry("update", self.update)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hyperparams;

    fn asked() -> Assignment {
        Assignment {
            round_id: "r-1".to_owned(),
            proplet_id: Some("p".to_owned()),
            model_uri: "model-0".to_owned(),
            hyperparams: Hyperparams::default(),
            model_path: "base".into(),
            data_dir: None,
            update_path: Some("update".into()),
            strategy: None,
            control_path: None,
            state_path: None,
            state_out_path: None,
        }
    }

    fn base() -> BaseModel {
        BaseModel::parse(br#"{"w":[0.0,0.0],"b":0.0,"version":3,"note":"x"}"#).unwrap()
    }

    fn tensor(shape: &[usize], values: &[f64]) -> Tensor {
        Tensor { shape: shape.to_vec(), values: values.to_vec() }
    }

    fn update(w: Tensor) -> Update {
        let tensors = [("w".to_owned(), w), ("b".to_owned(), tensor(&[], &[0.5]))].into();
        Update::new(7, tensors).with("loss", 0.25).with("nothing", f64::NAN)
    }

    #[test]
    fn an_update_to_text_is_one_object() {
        let answer = update(tensor(&[2], &[1.0, -2.0])).answer(&asked(), &base()).unwrap();
        let text = r#"{"round_id":"r-1","proplet_id":"p","base_model_uri":"model-0","num_samples":7,"metrics":{"loss":0.25},"update":{"b":0.5,"w":[1.0,-2.0]}}"#;
        assert_eq!(answer, Answer::Json(text.to_owned()));
    }

    #[test]
    fn an_update_to_a_file_is_a_file_of_its_types() {
        let typed: Typed = [
            ("w".to_owned(), (tensor(&[2], &[0.0; 2]), Width::F32)),
            ("b".to_owned(), (tensor(&[], &[0.0]), Width::F64)),
        ]
        .into();
        let base =
            BaseModel::parse(&safetensors::write(&typed, &BTreeMap::new()).unwrap()).unwrap();
        let made = update(tensor(&[2], &[1.0, -2.0]));
        let Answer::File { path, bytes } = made.answer(&asked(), &base).unwrap() else {
            panic!("a file has a file for an answer")
        };
        assert_eq!(path, PathBuf::from("update"));
        let read = BaseModel::parse(&bytes).unwrap();
        assert_eq!((read.tensors(), read.widths()), (&made.tensors, base.widths()));
        let nowhere = Assignment { update_path: None, ..asked() };
        let said = made.answer(&nowhere, &base).unwrap_err().to_string();
        assert_eq!(said, "the environment has no variable UPDATE_PATH");
        let huge = update(tensor(&[2], &[1e300, 0.0])).answer(&asked(), &base);
        assert!(huge.unwrap_err().to_string().contains("\"w\""), "too large for its type");
    }

    #[test]
    fn what_would_be_rejected_is_not_made() {
        for (made, said) in [
            (update(tensor(&[3], &[0.0; 3])), "3 values of shape [3], not [2]"),
            (update(tensor(&[2], &[0.0; 3])), "3 values of shape [2], not [2]"),
            (update(tensor(&[2], &[0.0, f64::NAN])), "tensor \"w\" of the update has a number"),
            (Update::new(1, BTreeMap::new()), "\"b\" of the update does not fit"),
            (Update { num_samples: 0, ..update(tensor(&[2], &[0.0; 2])) }, "0 samples"),
        ] {
            let error = made.answer(&asked(), &base()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
