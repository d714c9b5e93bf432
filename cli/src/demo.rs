//! The main job on real data: uneven parts, a platform, rounds, and an honest comparison.

mod central;
mod rows;
mod split;
mod stage;
mod story;

pub(crate) use story::{Cast, End, play};
