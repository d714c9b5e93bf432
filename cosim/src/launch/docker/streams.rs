//! The attached streams of a container, as a channel: slower than a socket, but every image has them.

use std::os::unix::net::UnixStream;

use bollard::container::{AttachContainerResults, LogOutput};
use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
};

use super::DockerError;
use crate::channel::Tail;

/// Copies until the container ends: our end's bytes to its stdin, its stdout to our end, its stderr to the tail.
///
/// When our end is closed, its stdout goes to the tail, too.
pub(super) fn join(
    runtime: &Runtime,
    attached: AttachContainerResults,
    tail: &Tail,
) -> Result<UnixStream, DockerError> {
    let failed = || DockerError::io("join the streams of a container");
    let (ours, theirs) = UnixStream::pair().map_err(failed())?;
    theirs.set_nonblocking(true).map_err(failed())?;
    let entered = runtime.enter();
    let theirs = tokio::net::UnixStream::from_std(theirs).map_err(failed())?;
    drop(entered);
    let (mut from_us, mut to_us) = theirs.into_split();
    let AttachContainerResults { mut output, mut input } = attached;
    runtime.spawn(async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count) = from_us.read(&mut bytes).await {
            if count == 0 || input.write_all(&bytes[..count]).await.is_err() {
                break;
            }
            if input.flush().await.is_err() {
                break;
            }
        }
        // The end of ours is the end of its stdin.
        drop(input.shutdown().await);
    });
    let tail = tail.clone();
    runtime.spawn(async move {
        let mut heard = true;
        while let Some(Ok(said)) = output.next().await {
            match said {
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    heard = heard && to_us.write_all(&message).await.is_ok();
                    if !heard {
                        tail.push(&message);
                    }
                }
                LogOutput::StdErr { message } => tail.push(&message),
                LogOutput::StdIn { .. } => {}
            }
        }
    });
    Ok(ours)
}
