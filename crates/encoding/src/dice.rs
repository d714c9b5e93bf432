//! Random numbers that depend on a seed, a tensor's name and a place, and on nothing else.

use protocol::Digest;

/// The dice of one tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: &Digest, tensor: &str) -> Self {
        let digest = Digest::of_parts([&seed.as_bytes()[..], tensor.as_bytes()]);
        let (first, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        Self(u64::from_le_bytes(*first))
    }

    /// A multiple of 2^-24 in 0..1, each equally likely: number `place` of SplitMix64 (Steele, Lea,
    /// Flood, "Fast splittable pseudorandom number generators", 2014, figure 16), its upper bits.
    pub(crate) const fn unit(self, place: usize) -> f32 {
        let steps = (place as u64).wrapping_add(1);
        let z = self.0.wrapping_add(steps.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        (z >> 40) as f32 / (1 << 24) as f32
    }
}
