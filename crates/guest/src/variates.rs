//! Control variates against the drift of participants whose data differ (Karimireddy et al.,
//! "SCAFFOLD: stochastic controlled averaging for federated learning", 2020, algorithm 1): each
//! step of descent takes `g - c_i + c` for the gradient `g`, and after the last one
//! `c_i' = c_i - c + (x - y) / (K lr)` (line 12, option II).
//!
//! The server's `c` comes with the round, and `c_i` is what this participant left when it took part
//! last: the state, a safetensors file that the device keeps as long as it is of use.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Assignment, BaseModel, Error, Tensor, Width,
    data::unreadable,
    safetensors::{self, Typed},
};

/// What the name of a tensor begins with that is the change of a control variate.
pub(crate) const PREFIX: &str = "control/";

/// The control variates of one participant in a round that has such.
#[derive(Clone, Debug, PartialEq)]
pub struct Variates {
    server: BaseModel,
    own: BTreeMap<String, Tensor>,
    state_out: PathBuf,
}

/// What a participant's control variate has become.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `c_i' - c_i`, for the server.
    pub(crate) change: BTreeMap<String, (Tensor, Width)>,
    /// `c_i'`, for the next round.
    own: BTreeMap<String, Tensor>,
    state_out: PathBuf,
}

impl Assignment {
    /// Those of a round that has control variates, which `STRATEGY` says; none in others. They have
    /// the names and shapes of `base`.
    pub fn variates(&self, base: &BaseModel) -> Result<Option<Variates>, Error> {
        if self.strategy.as_deref() != Some("scaffold") {
            return Ok(None);
        }
        let needed = |path: &Option<PathBuf>, name| path.clone().ok_or(Error::MissingVar { name });
        let server = tensors(&needed(&self.control_path, "CONTROL_PATH")?, base)?;
        let own = match &self.state_path {
            Some(path) => tensors(path, base)?.tensors().clone(),
            None => base.tensors().iter().map(|(name, it)| (name.clone(), zeros(it))).collect(),
        };
        let state_out = needed(&self.state_out_path, "STATE_OUT_PATH")?;
        Ok(Some(Variates { server, own, state_out }))
    }
}

impl Variates {
    /// `c - c_i`: what is added to the gradient of each step.
    pub fn correction(&self) -> BTreeMap<String, Tensor> {
        let of = |(name, server): (&String, &Tensor)| {
            let own = self.own.get(name)?;
            Some((name.clone(), paired(server, own, |server, own| server - own)))
        };
        self.server.tensors().iter().filter_map(of).collect()
    }

    /// What they have become after `steps` of descent at the learning rate `lr` have led from
    /// `base` to `trained`.
    pub fn after(
        &self,
        base: &BaseModel,
        trained: &BTreeMap<String, Tensor>,
        (steps, lr): (u64, f64),
    ) -> Result<Change, Error> {
        let (mut change, mut own) = (BTreeMap::new(), BTreeMap::new());
        let length = steps as f64 * lr;
        for (name, from) in base.tensors() {
            let to = trained.get(name).filter(|to| to.values.len() == from.values.len());
            let (Some(to), Some(server), Some(before)) =
                (to, self.server.tensors().get(name), self.own.get(name))
            else {
                let why = "it is missing, or of another shape".to_owned();
                return Err(Error::Misfit { name: name.clone(), why });
            };
            let width = self.server.widths().and_then(|widths| widths.get(name)).copied();
            let width = width.unwrap_or(Width::F64);
            let moved = paired(from, to, |from, to| (from - to) / length);
            // The server gets rounded numbers; what is kept here is their sum, to the last bit.
            let step = paired(&moved, server, |moved, server| width.round(moved - server));
            if !step.values.iter().all(|value| value.is_finite()) {
                return Err(Error::NotFinite { name: format!("{PREFIX}{name}") });
            }
            own.insert(name.clone(), paired(before, &step, |before, step| before + step));
            change.insert(name.clone(), (step, width));
        }
        Ok(Change { change, own, state_out: self.state_out.clone() })
    }
}

impl Change {
    /// The state, and where it goes.
    pub(crate) fn state(&self) -> Result<(PathBuf, Vec<u8>), Error> {
        let typed: Typed =
            self.own.iter().map(|(name, own)| (name.clone(), (own.clone(), Width::F64))).collect();
        Ok((self.state_out.clone(), safetensors::write(&typed, &BTreeMap::new())?))
    }
}

