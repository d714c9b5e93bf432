//! The base models heard of lately, within a number of bytes.

use bytes::Bytes;
use protocol::{Manifest, ModelUri};

/// What is known of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// All of it.
    Whole(Bytes),
    /// What its pieces are; they may be on the disk. Boxed, since the other kind is small.
    Pieces(Box<Manifest>),
}

/// Rounds that go on at the same time seldom begin from more models than this.
const KEPT_MAX: usize = 4;

/// The most recently used models; a version never changes, so one that was heard stays true.
#[derive(Debug)]
pub(crate) struct Models {
    bytes_max: usize,
    /// Most recently used last.
    kept: Vec<(ModelUri, Known)>,
}

impl Known {
    /// The memory that it takes, roughly.
    fn weight(&self) -> usize {
        match self {
            Self::Whole(payload) => payload.len(),
            Self::Pieces(blob) => 128 + 32 * blob.count() as usize,
        }
    }
}

impl Models {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: vec![] }
    }

    pub(crate) fn get(&mut self, model: &ModelUri) -> Option<Known> {
        let at = self.kept.iter().position(|(kept, _)| kept == model)?;
        let used = self.kept.remove(at);
        let known = used.1.clone();
        self.kept.push(used);
        Some(known)
    }

    /// Keeps a model in place of those not used for longest; one that is larger than everything
    /// that may be kept is not kept at all.
    pub(crate) fn put(&mut self, model: ModelUri, known: Known) {
        self.forget(&model);
        if known.weight() > self.bytes_max {
            return;
        }
        // A hundred thousand agents may be simulated at once: no more memory than is needed.
        self.kept.reserve_exact(1);
        self.kept.push((model, known));
        while self.kept.len() > KEPT_MAX || self.weight() > self.bytes_max {
            self.kept.remove(0);
        }
    }

    fn weight(&self) -> usize {
        self.kept.iter().map(|(_, known)| known.weight()).sum()
    }

    /// What is known of it does not help.
    pub(crate) fn forget(&mut self, model: &ModelUri) {
        self.kept.retain(|(kept, _)| kept != model);
    }
}

#[cfg(test)]
mod tests {
    use protocol::ModelVersion;

    use super::*;

    fn model(version: u64) -> ModelUri {
        ModelUri::global(ModelVersion(version))
    }

    #[test]
    fn the_models_used_longest_ago_go_first() {
        let mut models = Models::new(10);
        let whole = || Known::Whole(Bytes::from_static(b"1234"));
        models.put(model(1), whole());
        models.put(model(2), whole());
        assert!(models.get(&model(1)).is_some());
        models.put(model(3), whole());
        assert_eq!(models.get(&model(2)), None);
        assert!(models.get(&model(1)).is_some() && models.get(&model(3)).is_some());
        models.put(model(4), Known::Whole(Bytes::from_static(b"12345678901")));
        assert_eq!(models.get(&model(4)), None);
        assert!(models.get(&model(1)).is_some());
        models.forget(&model(1));
        assert_eq!(models.get(&model(1)), None);
    }
}
