//! Lines over Unix sockets: we listen, the node connects. Ten times faster into a container than attached pipes.

use std::{
    fs, io,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags};

use super::{Channel, ChannelError, Patience, Tail};

/// A socket that waits for one node. The file is removed with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at a path whose directory only we, and whom we share it with, can enter.
    pub fn at(path: &Path) -> Result<Self, ChannelError> {
        let failed = |source| ChannelError::Connect { address: path.display().to_string(), source };
        let listener = UnixListener::bind(path).map_err(failed)?;
        listener.set_nonblocking(true)?;
        // In a container the node may be another user; the directory is what keeps others out.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the node; `None` when the time is over.
    pub fn accept(&self, limit: Duration) -> Result<Option<Channel>, ChannelError> {
        let end = Patience::new(limit);
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => return Channel::of_unix(stream).map(Some),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
                    if !end.wait(&mut fds)? {
                        return Ok(None);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Whoever removed it before us did what we want.
        drop(fs::remove_file(&self.path));
    }
}

impl Channel {
    /// Takes over a connection.
    pub fn of_unix(stream: UnixStream) -> Result<Self, ChannelError> {
        let reads = stream.try_clone()?;
        Self::over(reads.into(), stream.into(), Tail::default())
    }
}
