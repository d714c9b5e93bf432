//! Signs the updates of a proplet on their way to the broker, so that nobody between it and the
//! coordinator can forge one.

use access::SigningKey;
use protocol::{
    Envelope, Topic,
    message::{signed_facts, with_signature},
};
use service::Inspector;

/// Signs, if there is a key.
#[derive(Debug)]
pub(crate) struct Signing(pub(crate) Option<SigningKey>);

impl Inspector for Signing {
    /// The same update gets the same signature, however often it is said.
    fn outbound(&self, envelope: Envelope) -> Envelope {
        let (Some(key), Topic::RoundUpdate { round, proplet }) = (&self.0, &envelope.topic) else {
            return envelope;
        };
        let facts = signed_facts(&envelope.payload, round, proplet);
        let signed = facts.and_then(|facts| {
            let signature = key.sign(&facts.statement);
            with_signature(&envelope.payload, &signature).ok_or_else(|| "no room".to_owned())
        });
        match signed {
            Ok(payload) => Envelope { payload, topic: envelope.topic },
            Err(why) => {
                tracing::error!(%round, "an update goes out unsigned: {why}");
                envelope
            }
        }
    }
}
