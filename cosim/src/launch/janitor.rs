//! Ends what a run has left: processes, containers, networks and files that bear its mark.
//!
//! It runs as a process of its own, since a harness that is killed cannot clean up after itself.

use std::{
    fs,
    io::{self, BufRead, Write},
    path::Path,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};

use super::{docker, run::RUN_VARIABLE};

/// What the janitor says once it watches.
pub(super) const WATCHING: &str = "watching";

/// A process may start others while we look: we look again until there are none.
const SWEEPS_MAX: usize = 200;
const SWEEP_EVERY: Duration = Duration::from_millis(10);

/// Waits for the end of the input, then ends what bears the mark of the run.
///
/// Arguments: the run's id and its directory. Input: the address of a container engine on each line. A program that
/// starts runs offers this under a command of its own, and names that command to [`super::Run::start`].
pub fn janitor(arguments: &[String]) -> io::Result<()> {
    let [id, dir] = arguments else {
        let usage = "expected the id and the directory of a run";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, usage));
    };
    if id.len() < 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let why = format!("{id:?} is not the id of a run");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut stdout = io::stdout();
    writeln!(stdout, "{WATCHING}")?;
    stdout.flush()?;
    let mut engines: Vec<String> = vec![];
    for line in io::stdin().lock().lines() {
        // Whatever cannot be read any more has ended.
        let Ok(line) = line else { break };
        if !engines.contains(&line) {
            engines.push(line);
        }
    }
    let processes = end_processes(id);
    let containers = engines.iter().try_for_each(|engine| docker::end_all(engine, id));
    let files = remove(Path::new(dir));
    processes.and(containers.map_err(io::Error::other)).and(files)
}

/// Kills all processes whose environment bears the mark, also those that left their group or session, and the groups
/// of nodes, also those members that emptied their environment.
///
/// A child that is just being started holds our pipe open until it has its own program: so it is seen. Its environment
/// is in place a moment after that, hence the second look.
fn end_processes(id: &str) -> io::Result<()> {
    let mark = format!("{RUN_VARIABLE}={id}");
    let mut clean = 0;
    for _ in 0..SWEEPS_MAX {
        let marked = marked(mark.as_bytes())?;
        clean = if marked.is_empty() { clean + 1 } else { 0 };
        if clean == 2 {
            return Ok(());
        }
        for pid in marked {
            // Each may have ended by itself since.
            if getpgid(Some(pid)) == Ok(pid) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(SWEEP_EVERY);
    }
    Err(io::Error::other(format!("processes of run {id} do not end")))
}

fn marked(mark: &[u8]) -> io::Result<Vec<Pid>> {
    let mut marked = vec![];
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        // Processes of others cannot be read, and are not ours.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark) {
            marked.push(pid);
        }
    }
    Ok(marked)
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
