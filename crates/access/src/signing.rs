//! Ed25519 keys of proplets: made here, kept in a file of the device, and checked against the
//! public half on the roster.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::{SecureRandom as _, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};

/// Stands before the key in its file, so that no other file is taken for one.
const KIND: &str = "ed25519 ";
const SEED_LEN: usize = 32;

/// The private half.
pub struct SigningKey {
    seed: [u8; SEED_LEN],
    pair: Ed25519KeyPair,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} holds no signing key", path.display())]
    NotAKey { path: PathBuf },
    #[error("the system gives no random numbers")]
    Random,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

impl SigningKey {
    /// A new key.
    pub fn make() -> Result<Self, SigningKeyError> {
        let mut seed = [0; SEED_LEN];
        SystemRandom::new().fill(&mut seed).map_err(|_| SigningKeyError::Random)?;
        Ok(Self::of(seed))
    }

    fn of(seed: [u8; SEED_LEN]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        Self { seed, pair: pair.expect("every 32 bytes are a seed") }
    }

    /// Reads what [`SigningKey::save`] has written.
    pub fn load(path: &Path) -> Result<Self, SigningKeyError> {
        let text = fs::read_to_string(path)
            .map_err(|source| SigningKeyError::File { path: path.to_owned(), source })?;
        let seed = text.trim().strip_prefix(KIND).and_then(|text| STANDARD.decode(text).ok());
        let seed = seed.and_then(|seed| <[u8; SEED_LEN]>::try_from(seed).ok());
        seed.map(Self::of).ok_or_else(|| SigningKeyError::NotAKey { path: path.to_owned() })
    }

    /// Writes it for its owner alone, to a place where nothing is yet.
    pub fn save(&self, path: &Path) -> Result<(), SigningKeyError> {
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        made.and_then(|mut file| file.write_all(self.text().as_bytes()))
            .map_err(|source| SigningKeyError::File { path: path.to_owned(), source })
    }

    /// As it stands in its file.
    pub fn text(&self) -> String {
        format!("{KIND}{}\n", STANDARD.encode(self.seed))
    }

    /// The public half, base64.
    pub fn public(&self) -> String {
        STANDARD.encode(self.pair.public_key())
    }

    /// The signature, base64; of one statement always the same.
    pub fn sign(&self, statement: &[u8]) -> String {
        STANDARD.encode(self.pair.sign(statement))
    }
}

/// Whether the owner of a public key has signed this.
pub fn is_signed(public: &str, statement: &[u8], signature: &str) -> bool {
    let (Ok(public), Ok(signature)) = (STANDARD.decode(public), STANDARD.decode(signature)) else {
        return false;
    };
    UnparsedPublicKey::new(&ED25519, public).verify(statement, &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_statement_and_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p1.sign");
        let key = SigningKey::make().unwrap();
        key.save(&path).unwrap();
        assert!(key.save(&path).is_err(), "no key is overwritten");
        let read = SigningKey::load(&path).unwrap();
        let signature = read.sign(b"said");
        assert_eq!(signature, key.sign(b"said"));
        assert!(is_signed(&key.public(), b"said", &signature));
        assert!(!is_signed(&key.public(), b"sai", &signature));
        assert!(!is_signed(&SigningKey::make().unwrap().public(), b"said", &signature));
        for nonsense in ["", "?", "AAAA"] {
            assert!(!is_signed(nonsense, b"said", &signature));
            assert!(!is_signed(&key.public(), b"said", nonsense));
        }
        fs::write(&path, "ed25519 AAAA").unwrap();
        assert!(SigningKey::load(&path).unwrap_err().to_string().contains("p1.sign"));
    }
}
