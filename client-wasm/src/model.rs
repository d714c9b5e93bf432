//! A model: a network with its parameters, read from and written to the platform's JSON.

use std::collections::BTreeMap;

use guest::BaseModel;

use crate::{Kind, Network, Tensor, TrainError};

/// A network and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub(crate) network: Network,
    pub(crate) parameters: Vec<f64>,
}

/// A model to start from: zeros where the loss is convex, seeded weights for the others.
///
/// This is how model 0 is made, once, by whoever starts the federation: every client must begin
/// with the same weights, so a guest never makes up its own.
pub fn initial_model(
    kind: Kind,
    features: usize,
    classes: usize,
    seed: u64,
) -> Result<Model, TrainError> {
    let network = Network::new(kind, features, classes)?;
    Ok(Model { network, parameters: network.initial(seed) })
}

impl Model {
    /// Reads a base model: tensors at the top level, beside `version` and whatever is no tensor.
    ///
    /// Its tensors must be exactly those that `kind` has on data with this many features, since an
    /// update has the names and shapes of its base.
    pub fn from_json(text: &str, kind: Kind, features: usize) -> Result<Self, TrainError> {
        Self::from_base(&BaseModel::parse(text.as_bytes())?, kind, features)
    }

    /// The same for tensors at hand.
    pub fn from_tensors(
        tensors: BTreeMap<String, Tensor>,
        kind: Kind,
        features: usize,
    ) -> Result<Self, TrainError> {
        Self::from_base(&BaseModel::of(tensors), kind, features)
    }

    /// The same for a model that was read already.
    pub fn from_base(base: &BaseModel, kind: Kind, features: usize) -> Result<Self, TrainError> {
        let tensors = base.tensors();
        let misfit = || TrainError::BaseMisfit { kind, features, found: base.described() };
        let network = Network::new(kind, features, classes(kind, tensors).ok_or_else(misfit)?)?;
        let slots = network.slots();
        if tensors.len() != slots.len() {
            return Err(misfit());
        }
        let parameters = in_order(&network, tensors).ok_or_else(misfit)?;
        Ok(Self { network, parameters })
    }

    /// The numbers of tensors with the names and shapes of this model, in the order of its
    /// parameters.
    pub(crate) fn in_order(
        &self,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<Vec<f64>, TrainError> {
        let (kind, features) = (self.network.kind, self.network.features);
        let found = || BaseModel::of(tensors.clone()).described();
        in_order(&self.network, tensors).ok_or_else(|| TrainError::BaseMisfit {
            kind,
            features,
            found: found(),
        })
    }

    /// The model as the platform stores it; `version` stands beside the tensors.
    pub fn to_json(&self, version: u64) -> Result<String, TrainError> {
        #[derive(serde::Serialize)]
        struct Stored {
            #[serde(flatten)]
            tensors: BTreeMap<&'static str, Tensor>,
            version: u64,
        }
        let stored = Stored { tensors: self.tensors(), version };
        serde_json::to_string(&stored).map_err(|source| guest::Error::Encode { source }.into())
    }

    /// The parameters by name and shape.
    pub fn tensors(&self) -> BTreeMap<&'static str, Tensor> {
        let mut rest = &*self.parameters;
        let mut tensors = BTreeMap::new();
        for slot in self.network.slots() {
            let (values, after) = rest.split_at(slot.len());
            rest = after;
            tensors.insert(slot.name, Tensor { shape: slot.shape, values: values.to_vec() });
        }
        tensors
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    /// All parameters, tensor after tensor.
    pub fn parameters(&self) -> &[f64] {
        &self.parameters
    }
}

fn in_order(network: &Network, tensors: &BTreeMap<String, Tensor>) -> Option<Vec<f64>> {
    let mut numbers = vec![];
    for slot in network.slots() {
        let tensor = tensors.get(slot.name).filter(|tensor| tensor.shape == slot.shape);
        numbers.extend_from_slice(&tensor?.values);
    }
    Some(numbers)
}

/// The last bias tells how many classes there are.
fn classes(kind: Kind, tensors: &BTreeMap<String, Tensor>) -> Option<usize> {
    let bias = match kind {
        Kind::Linear => return Some(1),
        Kind::Softmax | Kind::Bigram => "b",
        Kind::Mlp { .. } => "b2",
        Kind::Cnn { .. } => "dense.b",
        Kind::Gru { .. } => "out.b",
    };
    match tensors.get(bias)?.shape[..] {
        [classes] => Some(classes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = r#"{"w":[0.0,0.0,0.0],"b":0.0,"version":0}"#;

    #[test]
    fn the_default_model_0_is_a_linear_one() {
        let model = Model::from_json(NOTE, Kind::Linear, 3).unwrap();
        assert_eq!(model, initial_model(Kind::Linear, 3, 1, 0).unwrap());
    }

    #[test]
    fn each_kind_survives_its_json() {
        for (kind, features, classes) in [
            (Kind::Linear, 3, 1),
            (Kind::Softmax, 3, 4),
            (Kind::Mlp { hidden: 5 }, 3, 4),
            (Kind::Cnn { channels: 2 }, 16, 4),
            (Kind::Bigram, 3, 4),
            (Kind::Gru { hidden: 5 }, 3, 4),
        ] {
            let model = initial_model(kind, features, classes, 9).unwrap();
            let read = Model::from_json(&model.to_json(7).unwrap(), kind, features).unwrap();
            assert_eq!(read, model);
        }
    }

    #[test]
    fn a_misfit_names_both_shapes() {
        let said = Model::from_json(NOTE, Kind::Softmax, 64).unwrap_err().to_string();
        assert_eq!(
            said,
            "the base model has b [], w [3], but model \"softmax\" on data with 64 features needs \
             w [features, classes], b [classes]"
        );
        let said = Model::from_json("{}", Kind::Mlp { hidden: 32 }, 64).unwrap_err().to_string();
        assert!(said.contains("no tensors") && said.contains("w1 [features, 32]"), "{said}");
        let extra = r#"{"w":[0.0,0.0,0.0],"b":0.0,"c":1,"version":0}"#;
        let said = Model::from_json(extra, Kind::Linear, 3).unwrap_err().to_string();
        assert!(said.contains("c []"), "{said}");
    }

    #[test]
    fn what_is_no_tensor_is_passed_over() {
        let text = r#"{"w":[1,2],"b":3,"version":0,"format":"json","notes":{"a":1}}"#;
        assert_eq!(Model::from_json(text, Kind::Linear, 2).unwrap().parameters(), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn text_that_is_no_model_is_refused() {
        for text in ["", "[]", "{\"w\":", "{\"w\":[1e999],\"b\":0}"] {
            let said = Model::from_json(text, Kind::Linear, 1).unwrap_err().to_string();
            assert!(said.starts_with("the base model is not usable"), "{text}: {said}");
        }
    }

    #[test]
    fn seeded_weights_repeat_and_differ_by_seed() {
        let make = |seed| initial_model(Kind::Mlp { hidden: 8 }, 4, 3, seed).unwrap();
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert!(initial_model(Kind::Softmax, 0, 3, 0).is_err());
        assert!(initial_model(Kind::Softmax, 3, 1, 0).is_err());
    }
}
