//! How many files a process may have open: each connection is one, and each update that is averaged
//! from its file.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More is asked for by nobody, and takes the system long to look through.
const FILES_MAX: u64 = 1 << 20;

/// Lets this process open as many files as it may without anybody's leave; how many that are.
pub fn raise_file_limit() -> io::Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let bound = maximum.map_or(FILES_MAX, |maximum| maximum.min(FILES_MAX));
    raise_file_limit_to(bound)
}

/// Lets this process open `needed` files, even if it takes the right to raise what it may: an error
/// if it has none. How many it may open now.
pub fn raise_file_limit_to(needed: u64) -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if !enough(current) {
        let maximum = if enough(maximum) { maximum } else { Some(needed) };
        let wanted = needed.max(FILES_MAX);
        let current = Some(maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    }
    Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_may_have_it_has() {
        let may = getrlimit(Resource::Nofile).maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
        assert!(raise_file_limit().unwrap() >= may);
        let has = getrlimit(Resource::Nofile).current;
        assert_eq!(raise_file_limit_to(1).unwrap(), has.unwrap_or(u64::MAX), "never lowered");
    }
}
