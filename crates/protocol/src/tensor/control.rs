//! Control variates beside tensors (SCAFFOLD): for each tensor of a model one of the same shape,
//! which stands in an update under a name of its own, so that whatever carries, checks or signs an
//! update does the same with it.

use super::{DType, NAME_LEN_MAX, Schema, Slot, TENSORS_MAX, Tensors};

/// What the name of a tensor begins with that is the change of a control variate.
pub const CONTROL_PREFIX: &str = "control/";

impl Schema {
    /// The control variate of a model: its names and shapes, 32-bit floats where all of the model
    /// are such, else 64-bit ones.
    pub fn control(&self) -> Self {
        let dtype = match self.dtype() {
            Some(DType::F32) => DType::F32,
            Some(DType::F64 | DType::F16 | DType::BF16 | DType::I8) | None => DType::F64,
        };
        let slot = |slot: &Slot| Slot { dtype, shape: slot.shape.clone() };
        self.iter().map(|(name, own)| (name.to_owned(), slot(own))).collect()
    }

    /// What an update holds that brings a control variate: the tensors of the model, and for each
    /// the change of its control variate under `control/` and its name.
    ///
    /// # Errors
    /// In words, for a model that cannot have one.
    pub fn with_control(&self) -> Result<Self, String> {
        for (name, slot) in self.iter() {
            if name.starts_with(CONTROL_PREFIX) {
                return Err(format!("tensor {name:?} of the model begins with {CONTROL_PREFIX:?}"));
            }
            if slot.dtype == DType::I8 {
                return Err(format!("tensor {name:?} is of I8, which is not trained as it stands"));
            }
            if name.len() + CONTROL_PREFIX.len() > NAME_LEN_MAX {
                return Err(format!("tensor {name:?} has too long a name"));
            }
        }
        let count = self.iter().count();
        if 2 * count > TENSORS_MAX {
            return Err(format!("{count} tensors and as many more are more than {TENSORS_MAX}"));
        }
        let own = self.iter().map(|(name, slot)| (name.to_owned(), slot.clone()));
        let control = self.control();
        let control = control.iter().map(|(name, slot)| (controlled(name), slot.clone()));
        Ok(own.chain(control).collect())
    }
}

impl Tensors {
    /// Takes such an update apart: the tensors of the model, and the change of the control variate,
    /// under the names of the model.
    pub fn split_control(&self) -> (Self, Self) {
        let is_control = |name: &str| name.starts_with(CONTROL_PREFIX);
        let own = self.iter().filter(|(name, _)| !is_control(name));
        let own = own.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
        let control = self.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix(CONTROL_PREFIX)?.to_owned(), tensor.clone()))
        });
        (own, control.collect())
    }
}

/// The name under which an update has the change of a tensor's control variate.
pub fn controlled(name: &str) -> String {
    format!("{CONTROL_PREFIX}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    fn schema(slots: &[(&str, DType)]) -> Schema {
        let slot = |dtype| Slot { dtype, shape: vec![2] };
        slots.iter().map(|(name, dtype)| ((*name).to_owned(), slot(*dtype))).collect()
    }

    #[test]
    fn each_tensor_has_a_partner_that_is_as_wide_as_all_of_the_model() {
        let narrow = schema(&[("b", DType::F32), ("w", DType::F32)]).with_control().unwrap();
        let names: Vec<&str> = narrow.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b", "control/b", "control/w", "w"]);
        assert!(narrow.iter().all(|(_, slot)| slot.dtype == DType::F32));
        let mixed = schema(&[("b", DType::F16), ("w", DType::F32)]).with_control().unwrap();
        assert_eq!(mixed.get("control/w").unwrap().dtype, DType::F64);
        assert_eq!(mixed.get("w").unwrap().dtype, DType::F32);
    }

    #[test]
    fn a_model_that_cannot_have_one_is_named() {
        let long = "n".repeat(NAME_LEN_MAX);
        for (name, dtype) in
            [("control/w", DType::F32), ("w", DType::I8), (long.as_str(), DType::F32)]
        {
            let why = schema(&[(name, dtype)]).with_control().unwrap_err();
            assert!(why.contains(name), "{why}");
        }
        let many: Schema = (0..=TENSORS_MAX / 2)
            .map(|n| (n.to_string(), Slot { dtype: DType::F32, shape: vec![] }))
            .collect();
        assert!(many.with_control().unwrap_err().contains("2049"));
    }

    #[test]
    fn an_update_comes_apart_again() {
        let one = |value| Tensor::new(vec![1], vec![value]).unwrap();
        let both: Tensors = [("a", 1.0), ("control/a", 2.0), ("z", 3.0), ("control/z", 4.0)]
            .map(|(name, value)| (name.to_owned(), one(value)))
            .into_iter()
            .collect();
        let (own, control) = both.split_control();
        assert_eq!((own.flatten(), control.flatten()), (vec![1.0, 3.0], vec![2.0, 4.0]));
        assert!(control.get("a").is_some());
    }
}
