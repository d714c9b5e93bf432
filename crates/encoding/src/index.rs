//! Which places of a tensor were sent: written in order, checked once, read from any place on.
//!
//! The two forms are described at the stage `topk`.

use std::ops::Range;

use crate::{DecodeError, ReadAt};

/// Bytes between two stops, and bytes read at once.
const PIECE_LEN: usize = 1024;

const RANGE: &str = "names a place that does not exist";
const OVERLONG: &str = "has a number of more bytes than it takes";
const CUT: &str = "ends within a number";
const COUNT: &str = "has not as many places as there are values";
const LONG: &str = "is longer than a bitmap";

/// Length of the longest index of so many places: a bitmap's.
pub(crate) const fn len_max(count: usize) -> usize {
    count.div_ceil(8)
}

/// What to say of an index that needs not be looked at.
pub(crate) fn too_long(name: &str) -> DecodeError {
    IndexError::What(LONG).of(name)
}

/// An index under construction.
#[derive(Debug)]
pub(crate) struct IndexWriter {
    form: Form,
    count: usize,
    next: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Gaps,
    Bitmap,
}

impl IndexWriter {
    pub(crate) const fn new(count: usize) -> Self {
        Self { form: Form::Gaps, count, next: 0, bytes: vec![] }
    }

    /// Notes a place behind the last one.
    pub(crate) fn push(&mut self, place: usize) {
        assert!((self.next..self.count).contains(&place), "places come in order");
        if self.form == Form::Bitmap {
            self.bytes[place / 8] |= 1 << (place % 8);
        } else {
            let mut gap = place - self.next;
            while gap >= 0x80 {
                self.bytes.push(gap as u8 | 0x80);
                gap >>= 7;
            }
            self.bytes.push(gap as u8);
        }
        self.next = place + 1;
        if self.form == Form::Gaps && self.bytes.len() >= len_max(self.count) {
            self.turn();
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// What are gaps becomes a bitmap.
    fn turn(&mut self) {
        let mut bitmap = vec![0; len_max(self.count)];
        let mut walk = Walk::new(Form::Gaps, self.count, 0);
        for byte in &self.bytes {
            let fed = walk.feed(*byte, &mut |place: usize| bitmap[place / 8] |= 1 << (place % 8));
            fed.expect("gaps of one's own are good");
        }
        self.bytes = bitmap;
        self.form = Form::Bitmap;
    }
}

/// A checked index, which stays where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    form: Form,
    at: u64,
    len: usize,
    count: usize,
    stops: Vec<Stop>,
}

/// A place to begin reading at.
#[derive(Clone, Copy, Debug)]
struct Stop {
    byte: usize,
    /// The first place that can be named from here on.
    next: usize,
    /// Values before it.
    values: usize,
}

impl Index {
    /// Checks the `len` bytes at `at`: they name `values` of `count` places.
    pub(crate) fn check(
        file: &dyn ReadAt,
        (at, len): (u64, usize),
        count: usize,
        values: usize,
    ) -> Result<Self, IndexError> {
        let form = if len == len_max(count) { Form::Bitmap } else { Form::Gaps };
        let mut stops = vec![];
        let mut walk = Walk::new(form, count, 0);
        let mut found = 0;
        let mut last_stop = 0;
        pieces(file, at, 0..len, |from, piece| {
            for (byte, content) in piece.iter().enumerate() {
                let byte = from + byte;
                if walk.is_between() && (byte == 0 || byte - last_stop >= PIECE_LEN) {
                    last_stop = byte;
                    stops.push(Stop { byte, next: walk.next, values: found });
                }
                walk.feed(*content, &mut |_| found += 1).map_err(IndexError::What)?;
            }
            Ok(true)
        })?;
        if !walk.is_between() {
            return Err(IndexError::What(CUT));
        }
        if found != values {
            return Err(IndexError::What(COUNT));
        }
        Ok(Self { form, at, len, count, stops })
    }

