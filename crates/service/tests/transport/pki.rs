//! Certificates of every kind, good and bad, made for one test.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use access::{Authority, Subject, Validity};
use service::transport::mqtt::TlsFiles;
use time::{Duration, OffsetDateTime};

/// What can be wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    Expired,
    /// For another host.
    WrongHost,
    /// Signed by an authority that nobody trusts.
    UnknownCa,
    /// On the list.
    Revoked,
}

const ALL: [Kind; 5] = [Kind::Good, Kind::Expired, Kind::WrongHost, Kind::UnknownCa, Kind::Revoked];

/// A directory of PEM files: `ca.pem`, `crl.pem`, and certificate and key of each kind.
pub(crate) struct Pki(tempfile::TempDir);

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Mosquitto gives up root before it reads its key.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let now = OffsetDateTime::now_utc();
        let ours = Authority::new("test", now).unwrap();
        let theirs = Authority::new("stranger", now).unwrap();
        let mut revoked = vec![];
        for kind in ALL {
            let good = match kind {
                Kind::Expired => Validity::days(now - Duration::days(30), 1),
                Kind::Good | Kind::WrongHost | Kind::UnknownCa | Kind::Revoked => {
                    Validity::days(now, 30)
                }
            };
            let hosts = match kind {
                Kind::WrongHost => vec!["elsewhere.example".to_owned()],
                Kind::Good | Kind::Expired | Kind::UnknownCa | Kind::Revoked => {
                    vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
                }
            };
            let authority = if kind == Kind::UnknownCa { &theirs } else { &ours };
            let subject = Subject { name: "p1".to_owned(), hosts };
            let issued = authority.issue(&subject, good).unwrap();
            write(&path(dir.path(), kind, "pem"), &issued.certificate_pem);
            write(&path(dir.path(), kind, "key"), &issued.key_pem);
            if kind == Kind::Revoked {
                revoked.push(issued.serial);
            }
        }
        write(&dir.path().join("ca.pem"), ours.pem());
        let crl = ours.revoke(&revoked, Validity::days(now, 30)).unwrap();
        write(&dir.path().join("crl.pem"), &crl);
        Self(dir)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    pub(crate) fn crl(&self) -> PathBuf {
        self.0.path().join("crl.pem")
    }

    pub(crate) fn certificate(&self, kind: Kind) -> PathBuf {
        path(self.0.path(), kind, "pem")
    }

    pub(crate) fn key(&self, kind: Kind) -> PathBuf {
        path(self.0.path(), kind, "key")
    }

    /// One who trusts our authority, and shows nothing.
    pub(crate) fn trusting(&self) -> TlsFiles {
        TlsFiles { ca: Some(self.ca()), crl: Some(self.crl()), ..TlsFiles::default() }
    }

    /// One who also shows a certificate.
    pub(crate) fn showing(&self, kind: Kind) -> TlsFiles {
        let (certificate, key) = (Some(self.certificate(kind)), Some(self.key(kind)));
        TlsFiles { certificate, key, ..self.trusting() }
    }
}

fn path(dir: &Path, kind: Kind, ending: &str) -> PathBuf {
    dir.join(format!("{kind:?}.{ending}"))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}
