//! Whatever arrives is an update or a reason, never a panic.

#![allow(clippy::unwrap_used, reason = "tests")]

mod made;

use std::io::{Read, Write};

use bytes::Bytes;
use encoding::{
    DecodeError, Deflate, Inflate, ReadAt, Reader, TAIL_LEN_MAX, Wrapping, decode, encode, wrapping,
};
use made::{Dice, PERCEPTRON, encoding, metadata, seed, trained};
use protocol::{
    DType, Rejection, Slot, Tensors,
    tensor::safetensors::{self, Header, Span},
};

/// A good file and its base.
fn good(text: &str) -> (Bytes, Tensors) {
    let (update, base) = trained(DType::F32, PERCEPTRON, 1);
    let encoded = encode(&encoding(text), (&update, &base), None, seed(1), metadata()).unwrap();
    (encoded.file, base)
}

/// The good file with another header and other data.
fn spoiled(text: &str, spoil: impl Fn(&mut Header, &mut Vec<u8>)) -> Result<Tensors, DecodeError> {
    let (file, base) = good(text);
    let mut header = Header::read(&file, file.len() as u64).unwrap();
    let mut data = file[header.data_start()..].to_vec();
    spoil(&mut header, &mut data);
    let mut file = header.write();
    file.extend(data);
    decode(&encoding(text), &base, &file.into()).map(|decoded| decoded.tensors)
}

fn reason(result: Result<Tensors, DecodeError>) -> (Option<Rejection>, String) {
    let why = result.unwrap_err();
    (why.reason(), why.to_string())
}

#[track_caller]
fn assert_refused(result: Result<Tensors, DecodeError>, reason: Rejection, said: &str) {
    let why = result.unwrap_err();
    assert_eq!((why.reason(), why.to_string()), (Some(reason), said.to_owned()));
}

fn rename(header: &mut Header, from: &str, to: &str) {
    let span = header.spans.remove(from).unwrap();
    header.spans.insert(to.to_owned(), span);
}

fn at(header: &Header, name: &str) -> std::ops::Range<usize> {
    let Span { begin, end, .. } = header.spans[name];
    begin..end
}

#[test]
fn an_encoding_that_was_not_asked_for_is_malformed() {
    let asks = "the round asks for encoding \"delta+int8\", the update is in";
    let other = spoiled("delta+int8", |header, _| {
        header.metadata.insert("encoding".into(), "int8".into());
    });
    assert_refused(other, Rejection::Malformed, &format!("{asks} Some(\"int8\")"));
    let none = spoiled("delta+int8", |header, _| {
        header.metadata.remove("encoding");
    });
    assert_refused(none, Rejection::Malformed, &format!("{asks} None"));
    let (file, base) = good("delta+int8+deflate");
    let not_inflated = decode(&encoding("delta+int8"), &base, &file).map(|it| it.tensors);
    assert_eq!(reason(not_inflated).0, Some(Rejection::Malformed));
    let (file, base) = good("delta+int8");
    let not_deflated = decode(&encoding("delta+int8+deflate"), &base, &file).map(|it| it.tensors);
    assert_eq!(reason(not_deflated).0, Some(Rejection::Malformed));
}

#[test]
fn tensors_that_are_not_the_models_are_of_another_shape() {
    let said = "tensor \"fc1.bias\" is missing";
    let renamed = spoiled("delta+f16", |header, _| rename(header, "fc1.bias", "fc1.bia"));
    assert_refused(renamed, Rejection::Shape, said);
    let said = "tensor \"fc1.bias\" is F16 of shape [15, 2], not F16 of [30]";
    let reshaped = spoiled("delta+f16", |header, _| {
        header.spans.get_mut("fc1.bias").unwrap().slot.shape = vec![15, 2];
    });
    assert_refused(reshaped, Rejection::Shape, said);
    let said = "tensor \"fc1.bias\" is BF16 of shape [30], not F16 of [30]";
    let retyped = spoiled("delta+f16", |header, _| {
        header.spans.get_mut("fc1.bias").unwrap().slot.dtype = DType::BF16;
    });
    assert_refused(retyped, Rejection::Shape, said);
    let said = "tensor \"more\" is not in the base model";
    let added = spoiled("delta+f16", |header, data| {
        let (begin, end) = (data.len(), data.len() + 4);
        data.extend([0; 4]);
        let slot = Slot { dtype: DType::F32, shape: vec![] };
        header.spans.insert("more".into(), Span { slot, begin, end });
    });
    assert_refused(added, Rejection::Shape, said);
    let said = "tensor \"fc1.bias.value\" has 10 values, at most 3 are asked for";
    let fuller = spoiled("delta+topk:0.1", |header, _| {
        let (small, large) = ("fc1.bias.value", "fc2.weight.value");
        let [other, own] = [small, large].map(|name| header.spans[name].clone());
        let cut = Span { slot: Slot { dtype: DType::F32, shape: vec![10] }, ..own.clone() };
        header.spans.insert(small.into(), Span { end: own.begin + 40, ..cut.clone() });
        header.spans.insert(
            "rest".into(),
            Span {
                begin: own.begin + 40,
                slot: Slot { dtype: DType::F32, shape: vec![20] },
                ..own
            },
        );
        header.spans.insert(large.into(), other);
    });
    assert_refused(fuller, Rejection::Shape, said);
    let said = "tensor \"fc1.bias.value\" has shape [3, 1], it takes one dimension";
    let reshaped = spoiled("delta+topk:0.1", |header, _| {
        header.spans.get_mut("fc1.bias.value").unwrap().slot.shape = vec![3, 1];
    });
    assert_refused(reshaped, Rejection::Shape, said);
}

