//! A model survives every format that has its types, to the last bit; what has no place is named.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use bytes::Bytes;
use modelfile::{FileFormat, cast, read, write};
use proptest::prelude::*;
use protocol::{DType, ModelVersion, Slot, Tensor, Tensors};

const V: ModelVersion = ModelVersion(0);
const BYTES_MAX: u64 = 1 << 20;

/// Made by `numpy.savez_compressed` and `numpy.savez` 2.4: `w` of F32, big-endian and column-major,
/// `b` a scalar of F64, `h` of F16.
const NUMPY_COMPRESSED: &[u8] = include_bytes!("numpy_compressed.npz");
const NUMPY_STORED: &[u8] = include_bytes!("numpy_stored.npz");

fn finite(dtype: DType) -> impl Strategy<Value = Tensor> {
    prop::collection::vec(1..4_usize, 0..4).prop_flat_map(move |shape| {
        let slot = Slot { dtype, shape };
        let count = slot.count();
        prop::collection::vec(any::<u64>(), count).prop_map(move |bits| {
            // Any bits, of which those that are no number become the smallest there is.
            let one = |bits: u64| {
                let data = Bytes::copy_from_slice(&bits.to_le_bytes()[..dtype.size()]);
                let tensor = Tensor::typed(Slot { dtype, shape: vec![] }, data.clone()).unwrap();
                if tensor.to_f64()[0].is_finite() {
                    data
                } else {
                    1_u64.to_le_bytes()[..dtype.size()].to_vec().into()
                }
            };
            let data: Vec<u8> = bits.into_iter().flat_map(one).collect();
            Tensor::typed(slot.clone(), data.into()).unwrap()
        })
    })
}

fn model(types: &'static [DType]) -> impl Strategy<Value = Tensors> {
    let one = prop::sample::select(types).prop_flat_map(finite);
    prop::collection::btree_map("[a-z./]{1,6}", one, 1..4)
        .prop_filter("a name of JSON's own", |tensors| !tensors.contains_key("version"))
        .prop_map(|tensors| tensors.into_iter().collect())
}

