//! Tensors keep their numbers to the last bit in every form, and no bytes break their reader.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;

use bytes::Bytes;
use half::{bf16, f16};
use proptest::prelude::*;
use protocol::{
    DType, Form, ModelVersion, Schema, Slot, Tensor, Tensors,
    message::Model,
    tensor::safetensors::{self, HEADER_LEN_MAX, Header, Metadata, SafetensorsError},
};

/// Tensors of any type but `I8`, of any bits, whether they are numbers or not.
fn anything() -> impl Strategy<Value = Tensors> {
    let types = prop::sample::select(&DType::ALL[..4]);
    let one = (types, prop::collection::vec(0..4_usize, 0..4)).prop_flat_map(|(dtype, shape)| {
        let slot = Slot { dtype, shape };
        prop::collection::vec(any::<u8>(), slot.byte_len())
            .prop_map(move |data| Tensor::typed(slot.clone(), data.into()).unwrap())
    });
    prop::collection::btree_map("[a-z./ \u{e9}\"]{1,6}", one, 0..5)
        .prop_map(|tensors| tensors.into_iter().collect())
}

/// One tensor of `I8` beside its scale.
fn quantised() -> impl Strategy<Value = Tensors> {
    (1..5_usize, 0..4_usize, any::<bool>()).prop_flat_map(|(rows, columns, per_row)| {
        let wholes = prop::collection::vec(any::<i8>(), rows * columns);
        let scales = prop::collection::vec(-9.0_f32..9.0, if per_row { rows } else { 1 });
        (wholes, scales).prop_map(move |(wholes, scales)| {
            let slot = Slot { dtype: DType::I8, shape: vec![rows, columns] };
            let data: Bytes = wholes.into_iter().map(i8::cast_unsigned).collect();
            let shape = if per_row { vec![rows] } else { vec![] };
            let scale = Tensor::from_f32(shape, &scales).unwrap();
            let tensors = [("w", Tensor::typed(slot, data).unwrap()), ("w.scale", scale)];
            tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into_iter().collect()
        })
    })
}

fn strings() -> impl Strategy<Value = Metadata> {
    prop::collection::btree_map("\\PC{0,9}", "\\PC{0,20}", 0..4)
}

fn one(name: &str, tensor: Tensor) -> Tensors {
    [(name.to_owned(), tensor)].into_iter().collect()
}

