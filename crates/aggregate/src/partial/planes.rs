//! The exact sums of a strip of coordinates: one `f64` each, and more where one is not enough.

use crate::{
    Element, exact,
    linear::{Cut, Half, STRIP, Sums, two_sum},
    simd::{Vectorised, dispatch},
};

/// A plane with more entries than this is kept whole.
const SPARSE_MAX: usize = STRIP / 8;
/// Planes that a sum goes down through before it is put in order.
const PLANES_USUAL: usize = 3;

/// The first plane is kept whole; a coordinate's sum is that of its values in all planes.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    top: Vec<f64>,
    lower: Vec<Plane>,
}

#[derive(Clone, Debug)]
enum Plane {
    /// Sorted by coordinate.
    Sparse(Vec<(u16, f64)>),
    Whole(Vec<f64>),
}

impl Planes {
    pub(super) fn new(len: usize) -> Self {
        Self { top: vec![0.0; len], lower: vec![] }
    }

    pub(super) fn len(&self) -> usize {
        self.top.len()
    }

    pub(super) fn bytes_held(&self) -> usize {
        let lower = self.lower.iter().map(|plane| match plane {
            Plane::Sparse(entries) => entries.capacity() * size_of::<(u16, f64)>(),
            Plane::Whole(values) => values.capacity() * size_of::<f64>(),
        });
        size_of::<Self>() + self.top.capacity() * size_of::<f64>() + lower.sum::<usize>()
    }

