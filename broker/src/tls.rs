//! Encrypted connections: what they are made of, and whose certificates are taken.

mod subject;

use crate::{BrokerError, Certificate};
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::time::SystemTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject as _,
    },
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::server::TlsStream;

/// How long a client has to read why it was refused.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Where an encrypted broker's certificates and key lie, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// What the broker shows, its own certificate first.
    pub certificate: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
    /// Whose certificates clients must have; without it they need none.
    pub client_ca: Option<PathBuf>,
    /// Lists of clients' certificates that were revoked; read again when it changes.
    pub client_crl: Option<PathBuf>,
}

/// A client after its handshake.
pub(crate) struct Plainly {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) certificate: Option<Certificate>,
}

/// Everything that a handshake needs.
pub(crate) struct Encryption {
    files: TlsFiles,
    // Swapped when the list of revoked certificates changes; held to copy two pointers.
    current: Mutex<Current>,
}

#[derive(Clone)]
struct Current {
    crl_changed: Option<SystemTime>,
    config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Encryption {
    /// Reads the files.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, BrokerError> {
        Ok(Self { files: files.clone(), current: Mutex::new(Current::load(files)?) })
    }

    /// Reads the list of revoked certificates again if it has changed. One that cannot be read
    /// leaves what was read before, and says so once.
    pub(crate) fn refresh(&self) {
        let changed = changed(&self.files);
        if changed == self.lock().crl_changed {
            return;
        }
        match Current::load(&self.files) {
            Ok(current) => *self.lock() = current,
            Err(error) => {
                self.lock().crl_changed = changed;
                tracing::error!(%error, "the list of revoked certificates stays as it was");
            }
        }
    }

    /// Whether a certificate that was taken would still be.
    pub(crate) fn is_good(&self, certificate: Option<&Certificate>) -> bool {
        let verifier = self.lock().verifier.clone();
        let (Some(verifier), Some(certificate)) = (verifier, certificate) else { return true };
        let der = CertificateDer::from(certificate.der.as_slice());
        verifier.verify_client_cert(&der, &[], UnixTime::now()).is_ok()
    }

    pub(crate) async fn accept(&self, client: TcpStream) -> io::Result<Plainly> {
        let config = Arc::clone(&self.lock().config);
        let shaken = TlsAcceptor::from(config).accept(client).into_fallible().await;
        let stream = match shaken {
            Ok(stream) => stream,
            Err((why, client)) => {
                say_goodbye(client).await;
                return Err(why);
            }
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.map(named).transpose()?;
        Ok(Plainly { stream, certificate })
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // It is replaced as a whole or not at all.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn load(files: &TlsFiles) -> Result<Self, BrokerError> {
        // Looked at first: who changes it while it is read is read again.
        let crl_changed = changed(files);
        let provider = Arc::new(ring::default_provider());
        let verifier = files.client_ca.as_ref().map(|ca| verifier(&provider, ca, files));
        let verifier = verifier.transpose()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| unusable(&files.certificate, &why))?;
        let config = match &verifier {
            Some(verifier) => config.with_client_cert_verifier(Arc::clone(verifier)),
            None => config.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_file(&files.key);
        let key = key.map_err(|why| unusable(&files.key, &why))?;
        let config = config
            .with_single_cert(certificates(&files.certificate)?, key)
            .map_err(|why| unusable(&files.key, &why))?;
        Ok(Self { crl_changed, config: Arc::new(config), verifier })
    }
}

/// Reads on for a moment: a socket that is closed with bytes unread takes back what it has sent,
/// and with it the alert that says what was wrong.
async fn say_goodbye(mut client: TcpStream) {
    let unread = async {
        client.shutdown().await?;
        let mut sink = [0; 1024];
        while client.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // Either way it is closed now.
    let _ = timeout(GOODBYE_MAX, unread).await;
}

fn verifier(
    provider: &Arc<CryptoProvider>,
    ca: &Path,
    files: &TlsFiles,
) -> Result<Arc<dyn ClientCertVerifier>, BrokerError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|why| unusable(ca, &why))?;
    }
    let provider = Arc::clone(provider);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match &files.client_crl {
        Some(path) => builder
            .with_crls(crls(path)?)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status(),
        None => builder,
    };
    builder.build().map_err(|why| unusable(files.client_crl.as_deref().unwrap_or(ca), &why))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let pem = fs::read(path).map_err(|why| unusable(path, &why))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|why| unusable(path, &why))?;
    if found.is_empty() {
        return Err(unusable(path, &"it holds no certificate"));
    }
    Ok(found)
}

fn crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, BrokerError> {
    let pem = fs::read(path).map_err(|why| unusable(path, &why))?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|why| unusable(path, &why))?;
    if found.is_empty() {
        return Err(unusable(path, &"it holds no list"));
    }
    Ok(found)
}

fn changed(files: &TlsFiles) -> Option<SystemTime> {
    let path = files.client_crl.as_ref()?;
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn named(der: &CertificateDer<'_>) -> io::Result<Certificate> {
    let name = subject::common_name(der).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the client's certificate has no common name")
    })?;
    Ok(Certificate { name, der: der.to_vec() })
}

fn unusable(path: &Path, why: &dyn Display) -> BrokerError {
    BrokerError::Tls { path: path.to_owned(), reason: why.to_string() }
}
