//! How the work is cut: blocks of coordinates, taken by as many threads as the caller grants.
//!
//! Nothing that is computed may depend on the cut. Sums that go on from block to block are taken
//! over [`SEGMENTS`] fixed parts of the coordinates instead, and put together in their order.
//!
//! This is the one place in a core that starts threads: as many as the caller grants, none where it
//! grants one, and all are gone when the call returns. So it stays a function of its arguments.

use std::{
    io,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{AggregateError, Element, Rows, RunError};

/// Coordinates in a block where the caller has no wish.
const BLOCK_DEFAULT: usize = 1 << 16;
/// Blocks begin at multiples of this, so that no kernel's chunks straddle two.
pub(crate) const CHUNK: usize = 1024;
/// Parts of the coordinates that are summed each by itself, whatever the threads: a constant, for
/// the sums must not depend on the machine.
pub(crate) const SEGMENTS: usize = 16;

/// The threads and the memory that an aggregation may take: about `block` elements of each update
/// in each thread, where they are not in memory already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub threads: usize,
    pub block: usize,
}

impl Default for Work {
    fn default() -> Self {
        Self { threads: 1, block: BLOCK_DEFAULT }
    }
}

impl Work {
    /// The usual blocks, on so many threads.
    pub fn threads(threads: usize) -> Self {
        Self { threads, ..Self::default() }
    }

    fn block(&self) -> usize {
        self.block.clamp(1, usize::MAX - CHUNK).next_multiple_of(CHUNK)
    }

    /// Runs one closure on each thread; the calling thread is one of them.
    fn crew(&self, jobs: usize, run: impl Fn() + Sync) {
        let others = self.threads.min(jobs).saturating_sub(1);
        thread::scope(|scope| {
            for _ in 0..others {
                scope.spawn(&run);
            }
            run();
        });
    }
}

/// Where results go that are never whole in memory. Blocks come in any order, from any thread.
pub trait Sink<T>: Sync {
    /// `vector` 0 is the model, 1 and on are the state's vectors.
    fn write(&self, vector: usize, start: usize, values: &[T]) -> io::Result<()>;
}

/// Where the result goes: the model, then each vector of the state.
pub enum Out<'a, T> {
    /// One slice for each, as long as an update.
    Slices(Vec<&'a mut [T]>),
    /// Out block by block, so many `vectors` in all.
    Sink { sink: &'a dyn Sink<T>, vectors: usize },
}

impl<T> Out<'_, T> {
    pub(crate) fn check(&self, vectors: usize, width: usize) -> Result<(), AggregateError> {
        let found = match self {
            Self::Slices(slices) => slices.len(),
            Self::Sink { vectors, .. } => *vectors,
        };
        if found != vectors {
            return Err(AggregateError::Outputs { found, expected: vectors });
        }
        if let Self::Slices(slices) = self
            && let Some(slice) = slices.iter().find(|slice| slice.len() != width)
        {
            return Err(AggregateError::OutputWidth { found: slice.len(), expected: width });
        }
        Ok(())
    }
}

impl<T> std::fmt::Debug for Out<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Slices(_) => "slices",
            Self::Sink { .. } => "a sink",
        })
    }
}

/// What is left to do, and the first thing that went wrong. In a mutex because slices are split
/// off it by whichever thread is free; it is held for no longer than that takes.
struct Queue<'a, T> {
    next: usize,
    slices: Vec<&'a mut [T]>,
    failed: Option<(usize, RunError)>,
}

/// Calls `job` for each block of `0..width` with where to put its results; the blocks are given
/// out in order. The error is that of the first block that fails.
pub(crate) fn each_block<'a, T: Element, S>(
    work: &Work,
    width: usize,
    out: Out<'a, T>,
    scratch: impl Fn() -> S + Sync,
    job: impl Fn(Range<usize>, &mut [&mut [T]], &mut S) -> Result<(), RunError> + Sync,
) -> Result<(), RunError> {
    let block = work.block();
    let (slices, sink) = match out {
        Out::Slices(slices) => (slices, None),
        Out::Sink { sink, vectors } => (vec![], Some((sink, vectors))),
    };
    let queue = Mutex::new(Queue { next: 0, slices, failed: None });
    work.crew(width.div_ceil(block), || {
        let mut scratch = scratch();
        let mut own = vec![vec![T::ZERO; block.min(width)]; sink.map_or(0, |(_, vectors)| vectors)];
        while let Some((range, mut slices)) = take(&queue, block, width) {
            let result = match sink {
                None => job(range.clone(), &mut slices, &mut scratch),
                Some((sink, _)) => {
                    let mut parts: Vec<_> =
                        own.iter_mut().map(|vector| &mut vector[..range.len()]).collect();
                    job(range.clone(), &mut parts, &mut scratch)
                        .and_then(|()| put(sink, range.start, &parts))
                }
            };
            if let Err(error) = result {
                fail(&queue, range.start, error);
            }
        }
    });
    let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    queue.failed.map_or(Ok(()), |(_, error)| Err(error))
}

