//! Who this proplet is: a name that a state directory keeps for ever.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use protocol::PropletId;

const FILE: &str = "proplet-id";
const HOST_LEN_MAX: usize = 64;

/// Why the proplet has no name.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} holds no name of a proplet: {source}")]
    NotAnId {
        path: PathBuf,
        #[source]
        source: protocol::IdError,
    },
    #[error("state directory {dir} belongs to proplet {kept}, not to {given}")]
    Other { dir: PathBuf, kept: PropletId, given: PropletId },
}

/// The name that `dir` keeps; at the first time, it takes `given`, or one made of the host's name.
/// A directory whose updates were made under one name is refused under another.
pub(crate) fn identify(dir: &Path, given: Option<&PropletId>) -> Result<PropletId, IdentityError> {
    let path = dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let kept: PropletId = text
                .trim()
                .parse()
                .map_err(|source| IdentityError::NotAnId { path: path.clone(), source })?;
            match given {
                Some(given) if *given != kept => {
                    Err(IdentityError::Other { dir: dir.to_owned(), kept, given: given.clone() })
                }
                Some(_) | None => Ok(kept),
            }
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            let id = given.cloned().unwrap_or_else(new_id);
            match keep(&path, &id) {
                Ok(()) => Ok(id),
                Err(source) => Err(IdentityError::Io { action: "write", path, source }),
            }
        }
        Err(source) => Err(IdentityError::Io { action: "read", path, source }),
    }
}

fn keep(path: &Path, id: &PropletId) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = fs::File::create(&unfinished)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

/// The host's name for the eye, and chance against two hosts of one name.
fn new_id() -> PropletId {
    let host = ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(HOST_LEN_MAX)
        .collect();
    let chance = uuid::Uuid::new_v4().simple().to_string();
    let host = if host.is_empty() { "proplet" } else { &host };
    format!("{host}-{}", &chance[..8]).parse().expect("made of letters, digits and dashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let made = identify(dir.path(), None).unwrap();
        assert_eq!(identify(dir.path(), None).unwrap(), made);
        assert_eq!(identify(dir.path(), Some(&made)).unwrap(), made);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(identify(other.path(), None).unwrap(), made);
    }

    #[test]
    fn a_state_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let first = "proplet-1".parse().unwrap();
        identify(dir.path(), Some(&first)).unwrap();
        let second = "proplet-2".parse().unwrap();
        let error = identify(dir.path(), Some(&second)).unwrap_err().to_string();
        assert!(error.ends_with("belongs to proplet proplet-1, not to proplet-2"), "{error}");
    }

    #[test]
    fn a_damaged_name_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "a/b\n").unwrap();
        assert!(matches!(identify(dir.path(), None), Err(IdentityError::NotAnId { .. })));
    }
}
