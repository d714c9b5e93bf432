//! Whom encrypted connections trust, and what they show of themselves.

mod named;
mod reason;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName,
        pem::PemObject as _,
    },
};

use self::named::Named;
use crate::settings::{MqttAddress, Scheme, SettingsError};

pub(super) use reason::explain;

/// Where an encrypted connection's certificates and key lie; nothing of it has to be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Whom to trust; the system's authorities if absent.
    pub ca: Option<PathBuf>,
    /// What of theirs is no longer good.
    pub crl: Option<PathBuf>,
    /// Our certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name on the broker's certificate; the host of its address if absent.
    pub server_name: Option<String>,
}

/// What an encrypted connection needs; nothing for a plain one.
#[derive(Clone, Default)]
pub struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    /// Reads the files that an encrypted `address` needs.
    pub fn load(address: &MqttAddress, files: &TlsFiles) -> Result<Self, SettingsError> {
        match address.scheme {
            Scheme::Tcp | Scheme::WebSocket => return Ok(Self(None)),
            Scheme::Tls | Scheme::WebSocketTls => {}
        }
        let roots = match &files.ca {
            Some(path) => roots_from(path)?,
            None => from_system()?,
        };
        // Named, because several may be linked in, and rustls then refuses to choose.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = match &files.crl {
            Some(path) => verifier
                .with_crls(crls_from(path)?)
                .only_check_end_entity_revocation()
                .allow_unknown_revocation_status()
                .build()
                .map_err(|why| unreadable("mqtt_crl_file", path, &why))?,
            None => verifier.build().expect("there is an authority, and no list to be wrong"),
        };
        let verifier = Named::new(verifier, server_name(files)?);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default protocol versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match (&files.certificate, &files.key) {
            (None, None) => config.with_no_client_auth(),
            (Some(certificate), Some(key)) => config
                .with_client_auth_cert(certificates("mqtt_cert_file", certificate)?, key_from(key)?)
                .map_err(|why| unreadable("mqtt_key_file", key, &why))?,
            (Some(path), None) => return Err(half("mqtt_cert_file", path, "mqtt_key_file")),
            (None, Some(path)) => return Err(half("mqtt_key_file", path, "mqtt_cert_file")),
        };
        Ok(Self(Some(Arc::new(config))))
    }

    pub(super) fn client(&self) -> Option<Arc<ClientConfig>> {
        self.0.clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Tls" } else { "Plain" })
    }
}

fn server_name(files: &TlsFiles) -> Result<Option<ServerName<'static>>, SettingsError> {
    let Some(name) = &files.server_name else { return Ok(None) };
    let wrong = || {
        let takes = "the host name or address on the broker's certificate";
        SettingsError::invalid("mqtt_server_name", name, takes)
    };
    ServerName::try_from(name.clone()).map(Some).map_err(|_| wrong())
}

fn roots_from(path: &Path) -> Result<RootCertStore, SettingsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("mqtt_ca_file", path)? {
        roots.add(certificate).map_err(|why| unreadable("mqtt_ca_file", path, &why))?;
    }
    Ok(roots)
}

fn from_system() -> Result<RootCertStore, SettingsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let source = io::Error::other("this system has none");
        return Err(unreadable("mqtt_ca_file", Path::new(""), &source));
    }
    Ok(roots)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let wrong = |why: &dyn fmt::Display| unreadable(key, path, why);
    let pem = fs::read(path).map_err(|why| wrong(&why))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|why| wrong(&why))?;
    if found.is_empty() {
        return Err(wrong(&"it holds none"));
    }
    Ok(found)
}

fn crls_from(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, SettingsError> {
    let wrong = |why: &dyn fmt::Display| unreadable("mqtt_crl_file", path, why);
    let pem = fs::read(path).map_err(|why| wrong(&why))?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|why| wrong(&why))?;
    if found.is_empty() {
        return Err(wrong(&"it holds none"));
    }
    Ok(found)
}

fn key_from(path: &Path) -> Result<PrivateKeyDer<'static>, SettingsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|why| unreadable("mqtt_key_file", path, &why))
}

fn unreadable(key: &str, path: &Path, why: &dyn fmt::Display) -> SettingsError {
    let what = match key {
        "mqtt_key_file" => "a PEM file with the key of mqtt_cert_file",
        "mqtt_cert_file" => "a PEM file with the certificate to show",
        "mqtt_crl_file" => "a PEM file with the lists of certificates that were revoked",
        _ => "a PEM file with the certificates to trust",
    };
    SettingsError::invalid(key, path.display(), format!("{what} ({why})"))
}

fn half(key: &str, path: &Path, other: &str) -> SettingsError {
    SettingsError::invalid(key, path.display(), format!("a file only together with {other}"))
}
