//! One registry, as it is spoken to for one image: the client behind it, and what its errors mean.

use std::{
    error::Error,
    fs,
    hash::{BuildHasher as _, RandomState},
    sync::Once,
    time::Duration,
};

use oci_client::{
    Client, Reference,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    secrets::RegistryAuth,
};
use protocol::{Digest, ImageRef};
use tokio::time::{self, Instant};

use crate::{RegistryError, Settings, credentials, realm::Scout};

/// Attempts, with pauses that double, before a registry is given up.
const ATTEMPTS_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// A question may take two greetings, a token, and itself.
pub(crate) const REQUESTS_MAX: u32 = 4;
/// The longest time to open a connection.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(10);
pub(crate) const USER_AGENT: &str = concat!("aileron/", env!("CARGO_PKG_VERSION"));

/// A registry and an image there.
pub(crate) struct Remote {
    pub(crate) client: Client,
    pub(crate) reference: Reference,
    pub(crate) stall: Duration,
    pub(crate) image: ImageRef,
    /// Looks where name and password would go, if there are any.
    pub(crate) scout: Option<Scout>,
    auth: RegistryAuth,
    /// Which credentials were given, for the eye.
    told: String,
}

impl Remote {
    pub(crate) async fn open(image: &ImageRef, settings: &Settings) -> Result<Self, RegistryError> {
        let credentials = credentials::find(image.host(), settings)?;
        let client = client(settings)?;
        let (host, name) = (image.host().to_owned(), image.name().to_owned());
        let reference = match (image.digest(), image.tag()) {
            (Some(digest), _) => Reference::with_digest(host, name, format!("sha256:{digest}")),
            (None, tag) => Reference::with_tag(host, name, tag.unwrap_or_default().to_owned()),
        };
        client.store_auth_if_needed(reference.resolve_registry(), &credentials.auth).await;
        let credentials::Credentials { auth, told } = credentials;
        let scout = match &auth {
            RegistryAuth::Basic(..) => Some(Scout::new(settings)?),
            RegistryAuth::Anonymous | RegistryAuth::Bearer(_) => None,
        };
        let (image, stall) = (image.clone(), settings.stall);
        Ok(Self { client, reference, stall, image, scout, auth, told })
    }

    /// The digest of the manifest that the tag means now.
    pub(crate) async fn digest(&self) -> Result<Digest, RegistryError> {
        let asked = self.client.fetch_manifest_digest(&self.reference, &self.auth);
        let text = self.in_time(asked).await?;
        let digest = text.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
        digest.ok_or_else(|| RegistryError::Refused {
            image: self.image.clone(),
            why: format!("the image's digest is {text:?}, and not a SHA-256"),
        })
    }

    /// The bytes of the image's manifest, which have its digest.
    pub(crate) async fn manifest(&self, digest: Digest) -> Result<Vec<u8>, RegistryError> {
        let bytes = self.manifest_now().await?;
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(RegistryError::digest(&self.image, digest, found));
        }
        Ok(bytes)
    }

    /// The bytes of the manifest, whichever it is.
    pub(crate) async fn manifest_now(&self) -> Result<Vec<u8>, RegistryError> {
        let accepted = [
            oci_client::manifest::OCI_IMAGE_MEDIA_TYPE,
            oci_client::manifest::IMAGE_MANIFEST_MEDIA_TYPE,
            oci_client::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE,
            oci_client::manifest::IMAGE_MANIFEST_LIST_MEDIA_TYPE,
        ];
        let asked = self.client.pull_manifest_raw(&self.reference, &self.auth, &accepted);
        let (bytes, _) = self.in_time(asked).await?;
        Ok(bytes.to_vec())
    }

    /// What takes no long body is answered in time, or not at all. It is not even asked where that
    /// would show a password to the network.
    pub(crate) async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, OciDistributionError>>,
    ) -> Result<T, RegistryError> {
        let answered = async {
            self.look_at_realm().await?;
            asked.await.map_err(|why| self.meant(why))
        };
        let answered = time::timeout(self.stall * REQUESTS_MAX, answered).await;
        answered.unwrap_or_else(|_| Err(self.stalled()))
    }

    pub(crate) fn stalled(&self) -> RegistryError {
        RegistryError::Stalled { image: self.image.clone(), stall: self.stall }
    }

    /// What an error of the client means for who asked.
    pub(crate) fn meant(&self, why: OciDistributionError) -> RegistryError {
        let image = self.image.clone();
        let told = self.told.clone();
        match why {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => {
                RegistryError::Unauthorized { image, told }
            }
            OciDistributionError::ImageManifestNotFoundError(_) => {
                RegistryError::NotFound { image }
            }
            OciDistributionError::RequestError(why) => match why.status() {
                Some(status) => self.by_status(status.as_u16(), chain(&why)),
                // It was reached, and then broke off.
                None if why.is_body() || why.is_decode() => {
                    RegistryError::Trouble { image, why: chain(&why) }
                }
                None => self.unreachable(&why),
            },
            OciDistributionError::ServerError { code, message, .. } => {
                self.by_status(code, message)
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let why = envelope.to_string();
                match envelope.errors.first().map(|first| &first.code) {
                    Some(OciErrorCode::Denied) => RegistryError::Denied { image, told },
                    Some(OciErrorCode::Unauthorized) => RegistryError::Unauthorized { image, told },
                    Some(
                        OciErrorCode::ManifestUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound,
                    ) => RegistryError::NotFound { image },
                    Some(OciErrorCode::Toomanyrequests) => RegistryError::Trouble { image, why },
                    Some(_) | None => RegistryError::Refused { image, why },
                }
            }
            OciDistributionError::DigestError(
                oci_client::errors::DigestError::VerificationError { expected, actual },
            ) => {
                let bare = |text: String| text.trim_start_matches("sha256:").to_owned();
                let (expected, found) = (bare(expected), bare(actual));
                RegistryError::Digest { image, expected, found }
            }
            other @ (OciDistributionError::DigestError(_)
            | OciDistributionError::ConfigConversionError(_)
            | OciDistributionError::GenericError(_)
            | OciDistributionError::HeaderValueError(_)
            | OciDistributionError::ImageIndexParsingNoPlatformResolverError
            | OciDistributionError::IncompatibleLayerMediaTypeError(_)
            | OciDistributionError::IoError(_)
            | OciDistributionError::JsonError(_)
            | OciDistributionError::ManifestEncodingError(_)
            | OciDistributionError::ManifestParsingError(_)
            | OciDistributionError::PushNoDataError
            | OciDistributionError::PushLayerNoDataError
            | OciDistributionError::PullNoLayersError
            | OciDistributionError::RegistryNoDigestError
            | OciDistributionError::RegistryNoLocationError
            | OciDistributionError::RegistryTokenDecodeError(_)
            | OciDistributionError::SpecViolationError(_)
            | OciDistributionError::UrlParseError(_)
            | OciDistributionError::UnsupportedMediaTypeError(_)
            | OciDistributionError::UnsupportedSchemaVersionError(_)
            | OciDistributionError::VersionedParsingError(_)) => {
                RegistryError::Refused { image, why: chain(&other) }
            }
        }
    }

    fn by_status(&self, status: u16, message: String) -> RegistryError {
        let image = self.image.clone();
        let message: String = message.trim().chars().take(300).collect();
        let why = format!("status {status} {message}").trim_end().to_owned();
        match status {
            401 => RegistryError::Unauthorized { image, told: self.told.clone() },
            403 => RegistryError::Denied { image, told: self.told.clone() },
            404 => RegistryError::NotFound { image },
            408 | 429 | 500.. => RegistryError::Trouble { image, why },
            _ => RegistryError::Refused { image, why },
        }
    }

    fn unreachable(&self, why: &dyn Error) -> RegistryError {
        let (image, host) = (self.image.clone(), self.image.host().to_owned());
        let why = chain(why);
        // What rustls says to bytes that are no TLS.
        if why.contains("InvalidContentType") || why.contains("corrupt message") {
            return RegistryError::PlainHttp { image, host, why };
        }
        RegistryError::Unreachable { image, host, why }
    }
}

