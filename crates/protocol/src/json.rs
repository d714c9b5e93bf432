//! JSON text as it is written: short, mostly, and of many messages at once, so that it takes no
//! more memory than it needs.

use bytes::Bytes;
use serde::Serialize;

/// Most texts fit into this without being moved while they are written.
const SHORT_LEN: usize = 1024;

/// A text, written from its beginning.
pub(crate) struct Text(Vec<u8>);

impl Text {
    /// The JSON of `value`, which has to be one that serializes.
    pub(crate) fn of(value: &(impl Serialize + ?Sized)) -> Self {
        let mut text = Vec::with_capacity(SHORT_LEN);
        serde_json::to_writer(&mut text, value).expect("wire types and records always serialize");
        Self(text)
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.into_vec().into()
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        // A copy lies where it fits; what is cut off of a long text would stay in its way.
        if self.0.capacity() == SHORT_LEN { self.0.as_slice().to_vec() } else { exact(self.0) }
    }
}

fn exact(mut text: Vec<u8>) -> Vec<u8> {
    text.shrink_to_fit();
    text
}

/// Whether a word stands in a text, or could, spelled with escapes: most texts need not be parsed
/// to know that they do not have a field of that name.
pub(crate) fn may_say(text: &[u8], word: &[u8]) -> bool {
    let is_word = |some: &[u8]| some.first() == word.first() && some == word;
    text.contains(&b'\\') || text.windows(word.len()).any(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_length_are_what_serde_json_writes() {
        for len in [0, 1, 500, 1018, 1019, 1020, 1021, 1022, 1023, 1024, 1025, 5_000] {
            let value = ["a".repeat(len), "b".repeat(2)];
            let expected = serde_json::to_vec(&value).unwrap();
            let bytes = Text::of(&value).into_bytes();
            assert_eq!(bytes, expected);
            let vec = Text::of(&value).into_vec();
            assert_eq!((vec.capacity(), vec), (expected.len(), expected));
        }
    }
}
