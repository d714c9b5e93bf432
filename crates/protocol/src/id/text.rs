//! The text of an id: its beginning is at hand, so that ids are mostly told apart, and found among
//! a hundred thousand, without following a pointer.

use std::{cmp::Ordering, fmt, str, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{IdError, check};

const HEAD_LEN: usize = 16;

/// A checked text. No id contains a NUL, so the beginnings of two texts, filled up with NULs, have
/// the order of the texts; a text without a rest is shorter than one with the same beginning.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Text {
    head: [u8; HEAD_LEN],
    /// The whole text, where it is longer. Cloning shares it.
    whole: Option<Arc<str>>,
}

impl Text {
    pub(super) fn new(text: &str) -> Result<Self, IdError> {
        check(text)?;
        let mut head = [0; HEAD_LEN];
        let begins = text.len().min(HEAD_LEN);
        head[..begins].copy_from_slice(&text.as_bytes()[..begins]);
        Ok(Self { head, whole: (text.len() > HEAD_LEN).then(|| text.into()) })
    }

    pub(super) fn as_str(&self) -> &str {
        match &self.whole {
            Some(whole) => whole,
            None => {
                let unused = u128::from_le_bytes(self.head).leading_zeros() / u8::BITS;
                let text = &self.head[..HEAD_LEN - unused as usize];
                str::from_utf8(text).expect("ids are ASCII")
            }
        }
    }
}

impl Ord for Text {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let heads = u128::from_be_bytes(self.head).cmp(&u128::from_be_bytes(other.head));
        heads.then_with(|| match (&self.whole, &other.whole) {
            (Some(one), Some(another)) if Arc::ptr_eq(one, another) => Ordering::Equal,
            (one, another) => one.cmp(another),
        })
    }
}

impl PartialOrd for Text {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Text::new(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_order_of_their_texts_and_are_the_texts() {
        let mut texts: Vec<String> =
            ["a", "b", "-", "zz", "p-1", "p-10"].map(str::to_owned).to_vec();
        for len in [14, 15, 16, 17, 18, 128] {
            texts.extend(["x", "y"].map(|last| format!("{}{last}", "x".repeat(len - 1))));
        }
        for a in &texts {
            let id = Text::new(a).unwrap();
            assert_eq!(id.as_str(), a);
            assert_eq!(format!("{id:?}"), format!("{a:?}"));
            for b in &texts {
                let other = Text::new(b).unwrap();
                assert_eq!(id.cmp(&other), a.cmp(b), "{a} {b}");
                assert_eq!(id == other, a == b, "{a} {b}");
            }
        }
    }
}