#[test]
fn scales_are_finite_not_negative_and_as_many_as_blocks() {
    let with = |scale: f32| {
        spoiled("delta+int8", move |header, data| {
            data[at(header, ".scale")][4..8].copy_from_slice(&scale.to_le_bytes());
        })
    };
    assert!(with(0.0).is_ok() && with(f32::MIN_POSITIVE).is_ok());
    assert_refused(with(f32::NAN), Rejection::NotFinite, "scale 1 is NaN");
    assert_refused(with(f32::INFINITY), Rejection::NotFinite, "scale 1 is inf");
    assert_refused(with(f32::NEG_INFINITY), Rejection::NotFinite, "scale 1 is -inf");
    assert_refused(with(-1.0), Rejection::Malformed, "scale 1 is -1");
    assert_refused(with(-0.0), Rejection::Malformed, "scale 1 is -0");
    let (why, said) = reason(with(f32::MAX));
    assert_eq!(why, Some(Rejection::NotFinite));
    assert!(said.ends_with("of tensor \"fc1.weight\" is not finite"), "{said}");
    let said = "tensor \".scale\" does not have one F32 for each block of I8";
    for count in [0, 3, 5] {
        let other = spoiled("delta+int8", |header, data| {
            data.splice(0..16, vec![0; count * 4]);
            let scale = header.spans.get_mut(".scale").unwrap();
            (scale.slot.shape, scale.end) = (vec![count], count * 4);
            for (name, span) in &mut header.spans {
                if name != ".scale" {
                    span.begin = span.begin + count * 4 - 16;
                    span.end = span.end + count * 4 - 16;
                }
            }
        });
        assert_refused(other, Rejection::Shape, said);
    }
    let retyped = spoiled("delta+int8", |header, _| {
        header.spans.get_mut(".scale").unwrap().slot = Slot { dtype: DType::F16, shape: vec![8] };
    });
    assert_refused(retyped, Rejection::Shape, said);
}

#[test]
fn values_are_finite_and_so_are_sums() {
    let with = |text: &'static str, value: f32| {
        spoiled(text, move |header, data| {
            let name = if text.contains("topk") { "fc2.weight.value" } else { "fc2.weight" };
            data[at(header, name)][20..24].copy_from_slice(&value.to_le_bytes());
        })
    };
    let said = "value 5 of tensor \"fc2.weight\" is not finite";
    assert_refused(with("delta", f32::NAN), Rejection::NotFinite, said);
    assert_refused(with("delta", f32::INFINITY), Rejection::NotFinite, said);
    let sparse = with("delta+topk:0.1", f32::NEG_INFINITY);
    assert_eq!(reason(sparse).0, Some(Rejection::NotFinite));
    let (_, base) = trained(DType::F32, PERCEPTRON, 1);
    let huge: Tensors = base
        .iter()
        .map(|(name, base)| {
            let values = vec![f32::MAX; base.len()];
            let shape = base.shape().to_vec();
            (name.to_owned(), protocol::Tensor::from_f32(shape, &values).unwrap())
        })
        .collect();
    let zero = Tensors::unflatten(&base.schema(), &vec![0.0; 1000]).unwrap();
    let delta = encoding("delta");
    let file = encode(&delta, (&huge, &zero), None, seed(1), metadata()).unwrap().file;
    let sum = decode(&delta, &huge, &file).map(|decoded| decoded.tensors);
    assert_eq!(reason(sum).0, Some(Rejection::NotFinite));
}

