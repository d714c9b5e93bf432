//! Every encoding says what its stages say, for models of every type, and reads the same in blocks
//! as in one go.

#![allow(clippy::unwrap_used, reason = "tests")]

mod made;

use encoding::{Encoding, Fraction, Precision, Reader, Source, Stored, decode, encode};
use half::{bf16, f16};
use made::{Dice, encoding, metadata, seed, tensor, trained};
use proptest::prelude::*;
use protocol::{DType, Tensors, tensor::safetensors::Header};

const ENCODINGS: &[&str] = &[
    "delta",
    "f16",
    "bf16",
    "int8",
    "deflate",
    "delta+f16",
    "delta+bf16",
    "delta+int8",
    "delta+deflate",
    "delta+int8+deflate",
    "delta+topk:0.01",
    "delta+topk:0.3",
    "delta+topk:0.9",
    "delta+topk:0.1+f16",
    "delta+topk:0.1+bf16",
    "delta+topk:0.5+int8",
    "delta+topk:0.05+int8+deflate",
];

const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

/// `value` once it was in a tensor of this type.
fn rounded(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F64 => value,
        DType::F32 => f64::from(value as f32),
        DType::F16 => f16::from_f32(value as f32).to_f64(),
        DType::BF16 => bf16::from_f32(value as f32).to_f64(),
        // What is meant; what becomes of it is near.
        DType::I8 => f64::from(value as f32),
    }
}

/// What the stages say, but for the rounding of `int8`, by the shortest way: value by value, all in memory.
fn expected(encoding: &Encoding, update: &Tensors, base: &Tensors) -> Vec<f64> {
    let mut out = vec![];
    for ((_, update), (_, base)) in update.iter().zip(base.iter()) {
        let dtype = base.dtype();
        let lossless = encoding.topk().is_none() && encoding.precision() == Precision::Model;
        let wire = encoding.precision().dtype().unwrap_or(if lossless || dtype != DType::F64 {
            dtype
        } else {
            DType::F32
        });
        let (update, base) = (update.to_f64(), base.to_f64());
        let minus = |a: f64, b: f64| {
            if dtype == DType::F64 { a - b } else { f64::from(a as f32 - b as f32) }
        };
        let plus = |a: f64, b: f64| {
            if dtype == DType::F64 { a + b } else { f64::from(a as f32 + b as f32) }
        };
        let own = |at: usize| {
            if encoding.is_delta() { minus(update[at], base[at]) } else { update[at] }
        };
        let values: Vec<f64> = (0..update.len()).map(own).collect();
        let sent = chosen(encoding.topk(), &values);
        out.extend(values.iter().zip(&base).zip(sent).map(|((value, base), sent)| {
            let value = rounded(wire, if lossless { *value } else { f64::from(*value as f32) });
            match (encoding.is_delta(), sent) {
                (true, true) => rounded(dtype, plus(*base, value)),
                (true, false) => *base,
                (false, _) => rounded(dtype, value),
            }
        }));
    }
    out
}

/// Which values are among the largest: sorted by magnitude, then by place.
fn chosen(fraction: Option<Fraction>, values: &[f64]) -> Vec<bool> {
    let Some(fraction) = fraction else { return vec![true; values.len()] };
    let magnitude = |at: usize| (values[at] as f32).abs();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| magnitude(*b).total_cmp(&magnitude(*a)).then(a.cmp(b)));
    let mut sent = vec![false; values.len()];
    for at in order.into_iter().take(fraction.of(values.len())) {
        sent[at] = magnitude(at) > 0.0;
    }
    sent
}

