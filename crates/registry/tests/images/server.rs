//! A registry of the test's own: Debian's `docker-registry` on a free port, its storage in a
//! directory that the test can reach into.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use protocol::{Digest, ImageRef};
use registry::{Cache, Pushed, Registry, Settings};
use tempfile::TempDir;

pub(crate) const NAME: &str = "ann";
pub(crate) const PASSWORD: &str = "secret word";
/// bcrypt of the password, at its least cost.
const HASH: &str = "$2b$04$MoSopM0Ud98eppROK1VWguEY6WLIs0mDjMpVwyhZWRWginY8CAYfO";
/// A minute, and on a busy machine more.
const LOOKS_MAX: u32 = 3000;

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    dir: TempDir,
}

impl Server {
    pub(crate) fn open() -> Self {
        Self::start("")
    }

    /// One that wants name and password.
    pub(crate) fn private() -> Self {
        Self::start("auth: {htpasswd: {realm: test, path: PASSWORDS}}")
    }

    fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let passwords = dir.path().join("passwords");
        fs::write(&passwords, format!("{NAME}:{HASH}\n")).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n{}\n",
            dir.path().join("storage").display(),
            more.replace("PASSWORDS", &passwords.display().to_string())
        );
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let child = spawn(dir.path());
        let server = Self { child, port, dir };
        server.wait();
        server
    }

    fn wait(&self) {
        for _ in 0..LOOKS_MAX {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("docker-registry does not listen");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.dir.path());
        self.wait();
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn image(&self, version: &str) -> ImageRef {
        image(self.port, version)
    }

    pub(crate) fn settings(&self) -> Settings {
        settings(self.port)
    }

    /// Whoever talks to this registry alone, and keeps what it pulls.
    pub(crate) fn client(&self, dir: &Path) -> Registry {
        Registry::new(self.settings(), Some(cache(dir)))
    }

    pub(crate) async fn push(&self, tag: &str, module: &[u8]) -> Pushed {
        let module = Bytes::copy_from_slice(module);
        let client = Registry::new(self.settings(), None);
        client.push(&self.image(tag), module, None, &mut |_, _| {}).await.unwrap()
    }

    /// Where it keeps these bytes.
    pub(crate) fn blob(&self, digest: Digest) -> PathBuf {
        let digest = digest.to_string();
        let blobs = self.dir.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&digest[..2]).join(&digest).join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn image(port: u16, version: &str) -> ImageRef {
    format!("oci://127.0.0.1:{port}/team/fl-client{version}").parse().unwrap()
}

pub(crate) fn settings(port: u16) -> Settings {
    Settings {
        plain_http: vec![format!("127.0.0.1:{port}")],
        // Not that of whoever runs the tests.
        auth_file: Some(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nobody.json"))),
        stall: Duration::from_secs(1),
        ..Settings::default()
    }
}

pub(crate) fn cache(dir: &Path) -> Cache {
    Cache::new(dir.join("modules"), 1 << 30)
}

/// Something that begins like a module; each `kind` another one.
pub(crate) fn module(kind: u8, len: usize) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.extend((0..len).map(|n| kind.wrapping_add(u8::try_from(n / 97 % 256).unwrap())));
    bytes
}

fn spawn(dir: &Path) -> Child {
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(dir.join("config.yml")).stdin(Stdio::null());
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let command = command.stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().expect("docker-registry is installed, by .ci/setup")
}
