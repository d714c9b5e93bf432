//! HTTPS: the service's certificate, and the handshake.

use std::{fmt, fs, path::Path, sync::Arc, time::Duration};

use service::settings::SettingsError;
use tokio::time;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use super::{Line, Moving};

/// How long a caller has for its handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// What a handshake needs.
#[derive(Clone)]
pub struct HttpTls(TlsAcceptor);

impl fmt::Debug for HttpTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpTls")
    }
}

impl HttpTls {
    /// Reads certificate and key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, SettingsError> {
        let wrong_certificate = |why: &dyn fmt::Display| {
            let takes = format!("a PEM file with the certificate to show ({why})");
            SettingsError::invalid("http_tls_cert_file", certificate.display(), takes)
        };
        let wrong_key = |why: &dyn fmt::Display| {
            let takes = format!("a PEM file with the key of http_tls_cert_file ({why})");
            SettingsError::invalid("http_tls_key_file", key.display(), takes)
        };
        let pem = fs::read(certificate).map_err(|why| wrong_certificate(&why))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.map_err(|why| wrong_certificate(&why))?;
        if chain.is_empty() {
            return Err(wrong_certificate(&"it holds none"));
        }
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| wrong_key(&why))?;
        Self::with(chain, secret).map_err(|why| wrong_key(&why))
    }

    /// Of a certificate and key (PEM) that lie in no file.
    ///
    /// # Errors
    /// In words, if they are none, or do not belong together.
    pub fn of(certificate: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|why| why.to_string())?;
        let secret = PrivateKeyDer::from_pem_slice(key).map_err(|why| why.to_string())?;
        Self::with(chain, secret).map_err(|why| why.to_string())
    }

    fn with(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default protocol versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The encrypted connection; nothing if it came to none, which is logged.
    pub(super) async fn shake(self, moving: Moving) -> Option<Line> {
        match time::timeout(HANDSHAKE_MAX, self.0.accept(moving)).await {
            Ok(Ok(stream)) => return Some(Line::tls(stream)),
            Ok(Err(why)) => tracing::debug!("TLS handshake of an HTTP caller failed: {why}"),
            Err(_) => tracing::debug!("no TLS handshake of an HTTP caller in {HANDSHAKE_MAX:?}"),
        }
        None
    }
}
