//! What a proplet refuses, and how it says so.

use std::fs;

use proplet::{Proplet, PropletError};

use crate::platform::{Platform, federated, guest, settings, task};

#[tokio::test]
async fn a_task_without_a_program_that_can_be_had_fails_with_the_reason() {
    let mut platform = Platform::new();
    let (proplet, _) = platform.start(&["--module-bytes-max=1000"]).await;
    let image = |url: &str| {
        let mut start = task("t", None);
        start.image_url = Some(url.to_owned());
        start
    };
    let starts = [
        (task("t", None), "task has neither file nor image_url"),
        (task("t", Some(String::new())), "task has neither file nor image_url"),
        (task("t", Some("!".to_owned())), "the task's file is not base64"),
        (task("t", Some("aGVsbG8=".to_owned())), "not a WebAssembly module or component: 5 bytes"),
        (task("t", Some("A".repeat(2000))), "larger than 1000 bytes"),
        (image("ftp://host/x"), "\"ftp://host/x\" is not the address of a program"),
        (image("oci://registry.example/"), "is not the address of an image"),
        (image("/etc/passwd"), "no module directory"),
    ];
    for (attempt, (mut start, expected)) in (1..).zip(starts) {
        start.attempt = attempt;
        platform.say(&start).await;
        let error = platform.result_of("t").await.error.expect("an error");
        assert!(error.contains(expected), "{error} / {expected}");
    }
    proplet.stop().await;
}

#[tokio::test]
async fn the_built_in_client_has_no_data_and_its_last_words_are_in_the_result() {
    let mut platform = Platform::new();
    let data = platform.dir.path().join("data");
    fs::create_dir(&data).expect("a directory");
    let flag = format!("--data-dir={}", data.display());
    let (proplet, _) = platform.start(&[&flag]).await;
    platform.publish_model(0).await;
    platform.say(&federated("t-1", None, "r-1")).await;
    let error = platform.result_of("t-1").await.error.expect("an error");
    assert!(error.contains("its last words: ") && error.contains("data"), "{error}");
    proplet.stop().await;
}

#[tokio::test]
async fn a_program_in_the_module_directory_runs() {
    let mut platform = Platform::new();
    let modules = platform.dir.path().join("modules");
    fs::create_dir(&modules).expect("a directory");
    let path = modules.join("silent.wat");
    let wasm = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, guest("silent"));
    fs::write(&path, wasm.expect("base64")).expect("written");
    let flag = format!("--module-dir={}", modules.display());
    let (proplet, _) = platform.start(&[&flag]).await;
    let mut start = task("t-1", None);
    start.image_url = Some(format!("file://{}", path.display()));
    platform.say(&start).await;
    assert_eq!(platform.result_of("t-1").await.error, None);
    proplet.stop().await;
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    for (flag, expected) in [
        ("--data-dir=/nowhere/at/all", "data_dir is \"/nowhere/at/all\""),
        ("--module-dir=/nowhere", "module_dir is \"/nowhere\""),
        ("--concurrency=0", "--concurrency is \"0\""),
        ("--wall-s-max=-1", "--wall-s-max is \"-1\""),
        ("--memory-bytes-max=lots", "--memory-bytes-max is \"lots\""),
        ("--colour=blue", "--colour"),
    ] {
        let error = settings(dir.path(), &[flag]).expect_err("refused");
        assert!(error.contains(expected), "{error} / {expected}");
    }
}

#[test]
fn a_state_directory_serves_one_proplet_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = settings(dir.path(), &[]).expect("good settings");
    let first = Proplet::open(&settings).expect("it opens");
    let error = Proplet::open(&settings).expect_err("in use");
    assert!(matches!(error, PropletError::Store(_)), "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
    drop(first);
    Proplet::open(&settings).expect("free again");
}

#[test]
fn a_data_directory_that_went_away_is_an_error_not_a_substitute() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("a directory");
    let flag = format!("--data-dir={}", data.display());
    let settings = settings(dir.path(), &[&flag]).expect("good settings");
    fs::remove_dir(&data).expect("removed");
    let error = Proplet::open(&settings).expect_err("refused");
    assert!(error.to_string().starts_with("data directory"), "{error}");
}
