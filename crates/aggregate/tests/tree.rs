//! Partial sums: taken in any order, put together in any tree, sent as bytes, and to the bit the
//! mean of all at once.

#![allow(clippy::unwrap_used, reason = "tests")]

use aggregate::{
    AggregateError, Element, NUM_SAMPLES_MAX, Out, Partial, PartialError, RunError, Slices, Work,
    weighted_mean,
};
use proptest::prelude::*;

const WIDTH: usize = 2500;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_order_and_no_tree_changes_a_bit(
        seed in any::<u64>(),
        counts in prop::collection::vec(prop_oneof![1..2000_u64, 1..=NUM_SAMPLES_MAX], 1..14),
        hostile in any::<bool>(),
    ) {
        let wide = rows(seed, counts.len(), hostile);
        let narrow: Vec<Vec<f32>> =
            wide.iter().map(|row| row.iter().map(|value| *value as f32).collect()).collect();
        tree(seed, &narrow, &counts);
        tree(seed, &wide, &counts);
    }
}

fn tree<T: Element>(seed: u64, rows: &[Vec<T>], counts: &[u64]) {
    let mut random = seeded(seed);
    let views: Vec<&[T]> = rows.iter().map(|row| &**row).collect();
    let mut flat = vec![T::ZERO; WIDTH];
    weighted_mean(&Slices::new(&views).unwrap(), counts, &Work::default(), &mut flat).unwrap();

    // Each update joins one of three branches; these are put together in a random order.
    let mut branches = vec![Partial::<T>::new(WIDTH); 3];
    let mut order: Vec<usize> = (0..rows.len()).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random() as usize % (at + 1));
    }
    let work = Work { threads: 1 + random() as usize % 3, block: 1 };
    for update in order {
        let row = [views[update]];
        let branch = &mut branches[random() as usize % 3];
        branch.add(&Slices::new(&row).unwrap(), counts[update], &work).unwrap();
    }
    while branches.len() > 1 {
        let taken = branches.swap_remove(random() as usize % branches.len());
        let sent = bytes(&taken);
        let received = Partial::<T>::read_from(WIDTH, &mut &*sent).unwrap();
        assert_eq!(bytes(&received), sent, "reading and writing again changes nothing");
        branches[0].merge(&received, &work).unwrap();
    }
    let root = &branches[0];
    assert_eq!(root.updates(), rows.len() as u64);
    assert_eq!(root.total_samples(), counts.iter().sum::<u64>());
    assert_same(&finish(root, &work), &flat);

    let mut straight = Partial::<T>::new(WIDTH);
    for (row, count) in views.iter().zip(counts) {
        straight.add(&Slices::new(&[row]).unwrap(), *count, &Work::default()).unwrap();
    }
    assert!(bytes(&straight) == bytes(root), "equal sums have equal bytes");
}

#[test]
fn memory_does_not_grow_with_the_updates() {
    let width = 100_000;
    let mut partial = Partial::<f32>::new(width);
    for seed in 0..50 {
        let mut random = seeded(seed);
        let row: Vec<f32> = (0..width).map(|_| (random() % 2001) as f32 * 1e-4 - 0.1).collect();
        partial.add(&Slices::new(&[&row]).unwrap(), 100 + seed, &Work::threads(2)).unwrap();
    }
    let held = partial.bytes_held();
    assert!(held < width * 10, "{held} bytes for {width} weights");
}

#[test]
fn hostile_magnitudes_take_bounded_memory() {
    let width = 4096;
    let mut partial = Partial::<f32>::new(width);
    for seed in 0..60 {
        let mut random = seeded(seed);
        let row: Vec<f32> =
            (0..width).map(|_| f32::from_bits(random() as u32 & 0xff7f_ffff)).collect();
        partial.add(&Slices::new(&[&row]).unwrap(), NUM_SAMPLES_MAX, &Work::default()).unwrap();
    }
    assert!(partial.bytes_held() < width * 80, "{}", partial.bytes_held());
}

