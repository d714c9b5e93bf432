//! Signatures of modules: whose code the owner of a device lets run there.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::Digest;

#[cfg(feature = "cosign")]
use crate::cosign::{self, CosignKey, NotCosigned};
use crate::{SigningKey, is_signed};

/// Stands before the digest, so that no signature of something else is taken for one of a module.
const STATEMENT: &str = "aileron module sha256:";
const KEY_LEN: usize = 32;
/// How a key begins that is no line of its own.
const PEM: &str = "-----BEGIN";

/// The public keys of those whose modules may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleSigners {
    keys: BTreeSet<String>,
    #[cfg(feature = "cosign")]
    cosign: Vec<CosignKey>,
}

/// Why there are no signers.
#[derive(Debug, thiserror::Error)]
pub enum ModuleSignersError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}, line {line}: {text:?} is not an ed25519 public key in base64", path.display())]
    NotAKey { path: PathBuf, line: usize, text: String },
    #[error("{}, line {line}: {what}", path.display())]
    NotAPem { path: PathBuf, line: usize, what: &'static str },
    #[error("{} names no key", path.display())]
    None { path: PathBuf },
}

/// Why a module may not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    #[error("the module {0} is not signed, and this device runs signed modules alone")]
    NotAtAll(Digest),
    #[error("the signature of the module {0} is not understood")]
    Malformed(Digest),
    #[error("the module {module} is signed by {key}, who is not among the signers of this device")]
    Stranger { module: Digest, key: String },
    #[error("the signature of {key} does not hold for the module {module}")]
    Wrong { module: Digest, key: String },
}

/// The signature of a module: the public key and what it has signed, with a colon between them.
pub fn sign_module(key: &SigningKey, module: Digest) -> String {
    format!("{}:{}", key.public(), key.sign(&statement(module)))
}

impl ModuleSigners {
    /// Reads a file with one public key a line; what stands behind the key, or behind `#`, is for
    /// the eye. Keys in PEM, as cosign writes them, may stand among the lines.
    pub fn load(path: &Path) -> Result<Self, ModuleSignersError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ModuleSignersError::File { path: path.to_owned(), source })?;
        let mut signers = Self::default();
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            if line.starts_with(PEM) {
                let rest = &mut lines.by_ref().map(|(_, line)| line);
                signers.add_pem(line, rest).map_err(|what| {
                    let (path, line) = (path.to_owned(), index + 1);
                    ModuleSignersError::NotAPem { path, line, what }
                })?;
                continue;
            }
            let line = line.split('#').next().unwrap_or_default();
            let Some(key) = line.split_whitespace().next() else { continue };
            if STANDARD.decode(key).ok().is_none_or(|bytes| bytes.len() != KEY_LEN) {
                let (path, line) = (path.to_owned(), index + 1);
                let text = key.chars().take(80).collect();
                return Err(ModuleSignersError::NotAKey { path, line, text });
            }
            signers.keys.insert(key.to_owned());
        }
        if signers == Self::default() {
            return Err(ModuleSignersError::None { path: path.to_owned() });
        }
        Ok(signers)
    }

    #[cfg(feature = "cosign")]
    fn add_pem<'a>(
        &mut self,
        begin: &str,
        rest: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), &'static str> {
        self.cosign.push(CosignKey::read(begin, rest)?);
        Ok(())
    }

    /// What is not understood is not passed over: its owner counts on it.
    #[cfg(not(feature = "cosign"))]
    fn add_pem<'a>(
        &mut self,
        _: &str,
        _: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), &'static str> {
        Err(
            "a key in PEM, as cosign's are, is of no use to this program, which is built without the feature cosign",
        )
    }

    /// Whether one of them has signed this module.
    pub fn check(&self, module: Digest, signature: Option<&str>) -> Result<(), Unsigned> {
        let signature = signature.filter(|text| !text.is_empty());
        let signature = signature.ok_or(Unsigned::NotAtAll(module))?;
        let (key, signature) = signature.split_once(':').ok_or(Unsigned::Malformed(module))?;
        let shown = || key.chars().take(80).collect();
        if !self.keys.contains(key) {
            return Err(Unsigned::Stranger { module, key: shown() });
        }
        if !is_signed(key, &statement(module), signature) {
            return Err(Unsigned::Wrong { module, key: shown() });
        }
        Ok(())
    }

    /// Whether there are keys of cosign's among theirs.
    #[cfg(feature = "cosign")]
    pub fn use_cosign(&self) -> bool {
        !self.cosign.is_empty()
    }

    /// Whether one of them has signed this image with cosign: `payload` is what was signed, the
    /// signature is in base64.
    #[cfg(feature = "cosign")]
    pub fn check_cosigned(
        &self,
        image: Digest,
        payload: &[u8],
        signature: &str,
    ) -> Result<(), NotCosigned> {
        cosign::check(&self.cosign, image, payload, signature)
    }
}

fn statement(module: Digest) -> Vec<u8> {
    format!("{STATEMENT}{module}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_runs_if_a_signer_has_signed_it_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signers");
        let [ann, bob, eve] = [(); 3].map(|()| SigningKey::make().unwrap());
        let text = format!("# ours\n{} Ann\n\n{}   # Bob\n", ann.public(), bob.public());
        fs::write(&path, text).unwrap();
        let signers = ModuleSigners::load(&path).unwrap();
        let (module, other) = (Digest::of(b"module"), Digest::of(b"other"));
        for key in [&ann, &bob] {
            signers.check(module, Some(&sign_module(key, module))).unwrap();
            let wrong = signers.check(module, Some(&sign_module(key, other))).unwrap_err();
            assert_eq!(wrong, Unsigned::Wrong { module, key: key.public() });
        }
        let stranger = signers.check(module, Some(&sign_module(&eve, module))).unwrap_err();
        assert_eq!(stranger, Unsigned::Stranger { module, key: eve.public() });
        // Who names another's key has not got it.
        let forged = sign_module(&eve, module).replace(&eve.public(), &ann.public());
        assert!(matches!(signers.check(module, Some(&forged)), Err(Unsigned::Wrong { .. })));
        for nothing in [None, Some("")] {
            assert_eq!(signers.check(module, nothing), Err(Unsigned::NotAtAll(module)));
        }
        assert_eq!(signers.check(module, Some("x")), Err(Unsigned::Malformed(module)));
        // A signature over the digest as something else is none of the module.
        let elsewhere = format!("{}:{}", ann.public(), ann.sign(module.to_string().as_bytes()));
        assert!(signers.check(module, Some(&elsewhere)).is_err());
    }

    #[test]
    fn a_file_without_keys_or_with_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signers");
        assert!(ModuleSigners::load(&path).unwrap_err().to_string().contains("signers"));
        for (text, word) in [("# nobody\n", "no key"), ("\nAAAA\n", "line 2"), ("?", "line 1")] {
            fs::write(&path, text).unwrap();
            let why = ModuleSigners::load(&path).unwrap_err().to_string();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    #[cfg(not(feature = "cosign"))]
    fn a_key_that_cannot_be_used_is_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signers");
        let key = SigningKey::make().unwrap().public();
        fs::write(&path, format!("{key}\n-----BEGIN PUBLIC KEY-----\n")).unwrap();
        let why = ModuleSigners::load(&path).unwrap_err().to_string();
        assert!(why.contains("line 2") && why.contains("feature cosign"), "{why}");
    }
}
