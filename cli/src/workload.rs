//! One's own training code, from an empty directory to a module that a fleet can run.

mod build;
mod judge;
mod template;
mod trial;

pub(crate) use build::build;
pub(crate) use judge::{Coordinator, Judgement};
pub(crate) use template::{Lang, Project, write};
pub(crate) use trial::{Device, Try};
