//! Images in registries: pulled and pushed, their tags looked up, what was pulled kept by digest.
//! It refuses to know tasks, rounds and what a module does.

mod cache;
#[cfg(feature = "cosign")]
mod cosign;
mod credentials;
mod error;
mod manifest;
mod pull;
mod push;
mod realm;
mod remote;
mod settings;

pub use cache::Cache;
#[cfg(feature = "cosign")]
pub use cosign::{Cosigned, Judge};
pub use error::RegistryError;
pub use manifest::Image;
pub use pull::{Progress, Registry};
pub use push::Pushed;
pub use settings::{RegistryArgs, Settings};
