//! The manager's core, told stories and thrown dice at.

mod images;
mod loss;
mod modules;
mod properties;
mod proplets;
mod restart;
mod rounds;
mod tasks;
mod trace;
mod world;