proptest! {
    #[test]
    fn types_and_bits_survive_where_a_format_has_them(
        tensors in model(&[DType::F64, DType::F32, DType::F16]),
    ) {
        for format in [FileFormat::Safetensors, FileFormat::Npz] {
            let file = write(&tensors, V, format).unwrap();
            prop_assert_eq!(FileFormat::of(&file), format);
            prop_assert_eq!(&read(&file, BYTES_MAX).unwrap(), &tensors);
            prop_assert_eq!(write(&tensors, V, format).unwrap(), file, "equal bytes");
        }
    }

    #[test]
    fn json_and_back_is_the_same_model(tensors in model(&DType::ALL[..4])) {
        let file = write(&tensors, V, FileFormat::Json).unwrap();
        let wide = read(&file, BYTES_MAX).unwrap();
        prop_assert_eq!(wide.cast_to(&tensors.schema()), Ok(tensors));
    }

    #[test]
    fn no_bytes_break_the_readers(
        tensors in model(&[DType::F64, DType::F32]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for format in FileFormat::ALL {
            let mut file = write(&tensors, V, format).unwrap().to_vec();
            for (at, byte) in &changes {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            let _ = read(&file.clone().into(), BYTES_MAX);
            file.truncate(cut.index(file.len()));
            let _ = read(&file.into(), BYTES_MAX);
        }
    }
}

fn quantised() -> Tensors {
    let slot = Slot { dtype: DType::I8, shape: vec![2] };
    let whole = Tensor::typed(slot, Bytes::from_static(&[127, 0x81])).unwrap();
    let scale = Tensor::from_f32(vec![], &[0.5]).unwrap();
    [("w".to_owned(), whole), ("w.scale".to_owned(), scale)].into_iter().collect()
}

#[test]
fn whole_numbers_travel_with_their_scale() {
    for format in [FileFormat::Safetensors, FileFormat::Npz] {
        let file = write(&quantised(), V, format).unwrap();
        assert_eq!(read(&file, BYTES_MAX).unwrap(), quantised());
    }
    let said = write(&quantised(), V, FileFormat::Json).unwrap_err().to_string();
    assert!(said.contains("\"w\" is of I8, which json has no type for"), "{said}");
    let wide = cast(&quantised(), DType::F64).unwrap();
    assert_eq!(wide.get("w").unwrap().to_f64(), [63.5, -63.5]);
    assert_eq!((wide.len(), cast(&wide, DType::I8).unwrap()), (1, quantised()));
}

#[test]
fn what_has_no_place_is_named_with_its_type() {
    let one = |dtype: DType, value: f64, name: &str| -> Tensors {
        let tensor = Tensor::rounded(Slot { dtype, shape: vec![1] }, &[value]).unwrap();
        [(name.to_owned(), tensor)].into_iter().collect()
    };
    let said = write(&one(DType::BF16, 1.0, "w"), V, FileFormat::Npz).unwrap_err().to_string();
    assert!(said.contains("\"w\" is of BF16, which npz has no type for"), "{said}");
    let said = cast(&one(DType::F64, 1e39, "w"), DType::F32).unwrap_err().to_string();
    assert_eq!(said, "tensor \"w\" holds a number that is too large for F32");
    let said =
        write(&one(DType::F64, 1.0, "version"), V, FileFormat::Json).unwrap_err().to_string();
    assert!(said.contains("\"version\" has no place in json"), "{said}");
    let not_finite = write(&one(DType::F32, f64::NAN, "w"), V, FileFormat::Npz).unwrap();
    let said = read(&not_finite, BYTES_MAX).unwrap_err().to_string();
    assert!(said.contains("\"w\" is not finite"), "{said}");
    let said = FileFormat::of_name("model.pt").unwrap_err().to_string();
    assert!(said.contains("model.pt"), "{said}");
    for bad in [&b""[..], b"{}", b"[]", b"PK", b"PK\x03\x04", b"\0\0\0\0\0\0\0\0"] {
        assert!(read(&Bytes::from_static(bad), BYTES_MAX).is_err(), "{bad:?}");
    }
}

#[test]
fn a_file_of_numpy_is_read_whatever_the_order_of_its_bytes() {
    for file in [NUMPY_COMPRESSED, NUMPY_STORED] {
        let tensors = read(&Bytes::from_static(file), BYTES_MAX).unwrap();
        let w = tensors.get("w").unwrap();
        assert_eq!((w.dtype(), w.shape()), (DType::F32, &[2, 3][..]));
        assert_eq!(w.to_f32(), [0.1, 1.5, -2.0, 1e-45, 3.0, 1e30]);
        let b = tensors.get("b").unwrap();
        assert_eq!((b.dtype(), b.shape(), b.to_f64()), (DType::F64, &[][..], vec![0.1]));
        assert_eq!(tensors.get("h").unwrap().dtype(), DType::F16);
    }
}

#[test]
fn a_small_archive_of_many_numbers_is_refused_at_the_limit() {
    let zeros = Tensor::from_f32(vec![1 << 18], &vec![0.0; 1 << 18]).unwrap();
    let tensors: Tensors = [("w".to_owned(), zeros)].into_iter().collect();
    for format in FileFormat::ALL {
        let file = write(&tensors, V, format).unwrap();
        let said = read(&file, 1 << 19).unwrap_err().to_string();
        assert!(said.contains("more than 524288 bytes"), "{format}: {said}");
    }
}

#[test]
fn a_type_of_numpy_that_tensors_do_not_have_is_named() {
    let said = read(&Bytes::from_static(include_bytes!("numpy_int64.npz")), BYTES_MAX);
    let said = said.unwrap_err().to_string();
    assert!(said.contains("tensor \"steps\": NumPy's type \"<i8\" is not taken"), "{said}");
}