/// A tensor of 30 places with 3 values; its index under test.
fn indexed(index: &[u8]) -> Result<Tensors, DecodeError> {
    spoiled("delta+topk:0.1", |header, data| {
        let old = at(header, "fc1.bias.index");
        let more = |place: usize| place + index.len() - old.len();
        data.splice(old.clone(), index.iter().copied());
        for span in header.spans.values_mut().filter(|span| span.end > old.start) {
            if span.begin > old.start {
                span.begin = more(span.begin);
            }
            span.end = more(span.end);
        }
        let own = header.spans.get_mut("fc1.bias.index").unwrap();
        own.slot.shape = vec![index.len()];
    })
}

#[test]
fn an_index_names_each_place_once_in_order_and_within() {
    for fits in
        [&[0, 0, 0][..], &[0, 0, 27], &[27, 0, 0], &[7, 0, 0, 0], &[0, 0, 0, 0b0011_1000 & 0x38]]
    {
        assert!(indexed(fits).is_ok(), "{fits:?}: {:?}", indexed(fits));
    }
    let said = |what: &str| format!("the index of tensor \"fc1.bias\" {what}");
    let count = said("has not as many places as there are values");
    for few in [&[][..], &[0, 0], &[1, 0, 0, 0], &[0xff, 0, 0, 0]] {
        assert_refused(indexed(few), Rejection::Malformed, &count);
    }
    let range = said("names a place that does not exist");
    for beyond in [&[28, 0, 0][..], &[0, 0, 28], &[0, 0, 0x7f], &[0, 0, 0, 0b1100_0001]] {
        assert_refused(indexed(beyond), Rejection::Malformed, &range);
    }
    assert_refused(indexed(&[0, 0x80]), Rejection::Malformed, &said("ends within a number"));
    let overlong = said("has a number of more bytes than it takes");
    assert_refused(indexed(&[0, 0x80, 0]), Rejection::Malformed, &overlong);
    let long = said("is longer than a bitmap");
    assert_refused(indexed(&[0; 5]), Rejection::Malformed, &long);
    assert_refused(indexed(&[0xff; 3]), Rejection::Malformed, &said("ends within a number"));
}

#[test]
fn any_bytes_are_taken_or_refused() {
    let mut dice = Dice(1);
    for text in ["delta", "int8", "delta+topk:0.1+int8", "delta+topk:0.5+f16", "int8+deflate"] {
        let (file, base) = good(text);
        let encoding = encoding(text);
        for _ in 0..1500 {
            let mut changed = file.to_vec();
            for _ in 0..=dice.below(4) {
                let place = dice.below(changed.len());
                match dice.below(4) {
                    0 => changed[place] = dice.next() as u8,
                    1 => changed[place] ^= 1 << dice.below(8),
                    2 => changed.truncate(place.max(1)),
                    _ => changed.insert(place, dice.next() as u8),
                }
            }
            match decode(&encoding, &base, &changed.into()) {
                Ok(decoded) => assert_eq!(decoded.tensors.not_finite(), None),
                Err(why) => assert!(why.reason().is_some(), "{why:?}"),
            }
        }
        for len in 0..file.len().min(2000) {
            let cut = decode(&encoding, &base, &file.slice(..len));
            assert!(cut.unwrap_err().reason().is_some(), "{text} {len}");
        }
        for _ in 0..300 {
            let noise: Vec<u8> = (0..dice.below(200)).map(|_| dice.next() as u8).collect();
            assert!(decode(&encoding, &base, &noise.into()).is_err());
        }
    }
}

fn stream(bytes: &[u8]) -> Vec<u8> {
    let mut deflate = Deflate::new(vec![], bytes.len() as u64).unwrap();
    deflate.write_all(bytes).unwrap();
    deflate.finish().unwrap()
}

fn inflate(stream: &[u8], max: u64) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
    let mut inflate = Inflate::new(stream, max);
    let mut bytes = vec![];
    inflate.read_to_end(&mut bytes)?;
    Ok((bytes, inflate.finish()?))
}

#[test]
fn streams_survive_and_know_their_end() {
    let mut dice = Dice(3);
    for len in [0, 1, 100, 70_000] {
        let bytes: Vec<u8> = (0..len).map(|_| dice.below(20) as u8).collect();
        let stream = stream(&bytes);
        assert_eq!(inflate(&stream, len as u64).unwrap(), (bytes.clone(), vec![]));
        let tailed = [&stream[..], b"{\"forwarded_at\":1}"].concat();
        assert_eq!(
            inflate(&tailed, len as u64).unwrap(),
            (bytes, b"{\"forwarded_at\":1}".to_vec())
        );
        let long = [&stream[..], &[0; TAIL_LEN_MAX + 1]].concat();
        let why = inflate(&long, len as u64).unwrap_err();
        assert_eq!(why.to_string(), "not a zlib stream: there is too much behind its end");
        if let Some(max) = (len as u64).checked_sub(1) {
            let why = inflate(&stream, max).unwrap_err();
            assert_eq!(why.reason(), Some(Rejection::TooLarge), "{why}");
        }
    }
}

