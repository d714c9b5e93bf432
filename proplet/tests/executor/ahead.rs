//! What was compiled elsewhere runs if the owner of the device wants it to, and not otherwise.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use proplet::executor::{
    EXECUTORS, Failure, Metering, Metrics, Origin, Output, Program, Settings, Target, precompile,
};
use protocol::Digest;

use crate::device::{Device, job, probes, wat};

const NOTHING: &str = r#"(module (func (export "_start")))"#;

/// Puts the compiled form of a program where the device's owner keeps them.
fn kept(device: &Device, program: &Program, metering: Metering) -> PathBuf {
    let compiled = precompile(program, Target::HERE.unwrap(), metering).unwrap();
    let dir = device.path("ahead");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{}.cwasm", program.digest()));
    write(&path, &compiled);
    path
}

fn write(path: &Path, compiled: &[u8]) {
    fs::write(path, compiled).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let sum = path.with_added_extension("sha256");
    let name = path.file_name().unwrap().to_string_lossy();
    fs::write(sum, format!("{}  {name}\n", Digest::of(compiled))).unwrap();
}

fn trusting(device: &mut Device, allowed: &[Digest]) {
    let mut settings = Settings::below(device.dir.path());
    settings.ahead.dir = Some(device.path("ahead"));
    settings.ahead.allowed = allowed.iter().copied().collect();
    device.executor = (EXECUTORS[0].build)(&settings);
}

async fn run(
    device: &Device,
    program: &Program,
    fuel_max: Option<u64>,
) -> (Result<Output, Failure>, Metrics) {
    let mut job = job(program, &["world"]);
    job.limits.fuel_max = fuel_max;
    let outcome = device.run(job).await;
    (outcome.end, outcome.metrics)
}

#[tokio::test]
async fn programs_of_both_kinds_run_as_they_were_compiled_elsewhere() {
    for (form, probe) in probes("wasm") {
        for (fuel_max, metering) in [(None, Metering::Off), (Some(u64::MAX / 2), Metering::Fuel)] {
            let mut device = Device::wasm();
            kept(&device, &probe, metering);
            let (compiled, metrics) = run(&device, &probe, fuel_max).await;
            assert_eq!(metrics.origin, Some(Origin::Compiled), "{form}: nobody trusts it yet");
            fs::remove_dir_all(device.path("compiled")).unwrap();
            trusting(&mut device, &[]);
            let (ahead, metrics) = run(&device, &probe, fuel_max).await;
            assert_eq!(metrics.origin, Some(Origin::Ahead), "{form}");
            assert_eq!(ahead.unwrap(), compiled.unwrap(), "{form}");
            assert!(!device.path("compiled").exists(), "{form}: nothing was compiled");
        }
    }
}

#[tokio::test]
async fn what_is_damaged_or_others_could_have_written_is_compiled_instead() {
    let program = wat(NOTHING);
    let mut device = Device::wasm();
    let path = kept(&device, &program, Metering::Off);
    let good = fs::read(&path).unwrap();
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let other = precompile(&program, Target::Pulley64, Metering::Off).unwrap();
    let spoil: &[(&str, &dyn Fn())] = &[
        ("others may write to it", &|| mode(0o666)),
        ("its group may write to it", &|| mode(0o664)),
        ("it is not what its digest says", &|| fs::write(&path, &flipped).unwrap()),
        ("it is cut short", &|| fs::write(&path, &good[..good.len() / 2]).unwrap()),
        ("it has no digest", &|| fs::remove_file(path.with_added_extension("sha256")).unwrap()),
        ("it is for another processor", &|| write(&path, &other)),
        ("it counts fuel", &|| {
            kept(&device, &program, Metering::Fuel);
        }),
    ];
    let mut found = vec![];
    for (what, spoil) in spoil {
        // A new file each time, as the last may be mapped.
        fs::remove_file(&path).unwrap();
        write(&path, &good);
        spoil();
        let mut settings = Settings::below(&device.path(&format!("state of {what}")));
        settings.ahead.dir = Some(device.path("ahead"));
        let executor = (EXECUTORS[0].build)(&settings);
        let outcome = executor.run(job_without_fuel(&program)).await;
        outcome.end.unwrap();
        found.push((*what, outcome.metrics.origin));
    }
    assert!(found.iter().all(|(_, origin)| *origin == Some(Origin::Compiled)), "{found:?}");
    write(&path, &good);
    trusting(&mut device, &[]);
    assert_eq!(run(&device, &program, None).await.1.origin, Some(Origin::Ahead));
}

#[tokio::test]
async fn compiled_code_comes_as_a_program_only_if_its_digest_is_allowed() {
    let compiled = |target| precompile(&wat(NOTHING), target, Metering::Off).unwrap();
    let program = Program::new(compiled(Target::HERE.unwrap()));
    let foreign = Program::new(compiled(Target::Pulley64));
    let mut device = Device::wasm();
    let (end, _) = run(&device, &program, None).await;
    assert_eq!(end, Err(Failure::NotAllowed { program: program.digest() }));
    trusting(&mut device, &[program.digest(), foreign.digest()]);
    let (end, metrics) = run(&device, &program, None).await;
    assert_eq!((end, metrics.origin), (Ok(Output::default()), Some(Origin::Ahead)));
    let (end, _) = run(&device, &foreign, None).await;
    assert!(
        matches!(&end, Err(Failure::Ahead { reason }) if reason.contains("pulley64")),
        "{end:?}"
    );
    let changed = Program::new([program.bytes(), b"more"].concat());
    let (end, _) = run(&device, &changed, None).await;
    assert_eq!(end, Err(Failure::NotAllowed { program: changed.digest() }));
}

fn job_without_fuel(program: &Program) -> proplet::executor::Job {
    let mut job = job(program, &[]);
    job.limits.fuel_max = None;
    job
}
