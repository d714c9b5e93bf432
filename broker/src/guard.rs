//! The seam for who may connect, and what they may say and hear.

use std::{fmt, net::SocketAddr, sync::Arc};

/// Decides about every client; [`crate::BrokerConfig::guard`].
///
/// It is asked by many tasks at once, and must not block for long.
pub trait Guard: Send + Sync + 'static {
    /// Lets a client in, and says under which name it is known from here on.
    fn admit(&self, knock: &Knock<'_>) -> Result<String, Denial>;

    /// Whether the client known as `name` may publish on `topic`; also asked for its last will.
    fn may_publish(&self, name: &str, topic: &str) -> bool;

    /// Whether it may hear everything that `filter` lets through.
    fn may_subscribe(&self, name: &str, filter: &str) -> bool;

    /// Whether one who was let in may stay. Asked several times a second.
    fn is_welcome(&self, name: &str, certificate: Option<&Certificate>) -> bool;
}

/// A client that wants to be let in.
#[derive(Clone, Copy)]
pub struct Knock<'a> {
    pub client_id: &'a str,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    /// One that an authority of [`crate::TlsFiles::client_ca`] has signed.
    pub certificate: Option<&'a Certificate>,
    pub peer: SocketAddr,
}

/// What a client has proved to be by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of its subject.
    pub name: String,
    /// All of it.
    pub der: Vec<u8>,
}

/// Why a client is not let in; it is told no more than that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Neither a password nor a certificate that says who it is.
    #[error("it shows neither user name and password nor a certificate")]
    Stranger,
    #[error("user name or password is wrong")]
    Password,
    /// Known, but not to be let in.
    #[error("{name} may not connect: {why}")]
    Unwelcome { name: String, why: String },
}

impl fmt::Debug for Knock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knock")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("certificate", &self.certificate.map(|certificate| &certificate.name))
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// A guard as a part of settings; the same as another one if it is that very one.
#[derive(Clone)]
pub struct Guarded(pub Arc<dyn Guard>);

impl PartialEq for Guarded {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Guarded {}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guarded")
    }
}
