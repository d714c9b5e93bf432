//! The line of global models: the model server's core.
//!
//! ```text
//!          scanned                 offered: exactly the next          written
//! Unread ----------> Ready --------------------------------> writing ---------> recorded, published,
//!                      |                                        ^               and shown as latest
//!                      | (re)connected                          | again, until
//!                      v                                        | the disk takes it
//!                    replaying: load, check, publish
//! ```
//!
//! [`Lineage`] decides which version may be written, what is damaged and what is published when.
//! Versions count up from 0 without gaps and are never overwritten with other bytes: every version
//! has a record of its digest, and only a file of that digest is ever published. What is in a model
//! does not matter here, beyond its being one. [`Lines`] has one of them for every name that models
//! go by.

mod effect;
mod incoming;
mod lineage;
mod lines;
mod news;
mod record;
mod replay;
mod scan;
mod showing;
mod writing;

pub use effect::{Effect, Found, FoundContent, Note, Refusal, Report};
pub use lineage::{Lineage, Rules};
pub use lines::{LINES_MAX, Lines, OfLine};
pub use news::{MODEL_LEN_MAX, News, Offer, Piece};
pub use record::TABLES;