/// What is borne before a registry is given up.
pub(crate) struct Patience {
    attempts: u32,
    since: Instant,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { attempts: 0, since: Instant::now() }
    }

    /// Waits before the next attempt, each time longer, and not all at the same moment; or there is
    /// no use in another.
    pub(crate) async fn bear(&mut self, why: RegistryError) -> Result<(), RegistryError> {
        if !why.is_passing() {
            return Err(why);
        }
        self.attempts += 1;
        if self.attempts >= ATTEMPTS_MAX {
            let took = self.since.elapsed().as_secs();
            return Err(RegistryError::GivenUp(Box::new(why), self.attempts, took));
        }
        tracing::warn!(attempt = self.attempts, "asked again soon: {why}");
        let pause = PAUSE * (1 << (self.attempts - 1));
        let jitter = RandomState::new().hash_one(self.attempts) % 256;
        time::sleep(pause + pause / 512 * u32::try_from(jitter).unwrap_or(0)).await;
        Ok(())
    }
}

/// An error with what is behind it, each thing once.
pub(crate) fn chain(why: &dyn Error) -> String {
    let mut text = why.to_string();
    let mut next = why.source();
    while let Some(why) = next {
        let more = why.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = why.source();
    }
    text
}

fn client(settings: &Settings) -> Result<Client, RegistryError> {
    static PROVIDER: Once = Once::new();
    // The client takes what the process has; if another part has chosen before, that is as good.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let extra = certificates(settings)?;
    // The client panics in their absence.
    if rustls_native_certs::load_native_certs().certs.is_empty() {
        return Err(RegistryError::NoRoots);
    }
    let config = ClientConfig {
        protocol: ClientProtocol::HttpsExcept(settings.plain_http.clone()),
        extra_root_certificates: extra,
        platform_resolver: None,
        use_monolithic_push: true,
        connect_timeout: Some(CONNECT_MAX.min(settings.stall)),
        user_agent: USER_AGENT,
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|why| RegistryError::Client { why: chain(&why) })
}

pub(crate) fn certificates(settings: &Settings) -> Result<Vec<Certificate>, RegistryError> {
    const END: &str = "-----END CERTIFICATE-----";
    let Some(path) = &settings.ca_file else { return Ok(vec![]) };
    let text = fs::read_to_string(path)
        .map_err(|source| RegistryError::File { path: path.clone(), source })?;
    // The client takes one at a time.
    let blocks = text.split_inclusive(END).filter(|block| block.ends_with(END));
    let all: Vec<_> = blocks
        .map(|block| Certificate { encoding: CertificateEncoding::Pem, data: block.into() })
        .collect();
    if all.is_empty() {
        return Err(RegistryError::NoCertificate { path: path.clone() });
    }
    Ok(all)
}