proptest! {
    #[test]
    fn a_file_keeps_every_bit(tensors in prop_oneof![anything(), quantised()], strings in strings()) {
        let file = safetensors::write(&tensors, &strings);
        prop_assert_eq!(Form::of(&file), Form::Safetensors);
        let read = safetensors::read(&file).unwrap();
        prop_assert_eq!(&read.tensors, &tensors);
        prop_assert_eq!(read.metadata, strings);
        let header = Header::read(&file, file.len() as u64).unwrap();
        prop_assert_eq!(header.schema(), tensors.schema());
        prop_assert_eq!(&file[header.data_start()..], &tensors.canonical()[..]);
        prop_assert_eq!(header.data_start() % 8, 0);
    }

    #[test]
    fn canonical_bytes_and_a_schema_are_the_tensors(tensors in prop_oneof![anything(), quantised()]) {
        let (schema, bytes) = (tensors.schema(), tensors.canonical());
        prop_assert_eq!(schema.byte_len(), bytes.len());
        prop_assert_eq!(&Tensors::from_canonical(&schema, &bytes).unwrap(), &tensors);
        prop_assert!(Tensors::from_canonical(&schema, &[&bytes[..], b"x"].concat().into()).is_err());
        let text = serde_json::to_string(&schema).unwrap();
        prop_assert_eq!(serde_json::from_str::<Schema>(&text).unwrap(), schema);
    }

    #[test]
    fn the_public_implementation_reads_what_is_written_here(
        tensors in prop_oneof![anything(), quantised()],
        strings in strings(),
    ) {
        let file = safetensors::write(&tensors, &strings);
        let (_, theirs) = ::safetensors::SafeTensors::read_metadata(&file).unwrap();
        prop_assert_eq!(theirs.metadata().clone().map_or(0, |all| all.len()), strings.len());
        let theirs = ::safetensors::SafeTensors::deserialize(&file).unwrap();
        prop_assert_eq!(theirs.len(), tensors.len());
        for (name, tensor) in tensors.iter() {
            let view = theirs.tensor(name).unwrap();
            prop_assert_eq!(view.data(), &tensor.data()[..]);
            prop_assert_eq!(view.shape(), tensor.shape());
            prop_assert_eq!(view.dtype().to_string(), tensor.dtype().as_str());
        }
    }

    #[test]
    fn what_the_public_implementation_writes_is_read_here(tensors in anything()) {
        let views = tensors.iter().map(|(name, tensor)| {
            let dtype = match tensor.dtype() {
                DType::F64 => ::safetensors::Dtype::F64,
                DType::F32 => ::safetensors::Dtype::F32,
                DType::F16 => ::safetensors::Dtype::F16,
                DType::BF16 => ::safetensors::Dtype::BF16,
                DType::I8 => ::safetensors::Dtype::I8,
            };
            let shape = tensor.shape().to_vec();
            (name, ::safetensors::tensor::TensorView::new(dtype, shape, tensor.data()).unwrap())
        });
        let file = ::safetensors::serialize(views, None).unwrap();
        prop_assert_eq!(safetensors::read(&file.into()).unwrap().tensors, tensors);
    }

    /// Whatever is read here is read there, too: this reader is the stricter one.
    #[test]
    fn a_file_with_a_few_changed_bytes_is_refused_or_read_as_the_public_implementation_does(
        tensors in anything(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut file = safetensors::write(&tensors, &Metadata::new()).to_vec();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if !whole {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(ours) = safetensors::read(&file.clone().into()) {
            let theirs = ::safetensors::SafeTensors::deserialize(&file).unwrap();
            prop_assert_eq!(theirs.len(), ours.tensors.len());
        }
        let _ = Model::read(&file.into());
    }

    #[test]
    fn no_bytes_break_the_reader(len in 0..200_u64, rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let file = [&len.to_le_bytes()[..], &rest].concat();
        let _ = safetensors::read(&file.into());
        let _ = safetensors::read(&rest.into());
    }

    #[test]
    fn no_header_breaks_the_reader(
        dtype in "F64|F32|F16|BF16|I8|I64|U8|F8_E4M3|BOOL|\\PC{0,4}",
        shape in prop::collection::vec(prop_oneof![0..5_u64, any::<u64>()], 0..18),
        begin in prop_oneof![0..40_u64, any::<u64>()],
        end in prop_oneof![0..40_u64, any::<u64>()],
        data in 0..40_usize,
    ) {
        let offsets = [begin, end];
        let info = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        let header = serde_json::json!({ "w": info }).to_string();
        let file = file(&header, &vec![0; data]);
        if let Ok(read) = safetensors::read(&file) {
            prop_assert_eq!(read.tensors.byte_len(), data);
            let _ = Model::new(ModelVersion(0), read.tensors).write();
        }
    }

    #[test]
    fn json_keeps_every_finite_number(tensors in anything()) {
        let finite = tensors.not_finite().is_none();
        let text = serde_json::to_string(&tensors);
        prop_assert_eq!(text.is_ok(), finite);
        let Ok(text) = text else { return Ok(()) };
        let read: Tensors = serde_json::from_str(&text).unwrap();
        // An empty outer dimension hides the inner ones, in JSON as everywhere.
        if tensors.iter().all(|(_, tensor)| !tensor.is_empty()) {
            prop_assert!(read.iter().all(|(_, tensor)| tensor.dtype() == DType::F64));
            prop_assert_eq!(read.cast_to(&tensors.schema()), Ok(tensors));
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_and_once(value in any::<f64>(), near in any::<u16>(), by in -3..4_i64) {
        // Beside arbitrary numbers those close to where rounding changes its mind.
        let middle = f64::from(f16::from_bits(near)) + f64::from(f16::from_bits(near ^ 1));
        let close = f64::from_bits((middle / 2.0).to_bits().saturating_add_signed(by));
        for value in [value, close] {
            prop_assume!(value.is_finite());
            let slot = |dtype| Slot { dtype, shape: vec![] };
            let narrow = |dtype| Tensor::rounded(slot(dtype), &[value]).unwrap().to_f64()[0];
            nearest(value, narrow(DType::F16), f16::MAX.to_f64(), |bits| f16::from_bits(bits).to_f64())?;
            nearest(value, narrow(DType::BF16), bf16::MAX.to_f64(), |bits| bf16::from_bits(bits).to_f64())?;
            prop_assert_eq!(narrow(DType::F32).to_bits(), f64::from(value as f32).to_bits());
            prop_assert_eq!(narrow(DType::F64).to_bits(), value.to_bits());
        }
    }

    #[test]
    fn numbers_times_scales_come_back(tensors in quantised()) {
        let (schema, values) = (tensors.schema(), tensors.flatten());
        prop_assert_eq!(values.len(), schema.parameters());
        let again = Tensors::unflatten(&schema, &values).unwrap();
        prop_assert_eq!(again.schema(), schema.clone());
        let most = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        for (before, after) in values.iter().zip(again.flatten()) {
            prop_assert!((before - after).abs() <= most / 127.0 * 0.51, "{} {}", before, after);
        }
        let plain: Tensors = serde_json::from_str(&serde_json::to_string(&tensors).unwrap()).unwrap();
        if !values.is_empty() {
            // The texts are the shortest for `f32`: a scale may differ in its last bit, and so may
            // what is rounded by it.
            let cast = plain.cast_to(&schema).unwrap().flatten();
            for (one, other) in cast.iter().zip(again.flatten()) {
                prop_assert!((one - other).abs() <= most / 127.0 * 1.01, "{} {}", one, other);
            }
        }
    }
}

/// No number of 16 bits is nearer to `value` than `found`; of two that are as near, the even one.
fn nearest(
    value: f64,
    found: f64,
    max: f64,
    number: impl Fn(u16) -> f64,
) -> Result<(), TestCaseError> {
    if found.is_infinite() {
        prop_assert!(value.abs() > max);
        return Ok(());
    }
    let distance = (value - found).abs();
    for bits in 0..=u16::MAX {
        let other = number(bits);
        if !other.is_finite() || other == found {
            continue;
        }
        let further = (value - other).abs();
        prop_assert!(further >= distance, "{} -> {} is further than {}", value, found, other);
        if further == distance {
            prop_assert!(bits % 2 == 1, "{} -> {} although {} is even", value, found, other);
        }
    }
    Ok(())
}

fn file(header: &str, data: &[u8]) -> Bytes {
    let len = (header.len() as u64).to_le_bytes();
    [&len[..], header.as_bytes(), data].concat().into()
}

#[test]
fn what_is_wrong_with_a_file_is_said_by_name() {
    let w = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#""w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let v = r#""v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let huge = "1,".repeat(100);
    for (header, data, expected) in [
        (w("F32", "[2]", "[0,8]"), 7, "take 8 bytes of data, 7"),
        (w("F32", "[2]", "[0,8]"), 9, "take 8 bytes of data, 9"),
        (w("F32", "[2]", "[0,7]"), 8, "does not fill bytes 0 to 7"),
        (w("F32", "[2]", "[8,0]"), 8, "does not fill"),
        (w("F32", "[2]", "[4,12]"), 12, "begins at byte 4"),
        (w("F32", "[2]", "[18446744073709551608,18446744073709551615]"), 8, "does not fill"),
        (w("F32", "[4294967296,4294967296,4]", "[0,0]"), 0, "does not fill"),
        (w("F32", "[0,4294967296,4294967296]", "[0,0]"), 0, "does not fill"),
        (w("I64", "[2]", "[0,16]"), 16, r#"type "I64" is not taken; F64, F32"#),
        (w("F32", "[-1]", "[0,8]"), 8, "header"),
        (w("F32", "[2]", "[0,8,9]"), 8, "header"),
        (w("F32", &format!("[{huge}1]"), "[0,8]"), 8, "more than 16 dimensions"),
        (w("I8", "[8]", "[0,8]"), 8, r#"has no scale "w.scale""#),
        (format!("{v},{}", w("F32", "[2]", "[4,12]")), 12, "begins at byte 4 of the data, but 8"),
        (format!("{v},{v}"), 8, "stands twice"),
        (r#""__metadata__":{"a":"b","a":"c"}"#.to_owned(), 0, "stand twice"),
        (r#""__metadata__":{},"__metadata__":{}"#.to_owned(), 0, "duplicate"),
        (r#""__metadata__":{"a":1}"#.to_owned(), 0, "header"),
        (r#""w":{"dtype":"F32"}"#.to_owned(), 0, "missing field"),
        (r#""w":7"#.to_owned(), 0, "header"),
    ] {
        let file = file(&format!("{{{header}}}"), &vec![0; data]);
        let why = safetensors::read(&file).unwrap_err().to_string();
        assert!(why.contains(expected), "{header}: {why}");
        assert!(why.len() < 600, "{}", why.len());
    }
}

#[test]
fn a_header_is_limited_before_it_is_read() {
    let claims = |len: u64, rest: usize| {
        let file = [&len.to_le_bytes()[..], &vec![b' '; rest]].concat();
        safetensors::read(&file.into()).unwrap_err()
    };
    let too_long = |header_len| SafetensorsError::HeaderTooLong { header_len };
    assert_eq!(claims(100_000_000, 64), too_long(100_000_000));
    assert_eq!(claims(u64::MAX, 64), too_long(u64::MAX));
    assert_eq!(claims(HEADER_LEN_MAX as u64 + 1, HEADER_LEN_MAX + 1), too_long((1 << 20) + 1));
    assert!(matches!(claims(65, 64), SafetensorsError::HeaderCut { header_len: 65, len: 72 }));
    let short = safetensors::read(&Bytes::from_static(b"1234567")).unwrap_err();
    assert_eq!(short, SafetensorsError::Short { len: 7 });
    let many: Vec<String> = (0..5000)
        .map(|n| format!(r#""t{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
        .collect();
    let why = safetensors::read(&file(&format!("{{{}}}", many.join(",")), &[])).unwrap_err();
    assert!(why.to_string().contains("more than 4096 tensors"), "{why}");
    let deep = format!(r#"{{"w":{}"#, "[".repeat(500_000));
    assert!(safetensors::read(&file(&deep, &[])).is_err());
}

#[test]
fn a_tensor_of_a_file_is_a_slice_of_it() {
    let tensors = one("w", Tensor::from_f32(vec![1000], &[0.5; 1000]).unwrap());
    let file = safetensors::write(&tensors, &Metadata::new());
    let read = safetensors::read(&file).unwrap().tensors;
    let data = read.get("w").unwrap().data();
    assert!(file.as_ptr_range().contains(&data.as_ptr()));
    let again = Tensors::from_canonical(&read.schema(), data).unwrap();
    assert_eq!(again.get("w").unwrap().data().as_ptr(), data.as_ptr());
}

#[test]
fn every_kind_of_nan_and_infinity_is_found() {
    let typed = |dtype: DType, bits: &[u8]| {
        let data = Bytes::copy_from_slice(bits);
        one("w", Tensor::typed(Slot { dtype, shape: vec![1] }, data).unwrap())
    };
    for bits in [0x7f80_0000_u32, 0xff80_0000, 0x7f80_0001, 0xffc0_0000, 0x7fff_ffff] {
        assert_eq!(typed(DType::F32, &bits.to_le_bytes()).not_finite(), Some("w"), "{bits:x}");
    }
    for bits in [0x7ff0_0000_0000_0000_u64, 0x7ff0_0000_0000_0001, u64::MAX] {
        assert_eq!(typed(DType::F64, &bits.to_le_bytes()).not_finite(), Some("w"), "{bits:x}");
    }
    for bits in [0x7c00_u16, 0xfc00, 0x7c01, 0xffff] {
        assert_eq!(typed(DType::F16, &bits.to_le_bytes()).not_finite(), Some("w"), "{bits:x}");
    }
    for bits in [0x7f80_u16, 0xff80, 0x7f81, 0xffff] {
        assert_eq!(typed(DType::BF16, &bits.to_le_bytes()).not_finite(), Some("w"), "{bits:x}");
    }
    for scale in [f32::NAN, f32::INFINITY, f32::MAX] {
        let whole = Tensor::typed(Slot { dtype: DType::I8, shape: vec![1] }, vec![1].into());
        let tensors: BTreeMap<_, _> = [
            ("w".to_owned(), whole.unwrap()),
            ("w.scale".to_owned(), Tensor::from_f32(vec![], &[scale]).unwrap()),
        ]
        .into();
        let tensors: Tensors = tensors.into_iter().collect();
        assert_eq!(tensors.not_finite(), Some("w"), "{scale}");
    }
}

#[test]
fn numbers_of_json_take_the_type_of_the_model() {
    let read = |text: &str| serde_json::from_str::<Tensors>(text).unwrap();
    let base = one("w", Tensor::from_f32(vec![2], &[0.0; 2]).unwrap()).schema();
    let cast = read(r#"{"w":[0.1,1e-45]}"#).cast_to(&base).unwrap();
    assert_eq!(cast.get("w").unwrap().to_f32(), [0.1, f32::from_bits(1)]);
    assert_eq!(serde_json::to_string(&cast).unwrap(), r#"{"w":[0.1,1e-45]}"#);
    let overflow = read(r#"{"w":[1e39,0]}"#).cast_to(&base).unwrap();
    assert_eq!(overflow.not_finite(), Some("w"));
    let difference = read(r#"{"w":[1]}"#).cast_to(&base).unwrap_err();
    assert_eq!(difference, r#"tensor "w" has shape [1], not [2]"#);
    assert!(read(r#"{"w":[1,2],"x":1}"#).cast_to(&base).unwrap_err().contains("\"x\" is not in"));
    assert!(read("{}").cast_to(&base).unwrap_err().contains("missing"));
    let wide = one("w", Tensor::new(vec![2], vec![0.0; 2]).unwrap()).schema();
    assert_eq!(base.difference(&wide).unwrap(), r#"tensor "w" is of F64, not F32"#);
}

#[test]
fn a_schema_that_was_kept_without_types_is_one_of_json() {
    let old: Schema = serde_json::from_str(r#"{"w":[2,3],"b":[]}"#).unwrap();
    assert_eq!(old.dtype(), Some(DType::F64));
    assert_eq!(old.parameters(), 7);
}
