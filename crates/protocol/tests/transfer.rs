//! Blobs on the wire: a manifest that lies is refused, an offer is judged like an update.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use proptest::prelude::*;
use protocol::{
    Digest, Letter as _, Manifest, ManifestBuilder, ModelLine, ModelUri, ModelVersion, PropletId,
    Rejection, Timestamp, Topic,
    manifest::{
        CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNKS_MAX, ChunkError, Format, MANIFEST_LEN_MAX,
        ManifestError,
    },
    message::{
        ModelBlob, ModelPublishWants, ModelWants, ModuleWants, Origin, UpdateOffer, UpdateWants,
        WANTS_MAX, Wants, WantsError, forward, is_blob_form, read_update, read_update_offer,
    },
};
use serde_json::{Value, json};

fn manifest(bytes: &[u8]) -> Manifest {
    Manifest::of(bytes, CHUNK_BYTES_MIN, Format::safetensors()).unwrap()
}

fn offer() -> UpdateOffer {
    UpdateOffer {
        round_id: "r".parse().unwrap(),
        proplet_id: "p".parse().unwrap(),
        base_model_uri: ModelUri::global(ModelVersion(3)),
        num_samples: 5,
        metrics: [("loss".to_owned(), 0.5)].into(),
        blob: manifest(&[7; 2000]),
    }
}

proptest! {
    #[test]
    fn however_the_bytes_are_cut_their_manifest_is_the_same(
        bytes in prop::collection::vec(any::<u8>(), 1..6000),
        cuts in prop::collection::vec(0..6000_usize, 0..8),
    ) {
        let mut builder =
            ManifestBuilder::new(bytes.len() as u64, CHUNK_BYTES_MIN, Format::safetensors()).unwrap();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).for_each(|pair| builder.push(&bytes[pair[0]..pair[1]]));
        let built = builder.finish().unwrap();
        prop_assert_eq!(&built, &manifest(&bytes));
        prop_assert_eq!(built.sha256(), Digest::of(&bytes));
        for (index, chunk) in (0..).zip(bytes.chunks(CHUNK_BYTES_MIN as usize)) {
            prop_assert_eq!(built.check(index, chunk), Ok(()));
            prop_assert_eq!(built.len_of(index), chunk.len());
        }
        let text = serde_json::to_vec(&built).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Manifest>(&text).unwrap(), built);
    }

    #[test]
    fn a_changed_byte_is_found(
        len in 1..3000_usize, at in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let mut bytes = vec![0x5a; len];
        let manifest = manifest(&bytes);
        let at = at.index(len);
        bytes[at] ^= 1 << bit;
        let index = u32::try_from(at).unwrap() / CHUNK_BYTES_MIN;
        let chunk = bytes.chunks(CHUNK_BYTES_MIN as usize).nth(index as usize).unwrap();
        prop_assert_eq!(manifest.check(index, chunk), Err(ChunkError::Digest { index }));
    }

    #[test]
    fn no_bytes_break_the_readers(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = serde_json::from_slice::<Manifest>(&bytes);
        let _ = Wants::read(&bytes);
        let _ = ModelPublishWants::read(ModelLine::default(), &bytes);
        let _ = ModelWants::read(ModelLine::default(), &bytes);
        let _ = ModuleWants::read(&bytes);
        prop_assert!(!is_blob_form(&bytes));
        prop_assert!(read_update_offer(&bytes, None).is_err());
    }

    #[test]
    fn an_almost_right_offer_never_panics(at in 0..500_usize, byte in any::<u8>(), cut in 1..600_usize) {
        let mut bytes = offer().seal().payload.to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(cut);
        let _ = is_blob_form(&bytes);
        let _ = read_update_offer(&bytes, None);
    }
}