/// Calls `job` for each run of up to `count` of the items, with the place of its first.
pub(crate) fn each_part<I: Send>(
    work: &Work,
    items: &mut [I],
    count: usize,
    job: impl Fn(usize, &mut [I]) -> Result<(), RunError> + Sync,
) -> Result<(), RunError> {
    let parts = items.len().div_ceil(count);
    // Both are held for no longer than it takes to split a part off, or to leave a word.
    let queue = Mutex::new(items.chunks_mut(count).enumerate());
    let failed: Mutex<Option<(usize, RunError)>> = Mutex::new(None);
    work.crew(parts, || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, part)) = next else { return };
            if let Err(error) = job(index * count, part) {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.as_ref().is_none_or(|(first, _)| index < *first) {
                    *failed = Some((index, error));
                }
            }
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), |(_, error)| Err(error))
}

fn put<T>(sink: &dyn Sink<T>, start: usize, parts: &[&mut [T]]) -> Result<(), RunError> {
    for (vector, part) in parts.iter().enumerate() {
        sink.write(vector, start, part).map_err(|source| RunError::Write { vector, source })?;
    }
    Ok(())
}

type Block<'a, T> = (Range<usize>, Vec<&'a mut [T]>);

fn take<'a, T>(queue: &Mutex<Queue<'a, T>>, block: usize, width: usize) -> Option<Block<'a, T>> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    let start = queue.next;
    if start >= width || queue.failed.is_some() {
        return None;
    }
    let len = block.min(width - start);
    queue.next = start + len;
    let split = |slice: &mut &'a mut [T]| {
        let (head, tail) = std::mem::take(slice).split_at_mut(len);
        *slice = tail;
        head
    };
    Some((start..start + len, queue.slices.iter_mut().map(split).collect()))
}

fn fail<T>(queue: &Mutex<Queue<'_, T>>, start: usize, error: RunError) {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    if queue.failed.as_ref().is_none_or(|(first, _)| start < *first) {
        queue.failed = Some((start, error));
    }
}

/// The sums of a segment, once it is done.
type Segment = Option<Result<Vec<f64>, RunError>>;

/// Sums over all coordinates, of `sums` numbers at once: `job` adds what a block of up to
/// [`Work::block`] coordinates contributes, in the order of the blocks within each segment.
pub(crate) fn sum_segments<S>(
    work: &Work,
    width: usize,
    sums: usize,
    scratch: impl Fn() -> S + Sync,
    job: impl Fn(Range<usize>, &mut [f64], &mut S) -> Result<(), RunError> + Sync,
) -> Result<Vec<f64>, RunError> {
    let segment = width.div_ceil(SEGMENTS).next_multiple_of(CHUNK);
    let block = work.block();
    let next = AtomicUsize::new(0);
    // Each segment's result waits for the others in its own place; one thread writes each.
    let done: Vec<Mutex<Segment>> = (0..SEGMENTS).map(|_| Mutex::new(None)).collect();
    work.crew(SEGMENTS.min(width.div_ceil(CHUNK)), || {
        let mut scratch = scratch();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(place) = done.get(index) else { return };
            let (mut start, end) =
                ((index * segment).min(width), ((index + 1) * segment).min(width));
            let mut own = vec![0.0; sums];
            let mut result = Ok(());
            while start < end && result.is_ok() {
                let stop = end.min(start + block);
                result = job(start..stop, &mut own, &mut scratch);
                start = stop;
            }
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.map(|()| own));
        }
    });
    let mut total = vec![0.0; sums];
    for place in done {
        let part = place.into_inner().unwrap_or_else(PoisonError::into_inner);
        let part = part.expect("every segment was given out")?;
        total.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    Ok(total)
}

/// Buffers for a block of each row; rows that lie in memory leave theirs empty.
pub(crate) struct Buffers<T>(Vec<Vec<T>>);

impl<T: Element> Buffers<T> {
    pub(crate) fn new(rows: usize) -> Self {
        Self((0..rows).map(|_| vec![]).collect())
    }

    /// The same range of every row.
    pub(crate) fn read<'a>(
        &'a mut self,
        rows: &'a dyn Rows<T>,
        range: &Range<usize>,
    ) -> Result<Vec<&'a [T]>, RunError> {
        let read = |(row, scratch): (usize, &'a mut Vec<T>)| {
            let found = rows.read(row, range.clone(), scratch);
            let found = found.map_err(|source| RunError::Read { row, source })?;
            if found.len() == range.len() {
                return Ok(found);
            }
            let (found, expected) = (found.len(), range.len());
            Err(AggregateError::Shape { index: row, found, expected }.into())
        };
        self.0.iter_mut().enumerate().map(read).collect()
    }
}
