//! One node in one container.

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, thread, time::Duration,
};

use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig, NetworkCreateRequest, PortBinding},
    query_parameters::{
        AttachContainerOptions, CreateContainerOptions, InspectContainerOptions,
        InspectNetworkOptions, StartContainerOptions,
    },
};
use sim::DockerSpec;

use super::{DockerError, Engine, EngineError, LOOK_EVERY, NODE_LABEL, RUN_LABEL, remove, streams};
use crate::{
    channel::{Channel, Listener, Tail},
    launch::{ENDPOINT_VARIABLE, Keeper, LaunchError, Launched, Run},
};

/// Where a container finds the folder that it shares with us.
const SHARED: &str = "/run/aileron";
const SOCKET: &str = "node.sock";
/// Networks that every engine has.
const BUILT_IN: &[&str] = &["none", "bridge", "host"];

/// A container to start.
#[derive(Clone, Debug)]
pub struct DockerNode {
    pub node: String,
    pub spec: DockerSpec,
    /// How long the node may take to connect; then its attached streams are taken, if the spec leaves that open.
    pub connect: Duration,
}

/// A container that has been started.
struct Started {
    id: String,
    /// The attached streams, as a socket.
    streams: std::os::unix::net::UnixStream,
    tail: Tail,
    listener: Option<Listener>,
}

impl DockerNode {
    #[must_use]
    pub fn new(node: &str, spec: DockerSpec) -> Self {
        Self { node: node.to_owned(), spec, connect: Duration::from_secs(10) }
    }

    /// Finds or builds the image, starts the container, and waits until its node can be spoken to.
    pub fn start(&self, engine: &Engine, run: &Run) -> Result<Launched, LaunchError> {
        run.uses_docker(engine.socket())?;
        let failed = |source| LaunchError::Docker { node: self.node.clone(), source };
        // A connection of its own: the node, and its streams, may outlive the engine that its
        // starter holds.
        let own = Engine::at(engine.socket()).map_err(failed)?;
        let started = self.create(&own, run).map_err(failed)?;
        let mut kept = Kept { engine: own, id: started.id.clone(), removed: false };
        let channel = self.channel(started, &mut kept)?;
        Ok(Launched { channel, keeper: Some(Box::new(kept)) })
    }

    fn create(&self, engine: &Engine, run: &Run) -> Result<Started, DockerError> {
        let image = match (&self.spec.image, &self.spec.build_context) {
            (Some(image), None) => image.clone(),
            (_, Some(context)) => {
                let dockerfile = self.spec.dockerfile.as_deref().unwrap_or("Dockerfile");
                engine.build(Path::new(context), dockerfile)?
            }
            (None, None) => return Err(DockerError::NoImage),
        };
        let name = run.name();
        let (listener, shared) = self.share(&run.dir().join(&name))?;
        let body = self.body(image, run, shared)?;
        let name = format!("cosim-{}-{name}", &run.id()[..12]);
        let tail = Tail::default();
        let (id, attached) = engine.wait(async {
            if let Some(network) = &self.spec.network {
                self.network(&engine.docker, network, run).await?;
            }
            let options = CreateContainerOptions { name: Some(name), ..Default::default() };
            let created = engine.docker.create_container(Some(options), body).await;
            let id = created.map_err(DockerError::engine("create the container"))?.id;
            let options = AttachContainerOptions {
                stream: true,
                stdin: true,
                stdout: true,
                stderr: true,
                ..Default::default()
            };
            // Before it is started, so that nothing it says is lost.
            let attached = engine.docker.attach_container(&id, Some(options)).await;
            let attached = attached.map_err(DockerError::engine("attach to the container"))?;
            let started = engine.docker.start_container(&id, None::<StartContainerOptions>).await;
            started.map_err(DockerError::engine("start the container"))?;
            Ok((id, attached))
        })?;
        let streams = streams::join(engine.runtime(), attached, &tail)?;
        Ok(Started { id, streams, tail, listener })
    }

