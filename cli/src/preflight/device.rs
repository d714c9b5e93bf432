//! The device itself: its kit, its keys, its clock, its disk, its memory, and whether it can run a
//! guest.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path, time::Duration};

use access::{
    KIT_FILE_BYTES_MAX, KIT_MANIFEST, KIT_SIGNATURE, KitFiles, KitManifest, Signer, facts,
    fingerprint, first_certificate, moment, open_kit,
};
use proplet::{
    PropletSettings,
    executor::{EXECUTORS, Job, Limits, Program, Settings},
};
use service::{Clock as _, SystemClock};
use tokio_util::sync::CancellationToken;

use super::{Report, Seen, wrong};

/// No clock that is right shows an earlier time: 2026-01-01.
const EPOCH_S_MIN: u64 = 1_767_225_600;
/// A certificate that is good for less time than this is worth a word.
const RENEW_BEFORE_DAYS: i64 = 14;
/// What the state takes beside the largest program: models, updates, compiled programs.
const STATE_BYTES_MIN: u64 = 64 << 20;
const GUEST_MAX: Duration = Duration::from_secs(60);
/// A module whose `_start` does nothing.
const NOTHING: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

pub(super) async fn inspect(config: &Path, settings: &PropletSettings, report: &mut Report) {
    let dir = config.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match dir.join(KIT_MANIFEST).exists() {
        true => report.add("kit", kit(dir)),
        false => {
            report.skip("kit", "the device was not set up from a kit");
            true
        }
    };
    match &settings.mqtt.mqtt_cert_file {
        Some(path) => report.add("certificate", certificate(path, settings)),
        None => {
            report.skip("certificate", "none is set (mqtt_cert_file)");
            true
        }
    };
    report.add("clock", clock());
    if report.add("state", state(settings)) {
        report.add("guest", guest(&settings.state.state_dir).await);
    } else {
        report.skip("guest", "there is no place to run one");
    }
    report.add("memory", memory(settings));
    match &settings.data_dir {
        Some(dir) => report.add("data", data(dir)),
        None => {
            report.skip("data", "the device has none (data_dir)");
            true
        }
    };
}

/// Whether the files of the kit are as they were made.
fn kit(dir: &Path) -> Seen {
    let advice = "install the kit again";
    let read = |name: &str| -> Result<Vec<u8>, (String, String)> {
        let path = dir.join(name);
        let len = fs::metadata(&path).map_or(0, |meta| meta.len());
        if len > KIT_FILE_BYTES_MAX as u64 {
            return wrong(format!("{} has {len} bytes", path.display()), advice);
        }
        fs::read(&path).or_else(|why| wrong(format!("{}: {why}", path.display()), advice))
    };
    let manifest = read(KIT_MANIFEST)?;
    let listed: KitManifest = serde_json::from_slice(&manifest)
        .or_else(|why| wrong(format!("{KIT_MANIFEST}: {why}"), advice))?;
    let mut files = KitFiles::from([(KIT_MANIFEST.to_owned(), manifest)]);
    let names = listed.files.keys().map(String::as_str).chain([KIT_SIGNATURE]);
    for name in names {
        // Checked as a name before it is used as one.
        if name.contains('/') || name.starts_with('.') {
            return wrong(format!("{name:?} is not the name of a file in a kit"), advice);
        }
        files.insert(name.to_owned(), read(name)?);
    }
    let kit = open_kit(&files, Signer::Enclosed).or_else(|why| wrong(why, advice))?;
    let signer = files.get(access::KIT_AUTHORITY).and_then(|pem| first_certificate(pem));
    let signer = signer.map_or_else(String::new, |der| fingerprint(&der));
    Ok(format!("of {}, unchanged, signed by sha256:{signer}", kit.name))
}

