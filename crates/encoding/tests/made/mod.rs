//! Models and updates that are made up for the tests, the same each time.

#![allow(dead_code, reason = "each test uses a part of it")]

use bytes::Bytes;
use encoding::Encoding;
use protocol::{
    DType, Digest, ModelUri, ModelVersion, Slot, Tensor, Tensors, tensor::safetensors::Metadata,
};

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal: mean 0, deviation 1.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

pub(crate) fn encoding(text: &str) -> Encoding {
    text.parse().unwrap()
}

pub(crate) fn seed(number: u64) -> Digest {
    Digest::of(&number.to_le_bytes())
}

pub(crate) fn tensor(dtype: DType, shape: &[usize], mut value: impl FnMut() -> f64) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| value()).collect();
    Tensor::rounded(Slot { dtype, shape: shape.to_vec() }, &values).unwrap()
}

/// A perceptron of 22, 30 and 10: a thousand parameters in four tensors.
pub(crate) const PERCEPTRON: &[(&str, &[usize])] = &[
    ("fc1.bias", &[30]),
    ("fc1.weight", &[30, 22]),
    ("fc2.bias", &[10]),
    ("fc2.weight", &[10, 30]),
];

/// A base model, and an update that moved each of its parameters a little.
pub(crate) fn trained(dtype: DType, slots: &[(&str, &[usize])], number: u64) -> (Tensors, Tensors) {
    let mut dice = Dice(number);
    let base: Tensors = slots
        .iter()
        .map(|(name, shape)| ((*name).to_owned(), tensor(dtype, shape, || dice.normal() * 0.2)))
        .collect();
    let update = base.iter().map(|(name, base)| {
        let mut old = base.to_f64().into_iter();
        let moved = || old.next().unwrap() + dice.normal() * 0.01;
        (name.to_owned(), tensor(dtype, base.shape(), moved))
    });
    (update.collect(), base)
}

/// What usually travels beside the tensors.
pub(crate) fn metadata() -> Metadata {
    let fields = [
        ("round_id", "r-1768464194"),
        ("proplet_id", "proplet-1"),
        ("base_model_uri", &ModelUri::global(ModelVersion(0)).to_string()),
        ("num_samples", "512"),
        ("metrics", r#"{"accuracy":0.9143,"loss":0.2817}"#),
    ];
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

pub(crate) fn bytes(text: &[u8]) -> Bytes {
    Bytes::copy_from_slice(text)
}