/// What any other zlib makes of a file, without the dictionary.
#[test]
fn plain_zlib_is_read_too() {
    let (file, base) = good("int8");
    let mut header = Header::read(&file, file.len() as u64).unwrap();
    header.metadata.insert("encoding".into(), "int8+deflate".into());
    let data = &file[header.data_start()..];
    let whole = [&header.write()[..], data].concat();
    let mut zlib = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::best());
    zlib.write_all(&whole).unwrap();
    let zlib = zlib.finish().unwrap();
    assert_eq!(wrapping(&zlib), Some(Wrapping::Zlib));
    let plain = decode(&encoding("int8"), &base, &file).unwrap().tensors;
    assert_eq!(decode(&encoding("int8+deflate"), &base, &zlib.into()).unwrap().tensors, plain);
}

#[test]
fn broken_streams_say_how() {
    let whole = stream(b"some bytes that are worth it");
    let said = |bytes: &[u8]| inflate(bytes, 1000).unwrap_err().to_string();
    assert_eq!(said(b""), "not a zlib stream: it ends early");
    assert_eq!(said(&whole[..whole.len() - 1]), "not a zlib stream: it ends early");
    assert_eq!(said(b"{}"), "not a zlib stream: it does not begin like one");
    let mut other = whole.clone();
    other[3] ^= 1;
    assert_eq!(said(&other), "not a zlib stream: it needs a dictionary that is not known");
    let mut other = whole.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(said(&other), "not a zlib stream: its check sum is wrong");
    let mut other = whole;
    other[6] = 0b111;
    assert_eq!(said(&other), "not a zlib stream: its blocks are broken");
}

#[test]
fn forms_are_told_apart() {
    let (file, _) = good("int8");
    assert_eq!(wrapping(&file), Some(Wrapping::Safetensors));
    let (file, _) = good("int8+deflate");
    assert_eq!(wrapping(&file), Some(Wrapping::Zlib));
    assert_eq!(wrapping(b"{\"round_id\":\"r\"}"), Some(Wrapping::Json));
    assert_eq!(wrapping(b" \n{}"), Some(Wrapping::Json));
    for nothing in [&b""[..], b"x", b"hello world", &[0xff; 20]] {
        assert_eq!(wrapping(nothing), None);
    }
    // Headers whose length reads like the beginning of something else.
    for len in 0..0x0010_0000_u64 {
        assert_eq!(wrapping(&len.to_le_bytes()), Some(Wrapping::Safetensors));
    }
    let id = &stream(b"")[2..6];
    assert_ne!(id[1..], [0; 3], "a stream with our dictionary is no safetensors file");
}

/// A file that says it is as long as the longest one, of which nothing is there.
#[test]
fn a_longer_file_than_the_schema_implies_is_too_large() {
    let (file, base) = good("int8");
    let int8 = encoding("int8");
    let max = int8.file_bytes_max(&base.schema());
    let opened = Reader::open(&int8, &base.schema(), file, max + 1);
    assert_eq!(opened.unwrap_err().reason(), Some(Rejection::TooLarge));
    let (update, _) = trained(DType::F32, PERCEPTRON, 1);
    let plain = safetensors::write(&update, &metadata());
    assert!((plain.len() as u64) < encoding("deflate").file_bytes_max(&base.schema()));
}

/// A disk that fails is nobody's fault, and says so.
#[test]
fn errors_of_the_disk_are_not_the_senders() {
    struct Fails(Bytes, u64);
    impl ReadAt for Fails {
        fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            if offset_bytes >= self.1 {
                return Err(std::io::Error::other("disk"));
            }
            self.0.read_at(offset_bytes, buffer)
        }
    }
    let (file, base) = good("delta+topk:0.5+int8");
    let spec = encoding("delta+topk:0.5+int8");
    let len = file.len() as u64;
    for from in [0, 1, len / 2, len - 300] {
        let opened = Reader::open(&spec, &base.schema(), Fails(file.clone(), from), len);
        let why = opened.and_then(|reader| reader.decode(&base)).unwrap_err();
        assert!(matches!(why, DecodeError::Io(_)), "{why:?}");
        assert_eq!(why.reason(), None);
    }
}
