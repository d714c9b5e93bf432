//! Bad settings end a service with exit code 64 before a port is opened, and say which and why.

use std::{fs, net::TcpListener, path::Path};

use e2e::{Command, aileron, free_port};

const SERVICES: &[&str] = &["manager", "coordinator", "model-server", "proplet"];

/// Runs a service that must refuse to start; what it said.
#[track_caller]
fn refused(service: &str, args: &[&str], env: &[(&str, &str)]) -> String {
    aileron();
    let dir = tempfile::tempdir().unwrap();
    let env: Vec<(String, String)> =
        env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut command = Command::service(dir.path(), "refused", service, &env);
    command.args.extend(args.iter().map(|&arg| arg.to_owned()));
    let mut process = command.start();
    let status = process.wait();
    let said = process.log();
    assert_eq!(status.code(), Some(64), "{service} {args:?} {env:?}: {status}: {said}");
    said
}

#[track_caller]
fn names(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not named: {said}");
    }
}

fn prefix(service: &str) -> String {
    service.to_uppercase().replace('-', "_")
}

#[test]
fn a_bad_value_is_named_with_its_key_and_what_it_takes() {
    for service in SERVICES {
        let variable = format!("{}_MQTT_ADDRESS", prefix(service));
        let said = refused(service, &[], &[(&variable, "udp://nowhere")]);
        names(&said, &[&variable, "udp://nowhere", "tcp://HOST:PORT"]);
        let variable = format!("{}_DOMAIN_ID", prefix(service));
        names(&refused(service, &[], &[(&variable, "a/b")]), &[&variable, "a/b"]);
    }
    names(&refused("manager", &["--http-port=70000"], &[]), &["--http-port", "70000", "65535"]);
    names(&refused("proplet", &["--wall-s-max=0"], &[]), &["--wall-s-max", "0"]);
    names(&refused("coordinator", &["--strategy=magic"], &[]), &["--strategy", "magic", "fedavg"]);
}

#[test]
fn an_unknown_variable_is_named_with_what_was_meant() {
    for service in SERVICES {
        let variable = format!("{}_MQTT_ADRESS", prefix(service));
        let said = refused(service, &[], &[(&variable, "tcp://127.0.0.1:1")]);
        names(&said, &[&variable, &format!("{}_MQTT_ADDRESS", prefix(service))]);
    }
}

#[test]
fn an_unknown_key_and_a_bad_file_are_named_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| -> String {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let file = write("key.toml", "[manager]\nhttp_prot = 1\n");
    names(&refused("manager", &["--config", &file], &[]), &["http_prot", "http_port", &file]);
    let file = write("value.toml", "[manager]\nhttp_port = \"many\"\n");
    names(&refused("manager", &["--config", &file], &[]), &["http_port", "many", &file]);
    let file = write("section.toml", "[managre]\nhttp_port = 1\n");
    names(&refused("manager", &["--config", &file], &[]), &["managre", &file]);
    let file = write("syntax.toml", "[manager\n");
    names(&refused("manager", &["--config", &file], &[]), &[&file]);
    names(&refused("manager", &["--config", "no-such.toml"], &[]), &["no-such.toml"]);
}

#[test]
fn no_port_is_opened_before_the_settings_are_right() {
    let port = free_port();
    // Were the port opened first, this would be an error about the port.
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let port = format!("--http-port={port}");
    names(&refused("manager", &[&port, "--mqtt-keep-alive-s=0"], &[]), &["--mqtt-keep-alive-s"]);
}

#[test]
fn a_data_directory_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plain-file");
    fs::write(&file, "").unwrap();
    for bad in [file.as_path(), Path::new("no-such-directory")] {
        let bad = bad.display().to_string();
        let said = refused("proplet", &["--data-dir", &bad, "--state-dir", "state"], &[]);
        names(&said, &["data_dir", &bad]);
    }
}

#[test]
fn compiled_programs_are_not_taken_from_where_others_can_write() {
    let dir = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(dir.path(), mode).unwrap();
    let place = dir.path().display().to_string();
    let said = refused("proplet", &[], &[("PROPLET_CACHE_DIR", &place)]);
    names(&said, &["cache_dir", &place, "which nobody else may write to", "its mode is 777"]);
}
