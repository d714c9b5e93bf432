//! Many short lists in one piece of memory: no list has room to spare, and what is taken out of one
//! makes room for another.

/// Values in lists that are told apart by [`List`].
#[derive(Debug)]
pub(super) struct Pool<T> {
    /// In pieces of the same length, so that it grows without being copied.
    pieces: Vec<Vec<Slot<T>>>,
    free: List,
}

/// A list of a pool, the newest first.
#[derive(Debug)]
pub(super) struct List(u32);

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    /// The place of the next in its list.
    next: u32,
}

/// The end of a list.
const NONE: u32 = u32::MAX;
const PIECE_BITS: u32 = 12;
const PIECE: usize = 1 << PIECE_BITS;

impl Default for List {
    fn default() -> Self {
        Self(NONE)
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { pieces: vec![], free: List::default() }
    }
}

impl<T> Pool<T> {
    pub(super) fn push(&mut self, list: &mut List, value: T) {
        let slot = Slot { value: Some(value), next: list.0 };
        if self.free.0 == NONE {
            list.0 = self.grow(slot);
        } else {
            list.0 = self.free.0;
            self.free.0 = std::mem::replace(self.slot(list.0), slot).next;
        }
    }

    pub(super) fn pop(&mut self, list: &mut List) -> Option<T> {
        if list.0 == NONE {
            return None;
        }
        let (place, free) = (list.0, self.free.0);
        let slot = self.slot(place);
        let value = slot.value.take();
        list.0 = std::mem::replace(&mut slot.next, free);
        self.free.0 = place;
        value
    }

    /// Makes room at the end; its place.
    fn grow(&mut self, slot: Slot<T>) -> u32 {
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let before = (self.pieces.len() - 1) << PIECE_BITS;
        let piece = self.pieces.last_mut().expect("one was put there");
        let place = before + piece.len();
        piece.push(slot);
        u32::try_from(place).expect("fewer than 2^32 events wait")
    }

    fn slot(&mut self, place: u32) -> &mut Slot<T> {
        &mut self.pieces[place as usize >> PIECE_BITS][place as usize % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_what_is_theirs_and_leave_no_room_behind() {
        let mut pool = Pool::default();
        let (mut evens, mut odds) = (List::default(), List::default());
        let count = 3 * PIECE as u64;
        for round in 0..3 {
            for n in 0..count {
                pool.push(if n % 2 == 0 { &mut evens } else { &mut odds }, (round, n));
            }
            let mut newest = (0..count).rev().filter(|n| n % 2 == 0);
            while let Some(value) = pool.pop(&mut evens) {
                assert_eq!(Some(value), newest.next().map(|n| (round, n)));
            }
            assert_eq!(newest.next(), None);
            assert!(std::iter::from_fn(|| pool.pop(&mut odds)).all(|(_, n)| n % 2 == 1));
            assert_eq!(pool.pieces.len(), 3, "what was freed is used again");
        }
    }
}
