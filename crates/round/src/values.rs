//! The numbers of base models: which rounds need them, and which are remembered.
//!
//! Most rounds need to know only what their base model is made of. Where its numbers are needed,
//! too, the base model counts as known only once they are here, and they are kept with the round:
//! what came after needs no second look.

use std::collections::BTreeMap;

use aggregate::Need;
use encoding::Encoding;
use protocol::ModelVersion;

use crate::{Base, round::Spec};

/// Models whose numbers are remembered for rounds to come.
const REMEMBERED_MAX: usize = 2;
/// Longest model of which they are, in bytes; rounds fetch larger ones again.
const REMEMBERED_LEN_MAX: u64 = 64 << 20;

impl Spec {
    /// Whether what the round does takes the numbers of its base model.
    pub(crate) fn needs_values(&self) -> bool {
        let strategy = aggregate::find(&self.strategy.name);
        self.clip.is_some()
            || strategy.is_some_and(|it| it.needs.contains(&Need::Base))
            || self.encoding.as_ref().is_some_and(Encoding::is_delta)
    }

    /// As much of `base` as the round needs; nothing if that is not there.
    pub(crate) fn base_from(&self, base: &Base) -> Option<Base> {
        if !self.needs_values() {
            return Some(base.without_values());
        }
        base.values.as_ref().map(|_| base.clone())
    }
}

impl Base {
    /// What it is made of, alone.
    pub(crate) fn without_values(&self) -> Self {
        Self { schema: self.schema.clone(), form: self.form, values: None, sha256: self.sha256 }
    }
}

/// Lets go of the numbers that are not worth their memory.
pub(crate) fn forget_values(bases: &mut BTreeMap<ModelVersion, Base>) {
    let mut remembered = 0;
    for base in bases.values_mut().rev() {
        let Some(values) = &base.values else { continue };
        remembered += 1;
        // A file is pinned by the rounds that need it, and gone with them.
        let is_file = values.stored().is_some();
        if is_file || remembered > REMEMBERED_MAX || values.len() > REMEMBERED_LEN_MAX {
            base.values = None;
        }
    }
}