#[test]
fn a_manifest_that_lies_is_refused_in_words() {
    let good = serde_json::to_value(manifest(&[1; 2500])).unwrap();
    assert!(serde_json::from_value::<Manifest>(good.clone()).is_ok());
    let digests = |count: usize| BASE64_STANDARD.encode(vec![0; count]);
    for (field, value, word) in [
        ("bytes", json!(0), "at least one byte"),
        ("bytes", json!(-1), "-1"),
        ("bytes", json!(2048), "2048 bytes take 2 chunks of 1024, 3 are listed"),
        ("bytes", json!(u64::MAX), "at most 4096"),
        ("chunk_bytes", json!(0), "chunk_bytes is 0"),
        ("chunk_bytes", json!(CHUNK_BYTES_MIN - 1), "chunk_bytes is 1023"),
        ("chunk_bytes", json!(CHUNK_BYTES_MAX + 1), "chunk_bytes is 4194305"),
        ("chunk_bytes", json!(u64::MAX), "18446744073709551615"),
        ("chunks", json!(digests(95)), "128 characters"),
        ("chunks", json!(digests(64)), "2 are listed"),
        ("chunks", json!("*"), "base64"),
        ("chunks", json!(digests(32 * 4097)), "4097 are listed"),
        ("chunks", json!("A".repeat(MANIFEST_LEN_MAX + 4)), "base64"),
        ("format", json!(""), "\"\" is not a format"),
        ("format", json!("a/b"), "a/b"),
        ("format", json!("x".repeat(65)), "is not a format"),
        ("sha256", json!("00"), "SHA-256"),
        ("sha256", json!(format!("+{}", "a".repeat(63))), "SHA-256"),
    ] {
        let mut bad = good.clone();
        bad[field] = value.clone();
        let error = serde_json::from_value::<Manifest>(bad).unwrap_err().to_string();
        assert!(error.contains(word), "{field} {value}: {error}");
        assert!(error.len() < 300, "{error}");
    }
    for field in ["sha256", "bytes", "chunk_bytes", "chunks", "format"] {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(field);
        let error = serde_json::from_value::<Manifest>(bad).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn the_largest_manifest_fits_its_limit_and_is_read() {
    let bytes = u64::from(CHUNKS_MAX) * u64::from(CHUNK_BYTES_MAX);
    let digests = vec![Digest::of(b"x"); CHUNKS_MAX as usize];
    let format = || Format::try_from("x".repeat(64)).unwrap();
    let largest =
        Manifest::new(digests[0], bytes, CHUNK_BYTES_MAX, digests.clone(), format()).unwrap();
    let blob = ModelBlob { version: ModelVersion(u64::MAX), blob: largest.clone() };
    let payload = blob.seal().payload;
    assert!(payload.len() <= MANIFEST_LEN_MAX, "{}", payload.len());
    assert!(is_blob_form(&payload));
    assert_eq!(serde_json::from_slice::<ModelBlob>(&payload).unwrap(), blob);
    let more = Manifest::new(digests[0], bytes + 1, CHUNK_BYTES_MAX, digests, format());
    assert!(matches!(more, Err(ManifestError::TooLarge { chunks: 4097, .. })), "{more:?}");
}

#[test]
fn more_or_fewer_bytes_than_announced_make_no_manifest() {
    for len in [0, 1, 1023, 1025, 5000] {
        let mut builder = ManifestBuilder::new(1024, CHUNK_BYTES_MIN, Format::wasm()).unwrap();
        builder.push(&vec![0; len]);
        assert!(builder.finish().is_err(), "{len}");
    }
}

#[test]
fn a_chunk_of_another_length_or_number_is_refused() {
    let manifest = manifest(&[7; 2000]);
    assert_eq!((manifest.count(), manifest.offset(1)), (2, 1024));
    assert_eq!(manifest.check(2, b""), Err(ChunkError::OutOfRange { index: 2, count: 2 }));
    let length = ChunkError::Length { index: 1, found: 977, expected: 976 };
    assert_eq!(manifest.check(1, &[7; 977]), Err(length));
    assert_eq!((manifest.len_of(2), manifest.len_of(u32::MAX)), (0, 0));
}

#[test]
fn manifests_of_one_whole_in_other_pieces_differ() {
    let one = manifest(&[7; 3000]);
    let other = Manifest::of(&[7; 3000], 2048, Format::safetensors()).unwrap();
    assert_eq!(one.sha256(), other.sha256());
    assert_ne!(one.fingerprint(), other.fingerprint());
}

#[test]
fn an_offer_survives_the_wire_and_the_manager() {
    let sent = offer();
    let payload = sent.seal().payload;
    assert_eq!(read_update_offer(&payload, Some(&sent.proplet_id)).unwrap(), sent);
    let origin = Origin { round_id: "r".parse().unwrap(), proplet_id: "p".parse().unwrap() };
    let forwarded = forward(&payload, &origin, Timestamp::ZERO);
    assert!(is_blob_form(&forwarded));
    assert_eq!(read_update_offer(&forwarded, None).unwrap(), sent);
    assert_eq!(
        sent.topic(),
        Topic::RoundUpdate { round: origin.round_id, proplet: origin.proplet_id }
    );
    let other = UpdateOffer { num_samples: 6, ..sent.clone() };
    assert_ne!(other.fingerprint(), sent.fingerprint());
    let other = UpdateOffer { metrics: [].into(), ..sent.clone() };
    assert_eq!(other.fingerprint(), sent.fingerprint());
}

/// Whatever is wrong with an update is wrong with an offer, for the same reason.
#[test]
fn an_offer_is_judged_as_strictly_as_an_update() {
    let sender: PropletId = "p".parse().unwrap();
    let mut judged = vec![];
    for (field, value) in [
        ("round_id", "null"),
        ("round_id", "7"),
        ("round_id", "\"a/b\""),
        ("proplet_id", "\"other\""),
        ("proplet_id", "[]"),
        ("base_model_uri", "\"elsewhere\""),
        ("base_model_uri", "{}"),
        ("num_samples", "0"),
        ("num_samples", "-1"),
        ("num_samples", "1.5"),
        ("num_samples", "NaN"),
        ("num_samples", "\"5\""),
        ("metrics", "{\"loss\":NaN}"),
        ("metrics", "{\"loss\":null,\"\\u0041\":[1]}"),
        ("round_id", "\"r\",\"round_id\":\"r\""),
        ("num_samples", "1e999"),
        ("metrics", "[[["),
    ] {
        let with = |key: &str, body: &str| {
            let mut text = "{".to_owned();
            let fields = [
                ("round_id", "\"r\""),
                ("proplet_id", "\"p\""),
                ("base_model_uri", "\"fl/models/global_model_v3\""),
                ("num_samples", "5"),
                ("metrics", "{}"),
            ];
            for (name, good) in fields {
                let text_of = if name == field { value } else { good };
                write!(text, "\"{name}\":{text_of},").unwrap();
            }
            write!(text, "\"{key}\":{body}}}").unwrap();
            text
        };
        let blob = serde_json::to_string(&manifest(&[1])).unwrap();
        let of_offer = read_update_offer(with("blob", &blob).as_bytes(), Some(&sender));
        let of_update = read_update(with("update", "{\"w\":[1.0]}").as_bytes(), Some(&sender));
        match (of_offer, of_update) {
            (Ok(offer), Ok(update)) => assert_eq!(offer.metrics, update.metrics),
            (Err(offer), Err(update)) => {
                assert_eq!(
                    (offer.reason, &offer.round_id, &offer.proplet_id),
                    (update.reason, &update.round_id, &update.proplet_id),
                    "{field} {value}: {offer} / {update}"
                );
                judged.push(offer.reason);
            }
            (offer, update) => panic!("{field} {value}: {offer:?} / {update:?}"),
        }
    }
    judged.sort();
    judged.dedup();
    let reasons = [
        Rejection::StaleBase,
        Rejection::NotFinite,
        Rejection::NumSamples,
        Rejection::Malformed,
        Rejection::SenderMismatch,
    ];
    assert_eq!(judged, reasons);
}

#[test]
fn an_offer_names_one_good_blob() {
    let good = serde_json::to_value(offer()).unwrap();
    let judge = |value: &Value| {
        let error = read_update_offer(&serde_json::to_vec(value).unwrap(), None).unwrap_err();
        assert_eq!(error.round_id, Some("r".parse().unwrap()), "{error}");
        (error.reason, error.what)
    };
    for (key, value, word) in [
        ("blob", Value::Null, "blob is missing"),
        ("blob", json!([]), "blob: "),
        ("blob", json!({"bytes": 0}), "blob: "),
        ("update", json!({"w": 1}), "exclude each other"),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        let (reason, what) = judge(&bad);
        assert_eq!(reason, Rejection::Malformed);
        assert!(what.contains(word), "{what}");
    }
    let mut huge = good;
    huge["padding"] = json!("x".repeat(MANIFEST_LEN_MAX + 512));
    let error = read_update_offer(&serde_json::to_vec(&huge).unwrap(), None).unwrap_err();
    assert_eq!(error.reason, Rejection::TooLarge);
}

#[test]
fn a_tensor_may_be_called_blob() {
    assert!(!is_blob_form(br#"{"blob":[1.0],"version":1}"#));
    assert!(!is_blob_form(br#"{"blob":1.0,"version":1}"#));
    assert!(!is_blob_form(br#"{"update":{"blob":{}}}"#));
    assert!(is_blob_form(
        &ModelBlob { version: ModelVersion(1), blob: manifest(&[1]) }.seal().payload
    ));
}

#[test]
fn a_model_in_pieces_is_shown_where_a_whole_one_is() {
    let blob = ModelBlob { version: ModelVersion(4), blob: manifest(&[1]) };
    assert_eq!(blob.seal().topic, Topic::ModelPublish { line: ModelLine::default() });
    assert_eq!(
        blob.shown(&ModelLine::default()).topic,
        Topic::Model { uri: ModelUri::global(ModelVersion(4)) }
    );
    assert_eq!(blob.shown(&ModelLine::default()).payload, blob.seal().payload);
}

#[test]
fn wants_are_few_and_in_range() {
    let sha256 = Digest::of(b"x");
    let read = |indexes: Value| {
        let text = json!({"sha256": sha256, "indexes": indexes}).to_string();
        Wants::read(text.as_bytes()).map(|wants| wants.indexes.len())
    };
    assert_eq!(read(json!([3, 1, 3])).unwrap(), 2, "each once");
    assert_eq!(read((0..WANTS_MAX).collect()).unwrap(), WANTS_MAX);
    for (indexes, word) in [
        (json!([]), "0 indexes"),
        ((0..=WANTS_MAX).collect(), "257 indexes"),
        (json!([CHUNKS_MAX]), "no chunk 4096"),
        (json!([-1]), "-1"),
        (json!(["1"]), "string"),
        (json!(7), "7"),
        ((0..3000).collect(), "bytes"),
    ] {
        let error = read(indexes).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let wants = Wants { sha256, indexes: [1, 2].into() };
    let (round, proplet) = ("r".parse().unwrap(), "p".parse().unwrap());
    let update = UpdateWants { round_id: round, proplet_id: proplet, wants: wants.clone() };
    let sealed = update.seal();
    assert_eq!(sealed.payload, serde_json::to_vec(&wants).unwrap());
    let read =
        UpdateWants::read(update.round_id.clone(), update.proplet_id.clone(), &sealed.payload);
    assert_eq!(read.unwrap(), update);
    let publish = ModelPublishWants { line: ModelLine::default(), version: ModelVersion(2), wants };
    assert_eq!(
        ModelPublishWants::read(ModelLine::default(), &publish.seal().payload).unwrap(),
        publish
    );
    assert_eq!(
        ModelWants::read(ModelLine::default(), br#"{"version":2}"#).unwrap().version,
        ModelVersion(2)
    );
    let of_nobody = format!(r#"{{"sha256":"{}"}}"#, Digest::of(b"m"));
    assert!(matches!(ModuleWants::read(of_nobody.as_bytes()), Err(WantsError::Syntax(_))));
    let endless = vec![b' '; 1 << 20];
    assert!(matches!(ModuleWants::read(&endless), Err(WantsError::TooLong(_))));
}

#[test]
fn chunk_topics_have_one_spelling_and_a_range() {
    for bad in [
        "fl/models/global_model_v1/chunks/4096",
        "fl/models/global_model_v1/chunks/01",
        "fl/models/global_model_v1/chunks/+1",
        "fl/models/global_model_v1/chunks/-1",
        "fl/models/global_model_v1/chunks/",
        "fl/models/global_model_v01/chunks/1",
        "fl/models/global_model_v1/chunk/1",
        "fl/models/publish/1/chunks/1",
        "fl/models/publish/v1/chunks/x",
        "fl/rounds/r/updates/chunks/1",
        "fl/rounds/a+b/updates/p/chunks/1",
        "{B}/control/manager/modules/00/chunks/1",
    ] {
        assert!(bad.parse::<Topic>().is_err(), "{bad}");
    }
    let upper = Topic::ModuleChunk { sha256: Digest::of(b"m"), index: 1 }.to_string();
    assert!(upper.parse::<Topic>().is_ok());
    let (head, tail) = upper.split_at(upper.find("modules/").unwrap() + 8);
    let spelled = format!("{head}{}", tail.to_uppercase().replace("CHUNKS", "chunks"));
    assert!(spelled != upper && spelled.parse::<Topic>().is_err());
}
