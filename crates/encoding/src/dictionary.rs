//! The words that a short file mostly consists of, known to both ends before the first byte.

/// What the zlib stream of an encoded file may refer back to: the usual words of its header, the
/// likeliest last. Part of the wire format: streams name it by its Adler-32, and who has another
/// cannot read them.
pub const DICTIONARY: &[u8] = include_bytes!("dictionary.txt");

/// The Adler-32 of [`DICTIONARY`].
pub(crate) const DICTIONARY_ID: u32 = 0x537c_97db;
