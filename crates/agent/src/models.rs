//! The base models heard lately, within a number of bytes.

use bytes::Bytes;
use protocol::ModelVersion;

/// The most recently used models; a version never changes, so one that was heard stays true.
#[derive(Debug)]
pub(crate) struct Models {
    bytes_max: usize,
    /// Most recently used last.
    kept: Vec<(ModelVersion, Bytes)>,
}

impl Models {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: vec![] }
    }

    pub(crate) fn get(&mut self, version: ModelVersion) -> Option<Bytes> {
        let at = self.kept.iter().position(|(kept, _)| *kept == version)?;
        let used = self.kept.remove(at);
        let payload = used.1.clone();
        self.kept.push(used);
        Some(payload)
    }

    /// Keeps a model in place of those not used for longest; one that is larger than everything
    /// that may be kept is not kept at all.
    pub(crate) fn put(&mut self, version: ModelVersion, payload: Bytes) {
        self.kept.retain(|(kept, _)| *kept != version);
        if payload.len() > self.bytes_max {
            return;
        }
        if self.kept.is_empty() {
            self.kept.reserve_exact(1);
        }
        self.kept.push((version, payload));
        while self.kept.iter().map(|(_, payload)| payload.len()).sum::<usize>() > self.bytes_max {
            self.kept.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_used_longest_ago_go_first() {
        let mut models = Models::new(10);
        let payload = || Bytes::from_static(b"1234");
        models.put(ModelVersion(1), payload());
        models.put(ModelVersion(2), payload());
        assert!(models.get(ModelVersion(1)).is_some());
        models.put(ModelVersion(3), payload());
        assert_eq!(models.get(ModelVersion(2)), None);
        assert!(models.get(ModelVersion(1)).is_some() && models.get(ModelVersion(3)).is_some());
        models.put(ModelVersion(4), Bytes::from_static(b"12345678901"));
        assert_eq!(models.get(ModelVersion(4)), None);
        assert!(models.get(ModelVersion(1)).is_some());
    }
}
