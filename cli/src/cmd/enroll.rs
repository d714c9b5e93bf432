//! `aileron enroll`: a device with a token for joining makes its keys, and gets its certificate and
//! the way to the broker from a registrar.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use access::{Applicant, JoinToken, Welcome, facts, fingerprint, first_certificate};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::Value;
use service::settings::Secret;
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::{
    device::{self, DeviceDir},
    view,
};

/// Longest answer of a registrar.
const ANSWER_BYTES_MAX: u64 = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Enroll {
    /// The registrar: https://HOST:PORT
    url: String,
    /// The token, from `aileron token join`; good once
    #[arg(long, env = "AILERON_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    join: Secret,
    /// Directory for the device's settings and keys; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Directory with this device's data, for its settings
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Enroll {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let token = self.join.expose().trim().parse()?;
        let settings = join(&self.url, &token, &self.out, self.data_dir.as_deref())?;
        view::line(settings.display().to_string());
        view::aside(format!(
            "The device has joined. Start it: aileron proplet --config {}",
            settings.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// Joins, and leaves a directory that a proplet runs from; the path of its settings.
pub(super) fn join(
    url: &str,
    token: &JoinToken,
    out: &Path,
    data_dir: Option<&Path>,
) -> anyhow::Result<PathBuf> {
    let base = url.trim_end_matches('/');
    ensure!(base.starts_with("https://"), "{base}: a registrar's address begins with https://");
    // Before the token is spent: a full disk must not cost it.
    let mut dir = DeviceDir::open(out)?;
    let applicant = Applicant::new(token)?;
    dir.write(device::KEY_FILE, applicant.keys.key_pem.as_bytes())?;
    dir.write(device::SIGNING_KEY_FILE, applicant.signing_key.text().as_bytes())?;
    let ca = authority(base, token)?;
    let welcome = ask(base, &ca, &applicant)?;
    check(&welcome, token)?;
    dir.write(device::CERTIFICATE_FILE, welcome.certificate.as_bytes())?;
    dir.write(device::CA_FILE, welcome.broker_ca.as_bytes())?;
    let settings = device::settings(&welcome, data_dir);
    dir.write(device::SETTINGS_FILE, settings.as_bytes())?;
    dir.finish()
}

/// The authority's certificate. Whoever answers is not known yet, so it counts only if it is the
/// one that the token names.
fn authority(base: &str, token: &JoinToken) -> anyhow::Result<Certificate<'static>> {
    let url = format!("{base}/ca.pem");
    let anybody = TlsConfig::builder().disable_verification(true).build();
    let mut response = agent(anybody).get(&url).call().with_context(|| format!("reach {url}"))?;
    ensure!(response.status().is_success(), "{url} answers {}", response.status());
    let pem = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    let der = first_certificate(&pem.with_context(|| format!("read {url}"))?);
    let der = der.with_context(|| format!("{url} is no certificate"))?;
    let found = fingerprint(&der);
    ensure!(
        found == token.authority(),
        "{base} is not the registrar that made the token: its authority is sha256:{found}, the \
         token's is sha256:{}; nothing was sent",
        token.authority()
    );
    Ok(Certificate::from_der(&der).to_owned())
}

/// Shows the token to the registrar, over a connection that only it can read.
fn ask(base: &str, ca: &Certificate<'static>, applicant: &Applicant) -> anyhow::Result<Welcome> {
    let roots = RootCerts::new_with_certs(std::slice::from_ref(ca));
    let tls = TlsConfig::builder().root_certs(roots).build();
    let url = format!("{base}/join");
    let body = serde_json::to_string(&applicant.request)?;
    let request = agent(tls).post(&url).header("content-type", "application/json");
    let mut response = request.send(body).with_context(|| format!("reach {url}"))?;
    let status = response.status();
    let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let text = text.with_context(|| format!("read the answer of {url}"))?;
    if !status.is_success() {
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        bail!("refused: {} ({status})", said["error"].as_str().unwrap_or("no reason was given"));
    }
    serde_json::from_str(&text).with_context(|| format!("{url} answers something else"))
}

/// Whether the certificate is for us.
fn check(welcome: &Welcome, token: &JoinToken) -> anyhow::Result<()> {
    let der = first_certificate(welcome.certificate.as_bytes());
    let name = der.and_then(|der| facts(&der)).and_then(|facts| facts.name);
    ensure!(
        welcome.name == token.name().as_str() && name.as_deref() == Some(token.name().as_str()),
        "the registrar has sent a certificate for {:?}",
        name.unwrap_or_default()
    );
    Ok(())
}

fn agent(tls: TlsConfig) -> Agent {
    Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .tls_config(tls)
        .build()
        .into()
}
