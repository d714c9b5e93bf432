//! `aileron bench`: what things cost on this machine, measured with the parts that ship.

mod aggregate;
mod codec;
mod fetch;
mod figures;
mod fleet;
mod packets;
mod round;
mod stage;
mod strategies;
mod tap;
mod transfer;

use std::process::ExitCode;

use clap::Subcommand;

use crate::view::Format;

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Average updates, beside a plain loop over the same memory
    Aggregate(aggregate::Aggregate),
    /// Read and write a model as JSON and as safetensors
    Codec(codec::Codec),
    /// Thousands of proplets at one broker, and rounds with all of them
    Fleet(fleet::Fleet),
    /// Rounds that train nothing, each service a process of its own
    Round(round::Round),
    /// Learn the digits by every strategy, with and without hostile participants
    Strategies(strategies::Strategies),
    /// Give one large model to many proplets, beside the broker's own way with as many bytes
    Transfer(transfer::Transfer),
}

impl Bench {
    pub(super) const fn format(&self) -> Format {
        match self {
            Self::Aggregate(aggregate) => aggregate.format,
            Self::Codec(codec) => codec.format,
            Self::Fleet(fleet) => fleet.format,
            Self::Round(round) => round.format,
            Self::Strategies(strategies) => strategies.format,
            Self::Transfer(transfer) => transfer.format,
        }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Aggregate(aggregate) => aggregate.run(),
            Self::Codec(codec) => codec.run(),
            Self::Fleet(fleet) => fleet.run(),
            Self::Round(round) => round.run(),
            Self::Strategies(strategies) => strategies.run(),
            Self::Transfer(transfer) => transfer.run(),
        }
    }
}
