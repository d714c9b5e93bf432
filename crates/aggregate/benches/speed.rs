//! Aggregation beside a plain loop over the same memory, in the same run.
//!
//! `cargo bench -p aggregate [-- <word in a line's name>]`. Each line gives the best of a few
//! runs, and its ratio to the best of as many runs of the plain loop, taken in turn with them.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark measures and tells"
)]

use std::{hint::black_box, thread, time::Instant};

use aggregate::{Facts, Guard, Out, Round, STRATEGIES, Slices, Work, aggregate, weighted_mean};

const RUNS: usize = 11;

fn main() {
    // Cargo says so where it is asked for a benchmark, and not where it only tests.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    for (rows, width) in [(10, 1_000_000), (10, 10_000_000), (100, 1_000_000)] {
        shape(rows, width, &filter);
    }
}

fn shape(count: usize, width: usize, filter: &str) {
    let model: Vec<Vec<f32>> = (0..count).map(|row| normal(width, row as u64)).collect();
    let views: Vec<&[f32]> = model.iter().map(|row| &**row).collect();
    let rows = Slices::new(&views).unwrap();
    let work = Work::threads(2);
    let counts: Vec<u64> = (0..count as u64).map(|row| 400 + row * 37 % 211).collect();
    let equal = vec![1; count];
    println!("{count} updates of {width} f32, two threads");
    let beside = |name: &str, run: &mut dyn FnMut(&mut [f32])| {
        if name.contains(filter) {
            let (mut floor, mut least) = (f64::INFINITY, f64::INFINITY);
            let mut out = vec![0.0_f32; width];
            for _ in 0..RUNS {
                floor = floor.min(seconds(|| plain(&views, &counts, &mut out)));
                least = least.min(seconds(|| run(&mut out)));
            }
            black_box(&out);
            tell(name, least, floor);
        }
    };
    beside("mean", &mut |out| weighted_mean(&rows, &counts, &work, out).unwrap());
    beside("mean, equal counts", &mut |out| weighted_mean(&rows, &equal, &work, out).unwrap());
    new_memory(&views, &counts, filter);
    beside("mean, one thread", &mut |out| {
        weighted_mean(&rows, &counts, &Work::threads(1), out).unwrap();
    });
    let facts: Vec<Facts> = counts.iter().map(|n| Facts::new(*n)).collect();
    let base = vec![0.01_f32; width];
    let base = [&base[..]];
    let base = Slices::new(&base).unwrap();
    for strategy in STRATEGIES.iter().filter(|strategy| strategy.vectors.is_empty()) {
        let facts: Vec<Facts> = facts
            .iter()
            .map(|it| Facts { loss: Some(1.0), steps: Some(3), ..it.clone() })
            .collect();
        let round = Round { base: Some(&base), ..Round::new(&rows, &facts) };
        let aggregator = (strategy.build)();
        beside(strategy.name, &mut |out| {
            let out = Out::Slices(vec![out]);
            aggregate(&*aggregator, &Guard::default(), &round, &work, out).unwrap();
        });
    }
}

/// Both make room for what they answer, whose pages come one by one from the system.
fn new_memory(views: &[&[f32]], counts: &[u64], filter: &str) {
    let (name, width) = ("mean, new memory", views[0].len());
    if !name.contains(filter) {
        return;
    }
    let rows = Slices::new(views).unwrap();
    let (mut floor, mut least) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        floor = floor.min(seconds(|| {
            let mut out = vec![0.0; width];
            plain(views, counts, &mut out);
            black_box(&out);
        }));
        least = least.min(seconds(|| {
            let mut out = vec![0.0; width];
            weighted_mean(&rows, counts, &Work::threads(2), &mut out).unwrap();
            black_box(&out);
        }));
    }
    tell(name, least, floor);
}

fn tell(name: &str, least: f64, floor: f64) {
    let (ms, plain_ms, ratio) = (least * 1e3, floor * 1e3, least / floor);
    println!("  {name:<24}{ms:8.1} ms {ratio:7.2} x the plain loop's {plain_ms:.1} ms");
}

/// What anybody would write: each thread its half, strips that stay in the cache, `f32` sums.
fn plain(rows: &[&[f32]], weights: &[u64], out: &mut [f32]) {
    let total: u64 = weights.iter().sum();
    let half = out.len().div_ceil(2);
    thread::scope(|scope| {
        for (index, out) in out.chunks_mut(half).enumerate() {
            scope.spawn(move || {
                for (strip, out) in out.chunks_mut(4096).enumerate() {
                    let start = index * half + strip * 4096;
                    out.fill(0.0);
                    for (row, n) in rows.iter().zip(weights) {
                        let n = *n as f32 / total as f32;
                        for (sum, w) in out.iter_mut().zip(&row[start..]) {
                            *sum += n * w;
                        }
                    }
                }
            });
        }
    });
}

fn seconds(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

/// Numbers that look like a model's: the sum of four uniform ones, of variance about 0.003.
fn normal(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..len).map(|_| (uniform() + uniform() + uniform() + uniform()) * 0.1).collect()
}
