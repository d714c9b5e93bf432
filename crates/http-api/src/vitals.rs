//! The HTTP port of a service that offers nothing else there: GET /health, /ready and /metrics.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{Json, Router, extract::State, http::StatusCode, response::Response, routing::get};
use service::{Figures, Standing, settings::SettingsError};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{Counted, GuardArgs, Health, ListenError, Listening, asked, dressed, health};

/// Settings of that port.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub struct VitalsArgs {
    /// Port of GET /health, /ready and /metrics; none is opened if not set
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Address of http_port; other than the loopback only with roster_file or http_allow_remote
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub http_host: IpAddr,
    #[command(flatten)]
    pub guard: GuardArgs,
}

/// What is told on it.
#[derive(Clone, Debug)]
pub struct Vitals {
    description: &'static str,
    instance_id: uuid::Uuid,
    standing: watch::Receiver<Standing>,
    counted: Counted,
}

/// An open port, which is closed when this is dropped.
#[derive(Debug)]
pub struct VitalsPort {
    address: SocketAddr,
    closing: CancellationToken,
    _serving: JoinHandle<()>,
}

impl VitalsArgs {
    /// Whether the port is guarded well enough to be opened, if it is to be.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.http_port.is_some() { self.guard.check(self.http_host) } else { Ok(()) }
    }

    /// Opens the port, if there is to be one.
    pub async fn open(&self, vitals: Vitals) -> Result<Option<VitalsPort>, OpenError> {
        let Some(port) = self.http_port else { return Ok(None) };
        let listening = Listening::bind(SocketAddr::new(self.http_host, port)).await?;
        let listening = listening.with_tls(self.guard.tls()?);
        let address = listening.address();
        self.guard.say_who_may_call(address);
        let closing = CancellationToken::new();
        let router = asked(vitals.router(), self.guard.callers()?);
        let serving = tokio::spawn(listening.serve(router, closing.clone()));
        tracing::info!(%address, "health and metrics are told over HTTP");
        Ok(Some(VitalsPort { address, closing, _serving: serving }))
    }
}

/// Why the port is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Settings(Box<SettingsError>),
}

impl From<SettingsError> for OpenError {
    fn from(why: SettingsError) -> Self {
        Self::Settings(Box::new(why))
    }
}

impl Vitals {
    /// Of the service that `description` names, like `model server`.
    pub fn new(
        description: &'static str,
        standing: watch::Receiver<Standing>,
        figures: Figures,
    ) -> Self {
        let counted = Counted::new(figures);
        Self { description, instance_id: uuid::Uuid::new_v4(), standing, counted }
    }

    fn router(self) -> Router {
        let routes = Router::new()
            .route("/health", get(tell_health))
            .route("/ready", get(tell_health))
            .route("/metrics", get(tell_figures));
        dressed(routes, &self.counted).with_state(self)
    }
}

impl VitalsPort {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for VitalsPort {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

async fn tell_health(State(vitals): State<Vitals>) -> (StatusCode, Json<Health>) {
    health(vitals.description, vitals.instance_id, vitals.standing.borrow().failing())
}

async fn tell_figures(State(vitals): State<Vitals>) -> Response {
    let mut now = Figures::default();
    Standing::show([&*vitals.standing.borrow()], &mut now);
    vitals.counted.exposition(&now)
}
