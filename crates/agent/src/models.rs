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
/// Nor from more than these of one line: the newest, and the one before while its round goes on.
const OF_LINE_MAX: usize = 2;

/// The most recently used models; a version never changes, so one that was heard stays true.
#[derive(Debug, Default)]
pub(crate) struct Models {
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
    pub(crate) fn get(&mut self, model: &ModelUri) -> Option<Known> {
        let at = self.kept.iter().position(|(kept, _)| kept == model)?;
        let used = self.kept.remove(at);
        let known = used.1.clone();
        self.kept.push(used);
        Some(known)
    }

    /// Keeps a model in place of those not used for longest; one that is larger than everything
    /// that may be kept is not kept at all.
    pub(crate) fn put(&mut self, model: ModelUri, known: Known, bytes_max: usize) {
        self.forget(&model);
        if known.weight() > bytes_max {
            return;
        }
        let is_of_line = |(kept, _): &(ModelUri, Known)| kept.line == model.line;
        if self.kept.iter().filter(|it| is_of_line(it)).count() >= OF_LINE_MAX
            && let Some(oldest) = self.kept.iter().position(is_of_line)
        {
            self.kept.remove(oldest);
        }
        while self.kept.len() >= KEPT_MAX || self.weight() + known.weight() > bytes_max {
            self.kept.remove(0);
        }
        // A hundred thousand agents may be simulated at once: no more memory than is needed.
        self.kept.reserve_exact(1);
        self.kept.push((model, known));
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
        let mut models = Models::default();
        let whole = || Known::Whole(Bytes::from_static(b"1234"));
        models.put(model(1), whole(), 10);
        models.put(model(2), whole(), 10);
        assert!(models.get(&model(1)).is_some());
        models.put(model(3), whole(), 10);
        assert_eq!(models.get(&model(2)), None);
        assert!(models.get(&model(1)).is_some() && models.get(&model(3)).is_some());
        let long = Known::Whole(Bytes::from_static(b"12345678901"));
        models.put(model(4), long, 10);
        assert_eq!(models.get(&model(4)), None);
        assert!(models.get(&model(1)).is_some());
        models.forget(&model(1));
        assert_eq!(models.get(&model(1)), None);
    }

    #[test]
    fn of_a_line_the_two_used_last_are_kept() {
        let mut models = Models::default();
        let whole = || Known::Whole(Bytes::from_static(b"1234"));
        (1..=3).for_each(|version| models.put(model(version), whole(), 100));
        assert_eq!(models.get(&model(1)), None);
        assert!(models.get(&model(2)).is_some() && models.get(&model(3)).is_some());
        models.put(model(3), whole(), 100);
        models.put(model(4), whole(), 100);
        assert_eq!(models.get(&model(2)), None);
        assert!(models.get(&model(3)).is_some() && models.get(&model(4)).is_some());
        for name in ["a", "b", "c"] {
            let uri = ModelUri { line: name.parse().unwrap(), version: ModelVersion(1) };
            models.put(uri, whole(), 100);
        }
        assert_eq!(models.get(&model(3)), None);
        assert!(models.get(&model(4)).is_some(), "other lines take the place of older ones");
    }
}
