//! Checks the signatures of updates before the core sees them. What does not hold reaches it as a
//! refusal, which it counts with the round and answers to nobody: whoever is named in a forged
//! update may have a good one under way.

use std::fmt;

use access::{LiveRoster, is_signed};
use protocol::{
    Envelope, PropletId, RoundId, Topic,
    message::{Forwarded, read_update_address, signature_refused, signed_facts},
};
use service::Inspector;

/// Whose updates must be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Demand {
    /// Nobody's; signatures are not looked at.
    #[default]
    Off,
    /// Those of proplets that have a key on the roster.
    Optional,
    /// Everybody's; who has no key on the roster cannot take part.
    Required,
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        })
    }
}

/// What is demanded, and where the keys are.
#[derive(Debug)]
pub(crate) enum Signatures {
    Ignored,
    Checked { unsigned: Unsigned, roster: LiveRoster },
}

/// What comes of an update whose sender has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsigned {
    Taken,
    Refused,
}

impl Signatures {
    /// Why the update that `proplet` is said to have sent to `round` must not be believed.
    fn objection(&self, payload: &[u8], round: &RoundId, proplet: &PropletId) -> Option<String> {
        let Self::Checked { unsigned, roster } = self else { return None };
        let roster = roster.now();
        let entry = roster.get(proplet.as_str());
        if entry.is_some_and(access::Entry::is_revoked) {
            return Some("its sender was revoked".to_owned());
        }
        let Some(key) = entry.and_then(|entry| entry.public_key.as_deref()) else {
            return match unsigned {
                Unsigned::Taken => None,
                Unsigned::Refused => Some("its sender has no key on the roster".to_owned()),
            };
        };
        match signed_facts(payload, round, proplet) {
            // The core says better what is wrong with it.
            Err(why) => Some(why),
            Ok(facts) => match facts.signature {
                None => Some("it is not signed".to_owned()),
                Some(signature) if is_signed(key, &facts.statement, &signature) => None,
                Some(_) => {
                    Some("its signature is not that of its sender, or of something else".to_owned())
                }
            },
        }
    }

    /// The message as the core may see it.
    fn checked(&self, envelope: Envelope) -> Envelope {
        let Topic::ForwardedUpdate = envelope.topic else { return envelope };
        if let Self::Ignored = self {
            return envelope;
        }
        let Forwarded { origin, payload } = Forwarded::read(envelope.payload.clone());
        let address = match origin {
            Some(origin) => (Some(origin.round_id), Some(origin.proplet_id)),
            None => read_update_address(&payload),
        };
        // Without an address, the core refuses it.
        let (Some(round), Some(proplet)) = address else { return envelope };
        match self.objection(&payload, &round, &proplet) {
            None => envelope,
            Some(why) => {
                let payload = signature_refused(&round, &proplet, &why);
                Envelope { topic: Topic::ForwardedUpdate, payload }
            }
        }
    }
}

impl Inspector for Signatures {
    fn inbound(&self, envelope: Envelope) -> Envelope {
        self.checked(envelope)
    }
}

#[cfg(test)]
mod tests {
    use access::{Entry, Roster, SigningKey};
    use bytes::Bytes;
    use protocol::{
        Digest, Timestamp,
        message::{Origin, forward, read_signature_refused, with_base_digest, with_signature},
    };

    use super::*;

    const UPDATE: &str = r#"{"round_id":"r","proplet_id":"p1","base_model_uri":"v0","num_samples":5,"metrics":{},"update":{"w":[1.0]}}"#;

    struct Scene {
        _dir: tempfile::TempDir,
        key: SigningKey,
        signatures: Signatures,
    }

