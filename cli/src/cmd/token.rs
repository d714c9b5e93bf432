//! `aileron token`: who may connect to the broker as what, and call the manager for what.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use access::{Authority, Entry, JoinToken, Name, Roster, Scope, SigningKey, Token, fingerprint};
use anyhow::ensure;
use clap::{Args, Subcommand};
use protocol::{Timestamp, topic::Role};
use serde_json::json;
use service::{Clock as _, SystemClock};

use super::ca::CaArgs;
use crate::view::{self, Format};

/// No invitation is open for longer.
const INVITED_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Where the roster is.
#[derive(Debug, Args)]
pub(super) struct RosterArgs {
    /// The roster: who may connect as what; made if it is not there
    #[arg(
        long,
        env = "AILERON_ROSTER_FILE",
        default_value = ".aileron/roster.json",
        global = true
    )]
    pub(super) roster_file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Put somebody on the roster and show the token, once
    New {
        /// Name: the user name at the broker, and for a proplet its id
        name: Name,
        /// What it is at the broker: manager, coordinator, model-server, proplet, operator or
        /// observer
        #[arg(long)]
        role: Option<Role>,
        /// What it may do over HTTP: read, tasks or admin, each including those before it
        #[arg(long, value_delimiter = ',')]
        scopes: Vec<Scope>,
        /// Make a key with which a proplet signs its updates, write it to this file, and its public
        /// half to the roster
        #[arg(long, value_name = "FILE")]
        signing_key: Option<PathBuf>,
        #[command(flatten)]
        roster: RosterArgs,
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Invite a device: show a token with which it can join once, by `aileron enroll`
    Join {
        /// Name of the proplet: its id
        name: Name,
        /// For how long the token is good: 90s, 30m, 1h or 7d, at most 30d
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time_span)]
        expires: Duration,
        #[command(flatten)]
        ca: CaArgs,
        #[command(flatten)]
        roster: RosterArgs,
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// List who is on the roster
    List {
        #[command(flatten)]
        roster: RosterArgs,
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Take everything from somebody; running services notice within a second
    Revoke {
        /// Name on the roster
        name: Name,
        #[command(flatten)]
        roster: RosterArgs,
    },
}