    /// Gives the places in `range` in batches, each with the number of values before it.
    pub(crate) fn visit(
        &self,
        file: &dyn ReadAt,
        range: Range<usize>,
        mut each: impl FnMut(usize, &[usize]) -> Result<(), DecodeError>,
    ) -> Result<(), IndexError> {
        let after = self.stops.partition_point(|stop| stop.next <= range.start);
        let Some(stop) = after.checked_sub(1).and_then(|at| self.stops.get(at)) else {
            return Ok(());
        };
        let mut walk = Walk::new(self.form, self.count, stop.next);
        let mut before = stop.values;
        let mut batch = vec![];
        pieces(file, self.at, stop.byte..self.len, |_, piece| {
            let mut take = |place: usize| {
                if place < range.start {
                    before += 1;
                } else if place < range.end {
                    batch.push(place);
                }
            };
            for byte in piece {
                walk.feed(*byte, &mut take).map_err(IndexError::What)?;
            }
            if !batch.is_empty() {
                each(before, &batch).map_err(IndexError::Decode)?;
                before += batch.len();
                batch.clear();
            }
            Ok(walk.next < range.end)
        })
    }
}

/// What is wrong with an index; whose it is, the caller knows.
#[derive(Debug)]
pub(crate) enum IndexError {
    What(&'static str),
    Decode(DecodeError),
}

impl IndexError {
    pub(crate) fn of(self, name: &str) -> DecodeError {
        match self {
            Self::What(what) => DecodeError::Index { name: name.to_owned(), what },
            Self::Decode(why) => why,
        }
    }
}

/// Reads a range of bytes piece by piece, until it is told that this is enough.
fn pieces(
    file: &dyn ReadAt,
    at: u64,
    range: Range<usize>,
    mut each: impl FnMut(usize, &[u8]) -> Result<bool, IndexError>,
) -> Result<(), IndexError> {
    let mut buffer = [0; PIECE_LEN];
    for from in range.clone().step_by(PIECE_LEN) {
        let piece = &mut buffer[..PIECE_LEN.min(range.end - from)];
        let read = file.read_at(at + from as u64, piece);
        read.map_err(|why| IndexError::Decode(why.into()))?;
        if !each(from, piece)? {
            break;
        }
    }
    Ok(())
}

/// Turns bytes into places, one byte at a time.
#[derive(Debug)]
struct Walk {
    form: Form,
    count: usize,
    next: usize,
    gap: u64,
    shift: u32,
}

impl Walk {
    const fn new(form: Form, count: usize, next: usize) -> Self {
        Self { form, count, next, gap: 0, shift: 0 }
    }

    /// Whether the last byte ended a number.
    const fn is_between(&self) -> bool {
        self.shift == 0
    }

    fn feed(&mut self, byte: u8, emit: &mut impl FnMut(usize)) -> Result<(), &'static str> {
        match self.form {
            Form::Gaps => self.feed_gap(byte, emit),
            Form::Bitmap => self.feed_bits(byte, emit),
        }
    }

    fn feed_gap(&mut self, byte: u8, emit: &mut impl FnMut(usize)) -> Result<(), &'static str> {
        if self.shift > 0 && byte == 0 {
            return Err(OVERLONG);
        }
        if self.shift > 56 {
            return Err(RANGE);
        }
        self.gap |= u64::from(byte & 0x7f) << self.shift;
        if byte & 0x80 != 0 {
            self.shift += 7;
            return Ok(());
        }
        let gap = usize::try_from(self.gap).map_err(|_| RANGE)?;
        let place = self.next.checked_add(gap).filter(|place| *place < self.count);
        let place = place.ok_or(RANGE)?;
        emit(place);
        (self.next, self.gap, self.shift) = (place + 1, 0, 0);
        Ok(())
    }

    fn feed_bits(&mut self, byte: u8, emit: &mut impl FnMut(usize)) -> Result<(), &'static str> {
        let mut bits = byte;
        while bits != 0 {
            let place = self.next + bits.trailing_zeros() as usize;
            if place >= self.count {
                return Err(RANGE);
            }
            emit(place);
            bits &= bits - 1;
        }
        self.next += 8;
        Ok(())
    }
}
