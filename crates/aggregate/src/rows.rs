//! Where updates are read from: memory, bytes as they came, or anything that reads a block.

use std::{io, ops::Range};

use crate::{
    AggregateError, Element,
    element::{bytes_mut, view},
};

/// Vectors of one length, read a block at a time: updates, models, states.
///
/// A row has to read the same each time: rules that need several passes read it again.
pub trait Rows<T: Element>: Sync {
    /// How many rows.
    fn count(&self) -> usize;

    /// Elements of each row.
    fn width(&self) -> usize;

    /// The elements in `range` of a row: where they lie if they can be lent, else in `scratch`.
    fn read<'a>(
        &'a self,
        row: usize,
        range: Range<usize>,
        scratch: &'a mut Vec<T>,
    ) -> io::Result<&'a [T]>;
}

/// Rows in memory, lent without a copy.
#[derive(Clone, Copy, Debug)]
pub struct Slices<'a, T>(&'a [&'a [T]]);

impl<'a, T> Slices<'a, T> {
    /// Rows of one length.
    pub fn new(rows: &'a [&'a [T]]) -> Result<Self, AggregateError> {
        let expected = rows.first().map_or(0, |row| row.len());
        match rows.iter().position(|row| row.len() != expected) {
            Some(index) => Err(AggregateError::Shape { index, found: rows[index].len(), expected }),
            None => Ok(Self(rows)),
        }
    }
}

impl<T: Element> Rows<T> for Slices<'_, T> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn width(&self) -> usize {
        self.0.first().map_or(0, |row| row.len())
    }

    fn read<'a>(
        &'a self,
        row: usize,
        range: Range<usize>,
        _: &'a mut Vec<T>,
    ) -> io::Result<&'a [T]> {
        self.0[row].get(range).ok_or_else(|| short(row))
    }
}

/// Rows as the little-endian bytes that they came in, aligned or not.
#[derive(Clone, Copy, Debug)]
pub struct LeBytes<'a>(Slices<'a, u8>);

impl<'a> LeBytes<'a> {
    /// Rows of one length, in bytes.
    pub fn new(rows: &'a [&'a [u8]]) -> Result<Self, AggregateError> {
        Slices::new(rows).map(Self)
    }
}

impl<T: Element> Rows<T> for LeBytes<'_> {
    fn count(&self) -> usize {
        self.0.0.len()
    }

    fn width(&self) -> usize {
        self.0.0.first().map_or(0, |row| row.len() / T::BYTES)
    }

    fn read<'a>(
        &'a self,
        row: usize,
        range: Range<usize>,
        scratch: &'a mut Vec<T>,
    ) -> io::Result<&'a [T]> {
        let bytes = range.start * T::BYTES..range.end * T::BYTES;
        let bytes = self.0.0[row].get(bytes).ok_or_else(|| short(row))?;
        if let Some(elements) = view(bytes) {
            return Ok(elements);
        }
        scratch.clear();
        scratch.extend(bytes.chunks_exact(T::BYTES).map(T::from_le));
        Ok(scratch)
    }
}

/// Something that fills a buffer from a place in a row: a file, mostly.
pub trait ReadAt: Sync {
    fn read_at(&self, row: usize, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Rows of little-endian elements behind a [`ReadAt`].
#[derive(Clone, Copy, Debug)]
pub struct Stored<R> {
    pub source: R,
    pub count: usize,
    pub width: usize,
}

impl<T: Element, R: ReadAt> Rows<T> for Stored<R> {
    fn count(&self) -> usize {
        self.count
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read<'a>(
        &'a self,
        row: usize,
        range: Range<usize>,
        scratch: &'a mut Vec<T>,
    ) -> io::Result<&'a [T]> {
        scratch.resize(range.len(), T::ZERO);
        let offset_bytes = range.start as u64 * T::BYTES as u64;
        self.source.read_at(row, offset_bytes, bytes_mut(scratch))?;
        scratch.iter_mut().for_each(|element| *element = element.reread_le());
        Ok(scratch)
    }
}

/// Some of the rows, in another order.
pub(crate) struct Chosen<'a, T> {
    pub(crate) rows: &'a dyn Rows<T>,
    pub(crate) chosen: &'a [usize],
}

impl<T: Element> Rows<T> for Chosen<'_, T> {
    fn count(&self) -> usize {
        self.chosen.len()
    }

    fn width(&self) -> usize {
        self.rows.width()
    }

    fn read<'a>(
        &'a self,
        row: usize,
        range: Range<usize>,
        scratch: &'a mut Vec<T>,
    ) -> io::Result<&'a [T]> {
        self.rows.read(self.chosen[row], range, scratch)
    }
}

/// Whether a row had to be made, in the buffer given.
pub(crate) enum Row {
    Made,
    AsItIs,
}

/// Rows of which some are made out of the others' and of more.
pub(crate) struct Remade<'a, T, F> {
    pub(crate) rows: &'a dyn Rows<T>,
    pub(crate) make: F,
}

impl<T, F> Rows<T> for Remade<'_, T, F>
where
    T: Element,
    F: Fn(usize, Range<usize>, &mut Vec<T>) -> io::Result<Row> + Sync,
{
    fn count(&self) -> usize {
        self.rows.count()
    }

    fn width(&self) -> usize {
        self.rows.width()
    }

    fn read<'a>(
        &'a self,
        row: usize,
        range: Range<usize>,
        scratch: &'a mut Vec<T>,
    ) -> io::Result<&'a [T]> {
        match (self.make)(row, range.clone(), scratch)? {
            Row::Made => Ok(scratch),
            Row::AsItIs => self.rows.read(row, range, scratch),
        }
    }
}

fn short(row: usize) -> io::Error {
    let text = format!("row {row} is shorter than the first");
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}
