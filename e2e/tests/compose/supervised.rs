//! A service under a supervisor: systemd is told when it has started, and anybody may ask how it is.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Command, Output},
    time::Duration,
};

use e2e::{BrokerKind, StackPlan, Turn, aileron, eventually};

use crate::project;

const SERVICES: &[&str] = &["manager", "coordinator", "model-server", "proplet"];

#[test]
fn a_service_tells_systemd_and_answers_whoever_asks() {
    let _turn = Turn::take();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut stack = StackPlan::new(BrokerKind::Mosquitto, 1).start();
    drop(stack.operator());

    stack.coordinator.kill();
    let state = stack.dir().join("coordinator-state");
    let ask = || asked("coordinator", &state.display().to_string());
    assert!(!ask().status.success(), "nobody is there");
    stack.coordinator.set_env("NOTIFY_SOCKET", &socket.display().to_string());
    stack.coordinator.start_again();
    assert!(heard(&systemd).starts_with("READY=1\n"));
    let wanted = "STATUS=connected to the broker";
    eventually("systemd hears of the connection", || (heard(&systemd) == wanted).then_some(()));
    eventually("the coordinator is well", || ask().status.success().then_some(()));
    stack.brokers[0].kill();
    let answer = eventually("the coordinator misses its broker", || {
        let answer = ask();
        (!answer.status.success()).then_some(answer)
    });
    let why = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(why.contains("not connected to the broker"), "{why}");
    stack.brokers[0].start_again();
    eventually("the coordinator is well again", || ask().status.success().then_some(()));
}

#[test]
fn the_command_line_of_the_unit_is_understood_by_every_service() {
    let deploy = project().join("deploy/systemd");
    let unit = fs::read_to_string(deploy.join("aileron@.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let example = deploy.join("aileron.toml").display().to_string();
    for service in SERVICES {
        let line = line.replace("%i", service).replace("/etc/aileron/aileron.toml", &example);
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("/usr/bin/aileron"));
        let output = Command::new(aileron()).args(words).arg("--print-config").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(&format!("/var/lib/aileron/{service}")), "{said}");
    }
}

fn asked(service: &str, state: &str) -> Output {
    Command::new(aileron()).args(["health", service, "--state-dir", state]).output().unwrap()
}

#[track_caller]
fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let len = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}