#[test]
fn a_refused_update_leaves_no_trace() {
    let mut partial = Partial::<f32>::new(3000);
    let good = vec![0.25_f32; 3000];
    partial.add(&Slices::new(&[&good]).unwrap(), 7, &Work::default()).unwrap();
    let before = bytes(&partial);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut poison = good.clone();
        poison[2999] = bad;
        let error = partial.add(&Slices::new(&[&poison]).unwrap(), 7, &Work::threads(2));
        assert!(matches!(error, Err(RunError::Refused(AggregateError::NotFinite { index: 0 }))));
    }
    let row: [&[f32]; 1] = [&good];
    let row = Slices::new(&row).unwrap();
    for samples in [0, NUM_SAMPLES_MAX + 1] {
        assert!(partial.add(&row, samples, &Work::default()).is_err());
    }
    assert!(partial.add(&Slices::new(&[&good[1..]]).unwrap(), 7, &Work::default()).is_err());
    assert!(partial.merge(&Partial::new(2999), &Work::default()).is_err());
    assert_eq!(bytes(&partial), before);
    let mut large = Partial::<f64>::new(1);
    let error = large.add(&Slices::new(&[&[1e300]]).unwrap(), 1, &Work::default());
    assert!(matches!(error, Err(RunError::Refused(AggregateError::TooLarge { .. }))));
    let none = large.finish(&Work::default(), Out::Slices(vec![&mut [0.0]]));
    assert!(matches!(none, Err(RunError::Refused(AggregateError::Empty))));
}

#[test]
fn foreign_bytes_are_refused_and_never_panic() {
    let mut partial = Partial::<f32>::new(1100);
    for (row, count) in rows(9, 4, true).iter().zip(1..) {
        let row: Vec<f32> = row[..1100].iter().map(|value| *value as f32).collect();
        partial.add(&Slices::new(&[&row]).unwrap(), count, &Work::default()).unwrap();
    }
    let sent = bytes(&partial);
    let read = |bytes: &[u8]| Partial::<f32>::read_from(1100, &mut &*bytes);
    assert!(read(&sent).is_ok());
    assert!(matches!(
        Partial::<f64>::read_from(1100, &mut &*sent),
        Err(PartialError::Element { .. })
    ));
    assert!(matches!(Partial::<f32>::read_from(9, &mut &*sent), Err(PartialError::Width { .. })));
    for end in 0..sent.len() {
        assert!(read(&sent[..end]).is_err(), "cut at {end}");
    }
    let longer = [&sent[..], &[0]].concat();
    assert!(matches!(read(&longer), Err(PartialError::TooLong)));
    let mut random = seeded(1);
    for _ in 0..3000 {
        let mut broken = sent.clone();
        let at = random() as usize % broken.len();
        broken[at] ^= 1 << (random() % 8);
        if let Ok(read) = read(&broken) {
            let mut out = vec![0.0; 1100];
            if read.finish(&Work::default(), Out::Slices(vec![&mut out])).is_ok() {
                assert!(out.iter().all(|weight| weight.is_finite()));
            }
        }
    }
}

fn finish<T: Element>(partial: &Partial<T>, work: &Work) -> Vec<T> {
    let mut out = vec![T::ZERO; partial.width()];
    partial.finish(work, Out::Slices(vec![&mut out])).unwrap();
    out
}

fn bytes<T: Element>(partial: &Partial<T>) -> Vec<u8> {
    let mut bytes = vec![];
    partial.write_to(&mut bytes).unwrap();
    bytes
}

fn assert_same<T: Element>(found: &[T], expected: &[T]) {
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let (found, expected) = (found.to_f64(), expected.to_f64());
        assert_eq!(found.to_bits(), expected.to_bits(), "at {at}: {found:e} {expected:e}");
    }
}

/// Rows such as a model has or, where they are hostile, of any magnitude, cancelling, subnormal.
fn rows(seed: u64, count: usize, hostile: bool) -> Vec<Vec<f64>> {
    let mut random = seeded(seed);
    let mut rows = vec![vec![0.0; WIDTH]; count];
    for at in 0..WIDTH {
        let large = f64::from(f32::from_bits(random() as u32 & 0xff7f_ffff));
        for (index, row) in rows.iter_mut().enumerate() {
            let bits = random();
            row[at] = match (hostile, bits % 5) {
                (true, 0) => f64::from(f32::from_bits((bits >> 8) as u32 & 0xff7f_ffff)),
                (true, 1) => large * f64::from(1 - 2 * (index as i32 % 2)),
                (true, 2) => f64::from(f32::from_bits((bits >> 8) as u32 & 0x8000_ffff)),
                (true, 3) => f64::from(f32::MAX),
                (true, _) | (false, 0) => ((bits >> 8) % 64) as f64 / 64.0,
                (false, _) => (bits >> 11) as f64 / (1_u64 << 53) as f64 - 0.5,
            };
        }
    }
    rows
}

fn seeded(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
