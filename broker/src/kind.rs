//! Which implementation serves: the list, and its names in settings.

use std::fmt;
use std::str::FromStr;

/// An implementation of the seam.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Passes the whole contract.
    #[default]
    Mqtt5,
    /// Faster at many small messages; fails parts of the contract, see the decision record.
    #[cfg(feature = "rumqttd")]
    Rumqttd,
}

/// A name that no implementation in this build has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown broker kind {given:?}: takes {takes}")]
pub struct KindError {
    /// What was given.
    pub given: String,
    /// What this build takes.
    pub takes: String,
}

impl Kind {
    /// Every implementation in this build.
    pub const ALL: &[Self] = &[
        Self::Mqtt5,
        #[cfg(feature = "rumqttd")]
        Self::Rumqttd,
    ];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt5 => "mqtt5",
            #[cfg(feature = "rumqttd")]
            Self::Rumqttd => "rumqttd",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(given: &str) -> Result<Self, KindError> {
        Self::ALL.iter().copied().find(|kind| kind.name() == given).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            let hint = match cfg!(feature = "rumqttd") {
                true => "",
                false => " (rumqttd only when built with the cargo feature of that name)",
            };
            KindError { given: given.to_owned(), takes: format!("{}{hint}", names.join(" or ")) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_no_other() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(*kind));
        }
        for given in ["", "MQTT5", " mqtt5", "mosquitto"] {
            let refused = given.parse::<Kind>().unwrap_err();
            assert_eq!(refused.given, given);
            assert!(refused.to_string().contains("mqtt5"), "{refused}");
        }
    }
}
