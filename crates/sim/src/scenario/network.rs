//! Links between nodes and the broker, and between nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The network of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSpec {
    pub model: NetworkModel,
    /// Of every link that no rule speaks of.
    pub default: LinkSpec,
    /// The last rule that fits a link holds.
    pub links: Vec<LinkRule>,
    /// Media that several links share.
    pub shared: Vec<SharedMedium>,
}

/// How packets travel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NetworkModel {
    /// At once, and always.
    #[default]
    Direct,
    /// As each link says.
    Latency,
}

/// One direction of one link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LinkSpec {
    pub latency_us: u64,
    /// Added to the latency, uniformly from 0 to this.
    pub jitter_us: u64,
    /// A lost packet costs a connection the time to send it again; a plain event is gone.
    pub loss_rate: f64,
    /// Plain events only: connections take a packet once.
    pub duplicate_rate: f64,
    /// Plain events only: connections keep the order.
    pub reorder_rate: f64,
    /// None: as much as anybody wants to send.
    pub bandwidth_bps: Option<u64>,
}

/// What holds for the links from `src` to `dst`; a `*` at the end of a name fits any rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkRule {
    pub src: String,
    pub dst: String,
    #[serde(default)]
    pub latency_us: u64,
    #[serde(default)]
    pub jitter_us: u64,
    #[serde(default)]
    pub loss_rate: f64,
    #[serde(default)]
    pub duplicate_rate: f64,
    #[serde(default)]
    pub reorder_rate: f64,
    #[serde(default)]
    pub bandwidth_bps: Option<u64>,
    /// The medium that these links share with others.
    #[serde(default)]
    pub shared: Option<String>,
}

/// A medium on which packets of several links queue behind each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedMedium {
    pub name: String,
    pub bandwidth_bps: u64,
}

impl LinkRule {
    /// What the rule says of its links.
    pub fn spec(&self) -> LinkSpec {
        LinkSpec {
            latency_us: self.latency_us,
            jitter_us: self.jitter_us,
            loss_rate: self.loss_rate,
            duplicate_rate: self.duplicate_rate,
            reorder_rate: self.reorder_rate,
            bandwidth_bps: self.bandwidth_bps,
        }
    }

    /// Whether it speaks of the link from `src` to `dst`.
    pub fn fits(&self, src: &str, dst: &str) -> bool {
        fits(&self.src, src) && fits(&self.dst, dst)
    }
}

/// Whether `pattern`, which may end with a `*`, means `name`.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}