    /// A socket in a folder of its own, and how the container gets to it.
    fn share(&self, dir: &Path) -> Result<(Option<Listener>, Option<String>), DockerError> {
        match self.spec.channel.as_deref() {
            Some("stdio") => return Ok((None, None)),
            None | Some("unix") => {}
            Some(other) => return Err(DockerError::Channel { found: other.to_owned() }),
        }
        let failed = || DockerError::io(format!("share {}", dir.display()));
        fs::create_dir(dir).map_err(failed())?;
        // The user in the container may be any; the folder above keeps others on this machine out.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(failed())?;
        let listener = Listener::at(&dir.join(SOCKET));
        let listener = listener.map_err(|error| failed()(std::io::Error::other(error)))?;
        Ok((Some(listener), Some(format!("{}:{SHARED}", dir.display()))))
    }

    fn body(
        &self,
        image: String,
        run: &Run,
        shared: Option<String>,
    ) -> Result<ContainerCreateBody, DockerError> {
        let endpoint = match shared {
            Some(_) => format!("unix:{SHARED}/{SOCKET}"),
            None => "stdio".to_owned(),
        };
        let mut env = BTreeMap::from([("PYTHONHASHSEED".to_owned(), "0".to_owned())]);
        env.extend(self.spec.environment.clone());
        env.insert(ENDPOINT_VARIABLE.to_owned(), endpoint);
        let labels = [(RUN_LABEL, run.id()), (NODE_LABEL, &self.node)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Ok(ContainerCreateBody {
            image: Some(image),
            cmd: Some(self.spec.command.clone()).filter(|command| !command.is_empty()),
            env: Some(env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            labels: Some(labels.into_iter().collect()),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            exposed_ports: Some(self.ports()?.into_keys().collect()),
            host_config: Some(self.host(shared)?),
            ..Default::default()
        })
    }

    fn host(&self, shared: Option<String>) -> Result<HostConfig, DockerError> {
        let ports = self.ports()?.into_iter().map(|(inner, outer)| {
            // Loopback only: a simulation has nothing to say to the network around it.
            let host_ip = Some("127.0.0.1".to_owned());
            (inner, Some(vec![PortBinding { host_ip, host_port: Some(outer) }]))
        });
        let network = self.spec.network.clone().unwrap_or_else(|| "none".to_owned());
        Ok(HostConfig {
            binds: Some(self.spec.volumes.iter().cloned().chain(shared).collect()),
            network_mode: Some(network),
            port_bindings: Some(ports.collect()),
            memory: self.memory()?,
            // As much with swap as without: no swap, so that the limit is one.
            memory_swap: self.memory()?,
            nano_cpus: self.nano_cpus()?,
            ..Default::default()
        })
    }

    fn memory(&self) -> Result<Option<i64>, DockerError> {
        let Some(memory_mb) = self.spec.memory_mb else { return Ok(None) };
        let bytes = memory_mb.checked_mul(1 << 20).and_then(|bytes| i64::try_from(bytes).ok());
        let out = || DockerError::OutOfRange { key: "memory_mb", found: memory_mb.to_string() };
        bytes.filter(|bytes| *bytes > 0).map(Some).ok_or_else(out)
    }

    fn nano_cpus(&self) -> Result<Option<i64>, DockerError> {
        let Some(cpus) = self.spec.cpus else { return Ok(None) };
        if !(0.01..=4096.0).contains(&cpus) {
            return Err(DockerError::OutOfRange { key: "cpus", found: cpus.to_string() });
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 4096e9")]
        let nano_cpus = (cpus * 1e9) as i64;
        Ok(Some(nano_cpus))
    }

    /// Ports as the engine names them: the container's with its protocol, and ours.
    fn ports(&self) -> Result<BTreeMap<String, String>, DockerError> {
        let each = self.spec.ports.iter().map(|found| {
            let wrong = || DockerError::Port { found: found.clone() };
            let (outer, inner) = found.split_once(':').ok_or_else(wrong)?;
            let (inner, protocol) = inner.split_once('/').unwrap_or((inner, "tcp"));
            let numbers = [outer, inner].iter().all(|port| port.parse::<u16>().is_ok());
            if !numbers || !["tcp", "udp"].contains(&protocol) {
                return Err(wrong());
            }
            Ok((format!("{inner}/{protocol}"), outer.to_owned()))
        });
        each.collect()
    }

    /// Makes the network unless it is there. It has no way out to other networks.
    async fn network(&self, docker: &Docker, name: &str, run: &Run) -> Result<(), DockerError> {
        if BUILT_IN.contains(&name) {
            return Ok(());
        }
        match docker.inspect_network(name, None::<InspectNetworkOptions>).await {
            Ok(_) => return Ok(()),
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(error) => {
                return Err(DockerError::engine(format!("look for network {name}"))(error));
            }
        }
        let label = (RUN_LABEL.to_owned(), run.id().to_owned());
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            internal: Some(true),
            labels: Some([label].into_iter().collect()),
            ..Default::default()
        };
        let created = docker.create_network(request).await;
        created.map(drop).map_err(DockerError::engine(format!("create network {name}")))
    }

    /// The socket if the node connects, else its attached streams.
    fn channel(&self, started: Started, kept: &mut Kept) -> Result<Channel, LaunchError> {
        let failed = |source| LaunchError::Channel { node: self.node.clone(), source };
        let Started { streams, tail, listener, .. } = started;
        if let Some(listener) = listener {
            let turn = Duration::from_millis(100).min(self.connect);
            let mut left = self.connect;
            while !left.is_zero() && !kept.has_ended() {
                if let Some(channel) = listener.accept(turn).map_err(failed)? {
                    tail.drain(streams).map_err(|error| failed(error.into()))?;
                    return Ok(channel.with_tail(tail));
                }
                left = left.saturating_sub(turn);
            }
            if self.spec.channel.is_some() || kept.has_ended() {
                let fate = kept.fate().unwrap_or_default();
                let said = format!("; {fate} {}", tail.text());
                let limit = self.connect;
                return Err(LaunchError::NoConnection { node: self.node.clone(), limit, said });
            }
        }
        Ok(Channel::of_unix(streams).map_err(failed)?.with_tail(tail))
    }
}

/// A container that is removed with this.
struct Kept {
    engine: Engine,
    id: String,
    removed: bool,
}

impl Kept {
    /// The container's state when it has ended; its removal counts.
    fn end(&self) -> Option<String> {
        let asked = self.engine.docker.inspect_container(&self.id, None::<InspectContainerOptions>);
        match self.engine.wait(asked) {
            Ok(found) => {
                let state = found.state.unwrap_or_default();
                if state.running.unwrap_or(false) {
                    return None;
                }
                let memory = if state.oom_killed.unwrap_or(false) { ", out of memory" } else { "" };
                let code = state.exit_code.unwrap_or_default();
                Some(format!("its container has ended (exit code {code}{memory})"))
            }
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => {
                Some("its container has been removed".to_owned())
            }
            Err(_) => None,
        }
    }

    fn has_ended(&self) -> bool {
        self.end().is_some()
    }

    fn wait(&self, limit: Duration) -> Option<String> {
        let mut left = limit;
        loop {
            let end = self.end();
            if end.is_some() || left.is_zero() {
                return end;
            }
            let pause = LOOK_EVERY.min(left);
            thread::sleep(pause);
            left -= pause;
        }
    }
}

impl Keeper for Kept {
    fn fate(&mut self) -> Option<String> {
        self.wait(Duration::from_secs(2))
    }

    fn stop(&mut self, grace: Duration) {
        if self.removed {
            return;
        }
        self.wait(grace);
        // What cannot be removed now is left to the janitor, which says so.
        self.removed = self.engine.wait(remove(&self.engine.docker, &self.id)).is_ok();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}
