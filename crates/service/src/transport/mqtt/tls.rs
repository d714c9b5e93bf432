//! Whom encrypted connections trust.

use std::{fmt, fs, io, path::Path, sync::Arc};

use rumqttc::tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::settings::{MqttAddress, Scheme, SettingsError};

/// What an encrypted connection needs; nothing for a plain one.
#[derive(Clone, Default)]
pub struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    /// Reads whom to trust: the certificates in `ca_file`, or those of the system.
    pub fn load(address: &MqttAddress, ca_file: Option<&Path>) -> Result<Self, SettingsError> {
        match address.scheme {
            Scheme::Tcp | Scheme::WebSocket => return Ok(Self(None)),
            Scheme::Tls | Scheme::WebSocketTls => {}
        }
        let roots = match ca_file {
            Some(path) => from_file(path)?,
            None => from_system()?,
        };
        // Named, because several may be linked in, and rustls then refuses to choose.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
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

fn from_file(path: &Path) -> Result<RootCertStore, SettingsError> {
    let pem = fs::read(path).map_err(|source| unreadable(path, &source))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|source| unreadable(path, &source))?;
        roots.add(certificate).map_err(|source| unreadable(path, &source))?;
    }
    if roots.is_empty() {
        return Err(unreadable(path, &"it holds none"));
    }
    Ok(roots)
}

fn from_system() -> Result<RootCertStore, SettingsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let source = io::Error::other("this system has none");
        return Err(unreadable(Path::new(""), &source));
    }
    Ok(roots)
}

fn unreadable(path: &Path, why: &dyn fmt::Display) -> SettingsError {
    let takes = format!("a PEM file with the certificates to trust ({why})");
    SettingsError::invalid("mqtt_ca_file", path.display(), takes)
}
