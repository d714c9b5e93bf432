//! JSON text as it is written: short, mostly, and of many messages at once, so that it is given
//! memory once, and no more than it needs.

use std::io::{self, Write};

use bytes::Bytes;
use serde::Serialize;

/// Texts of this length are put together before memory is asked for.
const SHORT_LEN: usize = 1024;

/// A text, written from its beginning.
pub(crate) struct Text {
    short: [u8; SHORT_LEN],
    len: usize,
    /// The whole text, once it is longer.
    long: Vec<u8>,
}

impl Text {
    /// The JSON of `value`, which has to be one that serializes.
    pub(crate) fn of(value: &(impl Serialize + ?Sized)) -> Self {
        let mut text = Self { short: [0; SHORT_LEN], len: 0, long: vec![] };
        serde_json::to_writer(&mut text, value).expect("wire types and records always serialize");
        text
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        if self.long.is_empty() {
            return Bytes::copy_from_slice(&self.short[..self.len]);
        }
        self.long.into_boxed_slice().into()
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        if self.long.is_empty() { self.short[..self.len].to_vec() } else { self.long }
    }
}

impl Write for Text {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.long.is_empty() {
            if let Some(room) = self.short.get_mut(self.len..self.len + part.len()) {
                room.copy_from_slice(part);
                self.len += part.len();
                return Ok(part.len());
            }
            self.long.extend_from_slice(&self.short[..self.len]);
        }
        self.long.extend_from_slice(part);
        Ok(part.len())
    }

    fn write_all(&mut self, part: &[u8]) -> io::Result<()> {
        self.write(part).map(|_| ())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_length_are_what_serde_json_writes() {
        for len in [0, 1, 500, 1018, 1019, 1020, 1021, 1022, 1023, 1024, 1025, 5_000] {
            let value = ["a".repeat(len), "b".repeat(2)];
            let expected = serde_json::to_vec(&value).unwrap();
            assert_eq!(Text::of(&value).into_bytes(), expected);
            assert_eq!(Text::of(&value).into_vec(), expected);
        }
    }
}
