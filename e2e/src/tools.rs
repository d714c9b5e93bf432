//! What the stories take from the system: outside programs, free ports, and a place to speak.

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
};

/// Outside programs and the Debian package that has each.
const PACKAGES: &[(&str, &str)] = &[
    ("mosquitto", "mosquitto"),
    ("mosquitto_passwd", "mosquitto"),
    ("mosquitto_pub", "mosquitto-clients"),
    ("mosquitto_sub", "mosquitto-clients"),
    ("curl", "curl"),
    ("setpriv", "util-linux"),
    ("docker-compose", "docker-compose"),
    ("debootstrap", "debootstrap"),
    ("qemu-aarch64-static", "qemu-user-static"),
    ("qemu-arm-static", "qemu-user-static"),
    ("unshare", "util-linux"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
];

/// Below the range from which the system takes ports for outgoing connections, so that a service
/// that is started again finds its port still free.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

static PORTS_TAKEN: AtomicU16 = AtomicU16::new(0);

/// The path of an outside program.
///
/// # Panics
/// If it is not installed, saying what installs it.
#[track_caller]
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    let found = places.map(|dir| dir.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| {
        let package = PACKAGES.iter().find(|(tool, _)| *tool == name).map_or(name, |(_, p)| p);
        panic!("the end-to-end stories need {name}; run: apt-get install -y {package}")
    })
}

/// A port on the loopback that nobody listens on, and that no other story is given.
pub fn free_port() -> u16 {
    let len = PORTS.end - PORTS.start;
    // Test processes that run side by side begin at different places.
    let start = (std::process::id() % u32::from(len)) as u16;
    for _ in 0..len {
        let step = PORTS_TAKEN.fetch_add(1, Ordering::Relaxed);
        let port =
            PORTS.start + (u32::from(start) * 7 + u32::from(step)).rem_euclid(len.into()) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {} and {}", PORTS.start, PORTS.end);
}

/// A line for whoever reads the story's output.
#[expect(clippy::print_stderr, reason = "test output is what this crate has to say")]
pub fn say(line: &str) {
    eprintln!("{line}");
}
