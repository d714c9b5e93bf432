//! How large a message may be, and what to cut the rest into.

use std::str::FromStr;

use protocol::{
    manifest::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNKS_MAX, ManifestError},
    message::FORWARD_TAIL_LEN_MAX,
};

/// What the broker takes for one message, as set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadLimit {
    Bytes(u32),
    /// The broker is asked; no more than [`PayloadLimit::DEFAULT_BYTES`].
    Auto,
}

/// A text that is not a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it takes auto, or {min} to {max} bytes",
    min = PayloadLimit::BYTES_MIN,
    max = PayloadLimit::BYTES_MAX
)]
pub struct PayloadLimitError;

impl PayloadLimit {
    /// Every broker that is known takes this, or can be told to.
    pub const DEFAULT_BYTES: u32 = 1 << 20;
    /// Below this, nothing of use gets through.
    pub const BYTES_MIN: u32 = 16 << 10;
    /// The largest packet that MQTT can express.
    pub const BYTES_MAX: u32 = 268_435_455;
}

impl FromStr for PayloadLimit {
    type Err = PayloadLimitError;

    fn from_str(text: &str) -> Result<Self, PayloadLimitError> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|bytes| digits && (Self::BYTES_MIN..=Self::BYTES_MAX).contains(bytes))
            .map(Self::Bytes)
            .ok_or(PayloadLimitError)
    }
}

/// What goes in one message, and what goes in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest payload that is sent as one message; leaves room for the topic, and for what the
    /// manager appends.
    pub message_bytes_max: usize,
    /// Length of a piece.
    pub chunk_bytes: u32,
}

/// For the fixed header and the topic: two ids, some words, and a prefix.
const PACKET_ROOM: u32 = 1 << 10;
/// Pieces are no larger than this without need: they come through slow links and brokers with
/// little memory.
const CHUNK_BYTES_USUAL: u32 = 256 << 10;
/// A manifest takes so many bytes for 3 pieces, and so many beside.
const MANIFEST_BYTES_FOR_3: u64 = 128;
const MANIFEST_ROOM: u64 = 2 << 10;

impl Limits {
    /// For a broker that takes packets of so many bytes.
    pub fn of(payload_bytes_max: u32) -> Self {
        let piece = payload_bytes_max.max(PayloadLimit::BYTES_MIN) - PACKET_ROOM;
        Self {
            message_bytes_max: piece as usize - FORWARD_TAIL_LEN_MAX,
            chunk_bytes: piece.min(CHUNK_BYTES_USUAL),
        }
    }

    /// Whether a payload goes as one message.
    pub const fn fits(&self, len: usize) -> bool {
        len <= self.message_bytes_max
    }

    /// What to cut a blob of so many bytes into: larger pieces than usual, where the usual ones
    /// would be too many for a manifest, or for a manifest that goes in one message.
    pub fn chunk_bytes_for(&self, bytes: u64) -> Result<u32, ManifestError> {
        let room = (self.message_bytes_max as u64).saturating_sub(MANIFEST_ROOM);
        let count_max = (room * 3 / MANIFEST_BYTES_FOR_3).clamp(1, CHUNKS_MAX.into());
        let largest = u32::try_from(self.message_bytes_max).unwrap_or(u32::MAX);
        let largest = largest.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(self.chunk_bytes);
        let needed = bytes.div_ceil(count_max).max(self.chunk_bytes.into());
        u32::try_from(needed).ok().filter(|needed| *needed <= largest).ok_or_else(|| {
            let chunks = bytes.div_ceil(largest.into());
            ManifestError::TooLarge { bytes, chunk_bytes: largest, chunks }
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(PayloadLimit::DEFAULT_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        Digest, Letter as _, Manifest, ModelVersion, manifest::Format, message::ModelBlob,
    };

    use super::*;

    #[test]
    fn a_limit_is_a_number_of_bytes_or_auto() {
        assert_eq!("auto".parse(), Ok(PayloadLimit::Auto));
        assert_eq!("131072".parse(), Ok(PayloadLimit::Bytes(131_072)));
        for bad in ["", "1", "16383", "268435456", "-1", "+131072", "1MB", "automatic"] {
            assert_eq!(bad.parse::<PayloadLimit>(), Err(PayloadLimitError), "{bad}");
        }
    }

    #[test]
    fn pieces_and_messages_fit_the_limit() {
        let limits = Limits::default();
        assert_eq!((limits.message_bytes_max, limits.chunk_bytes), (1_047_040, 262_144));
        assert!(limits.fits(1_047_040) && !limits.fits(1_047_041));
        for limit in [16 << 10, 128 << 10, 256 << 10, 1 << 20, PayloadLimit::BYTES_MAX] {
            let limits = Limits::of(limit);
            assert!(limits.chunk_bytes <= limit - 1024, "{limits:?}");
            assert!(limits.message_bytes_max + FORWARD_TAIL_LEN_MAX + 1024 <= limit as usize);
        }
    }

    /// 100 million parameters in f32 go over every broker that is known.
    #[test]
    fn whatever_the_limit_pieces_and_manifest_of_a_large_blob_fit() {
        for limit in [128 << 10, 256 << 10, 1 << 20, 2 << 20] {
            let limits = Limits::of(limit);
            for bytes in [1, 1 << 20, 300 << 20, 400_000_000] {
                // AWS's 128 KB do for 360 MB; for more there is no manifest.
                let Ok(chunk_bytes) = limits.chunk_bytes_for(bytes) else {
                    assert_eq!((limit, bytes), (128 << 10, 400_000_000));
                    continue;
                };
                assert!(chunk_bytes <= limit - 1024 && chunk_bytes >= limits.chunk_bytes);
                let count = usize::try_from(bytes.div_ceil(chunk_bytes.into())).unwrap();
                let digest = Digest::of(b"x");
                let format = Format::safetensors();
                let digests = vec![digest; count];
                let blob = Manifest::new(digest, bytes, chunk_bytes, digests, format).unwrap();
                let version = ModelVersion(u64::MAX);
                let len = ModelBlob { version, blob }.seal().payload.len();
                assert!(limits.fits(len), "{len} bytes for {bytes} at {limit}");
            }
        }
        let huge = Limits::default().chunk_bytes_for(u64::MAX);
        assert!(matches!(huge, Err(ManifestError::TooLarge { .. })), "{huge:?}");
    }
}