impl Tokens {
    pub(super) const fn format(&self) -> Format {
        match self {
            Self::New { format, .. } | Self::Join { format, .. } | Self::List { format, .. } => {
                *format
            }
            Self::Revoke { .. } => Format::Text,
        }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::New { name, role, scopes, signing_key, roster, format } => {
                let scopes = scopes.into_iter().collect();
                let token = make(name, (role, scopes), signing_key.as_deref(), &roster)?;
                show(&token, role, format);
            }
            Self::Join { name, expires, ca, roster, format } => {
                let token = invite(name, expires, &ca, &roster)?;
                show_invitation(&token, expires, format);
            }
            Self::List { roster, format } => list(&Roster::load(&roster.roster_file)?, format),
            Self::Revoke { name, roster } => {
                // A roster that is not there is not made here.
                Roster::load(&roster.roster_file)?;
                Roster::edit(&roster.roster_file, |all| all.revoke(&name, now()))?;
                view::line(format!("{name} is revoked"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn make(
    name: Name,
    (role, scopes): (Option<Role>, BTreeSet<Scope>),
    signing_key: Option<&Path>,
    roster: &RosterArgs,
) -> anyhow::Result<Token> {
    ensure!(
        role.is_some() || !scopes.is_empty(),
        "{name} could do nothing: give --role for the broker, or --scopes for HTTP"
    );
    let token = Token::make(name.clone());
    let secret_sha256 = Some(fingerprint(token.secret().as_bytes()));
    let entry = Entry { role, scopes, secret_sha256, ..Entry::new(now()) };
    Roster::edit(&roster.roster_file, |all| {
        all.add(name, with_signing_key(entry, signing_key)?)?;
        anyhow::Ok(token)
    })
}

/// Puts an invitation on the roster. One that nobody has used yet is replaced by it.
pub(super) fn invite(
    name: Name,
    expires: Duration,
    ca: &CaArgs,
    roster: &RosterArgs,
) -> anyhow::Result<JoinToken> {
    let authority = Authority::load(&ca.ca_dir)?;
    let token = JoinToken::make(name.clone(), authority.fingerprint()?);
    let invitation = Some(token.invitation(SystemClock.now(), expires));
    let entry = Entry { invitation, ..Entry::new(now()) };
    Roster::edit(&roster.roster_file, |all| all.add(name, entry))?;
    Ok(token)
}

fn show_invitation(token: &JoinToken, expires: Duration, format: Format) {
    match format {
        Format::Json => view::json(&json!({
            "name": token.name().as_str(),
            "token": token.expose(),
            "expires_s": expires.as_secs(),
        })),
        Format::Text => {
            view::line(token.expose());
            view::aside(format!(
                "This is shown once, good once, and for {} s. On the device:\n  \
                 AILERON_JOIN_TOKEN=TOKEN aileron enroll https://REGISTRAR:7072 --out DIR",
                expires.as_secs()
            ));
        }
    }
}

/// A number and a unit.
pub(super) fn time_span(text: &str) -> Result<Duration, String> {
    let takes = || "it takes a number and s, m, h or d, like 1h, and at most 30d".to_owned();
    let unit_s = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        Some(_) | None => return Err(takes()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| takes())?;
    let span = count.checked_mul(unit_s).map(Duration::from_secs);
    span.filter(|span| (Duration::from_secs(1)..=INVITED_MAX).contains(span)).ok_or_else(takes)
}

/// Makes the key, if one is wanted, before anything is said of it.
pub(super) fn with_signing_key(entry: Entry, file: Option<&Path>) -> anyhow::Result<Entry> {
    let Some(file) = file else { return Ok(entry) };
    let key = SigningKey::make()?;
    key.save(file)?;
    Ok(Entry { public_key: Some(key.public()), ..entry })
}

fn show(token: &Token, role: Option<Role>, format: Format) {
    match format {
        Format::Json => view::json(&json!({
            "name": token.name().as_str(),
            "secret": token.secret(),
            "token": token.expose(),
        })),
        Format::Text => {
            view::line(token.expose());
            view::aside("This is shown once; the roster keeps a digest of it.");
            if role.is_some() {
                view::aside(format!(
                    "At the broker: mqtt_username = {}, client_key = the token",
                    token.name()
                ));
            }
        }
    }
}

fn list(roster: &Roster, format: Format) {
    let rows = roster.iter().map(|(name, entry)| {
        let scopes: Vec<&str> = entry.scopes.iter().map(|scope| scope.name()).collect();
        let role = match entry.role {
            Some(role) => role.name(),
            None if entry.is_invited() => "invited",
            None => "-",
        };
        (name, role, scopes, entry)
    });
    match format {
        Format::Json => {
            let all: Vec<_> = rows
                .map(|(name, role, scopes, entry)| {
                    json!({
                        "name": name.as_str(),
                        "role": role,
                        "scopes": scopes,
                        "created_at": entry.created_at,
                        "revoked_at": entry.revoked_at,
                    })
                })
                .collect();
            view::json(&all.into());
        }
        Format::Text => view::table(
            &["name", "role", "scopes", "since", "revoked"],
            rows.map(|(name, role, scopes, entry)| {
                vec![
                    name.to_string(),
                    role.to_owned(),
                    if scopes.is_empty() { "-".to_owned() } else { scopes.join(",") },
                    entry.created_at.clone(),
                    entry.revoked_at.clone().unwrap_or_else(|| "-".to_owned()),
                ]
            }),
        ),
    }
}

/// The time of day, as the roster writes it.
pub(super) fn now() -> String {
    let now: Timestamp = SystemClock.now();
    now.to_string()
}