    /// Adds an update's part, as often as the cuts of its weight say.
    pub(super) fn add<T: Element>(&mut self, values: &[T], cuts: &[Cut]) {
        let mut lost = [0.0; STRIP];
        for cut in cuts {
            for half in T::halves() {
                let terms = Terms { values, weight: cut.weight, half: *half };
                self.take(terms, &mut lost);
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let mut lost = [0.0; STRIP];
        let terms = Terms { values: &other.top, weight: 1.0, half: Half::All };
        self.take(terms, &mut lost);
        for plane in &other.lower {
            plane.entries().for_each(|(at, value)| self.push(at, value));
        }
    }

    fn take<T: Element>(&mut self, terms: Terms<'_, T>, lost: &mut [f64; STRIP]) {
        if dispatch(Fold { terms, top: &mut self.top, lost }) {
            for (at, lost) in
                lost[..self.top.len()].iter().enumerate().filter(|(_, it)| **it != 0.0)
            {
                self.push_below(at, *lost);
            }
        }
    }

    /// Adds a value to one coordinate.
    pub(super) fn push(&mut self, at: usize, value: f64) {
        let (sum, lost) = two_sum(self.top[at], value);
        self.top[at] = sum;
        if lost != 0.0 {
            self.push_below(at, lost);
        }
    }

    fn push_below(&mut self, at: usize, value: f64) {
        let mut rest = value;
        let len = self.top.len();
        for plane in &mut self.lower {
            let (sum, lost) = two_sum(plane.get(at), rest);
            plane.set(at, sum, len);
            rest = lost;
            if rest == 0.0 {
                return;
            }
        }
        if self.lower.len() + 1 < PLANES_USUAL {
            self.set(1 + self.lower.len(), at, rest);
        } else {
            self.put_in_order(at, rest);
        }
    }

    /// Writes a coordinate's sum with as few values as can be, the greatest first: each is what is
    /// left, rounded.
    fn put_in_order(&mut self, at: usize, more: f64) {
        let mut parts = self.parts(at);
        parts.push(more);
        let parts = expansion(&parts);
        for plane in 0..parts.len().max(1 + self.lower.len()) {
            self.set(plane, at, parts.get(plane).copied().unwrap_or(0.0));
        }
    }

    pub(super) fn set(&mut self, plane: usize, at: usize, value: f64) {
        let Some(below) = plane.checked_sub(1) else {
            self.top[at] = value;
            return;
        };
        while self.lower.len() <= below {
            self.lower.push(Plane::Sparse(vec![]));
        }
        self.lower[below].set(at, value, self.top.len());
    }

    /// A coordinate's values, that of the first plane first.
    pub(super) fn parts(&self, at: usize) -> Vec<f64> {
        std::iter::once(self.top[at]).chain(self.lower.iter().map(|plane| plane.get(at))).collect()
    }

    /// The sums, for a kernel to divide; those of more than two values are marked.
    pub(super) fn load(&self, sums: &mut Sums) {
        sums.load(&self.top);
        for (index, plane) in self.lower.iter().enumerate() {
            for (at, value) in plane.entries() {
                if index == 0 { sums.load_low(at, value) } else { sums.load_unknown(at) }
            }
        }
    }

    /// The least way of writing these sums, which is one for each set of updates: the top values,
    /// and of each further plane its entries.
    pub(super) fn canonical(&self) -> (Vec<f64>, Vec<Vec<(u16, f64)>>) {
        let mut top = self.top.clone();
        let mut lower: Vec<Vec<(u16, f64)>> = vec![];
        let mut spilled: Vec<usize> =
            self.lower.iter().flat_map(|plane| plane.entries().map(|(at, _)| at)).collect();
        spilled.sort_unstable();
        spilled.dedup();
        for at in spilled {
            let parts = expansion(&self.parts(at));
            top[at] = parts.first().copied().unwrap_or(0.0);
            for (index, part) in parts.iter().skip(1).enumerate() {
                if lower.len() <= index {
                    lower.push(vec![]);
                }
                lower[index].push((at as u16, *part));
            }
        }
        (top, lower)
    }
}

/// The sum of finite numbers as few numbers, each the rest rounded.
fn expansion(parts: &[f64]) -> Vec<f64> {
    let mut found: Vec<f64> = vec![];
    loop {
        let terms = parts.iter().map(|part| (*part, 1));
        let taken = found.iter().map(|part| (*part, -1));
        let next: f64 = exact::weighted_mean(terms.chain(taken), 1);
        if next == 0.0 {
            return found;
        }
        found.push(next);
    }
}

impl Plane {
    fn get(&self, at: usize) -> f64 {
        match self {
            Self::Sparse(entries) => {
                let place = entries.binary_search_by_key(&at, |(at, _)| usize::from(*at));
                place.map_or(0.0, |place| entries[place].1)
            }
            Self::Whole(values) => values[at],
        }
    }

    fn set(&mut self, at: usize, value: f64, len: usize) {
        match self {
            Self::Sparse(entries) => {
                match entries.binary_search_by_key(&at, |(at, _)| usize::from(*at)) {
                    Ok(place) if value == 0.0 => {
                        entries.remove(place);
                    }
                    Ok(place) => entries[place].1 = value,
                    Err(_) if value == 0.0 => {}
                    Err(place) => entries.insert(place, (at as u16, value)),
                }
                if entries.len() > SPARSE_MAX {
                    let mut values = vec![0.0; len];
                    entries.iter().for_each(|(at, value)| values[usize::from(*at)] = *value);
                    *self = Self::Whole(values);
                }
            }
            Self::Whole(values) => values[at] = value,
        }
    }

    /// What is not zero, by coordinate.
    fn entries(&self) -> Box<dyn Iterator<Item = (usize, f64)> + '_> {
        match self {
            Self::Sparse(entries) => {
                Box::new(entries.iter().map(|(at, value)| (usize::from(*at), *value)))
            }
            Self::Whole(values) => {
                Box::new(values.iter().copied().enumerate().filter(|(_, value)| *value != 0.0))
            }
        }
    }
}

/// Exact products: a half of each value, times a piece of a weight.
#[derive(Clone, Copy)]
struct Terms<'a, T> {
    values: &'a [T],
    weight: f64,
    half: Half,
}

/// Adds terms to sums, and keeps what each addition lost; tells whether any did.
struct Fold<'a, T> {
    terms: Terms<'a, T>,
    top: &'a mut [f64],
    lost: &'a mut [f64; STRIP],
}

impl<T: Element> Vectorised for Fold<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Terms { values, weight, half } = self.terms;
        let mut any = false;
        for ((sum, lost), value) in self.top.iter_mut().zip(self.lost).zip(values) {
            let (total, loss) = two_sum(*sum, half.of(value.to_f64()) * weight);
            *sum = total;
            *lost = loss;
            any |= loss != 0.0;
        }
        any
    }
}
