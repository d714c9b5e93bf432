//! Start-up kits: the files of one device, listed with their digests, and the list signed by the
//! authority. Whoever knows the authority's fingerprint sees whether a kit is as it was made.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Authority, AuthorityError, Name, certificate, fingerprint};

/// Lists the files.
pub const KIT_MANIFEST: &str = "manifest.json";
/// The signature of that list.
pub const KIT_SIGNATURE: &str = "manifest.sig";
/// The certificate of the authority that has signed.
pub const KIT_AUTHORITY: &str = "authority.pem";

/// Begins what is signed, so that no other signature of the authority is taken for one of a kit.
const DOMAIN: &[u8] = b"aileron kit 1\n";
const VERSION: u32 = 1;
/// No file of a kit is longer; they are keys, certificates and settings.
pub const KIT_FILE_BYTES_MAX: usize = 256 << 10;
/// No kit has more.
pub const KIT_FILES_MAX: usize = 16;

/// Contents by name.
pub type KitFiles = BTreeMap<String, Vec<u8>>;

/// The list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KitManifest {
    pub version: u32,
    /// Whose kit it is.
    pub name: Name,
    /// RFC 3339.
    pub created_at: String,
    /// SHA-256 of each file, the list and its signature aside.
    pub files: BTreeMap<String, String>,
}

/// Why a kit is not as it was made, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    #[error("{0:?} is not the name of a file in a kit")]
    FileName(String),
    #[error("{name} has {len} bytes, a file in a kit at most {KIT_FILE_BYTES_MAX}")]
    Large { name: String, len: usize },
    #[error("{0} files, a kit has at most {KIT_FILES_MAX}")]
    Many(usize),
    #[error("{0} is missing")]
    Missing(String),
    #[error("{0} does not belong to the kit")]
    Additional(String),
    #[error("{0} was changed")]
    Changed(String),
    #[error("it was made by the authority sha256:{found}, not by sha256:{expected}")]
    Signer { found: String, expected: String },
    #[error("{KIT_MANIFEST} is not signed by its authority, or was changed")]
    Signature,
    #[error("{KIT_MANIFEST} is no list of files: {0}")]
    Manifest(serde_json::Error),
    #[error("it is of version {0}, this program reads {VERSION}")]
    Version(u32),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Whose kits are taken.
#[derive(Clone, Copy, Debug)]
pub enum Signer<'a> {
    /// Those of the authority with this fingerprint.
    Known(&'a str),
    /// Those of the authority that is named in them: says that nothing was changed by accident, or
    /// since somebody last looked.
    Enclosed,
}

/// Makes a kit of these files.
pub fn seal_kit(
    authority: &Authority,
    name: Name,
    created_at: String,
    mut files: KitFiles,
) -> Result<KitFiles, KitError> {
    files.insert(KIT_AUTHORITY.to_owned(), authority.pem().as_bytes().to_vec());
    check_shape(&files)?;
    let digests = files.iter().map(|(name, bytes)| (name.clone(), fingerprint(bytes))).collect();
    let manifest = KitManifest { version: VERSION, name, created_at, files: digests };
    let manifest = serde_json::to_vec_pretty(&manifest).expect("a list of texts serializes");
    let signature = authority.sign_statement(&[DOMAIN, &manifest].concat())?;
    files.insert(KIT_MANIFEST.to_owned(), manifest);
    files.insert(KIT_SIGNATURE.to_owned(), signature);
    Ok(files)
}

