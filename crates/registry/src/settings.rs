//! What an owner can say about registries.

use std::{path::PathBuf, time::Duration};

/// Settings of whoever talks to registries.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RegistryArgs {
    /// Registries that are spoken to over plain HTTP, as host or host:port; all others over TLS
    #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
    pub registry_plain_http: Vec<String>,
    /// File in the form of Docker's config.json with credentials of registries;
    /// $DOCKER_CONFIG/config.json or ~/.docker/config.json if not set
    #[arg(long, value_name = "FILE")]
    pub registry_auth_file: Option<PathBuf>,
    /// Registry that registry_username and registry_password_file are for, as host or host:port
    #[arg(long, value_name = "HOST", requires_all = ["registry_username", "registry_password_file"])]
    pub registry_host: Option<String>,
    /// User name at registry_host
    #[arg(long, value_name = "NAME", requires = "registry_host")]
    pub registry_username: Option<String>,
    /// File with the password at registry_host
    #[arg(long, value_name = "FILE", requires = "registry_host")]
    pub registry_password_file: Option<PathBuf>,
    /// Certificates (PEM) of authorities that registries are trusted by, beside the system's
    #[arg(long, value_name = "FILE")]
    pub registry_ca_file: Option<PathBuf>,
    /// Seconds without a byte after which a registry counts as gone, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub registry_stall_s: u64,
}

/// How registries are spoken to.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Hosts, with their port if it is not 80, that speak no TLS.
    pub plain_http: Vec<String>,
    /// In the form of Docker's config.json.
    pub auth_file: Option<PathBuf>,
    pub login: Option<Login>,
    /// PEM.
    pub ca_file: Option<PathBuf>,
    /// The longest time without a byte.
    pub stall: Duration,
}

/// Credentials for one registry.
#[derive(Clone, Debug)]
pub struct Login {
    pub host: String,
    pub username: String,
    pub password_file: PathBuf,
}

impl RegistryArgs {
    /// As the parts of this crate take them.
    pub fn settings(&self) -> Settings {
        let login =
            match (&self.registry_host, &self.registry_username, &self.registry_password_file) {
                (Some(host), Some(username), Some(file)) => Some(Login {
                    host: host.clone(),
                    username: username.clone(),
                    password_file: file.clone(),
                }),
                (None, _, _) | (_, None, _) | (_, _, None) => None,
            };
        Settings {
            plain_http: self.registry_plain_http.clone(),
            auth_file: self.registry_auth_file.clone(),
            login,
            ca_file: self.registry_ca_file.clone(),
            stall: Duration::from_secs(self.registry_stall_s),
        }
    }
}