fn assert_reads_in_blocks(
    encoding: &Encoding,
    base: &Tensors,
    file: bytes::Bytes,
    whole: &Tensors,
) {
    let len = file.len() as u64;
    let reader = Reader::open(encoding, &base.schema(), file, len).unwrap();
    let (base, whole) = (base.flatten(), whole.flatten());
    assert_eq!(reader.parameters(), whole.len());
    let mut dice = Dice(9);
    for _ in 0..30 {
        let from = dice.below(whole.len() + 1);
        let to = from + dice.below(whole.len() - from + 1);
        let mut out = vec![0.0; to - from];
        reader.read_flat(from..to, &base[from..to], &mut out).unwrap();
        assert_eq!(bits(&out), bits(&whole[from..to]), "{encoding} {from}..{to}");
    }
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_stage_of_the_list_is_tried() {
    for stage in encoding::STAGES {
        let has = |text: &&str| text.split(['+', ':']).any(|word| word == stage.name);
        assert!(ENCODINGS.iter().any(has), "add an encoding with {} to ENCODINGS", stage.name);
    }
}

#[test]
fn every_encoding_says_what_its_stages_say() {
    let slots: &[(&str, &[usize])] =
        &[("a", &[]), ("b", &[0, 3]), ("c", &[37]), ("d", &[1024]), ("e", &[41, 53]), ("f", &[5])];
    for (number, dtype) in FLOATS.into_iter().enumerate() {
        let (update, base) = trained(dtype, slots, number as u64);
        for text in ENCODINGS {
            let encoding = encoding(text);
            let encoded = encode(&encoding, (&update, &base), None, seed(1), metadata()).unwrap();
            let decoded = decode(&encoding, &base, &encoded.file).unwrap();
            assert_eq!(decoded.tensors.schema(), base.schema(), "{text} {dtype}");
            assert_eq!(decoded.metadata["round_id"], metadata()["round_id"]);
            let found = decoded.tensors.flatten();
            if encoding.precision() != Precision::Int8 {
                let expected = expected(&encoding, &update, &base);
                assert_eq!(bits(&found), bits(&expected), "{text} {dtype}");
            }
            if !encoding.is_compressed() {
                assert_reads_in_blocks(&encoding, &base, encoded.file, &decoded.tensors);
            }
        }
    }
}

#[test]
fn int8_is_within_a_step_of_what_is_meant() {
    for dtype in FLOATS {
        let (update, base) = trained(dtype, &[("w", &[3000]), ("x", &[7])], 5);
        for text in ["int8", "delta+int8", "delta+topk:0.5+int8"] {
            let exact = expected(&encoding(text), &update, &base);
            let plain = encoding(text);
            let encoded = encode(&plain, (&update, &base), None, seed(1), metadata()).unwrap();
            let found = decode(&plain, &base, &encoded.file).unwrap().tensors.flatten();
            let (update, base) = (update.flatten(), base.flatten());
            let sent = update.iter().zip(&base).map(|(update, base)| match text {
                "int8" => update.abs(),
                _ => (update - base).abs(),
            });
            let step = sent.fold(0.0, f64::max) / 127.0;
            let ulp = match dtype {
                DType::F64 | DType::F32 | DType::I8 => 1e-6,
                DType::F16 => 2_f64.powi(-11),
                DType::BF16 => 2_f64.powi(-8),
            };
            for (at, (found, exact)) in found.iter().zip(&exact).enumerate() {
                let off = (found - exact).abs();
                assert!(
                    off <= step + ulp * (exact.abs() + step),
                    "{text} {dtype} {at}: {found} is not {exact}"
                );
            }
        }
    }
}

/// The update's tensors from a file of their own: the way of large models.
#[test]
fn a_job_over_files_writes_the_same_bytes() {
    let (update, base) = trained(DType::F32, &[("v", &[70_000]), ("w", &[11, 13])], 3);
    let file = |tensors: &Tensors| {
        let file = protocol::tensor::safetensors::write(tensors, &metadata());
        Stored { header: Header::read(&file, file.len() as u64).unwrap(), file }
    };
    let (stored_update, stored_base) = (file(&update), file(&base));
    for text in ["delta+int8+deflate", "delta+topk:0.02+f16", "f16"] {
        let encoding = encoding(text);
        let in_memory = encode(&encoding, (&update, &base), None, seed(1), metadata()).unwrap();
        let job = encoding::Job {
            encoding: &encoding,
            schema: &base.schema(),
            update: &stored_update,
            base: &stored_base,
            residual: None,
            seed: seed(1),
            metadata: metadata(),
        };
        let (mut out, mut residual) = (vec![], vec![]);
        job.write(&mut out, &mut residual).unwrap();
        assert_eq!((&in_memory.file[..], &in_memory.residual[..]), (&out[..], &residual[..]));
        assert_eq!(residual.len(), if encoding.keeps_residual() { 4 * 70_143 } else { 0 });
    }
    let mut beyond = [0; 8];
    assert!(stored_base.read("w", 11 * 13 * 4 - 4, &mut beyond).is_err());
}

#[test]
fn the_canonical_bytes_can_be_streamed() {
    let (update, base) = trained(DType::F32, &[("v", &[20_000]), ("w", &[11, 13])], 3);
    let encoding = encoding("delta+topk:0.1+int8");
    let encoded = encode(&encoding, (&update, &base), None, seed(1), metadata()).unwrap();
    let whole = decode(&encoding, &base, &encoded.file).unwrap().tensors;
    let len = encoded.file.len() as u64;
    let reader = Reader::open(&encoding, &base.schema(), encoded.file, len).unwrap();
    let mut out = vec![];
    reader.write_canonical(&base, &mut out).unwrap();
    assert_eq!(out, whole.canonical());
}

#[test]
fn what_is_left_out_is_what_is_kept() {
    let (update, base) = trained(DType::F32, &[("w", &[5000])], 8);
    for text in ["delta+topk:0.1", "delta+topk:0.1+int8", "delta+topk:0.01+f16"] {
        let encoding = encoding(text);
        let first = encode(&encoding, (&update, &base), None, seed(1), metadata()).unwrap();
        let decoded = decode(&encoding, &base, &first.file).unwrap().tensors;
        let wanted = update.flatten();
        let rest = first.residual.as_chunks().0.iter().map(|it| f32::from_le_bytes(*it));
        for ((wanted, found), rest) in wanted.iter().zip(decoded.flatten()).zip(rest) {
            let sum = found + f64::from(rest);
            assert!((wanted - sum).abs() < 1e-6, "{text}: {wanted} is not {sum}");
        }
        // Nothing new was learned: now the rest goes, the largest of it first.
        let rest = Some(&first.residual);
        let second = encode(&encoding, (&base, &base), rest, seed(2), metadata()).unwrap();
        let second = decode(&encoding, &base, &second.file).unwrap().tensors;
        assert_ne!(second, base);
    }
}

#[test]
fn numbers_that_cannot_be_sent_are_named() {
    let one = |value: f64| -> Tensors {
        let mut values = [1.0, value].into_iter();
        let w = tensor(DType::F32, &[2], || values.next().unwrap());
        [("w".to_owned(), w)].into_iter().collect()
    };
    let said = |text: &str, update: f64, base: f64| {
        let (update, base) = (one(update), one(base));
        let encoded = encode(&encoding(text), (&update, &base), None, seed(1), metadata());
        encoded.map(|_| ()).map_err(|why| why.to_string())
    };
    let nan = Err("value 1 of tensor \"w\" is not finite".to_owned());
    assert_eq!(said("delta", f64::NAN, 0.0), nan);
    assert_eq!(said("int8", f64::INFINITY, 0.0), nan);
    assert_eq!(said("f16", 65_504.0, 0.0), Ok(()));
    assert_eq!(said("f16", 7e4, 0.0), Err("value 1 of tensor \"w\" is too large for F16".into()));
    assert_eq!(said("bf16", 7e4, 0.0), Ok(()));
    let max = f64::from(f32::MAX);
    assert_eq!(
        said("delta", max, -max),
        Err("value 1 of tensor \"w\" is too large for F32".into())
    );
    assert_eq!(said("int8", max, 0.0).is_ok(), (f32::MAX / 127.0 * 127.0).is_finite());
    assert_eq!(said("int8", 1e-44, 0.0), Ok(()));
    let shapes =
        encode(&encoding("f16"), (&one(1.0), &Tensors::default()), None, seed(1), metadata());
    assert!(shapes.unwrap_err().to_string().contains("\"w\" is not in the base model"));
}

proptest! {
    /// Any finite numbers, any shapes, any encoding.
    #[test]
    fn any_numbers_survive(
        which in 0..ENCODINGS.len(),
        dtype in 0..FLOATS.len(),
        pairs in prop::collection::vec((-1e4_f64..1e4, -1e4_f64..1e4), 0..300),
        zeros in any::<bool>(),
    ) {
        let (encoding, dtype) = (encoding(ENCODINGS[which]), FLOATS[dtype]);
        let named = |pick: fn(&(f64, f64)) -> f64| -> Tensors {
            let mut values = pairs.iter().map(pick);
            let w = tensor(dtype, &[pairs.len()], || values.next().unwrap());
            [("w".to_owned(), w)].into_iter().collect()
        };
        let base = named(|pair| pair.0);
        let update = if zeros { base.clone() } else { named(|pair| pair.1) };
        let encoded = encode(&encoding, (&update, &base), None, seed(7), metadata()).unwrap();
        let decoded = decode(&encoding, &base, &encoded.file).unwrap();
        if encoding.precision() == Precision::Int8 {
            prop_assert!(!zeros || !encoding.is_delta() || decoded.tensors == base);
        } else {
            let expected = expected(&encoding, &update, &base);
            prop_assert_eq!(bits(&decoded.tensors.flatten()), bits(&expected));
        }
        let again = encode(&encoding, (&update, &base), None, seed(7), metadata()).unwrap();
        prop_assert_eq!(again, encoded);
    }
}
