//! The shell kit: everything that touches the world, written once for all services.

pub mod blobs;
mod clock;
mod drive;
pub mod figures;
pub mod files;
pub mod health;
pub mod run;
pub mod settings;
mod standing;
pub mod store;
pub mod telemetry;
pub mod traces;
pub mod transport;
pub mod words;

pub use blobs::{BlobError, BlobRules, Blobs};
pub use clock::{Clock, SystemClock};
pub use drive::{DriveError, Driver, Effects, Reports, drive};
pub use figures::Figures;
pub use standing::Standing;
pub use store::{PromiseId, Quota, Store, StoreError};
pub use traces::{Begun, Traces};
pub use transport::{Gate, Inbound, Inspected, Inspector, Receipt, Transport, TransportError};
