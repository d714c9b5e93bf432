//! The roster: who may connect as what. A JSON file, readable to its owner only unless its owner
//! says otherwise, written whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    str::FromStr,
};

use protocol::topic::Role;
use serde::{Deserialize, Serialize};

use crate::{
    Invitation, Name, Token,
    secret::{fingerprint, is_same},
};

/// What a token may do over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Look at everything.
    Read,
    /// Create, change, start and stop tasks; implies `read`.
    Tasks,
    /// Everything, forgetting proplets included.
    Admin,
}

/// A word that is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a scope; it takes read, tasks or admin")]
pub struct ScopeError(String);

impl Scope {
    const ALL: [Self; 3] = [Self::Read, Self::Tasks, Self::Admin];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Tasks => "tasks",
            Self::Admin => "admin",
        }
    }

    /// Each includes those before it.
    pub fn includes(self, other: Self) -> bool {
        self >= other
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let known = Self::ALL.into_iter().find(|scope| scope.name() == text);
        known.ok_or_else(|| ScopeError(text.chars().take(64).collect()))
    }
}

/// One who may connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is at the broker; nothing for callers of HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "role")]
    pub role: Option<Role>,
    /// What it may do over HTTP.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub scopes: BTreeSet<Scope>,
    /// SHA-256 of its secret; without it, only a certificate lets it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_sha256: Option<String>,
    /// SHA-256 of its certificate; without it, any certificate of its name that the broker's
    /// authority signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
    /// With which it signs its updates: Ed25519, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// With which it may join, or has joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invitation: Option<Invitation>,
    /// RFC 3339.
    pub created_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

impl Entry {
    /// One who may do nothing yet.
    pub fn new(created_at: impl Into<String>) -> Self {
        Self {
            role: None,
            scopes: BTreeSet::new(),
            secret_sha256: None,
            certificate_sha256: None,
            public_key: None,
            invitation: None,
            created_at: created_at.into(),
            revoked_at: None,
        }
    }

    pub const fn is_revoked(&self) -> bool {
        self.revoked_at.is_some()
    }

    /// Whether it may do nothing but join.
    pub fn is_invited(&self) -> bool {
        let waits = self.invitation.as_ref().is_some_and(|own| own.used_at.is_none());
        waits && self.role.is_none() && self.scopes.is_empty() && !self.is_revoked()
    }

    /// Whether its scopes include `scope`.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|own| own.includes(scope))
    }

    /// Whether `secret` proves it.
    pub fn knows(&self, secret: &str) -> bool {
        let own = self.secret_sha256.as_deref();
        own.is_some_and(|own| is_same(own, &fingerprint(secret.as_bytes())))
    }

    /// Whether a certificate in its name (DER) is the one that it was given.
    pub fn holds(&self, certificate: &[u8]) -> bool {
        let own = self.certificate_sha256.as_deref();
        own.is_none_or(|own| is_same(own, &fingerprint(certificate)))
    }
}

/// Everyone who may connect, and everyone who no longer may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    entries: BTreeMap<Name, Entry>,
}

/// Why a roster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    #[error("read the roster {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a roster: {source}", path.display())]
    Syntax { path: PathBuf, source: serde_json::Error },
    #[error("write the roster {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{name} is on the roster already; revoke it first, or choose another name")]
    Taken { name: Name },
    #[error("{name} is not on the roster")]
    Unknown { name: Name },
}

impl Roster {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, RosterError> {
        let text =
            fs::read(path).map_err(|source| RosterError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&text)
            .map_err(|source| RosterError::Syntax { path: path.to_owned(), source })
    }

