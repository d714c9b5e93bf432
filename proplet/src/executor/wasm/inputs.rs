//! What a module's `run` is called with: the task's inputs, if it takes numbers.

use serde_json::Value;
use wasmtime::{FuncType, Val, ValType};

use super::super::{ENV_INPUTS, Failure};

/// Longest value that is quoted in a refusal, in characters.
const SHOWN_LEN_MAX: usize = 60;

/// A kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) enum Number {
    I32,
    I64,
    F32,
    F64,
}

/// The function's parameters, if all of them are numbers.
pub(in crate::executor) fn numbers(function: &FuncType) -> Option<Vec<Number>> {
    let number = |param: ValType| match param {
        ValType::I32 => Some(Number::I32),
        ValType::I64 => Some(Number::I64),
        ValType::F32 => Some(Number::F32),
        ValType::F64 => Some(Number::F64),
        ValType::V128 | ValType::Ref(_) => None,
    };
    function.params().map(number).collect()
}

/// The parameters, out of a JSON array with as many numbers; no text is an empty array.
pub(in crate::executor) fn arguments(
    params: &[Number],
    inputs: Option<&str>,
) -> Result<Vec<Val>, Failure> {
    if params.is_empty() {
        return Ok(vec![]);
    }
    let inputs: Vec<Value> = serde_json::from_str(inputs.unwrap_or("[]"))
        .map_err(|why| refused(format!("{ENV_INPUTS} is not a JSON array: {why}")))?;
    if inputs.len() != params.len() {
        let names: Vec<_> = params.iter().map(|param| param.name()).collect();
        let (wanted, given) = (params.len(), inputs.len());
        let names = names.join(", ");
        return Err(refused(format!("`run` takes {wanted} inputs ({names}), not {given}")));
    }
    let pairs = params.iter().zip(&inputs).enumerate();
    let argument = |(at, (param, input)): (usize, (&Number, &Value))| {
        param.read(input).ok_or_else(|| {
            let shown: String = input.to_string().chars().take(SHOWN_LEN_MAX).collect();
            refused(format!("input {at} of `run` is an {}, not {shown}", param.name()))
        })
    };
    pairs.map(argument).collect()
}

fn refused(reason: String) -> Failure {
    Failure::Inputs { reason }
}

impl Number {
    const fn name(self) -> &'static str {
        match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// Integers may be meant with or without a sign: the machine does not tell them apart.
    fn read(self, input: &Value) -> Option<Val> {
        match self {
            Self::I32 => {
                let number = input.as_i64()?;
                let unsigned = || u32::try_from(number).map(u32::cast_signed);
                i32::try_from(number).or_else(|_| unsigned()).ok().map(Val::I32)
            }
            Self::I64 => {
                let unsigned = || input.as_u64().map(u64::cast_signed);
                input.as_i64().or_else(unsigned).map(Val::I64)
            }
            Self::F32 => narrow(input.as_f64()?).map(Val::from),
            Self::F64 => input.as_f64().map(Val::from),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is meant, overflow is refused")]
fn narrow(number: f64) -> Option<f32> {
    Some(number as f32).filter(|narrow| narrow.is_finite())
}
