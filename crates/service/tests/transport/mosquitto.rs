//! A real Mosquitto on a free port, for as long as a test holds it.

use std::{
    io::{BufRead, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
};

pub(crate) struct Mosquitto {
    pub(crate) address: SocketAddr,
    child: Child,
    _config: tempfile::NamedTempFile,
}

const PROGRAMS: [&str; 3] = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "mosquitto"];

impl Mosquitto {
    /// `extra` are more lines of its configuration.
    pub(crate) fn start(extra: &str) -> Self {
        // Between our look and its bind, somebody else may take the port.
        (0..5).find_map(|_| Self::try_start(extra)).expect("mosquitto did not start five times")
    }

    fn try_start(extra: &str) -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = tempfile::NamedTempFile::new().unwrap();
        let port = address.port();
        writeln!(config, "listener {port} 127.0.0.1\npersistence false\nlog_dest stderr\n{extra}")
            .unwrap();
        let mut child = PROGRAMS
            .into_iter()
            .find_map(|program| {
                let mut command = Command::new(program);
                command.arg("-c").arg(config.path()).stderr(Stdio::piped()).spawn().ok()
            })
            .expect("this test needs Mosquitto; on Debian: apt-get install mosquitto");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let running = lines.by_ref().map_while(Result::ok).any(|line| line.contains("running"));
        if !running {
            let _ = child.wait();
            return None;
        }
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { address, child, _config: config })
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
