//! `aileron proplet list|show`: who is there. (`aileron proplet` with settings is the service.)

use std::process::ExitCode;

use clap::Subcommand;

use crate::{
    http::ApiArgs,
    view::{self, Format, cell},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Proplets {
    /// List proplets
    List {
        #[command(flatten)]
        api: ApiArgs,
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show one proplet
    Show {
        /// Id of the proplet
        id: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

impl Proplets {
    pub(super) const fn format(&self) -> Format {
        match self {
            Self::List { format, .. } => *format,
            Self::Show { .. } => Format::Json,
        }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List { api, format } => {
                let proplets = api.api()?.all("/proplets", "proplets")?;
                match format {
                    Format::Json => view::json(&proplets.into()),
                    Format::Text => view::table(
                        &["id", "alive", "tasks", "last seen"],
                        proplets.iter().map(|proplet| {
                            let seen = &proplet["last_alive_at"];
                            vec![
                                cell(&proplet["id"]),
                                alive(proplet["alive"].as_bool()),
                                cell(&proplet["task_count"]),
                                cell(seen),
                            ]
                        }),
                    ),
                }
            }
            Self::Show { id, api } => view::json(&api.api()?.get(&format!("/proplets/{id}"))?),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn alive(alive: Option<bool>) -> String {
    match alive {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => "-".to_owned(),
    }
}
