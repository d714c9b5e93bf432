//! Gives memory back that compiling took: a device compiles seldom and is idle for long.

/// Returns what is free to the system. The C library keeps what many threads have used and freed,
/// which after a compilation is about as much as an idle proplet has.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(
            unsafe_code,
            reason = "only the C library can do it, and no crate of ours wraps it"
        )]
        // SAFETY: as declared in malloc.h; it may be called at any time, from any thread.
        let _ = unsafe { malloc_trim(0) };
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a function of the C library that Rust's own links to anyway")]
unsafe extern "C" {
    fn malloc_trim(pad: usize) -> std::ffi::c_int;
}
