//! Who may say and hear what: the roles, and what the topic table grants each of them.
//!
//! There is no second table: the columns `writer` and `readers` of [`TOPICS`] are read. What a
//! topic's row does not grant is forbidden. A proplet is granted its own topics only.

use std::{fmt, str::FromStr};

use super::{Namespace, TOPICS, TopicRow};
use crate::PropletId;

/// What a client of the broker is to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Manager,
    Coordinator,
    ModelServer,
    Proplet,
    /// Starts rounds and sessions.
    Operator,
    /// Only looks on.
    Observer,
}

/// What is done with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Publish,
    Subscribe,
}

/// A word that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a role; it takes manager, coordinator, model-server, proplet, operator or observer"
)]
pub struct RoleError(String);

impl Role {
    pub const ALL: [Self; 6] = [
        Self::Manager,
        Self::Coordinator,
        Self::ModelServer,
        Self::Proplet,
        Self::Operator,
        Self::Observer,
    ];

    /// Its name in settings and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Coordinator => "coordinator",
            Self::ModelServer => "model-server",
            Self::Proplet => "proplet",
            Self::Operator => "operator",
            Self::Observer => "observer",
        }
    }

    /// Its name in the topic table.
    const fn word(self) -> &'static str {
        match self {
            Self::ModelServer => "model server",
            Self::Manager | Self::Coordinator | Self::Proplet | Self::Operator | Self::Observer => {
                self.name()
            }
        }
    }

    /// Whether a cell of the topic table means this role.
    fn is_named_in(self, cell: &str) -> bool {
        cell.contains("anyone") || cell.contains(self.word())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let known = Self::ALL.into_iter().find(|role| role.name() == text);
        known.ok_or_else(|| RoleError(text.chars().take(64).collect()))
    }
}

impl TopicRow {
    /// Whether the table grants `role` this topic, its own one if there is one a proplet.
    pub fn grants(&self, role: Role, access: Access) -> bool {
        role.is_named_in(match access {
            Access::Publish => self.writer,
            Access::Subscribe => self.readers,
        })
    }
}

/// Everything that one client may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Like MQTT filters, but a `+` can also stand for the rest of a level.
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl Grants {
    /// What `role` may do; `own` is the id of a proplet, without which a proplet has no topics of
    /// its own.
    pub fn new(namespace: &Namespace, role: Role, own: Option<&PropletId>) -> Self {
        let granted = |access| {
            TOPICS
                .iter()
                .filter(|row| row.grants(role, access))
                .filter_map(|row| pattern(namespace, row, role, own))
                .collect()
        };
        Self { publish: granted(Access::Publish), subscribe: granted(Access::Subscribe) }
    }

    /// What may be published to, as MQTT filters: these know no wildcard for a part of a level, so
    /// they are a little wider than [`Grants::may_publish`].
    pub fn published(&self) -> Vec<String> {
        self.publish.iter().map(|pattern| as_filter(pattern)).collect()
    }

    /// The widest filters that may be subscribed to.
    pub fn subscribed(&self) -> Vec<String> {
        self.subscribe.iter().map(|pattern| as_filter(pattern)).collect()
    }

    pub fn may_publish(&self, topic: &str) -> bool {
        !topic.contains(['+', '#']) && self.publish.iter().any(|pattern| is_within(topic, pattern))
    }

    /// Whether everything that `filter` can let through is granted. A shared subscription hears
    /// what its filter hears.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        let filter = match filter.strip_prefix("$share/") {
            Some(rest) => rest.split_once('/').map_or("", |(_, filter)| filter),
            None => filter,
        };
        self.subscribe.iter().any(|pattern| is_within(filter, &as_filter(pattern)))
    }
}

/// The pattern of a row for one client; nothing if it is a proplet's and there is no proplet.
fn pattern(
    namespace: &Namespace,
    row: &TopicRow,
    role: Role,
    own: Option<&PropletId>,
) -> Option<String> {
    let levels: Option<Vec<String>> = row
        .pattern
        .split('/')
        .map(|level| match (level, role) {
            ("{B}", _) => Some(level.to_owned()),
            ("{proplet_id}", Role::Proplet) => own.map(PropletId::to_string),
            (level, _) => Some(with_wildcards(level)),
        })
        .collect();
    Some(namespace.place(&levels?.join("/")))
}

/// A level of the table with a `+` for each `{...}`.
fn with_wildcards(level: &str) -> String {
    let mut parts = level.split('{');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('+');
        out.push_str(part.split_once('}').map_or("", |(_, rest)| rest));
    }
    out
}

/// As a broker takes it: a `+` stands for a whole level.
fn as_filter(pattern: &str) -> String {
    let levels = pattern.split('/').map(|level| if level.contains('+') { "+" } else { level });
    levels.collect::<Vec<_>>().join("/")
}

