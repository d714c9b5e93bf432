//! One run: its mark on all that it starts, its directory, and the janitor that ends what is left over.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::LaunchError;

/// Marks every process that a run has started, in its environment.
pub const RUN_VARIABLE: &str = "AILERON_COSIM_RUN";

/// Whatever a run starts bears its mark, and is gone when this is dropped, or when this process is killed.
///
/// The janitor is a process of its own. It holds the reading end of a pipe whose other end is ours alone: the pipe's
/// end means that we are gone, however that came about, and then it ends all that bears the mark.
#[derive(Debug)]
pub struct Run {
    id: String,
    dir: PathBuf,
    // Several nodes may be started at once.
    janitor: Mutex<Child>,
    names: AtomicUsize,
}

impl Run {
    /// Starts the janitor, and makes the run's directory.
    ///
    /// `janitor` is a program that calls [`super::janitor`] with the arguments that are added to it here.
    pub fn start(mut janitor: Command) -> Result<Self, LaunchError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        // Short, since a socket's path may have some 100 bytes only.
        let dir = std::env::temp_dir().join(format!("cosim-{}", &id[..12]));
        janitor.arg(&id).arg(&dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A signal from the terminal, meant for us, must not end it first.
        let mut child = janitor.process_group(0).spawn().map_err(LaunchError::Janitor)?;
        let mut watching = String::new();
        if let Some(stdout) = child.stdout.take() {
            let read = BufReader::new(stdout).read_line(&mut watching);
            read.map_err(LaunchError::Janitor)?;
        }
        if watching.trim() != super::janitor::WATCHING {
            drop(child.kill());
            drop(child.wait());
            let said = std::io::Error::other(format!("it says {watching:?}"));
            return Err(LaunchError::Janitor(said));
        }
        let run = Self { id, dir, janitor: Mutex::new(child), names: AtomicUsize::new(0) };
        // Others may not look in: sockets and what nodes exchange lie here.
        let made = fs::DirBuilder::new().mode_owner_only().create(&run.dir);
        made.map_err(|source| LaunchError::Directory { path: run.dir.clone(), source })?;
        Ok(run)
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A directory that is removed with the run.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new name, short and unused in this run.
    #[must_use]
    pub fn name(&self) -> String {
        format!("n{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Lets the janitor know where containers of this run may be, before there are any.
    pub(super) fn uses_docker(&self, socket: &str) -> Result<(), LaunchError> {
        let mut janitor = self.janitor.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut janitor.stdin {
            Some(stdin) => writeln!(stdin, "{socket}").map_err(LaunchError::Janitor),
            None => Err(LaunchError::Janitor(std::io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let janitor = self.janitor.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The end of the pipe is its order; what cannot be ended it says itself.
        drop(janitor.stdin.take());
        drop(janitor.wait());
    }
}

/// The mode of a directory that only its owner enters.
trait OwnerOnly {
    fn mode_owner_only(&mut self) -> &mut Self;
}

impl OwnerOnly for fs::DirBuilder {
    fn mode_owner_only(&mut self) -> &mut Self {
        std::os::unix::fs::DirBuilderExt::mode(self, 0o700)
    }
}
