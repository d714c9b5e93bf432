//! Every configuration of a broker that is shipped starts, on Debian's own, and serves.

use std::{
    fs,
    path::{Path, PathBuf},
};

use e2e::{Command, Peer, eventually, free_port};

use crate::project;

#[test]
fn every_shipped_configuration_of_mosquitto_starts_and_keeps_what_it_is_told() {
    let shipped = files(&project().join("deploy/mosquitto"));
    assert!(!shipped.is_empty(), "no configuration is shipped");
    for file in shipped {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let conf = dir.path().join("here.conf");
        fs::write(&conf, here(&fs::read_to_string(&file).unwrap(), port, dir.path())).unwrap();
        let words = ["-c", &conf.display().to_string()];
        let mut broker = Command::outside(dir.path(), "mosquitto", &words).start();
        let up = || {
            let why = broker.has_ended().map(|_| broker.log());
            assert_eq!(why, None, "{} does not start", file.display());
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        };
        eventually(&format!("{} listens", file.display()), up);
        let peer = Peer::connect(port, &["kept"]);
        peer.publish_retained("kept", "here");
        assert_eq!(peer.wait_for("kept").text(), "here");
        let kept = dir.path().join("mosquitto.db");
        eventually("what is retained is written", || {
            let bytes = fs::read(&kept).ok()?;
            bytes.windows(4).any(|it| it == b"here").then_some(())
        });
        broker.kill();
        broker.start_again();
        let late = Peer::connect(port, &["kept"]);
        assert_eq!(late.wait_for("kept").text(), "here", "after kill -9");
        assert!(!broker.log().contains("Error"), "{}", broker.log());
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|it| it == "conf")).collect()
}

/// The same with free ports of the loopback and a directory of the story; the broker stays who started it.
fn here(text: &str, port: u16, dir: &Path) -> String {
    let line = |line: &str| match line.split_once(' ') {
        Some(("listener", "1883")) => format!("listener {port} 127.0.0.1"),
        Some(("listener", _)) => format!("listener {} 127.0.0.1", free_port()),
        Some(("persistence_location", _)) => format!("persistence_location {}/", dir.display()),
        Some(_) | None => line.to_owned(),
    };
    let lines: Vec<String> = text.lines().map(line).collect();
    format!("user root\n{}\n", lines.join("\n"))
}
