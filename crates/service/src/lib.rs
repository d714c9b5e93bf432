//! The shell kit: everything that touches the world, written once for all services.

mod clock;
mod drive;
pub mod run;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod transport;

pub use clock::{Clock, SystemClock};
pub use drive::{DriveError, Driver, Effects, Reports, drive};
pub use store::{PromiseId, Quota, Store, StoreError};
pub use transport::{Inbound, Receipt, Transport, TransportError};
