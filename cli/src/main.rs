//! `aileron`: every service, the demo, and the operator's commands, in one program.

mod archive;
mod cmd;
mod demo;
mod device;
mod export;
mod guard;
mod http;
mod operator;
mod platform;
mod preflight;
mod simulate;
mod view;
mod workload;

use std::process::ExitCode;

/// A simulation of many devices asks for small pieces of memory all the time; this one finds them
/// faster than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h: how long it keeps what was freed, in milliseconds.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// A tenth of what it would do by itself. A simulation frees in one moment of its rounds what it
/// needs in others, in other sizes; a service that has nothing to do is small sooner.
const PURGE_DELAY_MS: std::ffi::c_long = 100;

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "a setting; what its user says in the environment stands")]
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS);
    }
    cmd::run(std::env::args_os().skip(1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_the_one_that_is_meant() {
        #[expect(unsafe_code, reason = "what it is before anybody has set it")]
        let own = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(
            own,
            10 * PURGE_DELAY_MS,
            "mimalloc has another order of its settings, or other values"
        );
    }
}
