//! `aileron acl export`: the roles' access rules for a broker that is not ours.

use std::{collections::BTreeMap, process::ExitCode, str::FromStr};

use access::{Name, Roster};
use anyhow::{Context as _, ensure};
use clap::{Subcommand, ValueEnum};
use protocol::{
    ChannelId, DomainId, Namespace,
    topic::{Grants, Role},
};

use super::token::RosterArgs;
use crate::view;

#[derive(Debug, Subcommand)]
pub(crate) enum Acl {
    /// Write what everybody on the roster may do, as another broker's access file
    Export {
        /// Which broker
        #[arg(long = "for", value_enum)]
        broker: Other,
        /// Write it for these in place of the roster, each as ROLE:NAME
        #[arg(long, value_delimiter = ',', value_name = "ROLE:NAME")]
        clients: Vec<Client>,
        #[command(flatten)]
        roster: RosterArgs,
        /// Domain part of the control topics
        #[arg(long, default_value = "demo")]
        domain_id: DomainId,
        /// Channel part of the control topics
        #[arg(long, default_value = "fl")]
        channel_id: ChannelId,
        /// Levels that stand before every topic
        #[arg(long, default_value = "")]
        topic_prefix: String,
    },
}

/// A broker that takes access rules from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Other {
    /// For `acl_file`
    Mosquitto,
    /// For `acl.conf`, EMQX 5
    Emqx,
}

/// One whose rules are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    role: Role,
    name: Name,
}

impl FromStr for Client {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (role, name) = text.split_once(':').context("it takes ROLE:NAME")?;
        Ok(Self { role: role.parse()?, name: name.parse()? })
    }
}

impl Acl {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self::Export { broker, clients, roster, domain_id, channel_id, topic_prefix } = self;
        let namespace = Namespace::new(&topic_prefix, &domain_id, &channel_id)
            .with_context(|| format!("topic-prefix {topic_prefix:?}"))?;
        let clients: BTreeMap<Name, Role> = match clients.is_empty() {
            false => clients.into_iter().map(|client| (client.name, client.role)).collect(),
            true => Roster::load(&roster.roster_file)?
                .iter()
                .filter(|(_, entry)| !entry.is_revoked())
                .filter_map(|(name, entry)| Some((name.clone(), entry.role?)))
                .collect(),
        };
        ensure!(!clients.is_empty(), "nobody has a role at the broker");
        let granted = clients.iter().map(|(name, role)| {
            (name, *role, Grants::new(&namespace, *role, Some(name.as_proplet())))
        });
        let text = match broker {
            Other::Mosquitto => granted.map(mosquitto).collect::<String>(),
            Other::Emqx => granted.map(emqx).collect::<String>() + "{deny, all}.",
        };
        view::line(text.trim_end());
        Ok(ExitCode::SUCCESS)
    }
}

/// Mosquitto refuses whatever it is not told of. It has no wildcard for a part of a level, so a
/// model server can also write beside its models; see docs/security.md.
fn mosquitto((name, role, grants): (&Name, Role, Grants)) -> String {
    let mut text = format!("# {role}\nuser {name}\n");
    for filter in grants.published() {
        text += &format!("topic write {filter}\n");
    }
    for filter in grants.subscribed() {
        text += &format!("topic read {filter}\n");
    }
    text + "\n"
}

/// EMQX matches a subscription by its very filter, so a wider one is refused.
fn emqx((name, role, grants): (&Name, Role, Grants)) -> String {
    let quoted = |filters: Vec<String>| {
        filters.iter().map(|filter| format!("{filter:?}")).collect::<Vec<_>>().join(",\n    ")
    };
    let mut text = format!("%% {role}\n");
    for (action, filters) in [("publish", grants.published()), ("subscribe", grants.subscribed())] {
        if !filters.is_empty() {
            let filters = quoted(filters);
            text += &format!("{{allow, {{username, \"{name}\"}}, {action}, [\n    {filters}]}}.\n");
        }
    }
    text + "\n"
}
