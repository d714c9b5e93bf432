//! What holds on average and in the long run: rounding is unbiased, and what was left out comes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod made;

use bytes::Bytes;
use encoding::{decode, encode};
use made::{Dice, encoding, metadata, seed, tensor};
use protocol::{DType, Tensors};

fn named(values: &[f64]) -> Tensors {
    let mut values_left = values.iter();
    let w = tensor(DType::F32, &[values.len()], || *values_left.next().unwrap());
    [("w".to_owned(), w)].into_iter().collect()
}

/// The mean over many seeds is off by more than `step * sqrt(ln(2 / p) / (2 n))` with probability
/// at most `p` (Hoeffding 1963, theorem 2). The seeds are fixed: with `p` of 1e-9 for each of the
/// values, a fair die passes, and goes on passing.
#[test]
fn int8_is_right_on_average() {
    const DRAWS: u32 = 4000;
    let mut values = vec![1.27, -1.27, 0.0, 0.005, -0.005, 0.0001, 0.63, -0.333_333, 1.269_9];
    let mut dice = Dice(4);
    values.extend((0..91).map(|_| (dice.unit() - 0.5) * 2.5));
    let update = named(&values);
    let meant = update.flatten();
    let step = 1.27 / 127.0;
    let bound = step * ((2.0_f64 / 1e-9).ln() / (2.0 * f64::from(DRAWS))).sqrt() + 1e-7;
    let mut sums = vec![0.0; values.len()];
    let int8 = encoding("int8");
    for draw in 0..DRAWS {
        let encoded =
            encode(&int8, (&update, &update), None, seed(draw.into()), metadata()).unwrap();
        let found = decode(&int8, &update, &encoded.file).unwrap().tensors.flatten();
        sums.iter_mut().zip(&found).for_each(|(sum, found)| *sum += found);
        for (found, meant) in found.iter().zip(&meant) {
            assert!((found - meant).abs() < step * 1.000_01, "{found} is a step off {meant}");
        }
        assert!((found[0] - 1.27).abs() < 1e-6 && found[2] == 0.0, "ends and zero are exact");
    }
    for (sum, meant) in sums.iter().zip(meant) {
        let mean = sum / f64::from(DRAWS);
        assert!((mean - meant).abs() < bound, "{meant} is {mean} on average, beyond {bound}");
    }
}

#[test]
fn dice_depend_on_seed_and_tensor() {
    let values: Vec<f64> = (0..100).map(|at| f64::from(at) * 0.01 + 0.001).collect();
    let one = named(&values);
    let two: Tensors = ["v", "w"]
        .into_iter()
        .map(|name| (name.to_owned(), one.get("w").unwrap().clone()))
        .collect();
    let int8 = encoding("int8");
    let rounded = |tensors: &Tensors, number| {
        let encoded = encode(&int8, (tensors, tensors), None, seed(number), metadata()).unwrap();
        decode(&int8, tensors, &encoded.file).unwrap().tensors
    };
    assert_eq!(rounded(&one, 1), rounded(&one, 1));
    assert_ne!(rounded(&one, 1), rounded(&one, 2));
    let both = rounded(&two, 1);
    assert_eq!(both.get("w"), rounded(&one, 1).get("w"), "other tensors do not matter");
    assert_ne!(both.get("v"), both.get("w"));
}

/// Two clients each know half of a goal in the first coordinate, and pull in opposite directions
/// there, harder than anywhere else. The others agree on the rest. Each may say one coordinate a
/// round: without memory they say the first for ever, and it cancels.
#[test]
fn what_was_left_out_is_learned_only_with_error_feedback() {
    const PULL: f64 = 10.0;
    let goal = [0.0, 1.0, -2.0, 0.5, 3.0, -0.25, 1.5, -1.0];
    let distance = |remembers: Option<()>| {
        let encoding = encoding("delta+topk:0.125");
        let mut model = vec![0.0; goal.len()];
        let mut residuals: [Option<Bytes>; 2] = [None, None];
        for round in 0..2000_u32 {
            // Steps that shrink, as the theorem asks for.
            let rate = 2.0 / (f64::from(round) + 40.0);
            let base = named(&model);
            let mut sum = vec![0.0; goal.len()];
            for (client, residual) in residuals.iter_mut().enumerate() {
                let side = if client == 0 { PULL } else { -PULL };
                // A step down the gradient of half the squared distance to this client's goal.
                let stepped = model.iter().zip(goal).enumerate().map(|(at, (w, goal))| {
                    let goal = if at == 0 { goal + side } else { goal };
                    w + rate * (goal - w)
                });
                let update = named(&stepped.collect::<Vec<_>>());
                let pair = (&update, &base);
                let encoded =
                    encode(&encoding, pair, residual.as_ref(), seed(round.into()), metadata())
                        .unwrap();
                let found = decode(&encoding, &base, &encoded.file).unwrap().tensors.flatten();
                sum.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
                *residual = remembers.map(|()| encoded.residual);
            }
            model = sum.iter().map(|sum| sum / 2.0).collect();
        }
        let squares = model.iter().zip(goal).map(|(w, goal)| (w - goal).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let start = goal.iter().map(|goal| goal.powi(2)).sum::<f64>().sqrt();
    let (without, with) = (distance(None), distance(Some(())));
    assert!((without - start).abs() < 1e-3, "without memory nothing is learned: {without}");
    assert!(with < start / 100.0, "with memory it comes near: {with} from {start}");
}

/// Bits that came to the next round from a disk that lost them.
#[test]
fn a_spoiled_residual_does_not_silence_its_device() {
    let base = named(&[0.0, 0.0]);
    let update = named(&[1.0, 2.0]);
    let encoding = encoding("delta+topk:0.9");
    let spoiled: Vec<u8> =
        [f32::NAN, f32::INFINITY].into_iter().flat_map(f32::to_le_bytes).collect();
    for residual in [Bytes::from(spoiled), made::bytes(b"not so long")] {
        let encoded =
            encode(&encoding, (&update, &base), Some(&residual), seed(1), metadata()).unwrap();
        let found = decode(&encoding, &base, &encoded.file).unwrap().tensors;
        assert_eq!(found, update);
    }
}
