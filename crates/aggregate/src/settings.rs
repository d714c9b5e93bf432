//! Settings of the strategies: numbers with names, ranges and defaults, checked before use.

use std::collections::BTreeMap;

/// One number that a strategy can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    pub name: &'static str,
    /// What it does, and the symbol of the paper.
    pub summary: &'static str,
    pub default: f64,
    pub min: f64,
    pub max: f64,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Real,
    Whole,
}

/// Why settings are not usable.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingError {
    #[error("there is no setting `{name}`; there are {known:?}")]
    Unknown { name: String, known: Vec<&'static str> },
    #[error("`{name}` is {found}, but has to be from {min} to {max}")]
    OutOfRange { name: &'static str, found: f64, min: f64, max: f64 },
    #[error("`{name}` is {found}, but has to be a whole number")]
    NotWhole { name: &'static str, found: f64 },
}

/// Every setting of one strategy, given or by default, each in its range.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    values: BTreeMap<&'static str, f64>,
}

impl Settings {
    /// Checks what was given against what there is.
    pub fn check(
        known: &'static [Setting],
        given: &BTreeMap<String, f64>,
    ) -> Result<Self, SettingError> {
        if let Some(name) = given.keys().find(|name| known.iter().all(|it| it.name != **name)) {
            let known = known.iter().map(|setting| setting.name).collect();
            return Err(SettingError::Unknown { name: name.clone(), known });
        }
        let value = |setting: &Setting| {
            let found = given.get(setting.name).copied().unwrap_or(setting.default);
            setting.checked(found).map(|value| (setting.name, value))
        };
        Ok(Self { values: known.iter().map(value).collect::<Result<_, _>>()? })
    }

    /// Every setting as it is where nobody gives one.
    pub fn defaults(known: &'static [Setting]) -> Self {
        Self { values: known.iter().map(|setting| (setting.name, setting.default)).collect() }
    }

    /// A setting that is in the strategy's own list.
    pub(crate) fn get(&self, name: &str) -> f64 {
        *self.values.get(name).expect("a strategy asks for the settings that it lists")
    }

    /// A setting of [`Kind::Whole`].
    pub(crate) fn whole(&self, name: &str) -> usize {
        self.get(name) as usize
    }
}

impl Setting {
    fn checked(&self, found: f64) -> Result<f64, SettingError> {
        let Self { name, min, max, kind, .. } = *self;
        if !(min..=max).contains(&found) {
            return Err(SettingError::OutOfRange { name, found, min, max });
        }
        match kind {
            Kind::Whole if found.fract() != 0.0 => Err(SettingError::NotWhole { name, found }),
            Kind::Whole | Kind::Real => Ok(found),
        }
    }
}

/// A real number in a range.
pub(crate) const fn real(
    name: &'static str,
    summary: &'static str,
    default: f64,
    (min, max): (f64, f64),
) -> Setting {
    Setting { name, summary, default, min, max, kind: Kind::Real }
}

/// A whole number in a range.
pub(crate) const fn whole(
    name: &'static str,
    summary: &'static str,
    default: u32,
    (min, max): (u32, u32),
) -> Setting {
    let (default, min, max) = (default as f64, min as f64, max as f64);
    Setting { name, summary, default, min, max, kind: Kind::Whole }
}
