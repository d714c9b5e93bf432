//! `aileron token`: who may connect to the broker as what, and call the manager for what.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use access::{Entry, Name, Roster, Scope, SigningKey, Token, fingerprint};
use anyhow::ensure;
use clap::{Args, Subcommand};
use protocol::{Timestamp, topic::Role};
use serde_json::json;
use service::{Clock as _, SystemClock};

use crate::view::{self, Format};

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
            Self::New { format, .. } | Self::List { format, .. } => *format,
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
            Self::List { roster, format } => list(&Roster::load(&roster.roster_file)?, format),
            Self::Revoke { name, roster } => {
                let mut all = Roster::load(&roster.roster_file)?;
                all.revoke(&name, now())?;
                all.save(&roster.roster_file)?;
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
    let mut all = Roster::load_or_new(&roster.roster_file)?;
    let token = Token::make(name.clone());
    let secret_sha256 = Some(fingerprint(token.secret().as_bytes()));
    let entry = Entry { role, scopes, secret_sha256, ..Entry::new(now()) };
    all.add(name, with_signing_key(entry, signing_key)?)?;
    all.save(&roster.roster_file)?;
    Ok(token)
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
        let role = entry.role.map_or("-", Role::name);
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
