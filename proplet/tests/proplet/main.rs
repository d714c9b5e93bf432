//! One proplet as it is, on a broker in memory: real guests, a real disk, and a peer that plays the
//! rest of the platform.

mod modules;
mod mqtt;
mod pieces;
mod platform;
mod refusals;
mod stories;
