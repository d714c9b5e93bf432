//! What an update of a thousand parameters in four tensors costs on the wire, byte by byte.

#![allow(clippy::unwrap_used, reason = "tests")]

mod made;

use encoding::{decode, encode};
use made::{PERCEPTRON, encoding, metadata, seed, trained};
use protocol::{
    DType, Letter, PropletId, RoundId, Topic,
    message::{UpdateAck, Verdict},
    tensor::safetensors,
};

/// Bytes of each; the plain file first.
const SIZES: &[(&str, usize)] = &[
    ("", 4472),
    ("deflate", 3852),
    ("delta+deflate", 3703),
    ("f16", 2480),
    ("f16+deflate", 2026),
    ("delta+f16+deflate", 2027),
    ("delta+bf16+deflate", 1759),
    ("int8", 1552),
    ("delta+int8", 1560),
    ("int8+deflate", 1122),
    ("delta+int8+deflate", 1136),
    ("delta+topk:0.1+int8+deflate", 375),
    ("delta+topk:0.01+f16+deflate", 186),
];

#[test]
fn an_update_of_a_thousand_parameters_takes_so_many_bytes() {
    let (update, base) = trained(DType::F32, PERCEPTRON, 1);
    let sizes: Vec<(&str, usize)> = SIZES
        .iter()
        .map(|(text, _)| {
            if text.is_empty() {
                return (*text, safetensors::write(&update, &metadata()).len());
            }
            let encoding = encoding(text);
            let encoded = encode(&encoding, (&update, &base), None, seed(1), metadata()).unwrap();
            decode(&encoding, &base, &encoded.file).unwrap();
            (*text, encoded.file.len())
        })
        .collect();
    assert_eq!(sizes, SIZES);
}

/// The fixed header, the topic with its length, and a packet's number: MQTT 3.1.1, section 3.3.
fn publish_len(topic: &Topic, payload_len: usize) -> usize {
    let rest = 2 + topic.to_string().len() + 2 + payload_len;
    1 + if rest < 128 { 1 } else { 2 } + rest
}

const PUBACK_LEN: usize = 4;

/// All that passes between a proplet and its broker for one update, at QoS 1: the update and its
/// verdict, each acknowledged.
fn mqtt_len(update_len: usize) -> usize {
    let round: RoundId = metadata()["round_id"].parse().unwrap();
    let proplet: PropletId = metadata()["proplet_id"].parse().unwrap();
    let topic = Topic::RoundUpdate { round: round.clone(), proplet: proplet.clone() };
    let verdict = Verdict::Accepted;
    let ack = UpdateAck { round_id: round, proplet_id: proplet, verdict }.seal();
    publish_len(&topic, update_len) + publish_len(&ack.topic, ack.payload.len()) + 2 * PUBACK_LEN
}

#[test]
fn four_kilobytes_of_f32_take_four_and_a_half_and_of_int8_one_point_three() {
    let size = |text: &str| SIZES.iter().find(|(it, _)| *it == text).unwrap().1;
    assert!(mqtt_len(size("deflate")) <= 4500, "{}", mqtt_len(size("deflate")));
    let int8 = mqtt_len(size("delta+int8+deflate"));
    assert!(int8 <= 1300, "{int8}");
}
