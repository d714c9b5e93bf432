//! Updates and models as files: the same fields, the same rejections, the same path through the
//! manager as those of JSON.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fmt::Write as _;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::{
    Form, Letter as _, ModelUri, ModelVersion, Rejection, Tensor, Tensors, Timestamp,
    message::{
        FORWARD_TAIL_LEN_MAX, Forwarded, Model, Origin, Update, forward, read_update,
        read_update_address,
    },
    tensor::safetensors::{self, HEADER_LEN_MAX, Metadata},
};

const FIELDS: [(&str, &str); 5] = [
    ("round_id", "r"),
    ("proplet_id", "p"),
    ("base_model_uri", "fl/models/global_model_v0"),
    ("num_samples", "100"),
    ("metrics", r#"{"loss":0.5}"#),
];

fn tensors(values: &[f32]) -> Tensors {
    let w = Tensor::from_f32(vec![values.len()], values).unwrap();
    [("w".to_owned(), w)].into_iter().collect()
}

fn update(values: &[f32]) -> Update {
    Update {
        round_id: "r".parse().unwrap(),
        proplet_id: "p".parse().unwrap(),
        base_model_uri: ModelUri::global(ModelVersion(0)),
        num_samples: 100,
        metrics: [("loss".to_owned(), 0.5)].into(),
        update: tensors(values),
        form: Form::Safetensors,
    }
}

fn fields() -> Metadata {
    FIELDS.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// An honest file, but for one field.
fn with(name: &str, value: Option<&str>) -> Bytes {
    let mut fields = fields();
    match value {
        Some(value) => fields.insert(name.to_owned(), value.to_owned()),
        None => fields.remove(name),
    };
    safetensors::write(&tensors(&[1.0; 3]), &fields)
}

fn file(header: &str, data: &[u8]) -> Bytes {
    let len = (header.len() as u64).to_le_bytes();
    [&len[..], header.as_bytes(), data].concat().into()
}

fn origin() -> Origin {
    Origin { round_id: "r".parse().unwrap(), proplet_id: "p".parse().unwrap() }
}

/// A header with all fields, and these tensors.
fn header(tensors: &str) -> String {
    let fields = serde_json::to_string(&fields()).unwrap();
    format!(r#"{{"__metadata__":{fields},{tensors}}}"#)
}

#[test]
fn a_file_has_the_form_that_is_written_down() {
    let mut shown = String::new();
    let model =
        Model { version: ModelVersion(1), tensors: tensors(&[0.5, -2.0]), form: Form::Safetensors };
    let update = update(&[0.5, -2.0]);
    let forwarded = forward(&update.write(), &origin(), Timestamp::ZERO);
    let named = [("model", model.write()), ("update", update.write()), ("forwarded", forwarded)];
    for (name, file) in named {
        let len = usize::try_from(u64::from_le_bytes(*file.first_chunk().unwrap())).unwrap();
        let header = std::str::from_utf8(&file[8..8 + len]).unwrap();
        writeln!(shown, "{name}: {len} | {header:?} | {:02x?}", &file[8 + len..]).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/binary.txt");
    if std::env::var_os("AILERON_BLESS").is_some() {
        std::fs::write(path, &shown).unwrap();
    }
    let pinned = std::fs::read_to_string(path).unwrap_or_default();
    assert!(pinned == shown, "tests/golden/binary.txt is out of date:\n{shown}");
}

#[test]
fn the_poison_matrix_has_a_reason_for_every_row_of_a_file() {
    let numbers = |values: &[f32]| safetensors::write(&tensors(values), &fields());
    let w = |dtype: &str, offsets: &str| {
        header(&format!(r#""w":{{"dtype":"{dtype}","shape":[2],"data_offsets":{offsets}}}"#))
    };
    let honest = w("F32", "[0,8]");
    let v = r#""v":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let twice = header(&format!("{v},{v}"));
    let overlap =
        header(&format!(r#"{v},"w":{{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#));
    let long = [&100_000_000_u64.to_le_bytes()[..], &[b' '; 100]].concat();
    let lies = [&500_u64.to_le_bytes()[..], honest.as_bytes(), &[0; 8]].concat();
    let nan = |bits: u32| numbers(&[1.0, f32::from_bits(bits), 1.0]);
    for (file, reason) in [
        (nan(0x7fc0_0000), Rejection::NotFinite),
        (nan(0x7f80_0001), Rejection::NotFinite),
        (nan(0xffff_ffff), Rejection::NotFinite),
        (nan(0x7f80_0000), Rejection::NotFinite),
        (nan(0xff80_0000), Rejection::NotFinite),
        (with("num_samples", Some("0")), Rejection::NumSamples),
        (with("num_samples", Some("-50")), Rejection::NumSamples),
        (with("num_samples", Some("1.5")), Rejection::NumSamples),
        (with("num_samples", Some("NaN")), Rejection::NumSamples),
        (with("num_samples", Some("")), Rejection::NumSamples),
        (with("num_samples", None), Rejection::NumSamples),
        (with("base_model_uri", None), Rejection::Malformed),
        (with("base_model_uri", Some("my model")), Rejection::StaleBase),
        (with("round_id", None), Rejection::Malformed),
        (with("round_id", Some("a/b")), Rejection::Malformed),
        (with("proplet_id", Some("#")), Rejection::Malformed),
        (with("proplet_id", Some("q")), Rejection::SenderMismatch),
        (with("encoding", Some("delta+novel")), Rejection::Malformed),
        (file(&honest, &[0; 7]), Rejection::Malformed),
        (file(&honest, &[0; 9]), Rejection::Malformed),
        (file(&w("F32", "[0,9]"), &[0; 9]), Rejection::Malformed),
        (file(&w("F32", "[8,16]"), &[0; 16]), Rejection::Malformed),
        (file(&w("I64", "[0,16]"), &[0; 16]), Rejection::Malformed),
        (file(&w("I8", "[0,2]"), &[0; 2]), Rejection::Malformed),
        (file(&twice, &[0; 8]), Rejection::Malformed),
        (file(&overlap, &[0; 12]), Rejection::Malformed),
        (file("{", &[]), Rejection::Malformed),
        (file("\u{fffd}{}", &[]), Rejection::Malformed),
        (long.into(), Rejection::Malformed),
        (lies.into(), Rejection::Malformed),
        (Bytes::from_static(&[0; 8]), Rejection::Malformed),
        (Bytes::from_static(&[8, 0, 0]), Rejection::Malformed),
        (Bytes::from_static(&[0xff; 64]), Rejection::Malformed),
    ] {
        let why = Update::read(&file, Some(&origin().proplet_id)).unwrap_err();
        assert_eq!(why.reason, reason, "{why}");
        assert!(why.what.len() < 600, "{}", why.what.len());
        // The same, whichever way it is read, and also behind the manager.
        assert_eq!(read_update(&file, Some(&origin().proplet_id)).unwrap_err(), why);
        let Forwarded { origin: from, payload } =
            Forwarded::read(forward(&file, &origin(), Timestamp::ZERO));
        let sender = from.map(|from| from.proplet_id);
        let again = Update::read(&payload, sender.as_ref()).unwrap_err();
        assert_eq!(again.reason, reason, "{why}: {again}");
        assert_eq!(again.proplet_id, Some(origin().proplet_id), "{why}: somebody is answered");
    }
    let empty = safetensors::write(&Tensors::default(), &fields());
    assert!(Update::read(&empty, None).unwrap().update.is_empty(), "left to the schema");
}

#[test]
fn what_is_wrong_with_the_tensors_does_not_hide_the_address() {
    let header = header(r#""w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#);
    let file = file(&header, &[0; 3]);
    let why = Update::read(&file, None).unwrap_err();
    assert_eq!(
        (why.round_id, why.proplet_id),
        (Some("r".parse().unwrap()), Some("p".parse().unwrap()))
    );
    let known = (Some("r".parse().unwrap()), Some("p".parse().unwrap()));
    assert_eq!(read_update_address(&file), known);
    assert_eq!(read_update_address(&update(&[1.0]).write()), known);
    assert_eq!(read_update_address(br#"{"round_id":"r","proplet_id":"p"}"#), known);
    assert_eq!(read_update_address(b"\0\0\0\0\0\0\0\0"), (None, None));
}

#[test]
fn forwarding_says_who_sent_a_file_where_it_does_not_say_so_itself() {
    let honest = forward(&update(&[1.0]).write(), &origin(), Timestamp::ZERO);
    assert_eq!(Forwarded::read(honest).origin, None);
    let stranger = r#"{"round_id":"r","proplet_id":"victim"}"#;
    for payload in [
        with("proplet_id", None),
        with("proplet_id", Some("q")),
        with("round_id", Some("other")),
        with("round_id", None),
        Bytes::from_static(&[0; 8]),
        Bytes::from_static(b"\x02\0\0\0\0\0\0\0{}rest"),
    ] {
        let forwarded = forward(&payload, &origin(), Timestamp::ZERO);
        assert_eq!(Forwarded::read(forwarded).origin, Some(origin()), "{payload:?}");
    }
    // Neither in the metadata, nor at the end of the data, nor by the way the two forms are told
    // apart can a sender put in a word for another.
    let forged = with("forwarded_from", Some(stranger));
    assert_eq!(Forwarded::read(forward(&forged, &origin(), Timestamp::ZERO)).origin, None);
    let mut foreign = fields();
    foreign.insert("proplet_id".to_owned(), "victim".to_owned());
    foreign.insert("forwarded_from".to_owned(), stranger.to_owned());
    let header_text = serde_json::json!({ "__metadata__": foreign }).to_string();
    let tail = format!(r#","forwarded_from":{stranger},"forwarded_at":"1970-01-01T00:00:00Z"}}"#);
    let mut shifted = b"     {a\0\0\0\0\0\0".to_vec();
    shifted.extend(header_text.bytes());
    shifted.resize(5 + 8 + 0x617b, b' ');
    shifted.extend(tail.bytes());
    for payload in [file(&header_text, tail.as_bytes()), file(&header_text, b""), shifted.into()] {
        let forwarded = Forwarded::read(forward(&payload, &origin(), Timestamp::ZERO));
        assert_eq!(forwarded.origin, Some(origin()), "{payload:?}");
    }
}

#[test]
fn a_header_without_room_for_forwarding_is_refused_with_its_sender() {
    let rest = usize::from(with("metrics", Some(""))[0]);
    let full = with("metrics", Some(&"x".repeat(HEADER_LEN_MAX - rest)));
    assert!(Update::read(&full, None).is_ok());
    let forwarded = Forwarded::read(forward(&full, &origin(), Timestamp::ZERO));
    assert_eq!(forwarded.origin, Some(origin()));
    assert_eq!(Form::of(&forwarded.payload), Form::Json);
}

#[test]
fn a_model_of_a_file_is_checked_like_one_of_json() {
    let model = |version: Option<&str>, values: &[f32]| {
        let version = version.map(|version| ("version".to_owned(), version.to_owned()));
        Model::read(&safetensors::write(&tensors(values), &version.into_iter().collect()))
    };
    assert_eq!(model(Some("7"), &[1.0]).unwrap().version, ModelVersion(7));
    for version in [None, Some("-1"), Some("1.5"), Some("")] {
        assert!(model(version, &[1.0]).unwrap_err().to_string().contains("version"));
    }
    let why = model(Some("1"), &[1.0, f32::NAN]).unwrap_err().to_string();
    assert!(why.contains("tensor \"w\" is not finite"), "{why}");
    assert!(Model::read(&Bytes::from_static(b"{}")).is_err());
    assert!(Model::read(&Bytes::new()).is_err());
}

#[test]
fn the_same_numbers_count_as_the_same_update_in_either_form() {
    let wide = Tensor::new(vec![2], vec![0.1, -0.0]).unwrap();
    let tensors: Tensors = [("w".to_owned(), wide)].into_iter().collect();
    let text = Update { update: tensors.clone(), form: Form::Json, ..update(&[]) };
    let binary = Update { update: tensors, ..update(&[]) };
    let read = |update: &Update| Update::read(&update.seal().payload, None).unwrap();
    assert_eq!(read(&text).fingerprint(), read(&binary).fingerprint());
    let narrow = Update { update: crate::tensors(&[0.1, -0.0]), ..binary };
    assert_ne!(read(&text).fingerprint(), read(&narrow).fingerprint());
}

proptest! {
    #[test]
    fn a_file_survives_the_manager(bits in prop::collection::vec(any::<u32>(), 0..40)) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|v| v.is_finite()).collect();
        let sent = update(&values);
        let payload = sent.write();
        prop_assert_eq!(&Update::read(&payload, None).unwrap(), &sent);
        let forwarded = forward(&payload, &origin(), Timestamp::ZERO);
        prop_assert!(forwarded.len() <= payload.len() + FORWARD_TAIL_LEN_MAX);
        let Forwarded { origin, payload } = Forwarded::read(forwarded);
        prop_assert_eq!(origin, None);
        let metadata = safetensors::read(&payload).unwrap().metadata;
        prop_assert_eq!(metadata["forwarded_at"].as_str(), "1970-01-01T00:00:00Z");
        let read = Update::read(&payload, None).unwrap();
        prop_assert_eq!(read.fingerprint(), sent.fingerprint());
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn an_almost_right_file_never_panics_and_always_names_its_sender(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = update(&[0.5, -1.0]).write().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        let forwarded = Forwarded::read(forward(&bytes, &origin(), Timestamp::ZERO));
        let sender = forwarded.origin.map(|origin| origin.proplet_id);
        match Update::read(&forwarded.payload, sender.as_ref()) {
            Ok(update) => prop_assert_eq!(update.proplet_id, origin().proplet_id),
            Err(why) => prop_assert_eq!(why.proplet_id, Some(origin().proplet_id)),
        }
        let _ = Update::read(&bytes.into(), None);
    }
}

#[test]
fn a_stream_is_handed_on_unread_with_its_sender_behind_it() {
    let stream = [&[0x78_u8, 0xbb, 1, 2, 3, 4][..], &[7; 900]].concat();
    assert!(protocol::message::is_zlib(&stream));
    let forwarded = forward(&stream, &origin(), Timestamp::ZERO);
    assert!(
        forwarded.starts_with(&stream) && forwarded.len() <= stream.len() + FORWARD_TAIL_LEN_MAX
    );
    let tail: serde_json::Value = serde_json::from_slice(&forwarded[stream.len()..]).unwrap();
    assert_eq!(tail["forwarded_at"], "1970-01-01T00:00:00Z");
    let read = Forwarded::read(forwarded.clone());
    assert_eq!((read.origin, &read.payload[..]), (Some(origin()), &stream[..]));
    // Whoever puts a sender there himself is only overruled.
    let forged =
        String::from_utf8_lossy(&forwarded[stream.len()..]).replace("proplet-1", "another");
    let forged = [&stream[..], forged.as_bytes()].concat();
    let read = Forwarded::read(forward(&forged, &origin(), Timestamp::ZERO));
    assert_eq!((read.origin, read.payload.len()), (Some(origin()), forged.len()));
    for payload in [&b""[..], b"x", b"{\"a\":1}", b" {}", &update(&[1.0]).write()] {
        assert!(!protocol::message::is_zlib(payload), "{payload:?}");
    }
}
