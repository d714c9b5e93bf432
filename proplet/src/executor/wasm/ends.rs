//! Tells the ends of a guest apart.

use wasmtime::Trap;
use wasmtime_wasi::I32Exit;

use super::{
    super::{Failure, Limits, OutputKind, TrapKind},
    stdio::Capture,
};

/// Who ended the guest.
#[derive(Debug)]
pub(in crate::executor) enum Ended {
    /// It returned, exited or trapped.
    Itself(wasmtime::Result<()>),
    /// Its time was over.
    Timeout,
    /// Nobody wants it any more.
    Cancelled,
    /// It wrote too much to files.
    Quota(Failure),
}

/// Whether this end is a success; if not, the failure that explains it best.
pub(in crate::executor) fn judge(
    ended: Ended,
    limits: &Limits,
    stdout: &Capture,
    memory_refused: bool,
) -> Result<(), Failure> {
    if stdout.overflowed() {
        let limit_bytes = limits.stdout_bytes_max as u64;
        return Err(Failure::OutputTooLarge { kind: OutputKind::Stdout, limit_bytes });
    }
    let error = match ended {
        Ended::Itself(Ok(())) => return Ok(()),
        Ended::Itself(Err(error)) => error,
        Ended::Timeout => return Err(Failure::Timeout { limit: limits.wall_max }),
        Ended::Cancelled => return Err(Failure::Cancelled),
        Ended::Quota(failure) => return Err(failure),
    };
    let exit = error.downcast_ref::<I32Exit>().map(|exit| exit.0);
    let trap = error.downcast_ref::<Trap>().copied();
    match (exit, trap) {
        (Some(0), _) => Ok(()),
        (_, Some(Trap::OutOfFuel)) => {
            Err(Failure::OutOfFuel { limit: limits.fuel_max.unwrap_or_default() })
        }
        // A guest that is refused memory gives up in ways of its own: this is the reason.
        _ if memory_refused => Err(Failure::MemoryLimit { limit_bytes: limits.memory_bytes_max }),
        (Some(code), _) => Err(Failure::ExitCode { code }),
        (None, Some(trap)) => Err(Failure::Trap { kind: kind(trap) }),
        (None, None) => {
            Err(Failure::Trap { kind: TrapKind::Other(error.root_cause().to_string()) })
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the rarer ones are told in its own words")]
fn kind(trap: Trap) -> TrapKind {
    match trap {
        Trap::UnreachableCodeReached => TrapKind::Unreachable,
        Trap::MemoryOutOfBounds => TrapKind::OutOfBounds,
        Trap::StackOverflow => TrapKind::StackOverflow,
        Trap::IntegerDivisionByZero => TrapKind::DivideByZero,
        Trap::IntegerOverflow | Trap::BadConversionToInteger => TrapKind::IntegerOverflow,
        Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature => TrapKind::BadCall,
        other => TrapKind::Other(other.to_string()),
    }
}
