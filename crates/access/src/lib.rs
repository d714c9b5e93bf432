//! Who is who: the roster of clients and tokens, kept hashed in one file, and a small authority
//! that makes certificates for them. It refuses to know brokers and HTTP: they ask it.

mod authority;
mod live;
mod module;
mod name;
mod porter;
mod roster;
mod secret;
mod signing;

pub use authority::{Authority, AuthorityError, Issued, Subject, Validity, moment};
pub use live::LiveRoster;
pub use module::{ModuleSigners, ModuleSignersError, Unsigned, sign_module};
pub use name::{Name, NameError};
pub use porter::{Credentials, Porter, Refusal};
pub use roster::{Entry, Roster, RosterError, Scope, ScopeError};
pub use secret::{Token, TokenError, fingerprint};
pub use signing::{SigningKey, SigningKeyError, is_signed};
