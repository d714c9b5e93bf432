//! The world around fails: no broker, a port taken, a state directory in use, a full disk. A clear
//! error, and nothing lost.

use std::{fs, net::TcpListener, path::Path, process};

use e2e::{
    Broker, BrokerKind, Command, Process, RoundPlan, StackPlan, Turn, free_port, judge, say, tool,
    versions_are_whole,
};

fn service(dir: &Path, service: &str, broker_port: u16, args: &[&str]) -> Process {
    e2e::aileron();
    let prefix = service.to_uppercase().replace('-', "_");
    let env = [
        (format!("{prefix}_MQTT_ADDRESS"), format!("tcp://127.0.0.1:{broker_port}")),
        (format!("{prefix}_STATE_DIR"), dir.join("state").display().to_string()),
    ];
    let mut command = Command::service(dir, service, service, &env);
    command.args.extend(args.iter().map(|&arg| arg.to_owned()));
    command.start()
}

#[test]
fn services_wait_for_a_broker_that_is_away_say_so_and_connect_when_it_comes() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Embedded, 1);
    let mut stack = plan.start();
    stack.kill(e2e::Victim::Broker);
    let services = || [&stack.manager, &stack.coordinator, &stack.model_server, &stack.proplets[0]];
    let waiting = format!("waiting for broker at {}", stack.brokers[0].address());
    for process in services() {
        process.wait_for_log(&waiting);
    }
    let health = stack.http.get("/health");
    assert_eq!((health.status, health.body["status"].as_str()), (503, Some("fail")), "{health:?}");
    stack.start_again(e2e::Victim::Broker);
    let operator = stack.operator();
    let complete = operator.run(&RoundPlan::one_hot(&plan.fleet, "r-1", 0));
    assert_eq!(judge(&operator, &plan.fleet, &complete).len(), 1);
    assert_eq!(stack.http.get("/health").status, 200);
}

#[test]
fn a_service_that_starts_before_its_broker_connects_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let model_server = service(dir.path(), "model-server", port, &[]);
    model_server.wait_for_log(&format!("waiting for broker at tcp://127.0.0.1:{port}"));
    let broker = Broker::start_on(BrokerKind::Embedded, dir.path(), port);
    let peer = e2e::eventually("the broker listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    drop(peer);
    let peer = e2e::Peer::connect(broker.port(), &["fl/models/+"]);
    peer.wait_for("fl/models/global_model_v0");
}

#[test]
fn a_taken_http_port_ends_the_manager_with_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut manager =
        service(dir.path(), "manager", free_port(), &[&format!("--http-port={port}")]);
    let status = manager.wait();
    assert_eq!(status.code(), Some(1), "{}", manager.log());
    assert!(manager.log().contains(&format!("127.0.0.1:{port}")), "{}", manager.log());
}

#[test]
fn a_taken_broker_port_ends_the_broker_with_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut broker = Broker::start_on(BrokerKind::Embedded, dir.path(), port);
    let process = broker.process();
    assert_eq!(process.wait().code(), Some(1), "{}", process.log());
    assert!(process.log().contains(&format!("127.0.0.1:{port}")), "{}", process.log());
}

/// Those that listen for HTTP do it where nobody else does.
fn listening(name: &str) -> &'static [&'static str] {
    match name {
        "manager" | "coordinator" => &["--http-port=0"],
        _ => &[],
    }
}

#[test]
fn a_state_directory_serves_one_process_at_a_time() {
    for name in ["manager", "coordinator", "model-server", "proplet"] {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let args = listening(name);
        let mut first = service(dir.path(), name, port, args);
        first.wait_for_log(&port.to_string());
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        let state = format!("--state-dir={}", dir.path().join("state").display());
        let mut second = service(&other, name, port, &[args, &[&state]].concat());
        assert_eq!(second.wait().code(), Some(1), "{name}: {}", second.log());
        let said = second.log();
        assert!(said.contains("in use") && said.contains("state"), "{name}: {said}");
        assert_eq!(first.has_ended(), None, "{name} was driven out");
    }
}

#[test]
fn a_state_directory_that_cannot_be_made_is_named() {
    for name in ["manager", "coordinator", "model-server", "proplet"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state"), "a file").unwrap();
        let mut process = service(dir.path(), name, free_port(), listening(name));
        assert_eq!(process.wait().code(), Some(1), "{name}: {}", process.log());
        let path = dir.path().join("state").display().to_string();
        assert!(process.log().contains(&path), "{name}: {}", process.log());
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_got_over() {
    let _turn = Turn::take();
    for role in ["coordinator", "manager", "model-server", "proplet-1"] {
        let dir = tempfile::tempdir().unwrap();
        let Some(disk) = SmallDisk::mount(dir.path()) else {
            return say("skipped: only root can mount the small disk that this story fills");
        };
        fills_up_and_is_emptied(role, &disk);
    }
}

fn fills_up_and_is_emptied(role: &str, disk: &SmallDisk) {
    let plan = StackPlan::new(BrokerKind::Embedded, 2).with_state(role, disk.path());
    let stack = plan.start();
    let operator = stack.operator();
    let before = operator.run(&RoundPlan::one_hot(&plan.fleet, "r-before", 0));
    assert_eq!(before.model_version.0, 1);
    disk.fill();
    operator.start(&RoundPlan::one_hot(&plan.fleet, "r-full", 1));
    let process = match role {
        "coordinator" => &stack.coordinator,
        "manager" => &stack.manager,
        "model-server" => &stack.model_server,
        _ => &stack.proplets[0],
    };
    e2e::eventually(&format!("{role} says that its disk is full"), || {
        let log = process.log().to_lowercase();
        (log.contains("disk is full") || log.contains("no space") || log.contains("or disk"))
            .then_some(())
    });
    disk.empty();
    let complete = operator.wait_for_complete("r-full");
    assert_eq!(complete.model_version.0, 2, "{role}");
    assert_eq!(judge(&operator, &plan.fleet, &complete).len(), 2, "{role}");
    versions_are_whole(&operator, 2);
}

/// A disk of a few megabytes, unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(place: &'a Path) -> Option<Self> {
        let mut mount = process::Command::new(tool("mount"));
        mount.args(["-t", "tmpfs", "-o", "size=8m", "aileron-e2e"]).arg(place);
        let output = mount.output().ok()?;
        output.status.success().then_some(Self(place))
    }

    fn path(&self) -> &Path {
        self.0
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.0.join("ballast")).unwrap();
        for len in [1 << 16, 1 << 10, 1] {
            while file.write_all(&vec![0; len]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: whoever still holds a file keeps it until it is closed.
        let status = process::Command::new(tool("umount")).arg("-l").arg(self.0).status();
        if !status.is_ok_and(|status| status.success()) {
            say(&format!("cannot unmount {}", self.0.display()));
        }
    }
}
