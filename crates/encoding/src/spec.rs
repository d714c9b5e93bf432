//! What an encoding is called, and which stages go together.

use std::{fmt, str::FromStr};

use protocol::DType;

use crate::{
    SpecError,
    stage::{STAGES, Stage},
};

/// Longest text of an encoding, in bytes.
pub const SPEC_LEN_MAX: usize = 128;

/// How updates are written: stages joined by `+`, in the order in which they work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoding {
    pub(crate) delta: bool,
    pub(crate) topk: Option<Fraction>,
    pub(crate) precision: Precision,
    pub(crate) deflate: bool,
}

/// A number above 0 and below 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Fraction(f64);

/// How a value lies on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// In the type of its tensor (with top-k, `F32` where that is `F64`).
    #[default]
    Model,
    F16,
    Bf16,
    Int8,
}

impl Encoding {
    /// Whether values are relative to the base model.
    pub const fn is_delta(&self) -> bool {
        self.delta
    }

    /// What part of each tensor is sent, if not all of it.
    pub const fn topk(&self) -> Option<Fraction> {
        self.topk
    }

    /// How values lie on the wire.
    pub const fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether the file goes as a zlib stream.
    pub const fn is_compressed(&self) -> bool {
        self.deflate
    }

    /// Whether a residual is kept from one update to the next.
    pub const fn keeps_residual(&self) -> bool {
        self.topk.is_some()
    }
}

impl Fraction {
    /// `None` unless 0 < `value` < 1.
    pub fn new(value: f64) -> Option<Self> {
        (value > 0.0 && value < 1.0).then_some(Self(value))
    }

    pub const fn get(self) -> f64 {
        self.0
    }

    /// How many of `count` values that is: rounded up, so at least one of any.
    pub fn of(self, count: usize) -> usize {
        ((self.0 * count as f64).ceil() as usize).min(count)
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Precision {
    /// The type on the wire, where it does not depend on the tensor's.
    pub const fn dtype(self) -> Option<DType> {
        match self {
            Self::Model => None,
            Self::F16 => Some(DType::F16),
            Self::Bf16 => Some(DType::BF16),
            Self::Int8 => Some(DType::I8),
        }
    }
}

/// The canonical text.
impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = STAGES.iter().filter_map(|stage| (stage.show)(self)).collect();
        f.write_str(&texts.join("+"))
    }
}

impl FromStr for Encoding {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        if text.len() > SPEC_LEN_MAX {
            return Err(SpecError::TooLong { len: text.len() });
        }
        if text.is_empty() {
            return Err(SpecError::Empty);
        }
        let mut encoding = Self::default();
        let mut before: Option<&Stage> = None;
        for part in text.split('+') {
            let stage = encoding.add(part)?;
            if let Some(before) = before {
                in_order(before, stage)?;
            }
            if let Some(needs) = stage.needs
                && !STAGES.iter().any(|it| it.name == needs && (it.show)(&encoding).is_some())
            {
                return Err(SpecError::Needs { stage: stage.name, needs });
            }
            before = Some(stage);
        }
        Ok(encoding)
    }
}

impl Encoding {
    fn add(&mut self, part: &str) -> Result<&'static Stage, SpecError> {
        let (name, argument) = match part.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (part, None),
        };
        let Some(stage) = STAGES.iter().find(|stage| stage.name == name) else {
            let stages = STAGES.iter().map(|stage| stage.form).collect::<Vec<_>>().join(", ");
            return Err(SpecError::Unknown { found: name.to_owned(), stages });
        };
        if (stage.set)(self, argument) {
            return Ok(stage);
        }
        let (stage, takes) = (stage.name, stage.takes);
        Err(SpecError::Argument { stage, takes, found: part.to_owned() })
    }
}

fn in_order(before: &Stage, stage: &Stage) -> Result<(), SpecError> {
    if before.name == stage.name {
        Err(SpecError::Twice { stage: stage.name })
    } else if before.place == stage.place {
        Err(SpecError::Exclude { stage: stage.name, other: before.name })
    } else if before.place > stage.place {
        Err(SpecError::Order { stage: stage.name, before: before.name })
    } else {
        Ok(())
    }
}