/// Reads a kit: every file that belongs to it, as it was made, and no other.
pub fn open_kit(files: &KitFiles, signer: Signer<'_>) -> Result<KitManifest, KitError> {
    check_shape(files)?;
    let get = |name: &str| files.get(name).ok_or_else(|| KitError::Missing(name.to_owned()));
    let certificate = certificate::first_certificate(get(KIT_AUTHORITY)?);
    let certificate = certificate.ok_or_else(|| KitError::Changed(KIT_AUTHORITY.to_owned()))?;
    let found = fingerprint(&certificate);
    match signer {
        Signer::Known(expected) if expected != found => {
            return Err(KitError::Signer { found, expected: expected.to_owned() });
        }
        Signer::Known(_) | Signer::Enclosed => {}
    }
    let (manifest, signature) = (get(KIT_MANIFEST)?, get(KIT_SIGNATURE)?);
    if !certificate::has_signed(&certificate, &[DOMAIN, manifest].concat(), signature) {
        return Err(KitError::Signature);
    }
    let manifest: KitManifest = serde_json::from_slice(manifest).map_err(KitError::Manifest)?;
    if manifest.version != VERSION {
        return Err(KitError::Version(manifest.version));
    }
    let own = [KIT_MANIFEST, KIT_SIGNATURE];
    let there: BTreeSet<&str> =
        files.keys().map(String::as_str).filter(|name| !own.contains(name)).collect();
    if let Some(name) = there.iter().find(|name| !manifest.files.contains_key(**name)) {
        return Err(KitError::Additional((*name).to_owned()));
    }
    for (name, digest) in &manifest.files {
        if fingerprint(get(name)?) != *digest {
            return Err(KitError::Changed(name.clone()));
        }
    }
    Ok(manifest)
}

fn check_shape(files: &KitFiles) -> Result<(), KitError> {
    if files.len() > KIT_FILES_MAX {
        return Err(KitError::Many(files.len()));
    }
    for (name, bytes) in files {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !plain || name.is_empty() || name.starts_with('.') {
            return Err(KitError::FileName(name.chars().take(64).collect()));
        }
        if bytes.len() > KIT_FILE_BYTES_MAX {
            return Err(KitError::Large { name: name.clone(), len: bytes.len() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn kit(authority: &Authority) -> KitFiles {
        let files = [("proplet.toml", "[proplet]"), ("proplet.key", "key")];
        let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
        seal_kit(authority, "p1".parse().unwrap(), "2026".to_owned(), files.into()).unwrap()
    }

    #[test]
    fn a_kit_is_opened_as_it_was_made_and_not_otherwise() {
        let authority = Authority::new("site", OffsetDateTime::UNIX_EPOCH).unwrap();
        let (whole, known) = (kit(&authority), authority.fingerprint().unwrap());
        let opened = open_kit(&whole, Signer::Known(&known)).unwrap();
        assert_eq!((opened.name.as_str(), opened.files.len()), ("p1", 3));
        assert!(open_kit(&whole, Signer::Enclosed).is_ok());
        let refused = |files: &KitFiles| {
            let why = open_kit(files, Signer::Known(&known)).unwrap_err();
            assert!(open_kit(files, Signer::Enclosed).is_err(), "{why}");
            why.to_string()
        };
        for name in whole.keys() {
            let mut changed = whole.clone();
            changed.get_mut(name).unwrap()[0] ^= 1;
            let why = refused(&changed);
            assert!(why.contains("changed") || why.contains("authority"), "{name}: {why}");
            let mut missing = whole.clone();
            missing.remove(name);
            assert!(refused(&missing).contains("is missing"), "{name}");
        }
        let mut more = whole.clone();
        more.insert("extra".to_owned(), vec![]);
        assert!(refused(&more).contains("does not belong"));
        for bad in ["../x", "a/b", "", ".hidden"] {
            let mut outside = whole.clone();
            outside.insert(bad.to_owned(), vec![]);
            assert!(refused(&outside).contains("not the name"), "{bad}");
        }
    }

    #[test]
    fn a_kit_of_another_authority_is_not_taken() {
        let [ours, theirs] =
            ["site", "site"].map(|name| Authority::new(name, OffsetDateTime::UNIX_EPOCH).unwrap());
        let known = ours.fingerprint().unwrap();
        let why = open_kit(&kit(&theirs), Signer::Known(&known)).unwrap_err();
        assert!(matches!(why, KitError::Signer { .. }), "{why}");
        // Our certificate in front of their signature.
        let mut mixed = kit(&theirs);
        mixed.insert(KIT_AUTHORITY.to_owned(), ours.pem().as_bytes().to_vec());
        let why = open_kit(&mixed, Signer::Known(&known)).unwrap_err();
        assert!(matches!(why, KitError::Signature), "{why}");
    }
}
