//! Blobs in pieces: what to ask for next, what to take, what to send, and when to do so again.
//!
//! ```text
//!   receiver                                                       sender
//!             Ask(indexes)    -- wants -->                 wanted --> read these
//!  Assembly                                                                       Offer
//!             chunk(i, bytes) <-- bytes of piece i --        sent <-- and send them
//!                |
//!                +--> Store{i, bytes} --> stored(i) --> ... --> Done
//! ```
//!
//! Two ways, one [`Assembly`]. *Pulled*: the receiver asks, an [`Offer`] answers with exactly those
//! pieces. *Retained*: the pieces stand at the broker, each on a topic of its own; the receiver
//! subscribes to a few at a time, and asks the holder only if they do not come.
//!
//! Both sides know digests and lengths; bytes only pass through. The receiver's window bounds what
//! is under way, so it bounds the memory of everybody on the way, too. No piece is remembered
//! beyond the disk: after a restart the partial file is checked against the manifest, and
//! [`Assembly::restore`] goes on from there.

mod assembly;
mod bitmap;
mod flight;
mod offer;
mod refusal;

pub use assembly::{Assembly, Failure, Progress, Step};
pub use bitmap::Bitmap;
pub use flight::{Rules, Way, Window};
pub use offer::{Offer, OfferCounts, OfferRules, WantsRefusal};
pub use refusal::{Counts, Refusal};
