//! Which pieces are there.

/// One bit a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: u32,
    set: u32,
}

impl Bitmap {
    /// For `len` pieces, none of which is there.
    pub fn empty(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len, set: 0 }
    }

    /// For `len` pieces, all of which are there.
    pub fn full(len: u32) -> Self {
        let mut bitmap = Self::empty(len);
        (0..len).for_each(|index| bitmap.insert(index));
        bitmap
    }

    /// How many pieces there are in all.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is nothing to hold at all.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many are there.
    pub const fn count(&self) -> u32 {
        self.set
    }

    pub const fn is_full(&self) -> bool {
        self.set == self.len
    }

    /// False also for pieces that cannot be.
    pub fn contains(&self, index: u32) -> bool {
        index < self.len && self.words[index as usize / 64] & bit(index) != 0
    }

    /// Pieces that cannot be are ignored.
    pub fn insert(&mut self, index: u32) {
        if index < self.len && !self.contains(index) {
            self.words[index as usize / 64] |= bit(index);
            self.set += 1;
        }
    }

    pub fn remove(&mut self, index: u32) {
        if self.contains(index) {
            self.words[index as usize / 64] &= !bit(index);
            self.set -= 1;
        }
    }

    /// Those that are not there, in order.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len).filter(|index| !self.contains(*index))
    }
}

const fn bit(index: u32) -> u64 {
    1 << (index % 64)
}
