//! Whether a service is well: asked over a socket in its state directory, so that a container engine, a supervisor and
//! `aileron health` need no port; and told to systemd, where it has started the service.

#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt as _, net::UnixListener, sync::watch, time};
use tokio_util::task::AbortOnDropHandle;

use crate::StoreError;

/// How the sockets in a state directory are called, after the name of the state file.
pub(crate) const EXTENSION: &str = "health";
/// How long whoever asks may take to hear the answer.
const HEARING: Duration = Duration::from_secs(1);
/// How long an answer may take; a process that takes longer is not well.
const ANSWER: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 64 << 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Why a service does not count as well.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error("no service runs on state directory {dir}")]
    NotRunning { dir: PathBuf },
    #[error("the service at {socket} does not answer")]
    Silent {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the answer of {socket} cannot be read: {text:?}")]
    Unreadable { socket: PathBuf, text: String },
    #[error("{why}")]
    Failing { why: String },
}

/// What a service says of itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Vital {
    Pass,
    Fail { why: String },
}

/// A driver's answer to whoever asks, kept up to date by the driver, and gone with it.
#[derive(Debug)]
pub(crate) struct Pulse {
    connected: bool,
    storage: Option<String>,
    vital: watch::Sender<Vital>,
    /// Answers; there is none where no socket could be made, which is no reason not to serve.
    answering: Option<(PathBuf, AbortOnDropHandle<()>)>,
}

/// Asks every driver of the service whose state is in `dir`; takes a few seconds at most.
pub fn ask(dir: &Path) -> Result<(), HealthError> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut sockets: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new(EXTENSION)))
        .collect();
    sockets.sort();
    if sockets.is_empty() {
        return Err(HealthError::NotRunning { dir: dir.to_owned() });
    }
    sockets.into_iter().try_for_each(ask_one)
}

fn ask_one(socket: PathBuf) -> Result<(), HealthError> {
    let text = match hear(&socket) {
        Ok(text) => text,
        Err(source) => return Err(HealthError::Silent { socket, source }),
    };
    match serde_json::from_str(&text) {
        Ok(Vital::Pass) => Ok(()),
        Ok(Vital::Fail { why }) => Err(HealthError::Failing { why }),
        Err(_) => Err(HealthError::Unreadable { socket, text }),
    }
}

fn hear(socket: &Path) -> io::Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

impl Pulse {
    /// Answers on `socket`; whoever calls owns the directory that it is in.
    pub(crate) fn start(socket: PathBuf) -> Self {
        let vital = watch::Sender::new(Vital::of(false, None));
        let answering = match listen(&socket) {
            Ok(listener) => {
                let task = tokio::spawn(answer(listener, vital.subscribe()));
                Some((socket, AbortOnDropHandle::new(task)))
            }
            Err(why) => {
                tracing::warn!(socket = %socket.display(), %why, "nobody can ask about the health");
                None
            }
        };
        tell_systemd("READY=1\nSTATUS=not connected to the broker");
        Self { connected: false, storage: None, vital, answering }
    }

    /// Whether the broker is there.
    pub(crate) fn connection(&mut self, connected: bool) {
        self.connected = connected;
        self.update();
    }

    /// Whether the store takes what it is given.
    pub(crate) fn storage(&mut self, why: Option<&StoreError>) {
        self.storage = why.map(ToString::to_string);
        self.update();
    }

    fn update(&self) {
        let now = Vital::of(self.connected, self.storage.as_deref());
        let changed = self.vital.send_if_modified(|vital| {
            let changed = *vital != now;
            vital.clone_from(&now);
            changed
        });
        if changed {
            tell_systemd(&format!("STATUS={}", now.words()));
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if let Some((socket, _)) = &self.answering {
            // A socket that is left behind is refused to whoever asks, and replaced at the next start.
            let _ = fs::remove_file(socket);
        }
    }
}

impl Vital {
    fn of(connected: bool, storage: Option<&str>) -> Self {
        match (storage, connected) {
            (Some(why), _) => Self::Fail { why: format!("cannot write: {why}") },
            (None, false) => Self::Fail { why: "not connected to the broker".to_owned() },
            (None, true) => Self::Pass,
        }
    }

    fn words(&self) -> &str {
        match self {
            Self::Pass => "connected to the broker",
            Self::Fail { why } => why,
        }
    }
}

/// A socket of the latest process in its place, which did not end by itself, is replaced.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Ok(()) => {}
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(why),
    }
    UnixListener::bind(socket)
}

async fn answer(listener: UnixListener, vital: watch::Receiver<Vital>) {
    loop {
        match listener.accept().await {
            Ok((mut asking, _)) => {
                let text = serde_json::to_vec(&*vital.borrow());
                let text = text.expect("a status and a reason are JSON");
                // Whoever asks may have gone.
                let _ = time::timeout(HEARING, asking.write_all(&text)).await;
            }
            Err(why) => {
                tracing::warn!(%why, "cannot answer a question about the health");
                time::sleep(PAUSE).await;
            }
        }
    }
}

/// As sd_notify(3) has it: one datagram to the socket that `NOTIFY_SOCKET` names, if systemd waits for any.
#[cfg(target_os = "linux")]
fn tell_systemd(state: &str) {
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = || -> io::Result<usize> {
        let address = match name.as_encoded_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&name)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    if let Err(why) = told() {
        tracing::warn!(socket = %name.display(), %why, "cannot tell systemd");
    }
}

#[cfg(not(target_os = "linux"))]
fn tell_systemd(_state: &str) {}
