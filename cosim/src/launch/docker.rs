//! Nodes in containers, through the engine's API on its Unix socket.
//!
//! Every container and network bears the label of its run, and the janitor hears of the engine before there is any:
//! so they are removed on every way out.

mod build;
mod container;
mod streams;

use std::{collections::BTreeMap, env, future::Future, io, thread, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as EngineError,
    query_parameters::{ListContainersOptions, ListNetworksOptions, RemoveContainerOptions},
};
use tokio::runtime::{self, Runtime};

pub use container::DockerNode;

/// The label whose value is the run's id.
pub const RUN_LABEL: &str = "aileron.cosim.run";
/// The label whose value is the node's id.
pub const NODE_LABEL: &str = "aileron.cosim.node";

const SOCKET: &str = "/var/run/docker.sock";
const REQUEST_SECS_MAX: u64 = 120;

/// What can go wrong with a container.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    #[error("no container engine at {socket}: {source}")]
    NoEngine { socket: String, source: Box<EngineError> },
    #[error(
        "{address:?} is no Unix socket: only engines on this machine can share folders with us"
    )]
    Remote { address: String },
    #[error("cannot {what}: {source}")]
    Engine { what: String, source: Box<EngineError> },
    #[error("the engine's client cannot run: {0}")]
    Runtime(io::Error),
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("the build of {context} fails: {message}")]
    Build { context: String, message: String },
    #[error("the build context {context} has more than {bytes_max} bytes")]
    ContextTooLarge { context: String, bytes_max: u64 },
    #[error("give an image or a build context")]
    NoImage,
    #[error("channel {found:?} should be unix or stdio")]
    Channel { found: String },
    #[error("port {found:?} should be <host>:<container> with an optional /udp")]
    Port { found: String },
    #[error("{key} {found} is out of range")]
    OutOfRange { key: &'static str, found: String },
}

impl DockerError {
    fn engine(what: impl Into<String>) -> impl FnOnce(EngineError) -> Self {
        let what = what.into();
        |source| Self::Engine { what, source: Box::new(source) }
    }

    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}

/// A connection to the container engine of this machine.
#[derive(Debug)]
pub struct Engine {
    docker: Docker,
    socket: String,
    // Taken out at the end only: a runtime must not be dropped where another one runs.
    runtime: Option<Runtime>,
}

impl Engine {
    /// Connects to the engine that `DOCKER_HOST` names, or to the usual one.
    pub fn connect() -> Result<Self, DockerError> {
        match env::var("DOCKER_HOST") {
            Ok(address) if !address.is_empty() => match address.strip_prefix("unix://") {
                Some(socket) => Self::at(socket),
                None => Err(DockerError::Remote { address }),
            },
            Ok(_) | Err(_) => Self::at(SOCKET),
        }
    }

    /// Connects to the engine at a Unix socket.
    pub fn at(socket: &str) -> Result<Self, DockerError> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("cosim-docker")
            .enable_all()
            .build()
            .map_err(DockerError::Runtime)?;
        let none = |source: EngineError| DockerError::NoEngine {
            socket: socket.to_owned(),
            source: Box::new(source),
        };
        let connect = async {
            let docker = Docker::connect_with_unix(socket, REQUEST_SECS_MAX, API_DEFAULT_VERSION)?;
            docker.negotiate_version().await
        };
        let docker = wait(&runtime, connect).map_err(none)?;
        Ok(Self { docker, socket: socket.to_owned(), runtime: Some(runtime) })
    }

    /// Where the engine listens.
    #[must_use]
    pub fn socket(&self) -> &str {
        &self.socket
    }

    /// Whether the engine has an image.
    pub fn has_image(&self, image: &str) -> Result<bool, DockerError> {
        match self.wait(self.docker.inspect_image(image)) {
            Ok(_) => Ok(true),
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(DockerError::engine(format!("look for image {image}"))(error)),
        }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("the runtime is taken out at the end only")
    }

    fn wait<F: Future<Output: Send> + Send>(&self, future: F) -> F::Output {
        wait(self.runtime(), future)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Removes all containers and networks of a run.
pub(super) fn end_all(socket: &str, run: &str) -> Result<(), DockerError> {
    let engine = Engine::at(socket)?;
    engine.wait(async {
        let containers = containers(&engine.docker, run).await?;
        for id in containers {
            remove(&engine.docker, &id).await?;
        }
        let options = ListNetworksOptions { filters: Some(labelled(run).into_iter().collect()) };
        let networks = engine.docker.list_networks(Some(options)).await;
        for network in networks.map_err(DockerError::engine("list networks"))? {
            let Some(id) = network.id else { continue };
            let removed = engine.docker.remove_network(&id).await;
            removed.or_else(absent).map_err(DockerError::engine(format!("remove network {id}")))?;
        }
        Ok(())
    })
}

async fn containers(docker: &Docker, run: &str) -> Result<Vec<String>, DockerError> {
    let filters = Some(labelled(run).into_iter().collect());
    let options = ListContainersOptions { all: true, filters, ..Default::default() };
    let listed = docker.list_containers(Some(options)).await;
    let listed = listed.map_err(DockerError::engine("list containers"))?;
    Ok(listed.into_iter().filter_map(|container| container.id).collect())
}

/// Kills and removes a container with its anonymous volumes, and waits until it is gone.
async fn remove(docker: &Docker, id: &str) -> Result<(), DockerError> {
    let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
    let removed = docker.remove_container(id, Some(options)).await;
    removed.or_else(absent).map_err(DockerError::engine(format!("remove container {id}")))
}

/// What is gone, or on its way, need not be removed.
fn absent(error: EngineError) -> Result<(), EngineError> {
    let gone =
        matches!(error, EngineError::DockerResponseServerError { status_code: 404 | 409, .. });
    if gone { Ok(()) } else { Err(error) }
}

fn labelled(run: &str) -> BTreeMap<String, Vec<String>> {
    BTreeMap::from([("label".to_owned(), vec![format!("{RUN_LABEL}={run}")])])
}

/// Runs a future on a thread of its own, since the caller may itself be run by another runtime.
fn wait<F: Future<Output: Send> + Send>(runtime: &Runtime, future: F) -> F::Output {
    thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.block_on(future));
        waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// How often the engine is asked about a container that should end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