    /// Reads the file; an empty roster if there is none.
    pub fn load_or_new(path: &Path) -> Result<Self, RosterError> {
        match Self::load(path) {
            Err(RosterError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            read => read,
        }
    }

    /// Writes the file whole: readers see the old one or the new one. A new one is for its owner
    /// alone; one that was there stays whose it was, and readable to whom it was, whoever writes.
    pub fn save(&self, path: &Path) -> Result<(), RosterError> {
        self.write(path).map_err(|source| RosterError::Write { path: path.to_owned(), source })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let dir = dir_of(path);
        fs::create_dir_all(dir)?;
        let text = serde_json::to_vec_pretty(self).expect("a roster is plain JSON");
        // A temporary file is made for its owner alone.
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        if let Some(before) = there(path)? {
            leave(file.as_file(), &before)?;
        }
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        // Or a loss of power could bring back whoever was revoked.
        fs::File::open(dir)?.sync_all()
    }

    /// Reads the file, changes what it says and writes it, while nobody else does; an error leaves
    /// it as it was. A file that is not there is made.
    pub fn edit<T, E: From<RosterError>>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let _turn = turn(path)?;
        let mut roster = Self::load_or_new(path)?;
        let done = change(&mut roster)?;
        roster.save(path)?;
        Ok(done)
    }

    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(&name.parse().ok()?)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Entry)> {
        self.entries.iter()
    }

    /// Puts `entry` on the roster; one who was revoked can come back under the same name, and an
    /// invitation that nobody has used makes room.
    pub fn add(&mut self, name: Name, entry: Entry) -> Result<(), RosterError> {
        let there = self.entries.get(&name);
        if there.is_some_and(|there| !there.is_revoked() && !there.is_invited()) {
            return Err(RosterError::Taken { name });
        }
        self.entries.insert(name, entry);
        Ok(())
    }

    /// Puts one who was invited in the place of its invitation.
    pub(crate) fn admit(&mut self, name: Name, entry: Entry) {
        self.entries.insert(name, entry);
    }

    /// Takes everything from `name`, and remembers that.
    pub fn revoke(&mut self, name: &Name, at: impl Into<String>) -> Result<(), RosterError> {
        let Some(entry) = self.entries.get_mut(name) else {
            return Err(RosterError::Unknown { name: name.clone() });
        };
        entry.revoked_at.get_or_insert(at.into());
        Ok(())
    }

    /// Who shows this token; nobody if it is unknown, revoked or wrong.
    pub fn holder(&self, token: &Token) -> Option<&Entry> {
        let entry = self.entries.get(token.name())?;
        (!entry.is_revoked() && entry.knows(token.secret())).then_some(entry)
    }
}

/// Held while the roster is changed; a file beside it, since the roster itself is replaced.
fn turn(path: &Path) -> Result<fs::File, RosterError> {
    let failed = |source| RosterError::Write { path: path.to_owned(), source };
    fs::create_dir_all(dir_of(path)).map_err(failed)?;
    let file = lock_file(path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

/// Whoever may read the roster may open this, too.
fn lock_file(path: &Path) -> io::Result<fs::File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let before = there(path)?;
    match fs::OpenOptions::new().append(true).create_new(true).mode(0o600).open(&beside) {
        Ok(file) => {
            if let Some(why) = before.and_then(|before| leave(&file, &before).err()) {
                fs::remove_file(&beside)?;
                return Err(why);
            }
            Ok(file)
        }
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            let file = fs::File::open(&beside)?;
            if let Some(before) = before {
                // Another's, which we could open, locks as well as it is.
                let _ = leave(&file, &before);
            }
            Ok(file)
        }
        Err(why) => Err(why),
    }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn there(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}

/// Gives `file` the owner, the group and the mode of the one before it: services that run as
/// another user go on reading it.
fn leave(file: &fs::File, before: &fs::Metadata) -> io::Result<()> {
    let (uid, gid) = (before.uid(), before.gid());
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (uid, gid) {
        fchown(file, Some(uid), Some(gid)).map_err(|why| {
            let what = format!(
                "it cannot be left to user {uid} and group {gid}, whose it is ({why}); change it as that user, or as root"
            );
            io::Error::new(why.kind(), what)
        })?;
    }
    file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))
}

/// Roles by their names.
mod role {
    use protocol::topic::Role;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(role: &Option<Role>, to: S) -> Result<S::Ok, S::Error> {
        match role {
            Some(role) => to.serialize_str(role.name()),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Role>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
