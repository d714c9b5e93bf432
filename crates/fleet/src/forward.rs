//! Handing updates on, unread. The proplet repeats an update until it hears a verdict, so nothing
//! is kept here.

use protocol::{
    Envelope, Output, Timestamp, Topic,
    message::{Origin, forward},
};

use crate::{act::Acts, state::State};

impl State {
    pub(crate) fn forward(
        &mut self,
        origin: &Origin,
        payload: &[u8],
        now: Timestamp,
        out: &mut Acts,
    ) {
        self.counts.updates_forwarded += 1;
        let payload = forward(payload, origin, now);
        out.push(Output::Publish(Envelope { topic: Topic::ForwardedUpdate, payload }));
    }
}
