//! Programs for other processors, as `deploy/build` makes them, and what runs them on this machine.

use std::{
    env,
    fs::{self, File},
    io::{Write as _, stderr},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{good, project};

/// Says how much is tried: unset nothing, since the programs take many minutes to build; with `yes` what has no compiler on
/// the board; with `full` also what has one; with `arm64` what compiles on a 64-bit board alone, which takes one
/// build; with `optional` the same as with `yes`, or nothing if a tool is missing.
const EXTENT: &str = "AILERON_TEST_CROSS";
/// What the stories take, and where it comes from.
const TOOLS: &[(&str, &str)] = &[
    ("cargo-zigbuild", "pip install cargo-zigbuild ziglang"),
    ("qemu-aarch64-static", "apt-get install -y qemu-user-static"),
    ("qemu-arm-static", "apt-get install -y qemu-user-static"),
    ("debootstrap", "apt-get install -y debootstrap"),
    ("dpkg-deb", "apt-get install -y dpkg"),
    ("ip", "apt-get install -y iproute2"),
];
/// Where Debian puts the C library of 32-bit boards (its package libc6-armhf-cross).
const ARMHF_LIBRARIES: &str = "/usr/arm-linux-gnueabihf";

/// A kind of board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processor {
    Arm64,
    Armhf,
}

impl Processor {
    /// What Debian and `deploy/build` call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::Armhf => "armhf",
        }
    }

    /// What runs its programs here.
    pub(crate) const fn emulator(self) -> &'static str {
        match self {
            Self::Arm64 => "qemu-aarch64-static",
            Self::Armhf => "qemu-arm-static",
        }
    }

    /// What the emulator has to be told in its environment.
    pub(crate) const fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Arm64 => &[],
            Self::Armhf => &[("QEMU_LD_PREFIX", ARMHF_LIBRARIES)],
        }
    }

    /// What its packages need.
    pub(crate) const fn depends(self) -> &'static str {
        match self {
            // The program is static.
            Self::Arm64 => "",
            Self::Armhf => "libc6 (>= 2.28)",
        }
    }
}

/// Whether the stories are to be tried. Where they are left out, they say so.
pub(crate) fn wanted() -> bool {
    if extent().is_empty() {
        let why = format!(
            "THE STORIES WITH BOARDS WERE NOT TRIED: set {EXTENT}=yes, run .ci/setup, and again"
        );
        // Not `eprintln!`, which the harness of the tests keeps to itself.
        stderr().write_all(format!("\n{why}\n\n").as_bytes()).unwrap();
        return false;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = env::split_paths(&path).chain(["/usr/sbin".into()]).collect();
    let here = |name: &str| places.iter().any(|dir| dir.join(name).is_file());
    let Some((tool, source)) = TOOLS.iter().find(|(tool, _)| !here(tool)) else { return true };
    let why = format!("NO {tool}, THE STORIES WITH BOARDS WERE NOT TRIED");
    assert!(extent() == "optional", "{why}; {source}, or set {EXTENT}=optional");
    // Not `eprintln!`, which the harness of the tests keeps to itself.
    stderr().write_all(format!("\n{why}\n\n").as_bytes()).unwrap();
    false
}

/// Whether there is time for everything.
pub(crate) fn in_full() -> bool {
    extent() == "full"
}

/// Whether that program is built for that kind of board.
pub(crate) fn reaches(program: &str, processor: Processor) -> bool {
    extent() != "arm64" || (processor == Processor::Arm64 && !program.ends_with("small"))
}

fn extent() -> String {
    env::var(EXTENT).unwrap_or_default()
}

/// A program of `deploy/build`, built if it is not fresh.
pub(crate) fn program(name: &str, processor: Processor) -> PathBuf {
    let out = dist().join(format!("{name}-{}", processor.name()));
    let _lock = lock();
    good(deploy("build").args([name, processor.name()]).arg(&out));
    out
}

/// A package of `deploy/deb`, in `dir`.
pub(crate) fn package(name: &str, processor: Processor, dir: &Path) -> PathBuf {
    // The package takes the program that is there.
    program(name, processor);
    let mut deb = deploy("deb");
    deb.args([name, processor.name()]).arg(dir);
    if name.ends_with("small") {
        deb.env("AILERON", compiler());
    }
    let _lock = lock();
    good(&mut deb);
    dir.join(format!("{name}_{}_{}.deb", env!("CARGO_PKG_VERSION"), processor.name()))
}

/// `aileron` for this machine, as it is shipped: it compiles for all others, which that of the tests cannot.
pub(crate) fn compiler() -> PathBuf {
    let arch = match env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let out = dist().join(format!("aileron-{arch}"));
    let _lock = lock();
    good(deploy("build").args(["aileron", arch]).arg(&out));
    out
}

/// Whether this is root, as a chroot and a network of one's own take; if not, it is as with a missing tool.
pub(crate) fn may_be_root() -> bool {
    let uid = good(Command::new("id").arg("-u"));
    uid == "0" || {
        let why = "NOT ROOT, THE PAGE FOR BOARDS WAS NOT TRIED";
        assert!(extent() == "optional", "{why}; be root, or set {EXTENT}=optional");
        stderr().write_all(format!("\n{why}\n\n").as_bytes()).unwrap();
        false
    }
}

/// Lets the kernel run programs of that kind by themselves, as it has to in a chroot.
pub(crate) fn run_foreign_programs(processor: Processor) {
    let known = Path::new("/proc/sys/fs/binfmt_misc");
    let name = processor.emulator().trim_end_matches("-static");
    if known.join(name).exists() {
        return;
    }
    if !known.join("register").exists() {
        good(Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc"]).arg(known));
    }
    let line = fs::read(format!("/usr/lib/binfmt.d/{name}.conf")).unwrap();
    // Another story may have been faster.
    let _ = fs::write(known.join("register"), line);
    assert!(known.join(name).exists(), "{name} is registered");
}

fn deploy(script: &str) -> Command {
    let mut command = Command::new(project().join("deploy").join(script));
    // What the test's own build was told is not meant for this one.
    for name in
        ["CARGO_ENCODED_RUSTFLAGS", "CARGO_MAKEFLAGS", "MAKEFLAGS", "RUSTC_WORKSPACE_WRAPPER"]
    {
        command.env_remove(name);
    }
    command
}

/// Where `deploy/` puts what it makes.
pub(crate) fn dist() -> PathBuf {
    project().join("target/dist")
}

/// Held while one story builds.
fn lock() -> File {
    let path = env::temp_dir().join("aileron-e2e.crossed");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.unwrap_or_else(|why| panic!("open {}: {why}", path.display()));
    file.lock().unwrap();
    file
}