    /// `p1` has a key on the roster, `p2` has none.
    fn scene(unsigned: Unsigned) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roster.json");
        let key = SigningKey::make().unwrap();
        let mut roster = Roster::default();
        let entry = Entry { public_key: Some(key.public()), ..Entry::new("") };
        roster.add("p1".parse().unwrap(), entry).unwrap();
        roster.add("p2".parse().unwrap(), Entry::new("")).unwrap();
        roster.save(&path).unwrap();
        let roster = LiveRoster::open(&path).unwrap();
        Scene { _dir: dir, key, signatures: Signatures::Checked { unsigned, roster } }
    }

    fn signed_by(key: &SigningKey, text: &str, round: &str, proplet: &str) -> Bytes {
        let (round, proplet) = (round.parse().unwrap(), proplet.parse().unwrap());
        let facts = signed_facts(text.as_bytes(), &round, &proplet).unwrap();
        with_signature(text.as_bytes(), &key.sign(&facts.statement)).unwrap()
    }

    /// As the core sees an update that came on the topic of `round` and `proplet`: why it was
    /// refused, if it was.
    fn seen(signatures: &Signatures, update: &[u8], round: &str, proplet: &str) -> Option<String> {
        let origin =
            Origin { round_id: round.parse().unwrap(), proplet_id: proplet.parse().unwrap() };
        let payload = forward(update, &origin, Timestamp::from_micros(1));
        let envelope = Envelope { topic: Topic::ForwardedUpdate, payload };
        let checked = signatures.checked(envelope.clone());
        let refused = read_signature_refused(&checked.payload);
        assert!(refused.is_some() || checked == envelope, "what is not refused is not touched");
        refused.map(|(named_round, named, why)| {
            assert_eq!((named_round, named), (origin.round_id, origin.proplet_id));
            why
        })
    }

    #[test]
    fn what_is_not_signed_by_its_sender_is_refused_with_a_reason() {
        let Scene { _dir, key, signatures } = scene(Unsigned::Refused);
        let good = signed_by(&key, UPDATE, "r", "p1");
        let stranger = SigningKey::make().unwrap();
        assert_eq!(seen(&signatures, &good, "r", "p1"), None);
        let forged = signed_by(&stranger, UPDATE, "r", "p1");
        let changed = String::from_utf8(good.to_vec()).unwrap().replace(":5,", ":500,");
        for (update, round, proplet, why) in [
            (UPDATE.as_bytes(), "r", "p1", "not signed"),
            (&forged[..], "r", "p1", "not that of its sender"),
            (changed.as_bytes(), "r", "p1", "not that of its sender"),
            // Replayed into another round, or in another's name.
            (&good[..], "r2", "p1", "not that of its sender"),
            (&good[..], "r", "p2", "no key on the roster"),
            (&good[..], "r", "nobody", "no key on the roster"),
        ] {
            let said = seen(&signatures, update, round, proplet).unwrap();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_key_that_was_revoked_counts_no_longer_from_the_next_update_on() {
        let Scene { _dir: dir, key, signatures } = scene(Unsigned::Taken);
        let good = signed_by(&key, UPDATE, "r", "p1");
        assert_eq!(seen(&signatures, &good, "r", "p1"), None);
        let path = dir.path().join("roster.json");
        Roster::edit(&path, |all| all.revoke(&"p1".parse().unwrap(), "")).unwrap();
        let why = seen(&signatures, &good, "r", "p1").unwrap();
        assert!(why.contains("revoked"), "{why}");
    }

    #[test]
    fn compressed_updates_are_signed_behind_their_end() {
        let Scene { _dir, key, signatures } = scene(Unsigned::Refused);
        let stream: &[u8] = &[0x78, 0x9c, 3, 0, 0, 0, 0, 1];
        let (round, proplet) = ("r".parse().unwrap(), "p1".parse().unwrap());
        let based = with_base_digest(stream, Digest::of(b"base")).unwrap();
        let facts = signed_facts(&based, &round, &proplet).unwrap();
        let signature = key.sign(&facts.statement);
        let good = with_signature(&based, &signature).unwrap();
        assert_eq!(seen(&signatures, &good, "r", "p1"), None);
        let swapped = with_base_digest(stream, Digest::of(b"other")).unwrap();
        let swapped = with_signature(&swapped, &signature).unwrap();
        let stripped = with_signature(stream, &signature).unwrap();
        for (update, why) in [
            (stream, "not signed"),
            (&based[..], "not signed"),
            (&swapped[..], "not that of its sender"),
            (&stripped[..], "not that of its sender"),
        ] {
            let said = seen(&signatures, update, "r", "p1").unwrap();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn optional_means_for_those_without_a_key() {
        let Scene { _dir, key, signatures } = scene(Unsigned::Taken);
        assert_eq!(seen(&signatures, UPDATE.as_bytes(), "r", "p2"), None);
        assert_eq!(seen(&signatures, UPDATE.as_bytes(), "r", "nobody"), None);
        assert!(seen(&signatures, UPDATE.as_bytes(), "r", "p1").is_some(), "it could be stripped");
        let good = signed_by(&key, UPDATE, "r", "p1");
        assert_eq!(seen(&signatures, &good, "r", "p1"), None);
    }

    #[test]
    fn off_means_that_nothing_is_looked_at() {
        assert_eq!(seen(&Signatures::Ignored, UPDATE.as_bytes(), "r", "p1"), None);
        assert_eq!(seen(&Signatures::Ignored, b"{\"signature\":5}", "r", "p1"), None);
    }
}