/// Whether our certificate is ours, and good now.
fn certificate(path: &Path, settings: &PropletSettings) -> Seen {
    let advice = "have the device join again: aileron token join, aileron enroll";
    let pem = fs::read(path).or_else(|why| wrong(format!("{}: {why}", path.display()), advice))?;
    let facts = first_certificate(&pem).and_then(|der| facts(&der));
    let Some(facts) = facts else {
        return wrong(format!("{} is no certificate", path.display()), advice);
    };
    let (now, name) = (moment(SystemClock.now()), facts.name.unwrap_or_default());
    if let Some(id) = settings.id.as_ref().filter(|id| id.as_str() != name) {
        return wrong(format!("it is for {name:?}, and this is proplet {id}"), advice);
    }
    if now < facts.from {
        let what = format!("it is good from {} on, and this clock says {now}", facts.from);
        return wrong(what, "set the clock");
    }
    if now > facts.until {
        return wrong(
            format!("it was good until {}, and this clock says {now}", facts.until),
            advice,
        );
    }
    let days = (facts.until - now).whole_days();
    let soon = if days < RENEW_BEFORE_DAYS { ": have it renewed soon" } else { "" };
    Ok(format!("of {name}, good for {days} more days{soon}"))
}

fn clock() -> Seen {
    let now_s = SystemClock.now().as_micros() / 1_000_000;
    if now_s < EPOCH_S_MIN {
        return wrong(
            format!("it says {}", SystemClock.now()),
            "set the clock, for example by NTP",
        );
    }
    Ok(format!("it says {}", SystemClock.now()))
}

/// Whether the state directory can be written to, and holds what it must.
fn state(settings: &PropletSettings) -> Seen {
    let dir = &settings.state.state_dir;
    let advice = "give the proplet a state_dir that it may write to, with enough room";
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(b"preflight")?;
        file.as_file().sync_all()
    };
    write().or_else(|why| wrong(format!("{}: {why}", dir.display()), advice))?;
    let free = rustix::fs::statvfs(dir).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    let free = free.or_else(|why| wrong(format!("{}: {why}", dir.display()), advice))?;
    let needed = settings.module_bytes_max.saturating_add(STATE_BYTES_MIN);
    if free < needed {
        let what = format!("{} has {} free, {} are needed", dir.display(), mib(free), mib(needed));
        return wrong(what, advice);
    }
    Ok(format!("{} can be written to, {} free", dir.display(), mib(free)))
}

/// Compiles a program and runs it, as a task would be.
async fn guest(dir: &Path) -> Seen {
    let advice = "the program does not fit this device; try the build for it";
    let dir = tempfile::tempdir_in(dir).or_else(|why| wrong(why, advice))?;
    let Some(entry) = EXECUTORS.first() else { return wrong("there is no executor", advice) };
    let job = Job {
        label: "preflight".to_owned(),
        program: Program::new(NOTHING),
        args: vec![],
        env: BTreeMap::new(),
        model: None,
        variates: None,
        data_dir: None,
        limits: Limits::default(),
        cancel: CancellationToken::new(),
    };
    let started = tokio::time::Instant::now();
    let run = (entry.build)(&Settings::below(dir.path())).run(job);
    match tokio::time::timeout(GUEST_MAX, run).await {
        Ok(outcome) => {
            outcome.end.or_else(|why| wrong(why, advice))?;
            Ok(format!("compiled and run in {} ms", started.elapsed().as_millis()))
        }
        Err(_) => wrong(format!("no end within {} s", GUEST_MAX.as_secs()), advice),
    }
}

fn memory(settings: &PropletSettings) -> Seen {
    let advice = "lower memory_bytes_max or concurrency, or end other programs";
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let Some(available) = available.map(|kb| kb.saturating_mul(1024)) else {
        return Ok("the system does not say".to_owned());
    };
    let needed = settings.memory_bytes_max.saturating_mul(settings.concurrency.into());
    if available < needed {
        let what = format!("{} available, guests may take {}", mib(available), mib(needed));
        return wrong(what, advice);
    }
    Ok(format!("{} available, guests may take {}", mib(available), mib(needed)))
}

fn data(dir: &Path) -> Seen {
    let advice = "put the device's data there, readable to the proplet";
    match fs::read_dir(dir).map(Iterator::count) {
        Ok(0) => wrong(format!("{} is empty", dir.display()), advice),
        Ok(count) => Ok(format!("{} has {count} entries", dir.display())),
        Err(why) => wrong(format!("{}: {why}", dir.display()), advice),
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
