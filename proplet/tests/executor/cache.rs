//! What has been compiled is not compiled again, and what is damaged is.

use std::{fs, path::PathBuf};

use proplet::executor::{EXECUTORS, Origin, Program, Settings};

use crate::device::{Device, job, probes, wat};

const NOTHING: &str = r#"(module (func (export "_start")))"#;

async fn origin(device: &Device, program: &Program) -> Origin {
    let mut job = job(program, &["world"]);
    job.limits.fuel_max = None;
    let outcome = device.run(job).await;
    outcome.end.unwrap();
    outcome.metrics.origin.unwrap()
}

/// As after a restart of the process: what is in memory is gone.
fn restarted(mut device: Device) -> Device {
    device.executor = (EXECUTORS[0].build)(&Settings::below(device.dir.path()));
    device
}

fn compiled(device: &Device, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(device.path("compiled")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|it| it == extension)).collect()
}

#[tokio::test]
async fn a_second_start_compiles_nothing_not_even_in_another_process() {
    for (form, probe) in probes("wasm") {
        let device = Device::wasm();
        assert_eq!(origin(&device, &probe).await, Origin::Compiled, "{form}");
        assert_eq!(origin(&device, &probe).await, Origin::Memory, "{form}");
        let device = restarted(device);
        assert_eq!(origin(&device, &probe).await, Origin::Disk, "{form}");
        assert_eq!(origin(&device, &probe).await, Origin::Memory, "{form}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_compiled_again_and_not_trusted() {
    let program = wat(NOTHING);
    let mut device = Device::wasm();
    origin(&device, &program).await;
    let file = compiled(&device, "cwasm").pop().unwrap();
    let good = fs::read(&file).unwrap();
    let sum = compiled(&device, "sha256").pop().unwrap();

    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [&flipped[..], &good[..good.len() / 2], &[], b"not a program"] {
        // A new file, as a write in place would reach what is mapped.
        fs::remove_file(&file).unwrap();
        fs::write(&file, bad).unwrap();
        device = restarted(device);
        assert_eq!(origin(&device, &program).await, Origin::Compiled);
        assert_eq!(fs::read(&file).unwrap(), good);
    }
    fs::remove_file(&sum).unwrap();
    device = restarted(device);
    assert_eq!(origin(&device, &program).await, Origin::Compiled, "without its digest");
    device = restarted(device);
    assert_eq!(origin(&device, &program).await, Origin::Disk);
}

#[tokio::test]
async fn a_file_of_another_engine_is_replaced_even_if_its_digest_is_right() {
    let program = wat(NOTHING);
    let device = Device::wasm();
    origin(&device, &program).await;
    let file = compiled(&device, "cwasm").pop().unwrap();
    let foreign = b"\x7fELF of another engine";
    fs::remove_file(&file).unwrap();
    fs::write(&file, foreign).unwrap();
    fs::write(
        compiled(&device, "sha256").pop().unwrap(),
        format!("{}  x\n", protocol::Digest::of(foreign)),
    )
    .unwrap();
    let device = restarted(device);
    assert_eq!(origin(&device, &program).await, Origin::Compiled);
    let device = restarted(device);
    assert_eq!(origin(&device, &program).await, Origin::Disk);
}

#[tokio::test]
async fn many_jobs_of_one_new_program_compile_it_once() {
    let device = Device::wasm();
    let (_, probe) = probes("wasm").remove(0);
    let run = || origin(&device, &probe);
    let (a, b, c, d) = tokio::join!(run(), run(), run(), run());
    let compiled = [a, b, c, d].into_iter().filter(|it| *it == Origin::Compiled);
    assert_eq!(compiled.count(), 1);
}

#[tokio::test]
async fn many_executors_of_one_directory_compile_it_once() {
    let devices: Vec<Device> = (0..6).map(|_| Device::wasm()).collect();
    let shared = tempfile::tempdir().unwrap();
    let (_, probe) = probes("wasm").remove(0);
    let runs = devices.into_iter().map(|mut device| {
        let settings = Settings {
            cache_dir: shared.path().join("compiled"),
            ..Settings::below(device.dir.path())
        };
        device.executor = (EXECUTORS[0].build)(&settings);
        let probe = probe.clone();
        tokio::spawn(async move { origin(&device, &probe).await })
    });
    let mut origins = vec![];
    for run in runs.collect::<Vec<_>>() {
        origins.push(run.await.unwrap());
    }
    let count = |wanted| origins.iter().filter(|origin| **origin == wanted).count();
    assert_eq!((count(Origin::Compiled), count(Origin::Disk)), (1, 5), "{origins:?}");
    let left = fs::read_dir(shared.path().join("compiled")).unwrap().count();
    assert_eq!(left, 2, "the program and its digest");
}

#[tokio::test]
async fn the_oldest_files_make_room_for_new_ones() {
    let mut device = Device::wasm();
    let settings = Settings { cache_bytes_max: 1, ..Settings::below(device.dir.path()) };
    device.executor = (EXECUTORS[0].build)(&settings);
    for n in 0..3 {
        let program = wat(&format!(r#"(module (func (export "_start") i32.const {n} drop))"#));
        assert_eq!(origin(&device, &program).await, Origin::Compiled);
        assert_eq!(compiled(&device, "cwasm").len(), 1);
        assert_eq!(compiled(&device, "sha256").len(), 1);
        let name = compiled(&device, "cwasm")[0].file_name().unwrap().to_owned();
        assert!(name.to_string_lossy().starts_with(&program.digest().to_string()));
    }
}

#[tokio::test]
async fn only_some_programs_stay_in_memory() {
    let device = Device::wasm();
    let programs: Vec<_> = (0..5)
        .map(|n| wat(&format!(r#"(module (func (export "_start") i32.const {n} drop))"#)))
        .collect();
    for program in &programs {
        assert_eq!(origin(&device, program).await, Origin::Compiled);
    }
    assert_eq!(origin(&device, &programs[4]).await, Origin::Memory);
    assert_eq!(origin(&device, &programs[0]).await, Origin::Disk);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_fails_no_job() {
    let device = Device::wasm();
    fs::write(device.path("compiled"), "a file where a directory should be").unwrap();
    let program = wat(NOTHING);
    assert_eq!(origin(&device, &program).await, Origin::Compiled);
    assert_eq!(origin(&device, &program).await, Origin::Memory);
}

#[tokio::test]
async fn what_a_killed_process_left_is_cleared() {
    let device = Device::wasm();
    fs::create_dir_all(device.path("scratch/run-0-7/out")).unwrap();
    let device = restarted(device);
    assert_eq!(device.scratch(), Vec::<String>::new());
}

/// `cargo test --release -p proplet --test executor -- --ignored --nocapture measure`
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_the_start_of_a_program() {
    let mut all = probes("wasm");
    all.push(("built-in", Program::builtin()));
    for (form, program) in all {
        let device = Device::wasm();
        let measure = async |device: &Device, what: &str| {
            let metrics = device.executor.run(job(&program, &["world"])).await.metrics;
            eprintln!(
                "{form} ({} KB): {what}: {:?}: prepare {} us, start {} us",
                program.bytes().len() / 1024,
                metrics.origin,
                metrics.prepare_us,
                metrics.start_us
            );
        };
        measure(&device, "first").await;
        for _ in 0..3 {
            measure(&device, "again").await;
        }
        let device = restarted(device);
        measure(&device, "after a restart").await;
    }
}
