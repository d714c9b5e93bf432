//! Who is who: the roster of clients and tokens, kept hashed in one file, and a small authority
//! that makes certificates for them. It refuses to know brokers and HTTP: they ask it.

mod authority;
mod certificate;
#[cfg(feature = "cosign")]
mod cosign;
mod enroll;
mod kit;
mod live;
mod module;
mod name;
mod porter;
mod request;
mod roster;
mod secret;
mod signing;

pub use authority::{Authority, AuthorityError, Certified, Issued, Subject, Validity, moment};
pub use certificate::{Facts, facts, first_certificate, has_signed};
#[cfg(feature = "cosign")]
pub use cosign::NotCosigned;
pub use enroll::{Applicant, Invitation, JoinError, JoinRequest, JoinToken, Welcome};
pub use kit::{
    KIT_AUTHORITY, KIT_FILE_BYTES_MAX, KIT_FILES_MAX, KIT_MANIFEST, KIT_SIGNATURE, KitError,
    KitFiles, KitManifest, Signer, open_kit, seal_kit,
};
pub use live::LiveRoster;
pub use module::{ModuleSigners, ModuleSignersError, Unsigned, sign_module};
pub use name::{Name, NameError};
pub use porter::{Credentials, Porter, Refusal};
pub use request::{RequestError, Requested};
pub use roster::{Entry, Roster, RosterError, Scope, ScopeError};
pub use secret::{Token, TokenError, fingerprint};
pub use signing::{SigningKey, SigningKeyError, is_signed};
