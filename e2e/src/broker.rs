//! The brokers that the stories run against: Mosquitto as Debian packages it, and our embedded one.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use crate::{Command, Process, eventually, free_port};

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerKind {
    Mosquitto,
    Embedded,
}

/// A broker process on a port of its own, which it keeps over restarts.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    port: u16,
}

impl Broker {
    /// Starts a broker that keeps its state below `dir`, and waits until it listens.
    #[track_caller]
    pub fn start(kind: BrokerKind, dir: &Path) -> Self {
        let broker = Self::start_on(kind, dir, free_port());
        broker.wait_until_up();
        broker
    }

    /// Starts a broker on a port; does not wait.
    pub fn start_on(kind: BrokerKind, dir: &Path, port: u16) -> Self {
        let name = format!("broker-{port}");
        let state = dir.join(format!("{name}-state"));
        fs::create_dir_all(&state).expect("a broker's directory can be made");
        let mut command = match kind {
            BrokerKind::Mosquitto => {
                let conf = dir.join(format!("{name}.conf"));
                fs::write(&conf, mosquitto_conf(port, &state))
                    .expect("mosquitto.conf can be written");
                Command::outside(dir, "mosquitto", &["-c", &conf.display().to_string()])
            }
            BrokerKind::Embedded => {
                let mut command = Command::service(dir, &name, "broker", &[]);
                command.args.push(format!("--listen=127.0.0.1:{port}"));
                command.args.push(format!("--state-dir={}", state.display()));
                command
            }
        };
        command.name = name;
        Self { process: command.start(), port }
    }

    /// Where it listens on the loopback.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its address as settings take it.
    pub fn address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port with what it kept.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process.start_again();
        self.wait_until_up();
    }

    /// The process behind it.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    #[track_caller]
    fn wait_until_up(&self) {
        eventually(&format!("a broker listens on port {}", self.port), || {
            is_up(self.port).then_some(())
        });
    }
}

fn is_up(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// As durable as it gets: written after every change. It drops its rights to another user when root
/// starts it, who could not write here.
fn mosquitto_conf(port: u16, state: &Path) -> String {
    format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n\
         persistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n\
         max_queued_messages 0\nmax_inflight_messages 0\nlog_type error\n\
         log_type warning\nlog_type notice\n",
        state.display()
    )
}
