//! The wire format, pinned: what one version wrote another reads, and every machine the same.

#![allow(clippy::unwrap_used, reason = "tests")]

mod made;

use encoding::{DICTIONARY, decode, encode};
use made::{encoding, metadata, seed, trained};
use protocol::{DType, Digest};

/// Encoding, type, the beginnings of the digests of the file and of what is read from it.
const GOLDEN: &[(&str, DType, &str, &str)] = &[
    ("delta", DType::F64, "dba60da8b5f3219d", "df36f2e24d11fd3e"),
    ("delta", DType::F32, "bbd84b90d7f6f990", "cc31f44f6c02f7fa"),
    ("delta", DType::F16, "6d937f0004b77dde", "83309a08c3e08663"),
    ("delta", DType::BF16, "93bc525790c35437", "b83e718dfa8e4b33"),
    ("f16", DType::F32, "4b2bad57d2c591ab", "47e2b6e76fdb8a49"),
    ("bf16", DType::F32, "56854970ffaf70ed", "ebcc09228557b098"),
    ("int8", DType::F32, "f4aa58d88728bbcb", "264fcb5d4029fa1a"),
    ("delta+f16", DType::F32, "35f497df3d7833cc", "2b3f2a69eefc23c6"),
    ("delta+int8", DType::F64, "766797edb6d3adf4", "d55a876d2c7ccb3e"),
    ("delta+int8", DType::F32, "9d18487775e3fdcf", "7359c8a1a6c42911"),
    ("delta+int8", DType::F16, "9f45d7502f24a39f", "15733003dae39cd9"),
    ("delta+int8", DType::BF16, "2c23a9849702c6ba", "902cbc9284991330"),
    ("delta+topk:0.01", DType::F32, "b660eba5ce753694", "990b54d9826470d0"),
    ("delta+topk:0.3+int8", DType::F32, "0aab2d12eccce6a9", "eb5eb72ed42fe5e4"),
];

#[test]
fn files_are_as_they_were() {
    let slots: &[(&str, &[usize])] = &[("a", &[]), ("b", &[37, 61]), ("c", &[1024])];
    let found = |text: &'static str, dtype| {
        let (update, base) = trained(dtype, slots, 11);
        let encoding = encoding(text);
        let file = encode(&encoding, (&update, &base), None, seed(1), metadata()).unwrap().file;
        let read = decode(&encoding, &base, &file).unwrap().tensors.canonical();
        let [file, read] =
            [file, read].map(|bytes| Digest::of(&bytes).to_string()[..16].to_owned());
        (text, dtype, file, read)
    };
    let found: Vec<_> = GOLDEN.iter().map(|(text, dtype, ..)| found(text, *dtype)).collect();
    let expected: Vec<_> = GOLDEN
        .iter()
        .map(|(text, dtype, file, read)| (*text, *dtype, (*file).to_owned(), (*read).to_owned()))
        .collect();
    assert_eq!(found, expected);
}

/// Whoever changes the dictionary cannot be understood by those who have this one.
#[test]
fn the_dictionary_is_as_it_was() {
    let mut deflate = vec![];
    encoding::Deflate::new(&mut deflate, 0).unwrap().finish().unwrap();
    assert_eq!(deflate[2..6], adler2::adler32_slice(DICTIONARY).to_be_bytes());
    assert_eq!(Digest::of(DICTIONARY).to_string()[..16], *"efb04948041c9b66");
}