/// The tensors in a file, which have to be those of `base`.
fn tensors(path: &Path, base: &BaseModel) -> Result<BaseModel, Error> {
    let found = BaseModel::parse(&fs::read(path).map_err(|source| unreadable(path, source))?)?;
    let same = base
        .tensors()
        .iter()
        .map(|(name, it)| (name, &it.shape))
        .eq(found.tensors().iter().map(|(name, it)| (name, &it.shape)));
    if same {
        return Ok(found);
    }
    let (found, wanted) = (found.described(), base.described());
    Err(Error::Variates { path: path.display().to_string(), found, wanted })
}

fn zeros(like: &Tensor) -> Tensor {
    Tensor { shape: like.shape.clone(), values: vec![0.0; like.values.len()] }
}

fn paired(a: &Tensor, b: &Tensor, of: impl Fn(f64, f64) -> f64) -> Tensor {
    let values = a.values.iter().zip(&b.values).map(|(a, b)| of(*a, *b)).collect();
    Tensor { shape: a.shape.clone(), values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Hyperparams, Update};

    fn asked(dir: &Path, state: Option<&str>) -> Assignment {
        Assignment {
            round_id: "r-1".to_owned(),
            proplet_id: None,
            model_uri: "model-0".to_owned(),
            hyperparams: Hyperparams::default(),
            model_path: "base".into(),
            data_dir: None,
            update_path: Some("update".into()),
            strategy: Some("scaffold".to_owned()),
            control_path: Some(dir.join("control")),
            state_path: state.map(|name| dir.join(name)),
            state_out_path: Some(dir.join("out")),
        }
    }

    fn base() -> BaseModel {
        BaseModel::parse(br#"{"w":[1.0,2.0],"b":0.5,"version":3}"#).unwrap()
    }

    #[test]
    fn a_variate_is_the_mean_gradient_that_was_seen_and_is_kept_for_the_next_round() {
        let dir = tempfile::tempdir().unwrap();
        let control = r#"{"w":[0.25,0.0],"b":1.0,"series":"r-0","version":3}"#;
        fs::write(dir.path().join("control"), control).unwrap();
        let first = asked(dir.path(), None);
        let variates = first.variates(&base()).unwrap().unwrap();
        assert_eq!(variates.correction()["w"].values, [0.25, 0.0]);
        let trained = BaseModel::parse(br#"{"w":[0.0,2.0],"b":1.5}"#).unwrap();
        let change = variates.after(&base(), trained.tensors(), (4, 0.5)).unwrap();
        // (x - y) / (4 * 0.5) is 0.5, 0 and -0.5; c is taken off.
        assert_eq!(change.change["w"].0.values, [0.25, 0.0]);
        assert_eq!(change.change["b"].0.values, [-1.5]);
        let update = Update::new(1, trained.tensors().clone()).with_control(change);
        let answer = update.answer(&first, &base()).unwrap();
        let Answer::Stateful { answer, path, state } = answer else { panic!("{answer:?}") };
        let Answer::Json(text) = *answer else { panic!("{answer:?}") };
        let tensors = r#""update":{"b":1.5,"control/b":-1.5,"control/w":[0.25,0.0],"w":[0.0,2.0]}"#;
        assert!(text.contains(tensors), "{text}");
        fs::write(path, state).unwrap();
        let second = asked(dir.path(), Some("out")).variates(&base()).unwrap().unwrap();
        assert_eq!(second.correction()["w"].values, [0.0, 0.0], "c_i is what was kept");
        assert_eq!(second.correction()["b"].values, [2.5]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("control"), r#"{"w":[0.25],"b":1.0}"#).unwrap();
        let asked = asked(dir.path(), None);
        let said = asked.variates(&base()).unwrap_err().to_string();
        assert!(said.contains("w [1]") && said.contains("w [2]"), "{said}");
        let nowhere = Assignment { control_path: None, ..asked.clone() };
        let said = nowhere.variates(&base()).unwrap_err().to_string();
        assert!(said.contains("CONTROL_PATH"), "{said}");
        let other = Assignment { strategy: None, ..asked };
        assert_eq!(other.variates(&base()).unwrap(), None);
    }
}