/// Whether everything that `asked` (a topic, or a filter) can mean lies within `pattern`.
fn is_within(asked: &str, pattern: &str) -> bool {
    let (mut asked, mut pattern) = (asked.split('/'), pattern.split('/'));
    loop {
        match (asked.next(), pattern.next()) {
            (None, None) => return true,
            (Some("#"), _) | (Some(_), None) | (None, Some(_)) => return false,
            (Some(_), Some("+")) => {}
            (Some(level), Some(granted)) if fits(level, granted) => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

/// Whether a level is one of those that `granted` means, in which each `+` stands for something.
fn fits(level: &str, granted: &str) -> bool {
    let Some((start, rest)) = granted.split_once('+') else { return level == granted };
    let Some(mut level) = level.strip_prefix(start) else { return false };
    if level.contains('+') {
        return false;
    }
    let mut parts: Vec<&str> = rest.split('+').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = level.find(part).filter(|at| *at > 0) else { return false };
        level = &level[at + part.len()..];
    }
    level.len() > end.len() && level.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace() -> Namespace {
        Namespace::new("site/a", &"d".parse().unwrap(), &"c".parse().unwrap()).unwrap()
    }

    fn grants(role: Role, own: Option<&str>) -> Grants {
        Grants::new(&namespace(), role, own.map(|id| id.parse().unwrap()).as_ref())
    }

    /// So that a new topic cannot slip through by being described in other words.
    #[test]
    fn every_cell_of_the_table_is_understood() {
        let known = ["anyone", "that proplet", "every proplet of the channel", "proplets"];
        for row in TOPICS {
            for cell in [row.writer, row.readers] {
                let plain = cell.replace(" (also its last will)", "").replace(" or ", ", ");
                for part in plain.split(", ") {
                    let is_role = Role::ALL.iter().any(|role| role.word() == part);
                    assert!(is_role || known.contains(&part), "{part:?} of {}", row.pattern);
                }
            }
        }
    }

    #[test]
    fn a_proplet_is_granted_its_own_topics_only() {
        let p1 = grants(Role::Proplet, Some("p1"));
        assert!(p1.may_publish("site/a/fl/rounds/r/updates/p1"));
        assert!(p1.may_publish("site/a/fl/rounds/r/updates/p1/chunks/7"));
        assert!(p1.may_publish("site/a/m/d/c/c/control/proplet/alive"));
        for forbidden in [
            "site/a/fl/rounds/r/updates/p2",
            "site/a/fl/rounds/r/updates/p11",
            "site/a/fl/rounds/r/updates/+",
            "site/a/fl/rounds/r/updates/p1/more",
            "site/a/fl/rounds/r/acks/p1",
            "fl/rounds/r/updates/p1",
            "site/a/m/other/c/c/control/proplet/alive",
            "site/a/fl/rounds/start",
            "",
            "$SYS/broker",
        ] {
            assert!(!p1.may_publish(forbidden), "{forbidden}");
        }
        assert!(p1.may_subscribe("site/a/fl/rounds/+/acks/p1"));
        assert!(p1.may_subscribe("$share/g/site/a/fl/models/latest"));
        for forbidden in [
            "#",
            "site/a/#",
            "site/a/fl/#",
            "site/a/fl/rounds/+/acks/+",
            "site/a/fl/rounds/+/updates/p1",
            "site/a/fl/rounds/+/updates/+",
            "site/a/m/d/c/c/control/manager/p2/start",
            "$share/g/#",
            "$share/#",
            "$SYS/#",
            "+/a/fl/models/latest",
        ] {
            assert!(!p1.may_subscribe(forbidden), "{forbidden}");
        }
        let nobody = grants(Role::Proplet, None);
        assert!(!nobody.may_publish("site/a/fl/rounds/r/updates/p1"));
    }

    #[test]
    fn only_the_model_server_shows_models() {
        for role in Role::ALL {
            let grants = grants(role, Some("p1"));
            let is_server = role == Role::ModelServer;
            assert_eq!(grants.may_publish("site/a/fl/models/global_model_v1"), is_server);
            assert_eq!(grants.may_publish("site/a/fl/models/latest"), is_server, "{role}");
            let makes = matches!(role, Role::Coordinator | Role::Operator);
            assert_eq!(grants.may_publish("site/a/fl/models/publish"), makes, "{role}");
            assert!(!grants.may_publish("site/a/fl/models/x_y"), "{role}");
            assert!(grants.may_subscribe("site/a/fl/models/+"), "{role}");
        }
    }

    #[test]
    fn a_level_fits_where_each_plus_stands_for_something() {
        for (level, granted, expected) in [
            ("global_model_v3", "+_v+", true),
            ("a_v", "+_v+", false),
            ("_v3", "+_v+", false),
            ("a_v_v3", "+_v+", true),
            ("publish", "+_v+", false),
            ("+_v+", "+_v+", false),
            ("+", "v+", false),
            ("v3", "v+", true),
            ("v", "v+", false),
            ("x", "x", true),
            ("x", "y", false),
            ("anything", "+", true),
        ] {
            assert_eq!(fits(level, granted), expected, "{level} {granted}");
        }
        assert_eq!(with_wildcards("{line}_v{N}"), "+_v+");
        assert_eq!(with_wildcards("plain"), "plain");
    }

    #[test]
    fn a_role_is_read_back_and_nothing_else_is_one() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("\"root\""));
    }
}
