//! How fast each encoding is written and read, on a model of ten million `f32`, by one thread:
//! `cargo run --release -p encoding --example speed [millions]`.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]

use std::{env, time::Instant};

use bytes::Bytes;
use encoding::{Encoding, Inflate, Reader, encode};
use protocol::{DType, Digest, Slot, Tensor, Tensors, tensor::safetensors::Metadata};

const ENCODINGS: &[&str] = &[
    "delta",
    "f16",
    "bf16",
    "int8",
    "delta+f16",
    "delta+int8",
    "delta+topk:0.1",
    "delta+topk:0.01+int8",
    "delta+topk:0.001+f16",
    "deflate",
    "delta+int8+deflate",
    "delta+topk:0.01+int8+deflate",
];
/// Parameters that are read at once, as aggregation does.
const BLOCK: usize = 64 << 10;

fn main() {
    let millions: usize = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10);
    let count = millions * 1_000_000;
    let base = model(count, 1, None);
    let update = model(count, 2, Some(&base));
    let floats: Vec<f32> = base.iter().flat_map(|(_, tensor)| tensor.to_f32()).collect();
    println!("{count} f32; MB/s of f32");
    println!("{:<32} {:>9} {:>9} {:>9} {:>9}", "encoding", "size, %", "write", "read", "inflate");
    for text in ENCODINGS {
        let encoding: Encoding = text.parse().expect("an encoding");
        let seed = Digest::of(b"speed");
        let start = Instant::now();
        let encoded = encode(&encoding, (&update, &base), None, seed, Metadata::new());
        let encoded = encoded.expect("good numbers");
        let write = rate(count, start);
        let mut file = encoded.file.clone();
        let start = Instant::now();
        if encoding.is_compressed() {
            let mut inflate = Inflate::new(&encoded.file[..], u64::MAX);
            let mut whole = vec![];
            std::io::copy(&mut inflate, &mut whole).expect("a good stream");
            file = whole.into();
        }
        let inflate = rate(count, start);
        let read = read(&encoding, &base, &floats, file);
        let percent = encoded.file.len() as f64 / (count * 4) as f64 * 100.0;
        let inflate =
            if encoding.is_compressed() { format!("{inflate:.0}") } else { String::new() };
        println!("{text:<32} {percent:>9.2} {write:>9.0} {read:>9.0} {inflate:>9}");
    }
}

fn read(encoding: &Encoding, base: &Tensors, floats: &[f32], file: Bytes) -> f64 {
    let len = file.len() as u64;
    let reader = Reader::open(encoding, &base.schema(), file, len).expect("a good file");
    let mut out = vec![0.0_f32; BLOCK];
    let start = Instant::now();
    for from in (0..floats.len()).step_by(BLOCK) {
        let to = floats.len().min(from + BLOCK);
        let out = &mut out[..to - from];
        reader.read_flat(from..to, &floats[from..to], out).expect("good numbers");
    }
    rate(floats.len(), start)
}

fn rate(count: usize, since: Instant) -> f64 {
    (count * 4) as f64 / since.elapsed().as_secs_f64() / 1e6
}

/// Two tensors; those of an update are near their base's.
fn model(count: usize, seed: u64, base: Option<&Tensors>) -> Tensors {
    let small = count / 10;
    let slots = [("large", count - small, 0), ("small", small, count - small)];
    let tensors = slots.map(|(name, len, first)| {
        let old = base.and_then(|base| base.get(name)).map(Tensor::to_f32);
        let values: Vec<f32> = (0..len)
            .map(|at| match &old {
                Some(old) => old[at] + normal(seed, first + at) * 0.01,
                None => normal(seed, first + at) * 0.2,
            })
            .collect();
        let data = values.iter().copied().flat_map(f32::to_le_bytes).collect();
        let slot = Slot { dtype: DType::F32, shape: vec![len] };
        (name.to_owned(), Tensor::typed(slot, data).expect("as many as the shape says"))
    });
    tensors.into_iter().collect()
}

/// About normal: the sum of the four 16-bit parts of SplitMix64.
fn normal(seed: u64, at: usize) -> f32 {
    let z = (seed << 48).wrapping_add((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let z = z ^ (z >> 31);
    let sum: u32 = (0..4).map(|part| (z >> (16 * part)) as u32 & 0xffff).sum();
    (sum as f32 / 65536.0 - 2.0) * 1.732
}
