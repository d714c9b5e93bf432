//! Lines over the pipes of a process that we started.

use std::process::Child;

use super::{Channel, ChannelError, Tail};

impl Channel {
    /// Takes the pipes of a child; all three must be piped.
    pub fn of_child(child: &mut Child) -> Result<Self, ChannelError> {
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ChannelError::Closed);
        };
        let tail = Tail::default();
        if let Some(stderr) = child.stderr.take() {
            tail.drain(stderr)?;
        }
        Self::over(stdout.into(), stdin.into(), tail)
    }
}
