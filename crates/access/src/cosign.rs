//! Signatures as cosign makes them with a key of its user's own: over a text that names the digest
//! of an image's manifest. It refuses to know certificates, Fulcio and Rekor.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::Digest;
use ring::{
    agreement::{self, ECDH_P256, EphemeralPrivateKey},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey},
};
use serde::Deserialize;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
/// What stands in a `SubjectPublicKeyInfo` before a point of P-256, uncompressed (RFC 5480, section 2).
const P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\
    \x03\x01\x07\x03\x42\x00";
const P256_LEN: usize = 65;
/// What stands there before a key of Ed25519 (RFC 8410, section 4).
const ED25519_INFO: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const ED25519_LEN: usize = 32;
/// What cosign says that it signs.
const KIND: &str = "cosign container image signature";

/// A public key, as `cosign generate-key-pair` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CosignKey {
    P256([u8; P256_LEN]),
    Ed25519([u8; ED25519_LEN]),
}

/// Why cosign has not signed an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCosigned {
    #[error("a signature is not base64")]
    Malformed,
    #[error("a signature is of none of the keys of this device, or of something else")]
    Stranger,
    #[error("what is signed does not name an image as cosign does: {0}")]
    Unreadable(String),
    #[error("what is signed is {0:?}, and no image")]
    Kind(String),
    #[error("what is signed is another image, {0:?}")]
    Elsewhere(String),
}

/// The "simple signing" text, as far as it counts. The name of the image is for the eye: a copy of
/// it elsewhere is the same image.
#[derive(Deserialize)]
struct Statement {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

impl CosignKey {
    /// Takes the lines of one key in PEM, up to its end.
    pub(crate) fn read<'a>(
        begin: &str,
        rest: &mut impl Iterator<Item = &'a str>,
    ) -> Result<Self, &'static str> {
        if begin.trim_end() != BEGIN {
            return Err("what begins here is in PEM, but no public key");
        }
        let mut text = String::new();
        for line in rest {
            if line.trim_end() == END {
                return Self::of(&text);
            }
            text.push_str(line.trim());
        }
        Err("the public key that begins here has no end")
    }

    fn of(text: &str) -> Result<Self, &'static str> {
        let bytes = STANDARD.decode(text).map_err(|_| "the public key here is not base64")?;
        let point = bytes.strip_prefix(P256).and_then(|point| point.try_into().ok());
        if let Some(point) = point {
            let key = Self::P256(point);
            return if is_on_curve(&point) {
                Ok(key)
            } else {
                Err("the public key here is damaged")
            };
        }
        let key = bytes.strip_prefix(ED25519_INFO).and_then(|key| key.try_into().ok());
        key.map(Self::Ed25519).ok_or("the public key here is neither ECDSA P-256 nor Ed25519")
    }

    fn has_signed(&self, payload: &[u8], signature: &[u8]) -> bool {
        let held = match self {
            Self::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(payload, signature)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(payload, signature),
        };
        held.is_ok()
    }
}

/// Whether one of the keys has signed the image whose manifest has this digest.
pub(crate) fn check(
    keys: &[CosignKey],
    image: Digest,
    payload: &[u8],
    signature: &str,
) -> Result<(), NotCosigned> {
    let signature = STANDARD.decode(signature).map_err(|_| NotCosigned::Malformed)?;
    if !keys.iter().any(|key| key.has_signed(payload, &signature)) {
        return Err(NotCosigned::Stranger);
    }
    // From here on it is the words of someone who is trusted.
    let said: Statement =
        serde_json::from_slice(payload).map_err(|why| NotCosigned::Unreadable(why.to_string()))?;
    let Critical { kind, image: Image { digest } } = said.critical;
    if kind != KIND {
        return Err(NotCosigned::Kind(kind));
    }
    if digest != format!("sha256:{image}") {
        return Err(NotCosigned::Elsewhere(digest));
    }
    Ok(())
}

