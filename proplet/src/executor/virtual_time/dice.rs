//! Random bytes that come from a seed: SHA-256 over the seed and a counter.
//!
//! They pass for random in every test a guest can make, and are the same in every run.

use sha2::{Digest as _, Sha256};

const PURPOSE: &[u8] = b"virtual-time guest";

/// An endless stream of bytes.
#[derive(Debug)]
pub(super) struct Dice {
    seed: u64,
    blocks: u64,
    block: [u8; 32],
    taken: usize,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, blocks: 0, block: [0; 32], taken: 32 }
    }

    /// Fills with the next bytes of the stream.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.taken == self.block.len() {
                self.throw();
            }
            *byte = self.block[self.taken];
            self.taken += 1;
        }
    }

    /// The next eight bytes as a number.
    pub(super) fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn throw(&mut self) {
        let mut hasher = Sha256::new();
        hasher.update(PURPOSE);
        hasher.update(self.seed.to_le_bytes());
        hasher.update(self.blocks.to_le_bytes());
        self.block = hasher.finalize().into();
        self.blocks += 1;
        self.taken = 0;
    }
}
