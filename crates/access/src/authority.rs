//! A small certificate authority: one key, kept in a directory, that signs for services and
//! proplets.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use protocol::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PublicKeyData, RevocationReason, RevokedCertParams, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::{Name, RequestError, certificate::first_certificate, fingerprint, request};

const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
const NAME_FILE: &str = "ca.name";
/// How long an authority is good for.
const YEARS: i64 = 10;
/// Clocks of devices differ: a certificate is good a little before it was made.
const EARLY: Duration = Duration::hours(1);

/// One who signs.
pub struct Authority {
    name: String,
    key: KeyPair,
    pem: String,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its common name: the client's name on the roster.
    pub name: String,
    /// The host names and addresses that a server answers under.
    pub hosts: Vec<String>,
}

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: OffsetDateTime,
    pub until: OffsetDateTime,
}

/// A certificate, its key, and the number under which it can be revoked.
#[derive(Clone)]
pub struct Issued {
    pub certificate_pem: String,
    pub certificate_der: Vec<u8>,
    pub key_pem: String,
    pub serial: Vec<u8>,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("serial", &self.serial).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why an authority cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{} holds an authority already", dir.display())]
    There { dir: PathBuf },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("make or read a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the authority's own certificate cannot be read")]
    Own,
}

/// A certificate for a key that was made elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    pub certificate_pem: String,
    pub certificate_der: Vec<u8>,
}

/// A point on the platform's time line as certificates have it.
pub fn moment(at: Timestamp) -> OffsetDateTime {
    let micros = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
    OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::microseconds(micros))
}

impl Validity {
    /// From a little before `now`, for so many days.
    pub fn days(now: OffsetDateTime, days: u32) -> Self {
        Self { from: now - EARLY, until: now + Duration::days(days.into()) }
    }
}

impl Authority {
    /// A new authority, in memory.
    pub fn new(name: &str, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = params(name);
        params.not_before = now - EARLY;
        params.not_after = now + Duration::days(365 * YEARS);
        params.serial_number = Some(serial());
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { name: name.to_owned(), key, pem })
    }

    /// Reads what [`Authority::save`] wrote.
    pub fn load(dir: &Path) -> Result<Self, AuthorityError> {
        let read = |file| {
            let path = dir.join(file);
            fs::read_to_string(&path).map_err(|source| AuthorityError::File { path, source })
        };
        Ok(Self {
            name: read(NAME_FILE)?.trim().to_owned(),
            key: KeyPair::from_pem(&read(KEY_FILE)?)?,
            pem: read(CERTIFICATE_FILE)?,
        })
    }

    /// Writes it to a directory that holds none yet; the key for its owner alone.
    pub fn save(&self, dir: &Path) -> Result<(), AuthorityError> {
        if dir.join(KEY_FILE).exists() {
            return Err(AuthorityError::There { dir: dir.to_owned() });
        }
        let failed = |source| AuthorityError::File { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        write(&dir.join(CERTIFICATE_FILE), &self.pem, Readers::Everyone)?;
        write(&dir.join(NAME_FILE), &self.name, Readers::Everyone)?;
        write(&dir.join(KEY_FILE), &self.key.serialize_pem(), Readers::Owner)
    }

    /// The certificate that others trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of its certificate: by that, others know it again.
    pub fn fingerprint(&self) -> Result<String, AuthorityError> {
        let der = first_certificate(self.pem.as_bytes()).ok_or(AuthorityError::Own)?;
        Ok(fingerprint(&der))
    }

    /// A new key, and a certificate for it that client and server can use.
    pub fn issue(&self, subject: &Subject, good: Validity) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        let uses = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let (certificate, serial) = self.sign(subject, good, (&key, uses))?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
            key_pem: key.serialize_pem(),
            serial: serial.to_bytes(),
        })
    }

    /// A certificate, for clients only, for the key of a request (PKCS #10, PEM). All that counts
    /// of the request is its key; one that asks for more than `name` gets is refused.
    pub fn certify(
        &self,
        request_pem: &str,
        name: &Name,
        good: Validity,
    ) -> Result<Certified, RequestError> {
        let key = request::read(request_pem, name)?;
        let subject = Subject { name: name.to_string(), hosts: vec![] };
        let signed = self.sign(&subject, good, (&key, vec![ExtendedKeyUsagePurpose::ClientAuth]));
        let (certificate, _) = signed.map_err(|why| RequestError::Sign(why.to_string()))?;
        Ok(Certified {
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
        })
    }

    /// The signature of a statement, by the key that signs certificates.
    pub fn sign_statement(&self, statement: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        Ok(rcgen::SigningKey::sign(&self.key, statement)?)
    }

    fn sign(
        &self,
        subject: &Subject,
        good: Validity,
        (key, uses): (&impl PublicKeyData, Vec<ExtendedKeyUsagePurpose>),
    ) -> Result<(rcgen::Certificate, SerialNumber), rcgen::Error> {
        let mut params = CertificateParams::new(subject.hosts.clone())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.name.as_str());
        (params.not_before, params.not_after) = (good.from, good.until);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = uses;
        let serial = serial();
        params.serial_number = Some(serial.clone());
        Ok((params.signed_by(key, &self.issuer())?, serial))
    }

    /// The list of certificates that are no longer good, as PEM.
    pub fn revoke(&self, serials: &[Vec<u8>], at: Validity) -> Result<String, AuthorityError> {
        let revoked = |serial: &Vec<u8>| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: at.from,
            reason_code: Some(RevocationReason::Unspecified),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: at.from,
            next_update: at.until,
            crl_number: serial(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer())?.pem()?)
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::new(params(&self.name), &self.key)
    }
}

/// Who may read a file.
#[derive(Clone, Copy)]
enum Readers {
    Owner,
    Everyone,
}

fn write(path: &Path, text: &str, readers: Readers) -> Result<(), AuthorityError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Everyone => 0o644,
    };
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

/// Random and positive.
fn serial() -> SerialNumber {
    let mut bytes = uuid::Uuid::new_v4().into_bytes();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
