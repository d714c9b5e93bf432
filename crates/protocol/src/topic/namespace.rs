//! Where one platform's topics live: an optional prefix, a domain and a channel.

use std::str::FromStr as _;

use crate::{ChannelId, DomainId, Filter, IdError, Topic, TopicError};

use super::level::unknown;

/// Renders and parses topics for one platform on a broker that may be shared by several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Empty, or ends with a slash.
    prefix: String,
    /// `m/{domain}/c/{channel}`.
    base: String,
}

impl Namespace {
    /// `prefix` is empty or some topic levels, each with the characters of an id.
    pub fn new(prefix: &str, domain: &DomainId, channel: &ChannelId) -> Result<Self, IdError> {
        let trimmed = prefix.trim_end_matches('/');
        let mut checked = String::new();
        if !trimmed.is_empty() {
            for level in trimmed.split('/') {
                checked.push_str(DomainId::from_str(level)?.as_str());
                checked.push('/');
            }
        }
        Ok(Self { prefix: checked, base: format!("m/{domain}/c/{channel}") })
    }

    /// The topic as the broker sees it.
    pub fn render(&self, topic: &Topic) -> String {
        self.place(&topic.to_string())
    }

    /// The filter as the broker sees it.
    pub fn render_filter(&self, filter: &Filter) -> String {
        self.place(&filter.pattern())
    }

    /// Reads a topic as the broker shows it.
    pub fn parse(&self, text: &str) -> Result<Topic, TopicError> {
        let own = text.strip_prefix(&self.prefix).ok_or_else(|| unknown(text))?;
        match own.strip_prefix(&self.base) {
            Some(rest) if rest.starts_with('/') => format!("{{B}}{rest}").parse(),
            Some(_) | None if own.starts_with("{B}") => Err(unknown(text)),
            Some(_) | None => own.parse(),
        }
    }

    pub(super) fn place(&self, pattern: &str) -> String {
        match pattern.strip_prefix("{B}") {
            Some(rest) => format!("{}{}{rest}", self.prefix, self.base),
            None => format!("{}{pattern}", self.prefix),
        }
    }
}
