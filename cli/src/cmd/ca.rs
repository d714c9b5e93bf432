//! `aileron ca`: an authority of one's own, for the certificates of brokers, services and proplets.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use access::{Authority, Entry, Name, Roster, Subject, Validity, fingerprint, moment};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use protocol::topic::Role;
use service::{Clock as _, SystemClock};

use super::token::{RosterArgs, now, with_signing_key};
use crate::view;

/// Where the authority is.
#[derive(Debug, Args)]
pub(super) struct CaArgs {
    /// Directory of the authority: ca.pem for everybody, ca.key for nobody else
    #[arg(long, env = "AILERON_CA_DIR", default_value = ".aileron/ca", global = true)]
    pub(super) ca_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Make an authority
    Init {
        /// Its name, as it stands in its certificate
        #[arg(long, default_value = "Aileron")]
        name: String,
        #[command(flatten)]
        ca: CaArgs,
    },
    /// Make a key and a certificate for a server, a service or a proplet
    Issue {
        /// Its name: for a client, that on the roster
        name: Name,
        /// Host names and addresses that a server answers under
        #[arg(long, value_delimiter = ',')]
        hosts: Vec<String>,
        /// Put it on the roster as this, with this very certificate
        #[arg(long)]
        role: Option<Role>,
        /// With --role proplet: make a key with which it signs its updates, and write it to this
        /// file
        #[arg(long, value_name = "FILE", requires = "role")]
        signing_key: Option<PathBuf>,
        /// Days for which the certificate is good
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// Directory for NAME.pem and NAME.key
        #[arg(long, default_value = ".")]
        out: PathBuf,
        #[command(flatten)]
        ca: CaArgs,
        #[command(flatten)]
        roster: RosterArgs,
    },
}

impl Ca {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Init { name, ca } => {
                let authority = Authority::new(&name, moment(SystemClock.now()))?;
                authority.save(&ca.ca_dir)?;
                view::line(ca.ca_dir.join("ca.pem").display().to_string());
            }
            Self::Issue { name, hosts, role, signing_key, days, out, ca, roster } => {
                let authority = Authority::load(&ca.ca_dir)?;
                let good = Validity::days(moment(SystemClock.now()), days);
                let subject = Subject { name: name.to_string(), hosts };
                let issued = authority.issue(&subject, good)?;
                if let Some(role) = role {
                    let certificate_sha256 = Some(fingerprint(&issued.certificate_der));
                    let entry = Entry { role: Some(role), certificate_sha256, ..Entry::new(now()) };
                    Roster::edit(&roster.roster_file, |all| {
                        all.add(name.clone(), with_signing_key(entry, signing_key.as_deref())?)?;
                        anyhow::Ok(())
                    })?;
                }
                fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
                let (certificate, key) =
                    (out.join(format!("{name}.pem")), out.join(format!("{name}.key")));
                write(&key, &issued.key_pem, 0o600)?;
                write(&certificate, &issued.certificate_pem, 0o644)?;
                view::line(certificate.display().to_string());
                view::line(key.display().to_string());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Replaces a file that is there; `mode` counts from its first byte on.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let _none_left_behind = fs::remove_file(&fresh);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&fresh, path))
        .with_context(|| format!("write {}", path.display()))
}
