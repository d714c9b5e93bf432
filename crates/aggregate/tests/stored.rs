//! Updates that are never in memory: read block by block from files, written block by block.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs::File, io, io::Write, os::unix::fs::FileExt, sync::Mutex};

use aggregate::{
    Element, Facts, Guard, LeBytes, Out, ReadAt, Round, RunError, STRATEGIES, Sink, Slices, Stored,
    Work, aggregate, aggregate_in_memory, find,
};

mod fleet;

use fleet::Fleet;

const WIDTH: usize = 5000;
const COUNT: usize = 7;

struct Files(Vec<File>);

impl ReadAt for Files {
    fn read_at(&self, row: usize, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0[row].read_exact_at(buffer, offset_bytes)
    }
}

/// Keeps what comes, wherever it comes from.
struct Kept<T>(Mutex<Vec<Vec<T>>>);

impl<T: Element> Sink<T> for Kept<T> {
    fn write(&self, vector: usize, start: usize, values: &[T]) -> io::Result<()> {
        self.0.lock().unwrap()[vector][start..start + values.len()].copy_from_slice(values);
        Ok(())
    }
}

#[test]
fn files_and_sinks_give_the_bits_of_slices() {
    same::<f32>();
    same::<f64>();
}

fn same<T: Element>() {
    let fleet = Fleet::<T>::new(COUNT, WIDTH, 1);
    let stored = Stored { source: files(&fleet.updates), count: COUNT, width: WIDTH };
    for strategy in STRATEGIES {
        let aggregator = (strategy.build)();
        let guard = fleet.guard;
        let expected = fleet
            .with_round(|round| aggregate_in_memory(&*aggregator, &guard, round, &Work::default()))
            .unwrap();
        let vectors = 1 + strategy.vectors.len();
        let kept = Kept(Mutex::new(vec![vec![T::ZERO; WIDTH]; vectors]));
        fleet.with_round(|round| {
            let round = Round { updates: &stored, ..*round };
            let work = Work { threads: 2, block: 1024 };
            let out = Out::Sink { sink: &kept, vectors };
            aggregate(&*aggregator, &guard, &round, &work, out).unwrap();
        });
        let kept = kept.0.into_inner().unwrap();
        assert!(kept[0] == expected.weights, "{strategy:?}");
        for (found, (name, expected)) in kept[1..].iter().zip(&expected.state) {
            assert!(found == expected, "{strategy:?} {name}");
        }
    }
}

#[test]
fn bytes_need_no_alignment() {
    let fleet = Fleet::<f32>::new(COUNT, WIDTH, 2);
    let aggregator = (find("fedavg").unwrap().build)();
    let run = |round: &Round<'_, f32>| {
        aggregate_in_memory(&*aggregator, &Guard::default(), round, &Work::threads(2)).unwrap()
    };
    let expected = fleet.with_round(run);
    for shift in 0..4 {
        let shifted: Vec<Vec<u8>> =
            fleet.updates.iter().map(|row| [vec![0; shift], le(row)].concat()).collect();
        let rows: Vec<&[u8]> = shifted.iter().map(|bytes| &bytes[shift..]).collect();
        let rows = LeBytes::new(&rows).unwrap();
        let found = fleet.with_round(|round| run(&Round { updates: &rows, ..*round }));
        assert_eq!(found, expected);
    }
}

#[test]
fn a_file_that_ends_early_is_an_error_that_names_it() {
    let fleet = Fleet::<f32>::new(COUNT, WIDTH, 3);
    let source = files(&fleet.updates);
    source.0[4].set_len(WIDTH as u64 * 4 - 1).unwrap();
    let stored = Stored { source, count: COUNT, width: WIDTH };
    for strategy in STRATEGIES {
        let aggregator = (strategy.build)();
        let result = fleet.with_round(|round| {
            let round = Round { updates: &stored, ..*round };
            aggregate_in_memory(&*aggregator, &Guard::default(), &round, &Work::threads(2))
        });
        // Krum may choose others, but it has to look at all.
        assert!(matches!(result, Err(RunError::Read { row: 4, .. })), "{strategy:?}: {result:?}");
    }
}

#[test]
fn a_sink_that_fails_ends_the_aggregation() {
    struct Full;
    impl Sink<f32> for Full {
        fn write(&self, _: usize, start: usize, _: &[f32]) -> io::Result<()> {
            if start < 2048 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }
    }
    let row = vec![1.0; WIDTH];
    let views = [&row[..]];
    let rows = Slices::new(&views).unwrap();
    let facts = [Facts::new(1)];
    let aggregator = (find("fedavg").unwrap().build)();
    let work = Work { threads: 2, block: 1024 };
    let out = Out::Sink { sink: &Full, vectors: 1 };
    let round = Round::new(&rows, &facts);
    let result = aggregate(&*aggregator, &Guard::default(), &round, &work, out);
    assert!(matches!(result, Err(RunError::Write { vector: 0, .. })), "{result:?}");
}

fn files<T: Element>(rows: &[Vec<T>]) -> Files {
    let file = |row: &Vec<T>| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&le(row)).unwrap();
        file
    };
    Files(rows.iter().map(file).collect())
}

fn le<T: Element>(row: &[T]) -> Vec<u8> {
    let mut bytes = vec![];
    row.iter().for_each(|value| value.put_le(&mut bytes));
    bytes
}