/// A key with a wrong letter is noticed when it is read. `ring` looks at a point when something is
/// agreed with it.
fn is_on_curve(point: &[u8; P256_LEN]) -> bool {
    let own = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new());
    let other = agreement::UnparsedPublicKey::new(&ECDH_P256, point);
    own.is_ok_and(|own| agreement::agree_ephemeral(own, &other, |_| ()).is_ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::{ModuleSigners, SigningKey, sign_module};

    fn p256() -> EcdsaKeyPair {
        let (kind, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).unwrap()
    }

    fn sign(key: &EcdsaKeyPair, payload: &str) -> String {
        STANDARD.encode(key.sign(&SystemRandom::new(), payload.as_bytes()).unwrap())
    }

    fn pem(info: &[u8], key: &[u8]) -> String {
        let text = STANDARD.encode([info, key].concat());
        let (first, second) = text.split_at(text.len().min(64));
        format!("{BEGIN}\n{first}\n{second}\n{END}\n")
    }

    fn payload(image: Digest) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"r.example/a"}},"image":{{"docker-manifest-digest":"sha256:{image}"}},"type":"{KIND}"}},"optional":null}}"#
        )
    }

    fn load(text: &str) -> Result<ModuleSigners, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signers");
        fs::write(&path, text).unwrap();
        ModuleSigners::load(&path).map_err(|why| why.to_string())
    }

    #[test]
    fn keys_of_every_kind_stand_in_one_file() {
        let (ours, ann, eve) = (SigningKey::make().unwrap(), p256(), p256());
        let bob = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let text = format!(
            "# ours\n{} Ours\n{}# Bob\n{}",
            ours.public(),
            pem(P256, ann.public_key().as_ref()),
            pem(ED25519_INFO, bob.public_key().as_ref()),
        );
        let signers = load(&text).unwrap();
        let (module, image) = (Digest::of(b"module"), Digest::of(b"manifest"));
        signers.check(module, Some(&sign_module(&ours, module))).unwrap();
        let payload = payload(image);
        let check = |payload: &str, signature: &str| {
            signers.check_cosigned(image, payload.as_bytes(), signature)
        };
        assert!(signers.use_cosign());
        check(&payload, &sign(&ann, &payload)).unwrap();
        check(&payload, &STANDARD.encode(bob.sign(payload.as_bytes()))).unwrap();
        assert_eq!(check(&payload, &sign(&eve, &payload)), Err(NotCosigned::Stranger));
        let changed = format!("{payload} ");
        assert_eq!(check(&changed, &sign(&ann, &payload)), Err(NotCosigned::Stranger));
        assert_eq!(check(&payload, "?"), Err(NotCosigned::Malformed));
        // Keys of one kind are none of the other's.
        assert!(!load(&format!("{}\n", ours.public())).unwrap().use_cosign());
    }

    #[test]
    fn what_is_signed_has_to_be_this_image() {
        let ann = p256();
        let signers = load(&pem(P256, ann.public_key().as_ref())).unwrap();
        let image = Digest::of(b"manifest");
        let check = |payload: &str| {
            signers.check_cosigned(image, payload.as_bytes(), &sign(&ann, payload)).unwrap_err()
        };
        let other = check(&payload(Digest::of(b"other")));
        assert!(matches!(other, NotCosigned::Elsewhere(_)), "{other}");
        let kind = check(&payload(image).replace(KIND, "atomic container signature"));
        assert!(matches!(kind, NotCosigned::Kind(_)), "{kind}");
        for text in ["", "{}", "null", &payload(image).replace("\"type\"", "\"kind\"")] {
            let why = check(text);
            assert!(matches!(why, NotCosigned::Unreadable(_)), "{why}");
        }
        // Said twice, it could be read either way.
        let digest = format!("\"docker-manifest-digest\":\"sha256:{image}\"");
        let twice = payload(image).replace(&digest, &format!("{digest},{digest}"));
        assert!(matches!(check(&twice), NotCosigned::Unreadable(_)));
    }

    #[test]
    fn a_key_that_is_none_is_named_by_its_line() {
        let good = pem(P256, p256().public_key().as_ref());
        let mut off = p256().public_key().as_ref().to_vec();
        off[40] ^= 1;
        let sigstore = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n";
        for (bad, word) in [
            (sigstore.to_owned(), "no public key"),
            (good.replace(END, ""), "no end"),
            (format!("{BEGIN}\n?\n{END}\n"), "not base64"),
            (format!("{BEGIN}\n{END}\n"), "neither"),
            (pem(b"\x30\x82", &[0; 200]), "neither"),
            (pem(P256, &off), "damaged"),
            (pem(P256, &off[..64]), "neither"),
        ] {
            let why = load(&format!("{good}{bad}")).unwrap_err();
            assert!(why.contains("signers, line 5: ") && why.contains(word), "{why}");
        }
    }
}
