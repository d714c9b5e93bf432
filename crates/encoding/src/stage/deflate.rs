//! `deflate`: the file as one zlib stream (RFC 1950) with a preset dictionary.
//!
//! There is no `zstd`: what is left to compress is a short header, whose usual words are in the
//! dictionary, and numbers close to noise, where both come to the same size (within half a percent
//! on normal deltas in `int8` and in `f32`, at any level). The one good encoder of Zstandard is in
//! C, which has to be built for every small board; this one is in Rust, and every language has a
//! reader.

use super::{NOTHING, Place, Stage};

pub(super) const STAGE: Stage = Stage {
    name: "deflate",
    form: "deflate",
    takes: NOTHING,
    place: Place::Compression,
    needs: None,
    set: |encoding, argument| {
        encoding.deflate = true;
        argument.is_none()
    },
    show: |encoding| encoding.deflate.then(|| "deflate".to_owned()),
};
