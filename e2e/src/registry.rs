//! Debian's registry of images, on a free port, with a directory of its own.

use std::{fs, net::TcpStream, path::Path, process};

use serde_json::Value;

use crate::{Command, Process, aileron, eventually, free_port};

/// Who may push and pull at a private registry, and bcrypt of `secret word` at its least cost.
const NAME: &str = "ann";
const PASSWORD: &str = "secret word";
const HASH: &str = "$2b$04$MoSopM0Ud98eppROK1VWguEY6WLIs0mDjMpVwyhZWRWginY8CAYfO";

/// A running registry.
#[derive(Debug)]
pub struct ImageRegistry {
    pub process: Process,
    pub port: u16,
}

/// Whom a registry serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitors {
    All,
    /// Those with the password in a file that [`ImageRegistry::login`] names.
    Known,
}

impl ImageRegistry {
    /// Starts one below `dir`, and waits until it listens.
    #[track_caller]
    pub fn start(dir: &Path, visitors: Visitors) -> Self {
        let port = free_port();
        let dir = dir.join("registry");
        fs::create_dir_all(&dir).expect("a directory can be made");
        fs::write(dir.join("passwords"), format!("{NAME}:{HASH}\n")).expect("passwords");
        fs::write(dir.join("password"), PASSWORD).expect("password");
        let auth = match visitors {
            Visitors::All => String::new(),
            Visitors::Known => {
                let path = dir.join("passwords");
                format!("auth: {{htpasswd: {{realm: story, path: {}}}}}\n", path.display())
            }
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n{auth}",
            dir.join("storage").display()
        );
        let path = dir.join("config.yml");
        fs::write(&path, config).expect("its configuration can be written");
        let path = path.display().to_string();
        let process = Command::outside(&dir, "docker-registry", &["serve", &path]).start();
        let registry = Self { process, port };
        registry.wait();
        registry
    }

    /// Until it listens.
    #[track_caller]
    pub fn wait(&self) {
        eventually("the registry listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// Host and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// An image there.
    pub fn image(&self, version: &str) -> String {
        format!("oci://{}/story/workload{version}", self.host())
    }

    /// Settings of a service, or flags of a command, with which it knows the password.
    pub fn login(&self, dir: &Path) -> [(&'static str, String); 3] {
        let file = dir.join("registry/password").display().to_string();
        [("host", self.host()), ("username", NAME.to_owned()), ("password_file", file)]
    }

    /// `aileron workload push`; what it says, or why it fails.
    pub fn push(&self, module: &Path, tag: &str, more: &[&str]) -> Result<Value, String> {
        let mut command = process::Command::new(aileron());
        command.args(["workload", "push", "--format", "json"]).arg(module).arg(self.image(tag));
        command.args(["--registry-plain-http", &self.host()]).args(more);
        let output = command.output().map_err(|why| why.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|why| why.to_string())
    }
}
