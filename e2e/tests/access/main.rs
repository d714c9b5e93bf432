//! Who may say and hear what: every role, every topic, on the embedded broker and on Mosquitto with
//! the exported file; and a whole platform with everything locked.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "what takes a second is told by the wall clock")]

mod enroll;
mod forgery;
mod http;
mod kits;
mod locked;
mod matrix;
mod site;
