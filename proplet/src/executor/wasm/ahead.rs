//! Programs that were compiled elsewhere, ahead of time: for devices without a compiler, and for large programs on slow
//! ones.
//!
//! Compiled code is trusted code: nothing checks what it does, so it can do all that this process may. It runs if the
//! owner of the device wants it to, and not by default. He either puts it where only he can write, in a directory that
//! he names, as `<sha256 of the program>.cwasm` with a `.sha256` beside it; a task then names the program as everywhere
//! else. Or he lists the digest of the compiled code itself, which may then come as a task's program.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use protocol::Digest;
use wasmtime::{Engine, Precompiled};

use super::{
    super::{Failure, Program},
    disk,
    program::{Code, Kind},
};

/// What a compiled program's name ends with.
const EXTENSION: &str = "cwasm";
/// What the name of the file with its digest ends with, after its own.
pub const SUM_EXTENSION: &str = "sha256";

/// Which compiled code the owner of the device trusts.
#[derive(Clone, Debug, Default)]
pub struct Ahead {
    /// Directory with compiled forms of programs.
    pub dir: Option<PathBuf>,
    /// Compiled code that may come as a program.
    pub allowed: BTreeSet<Digest>,
}

impl Ahead {
    /// The compiled form of the program, if the directory has it.
    pub(super) fn find(
        &self,
        engine: &Engine,
        kind: Kind,
        program: Digest,
    ) -> Result<Option<Code>, Failure> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let path = dir.join(format!("{program}.{EXTENSION}"));
        let failed =
            |reason: String| Failure::Ahead { reason: format!("{}: {reason}", path.display()) };
        match writable_by_others(&path) {
            Ok(false) => {}
            Ok(true) => return Err(failed("others than its owner may write to it".to_owned())),
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(failed(why.to_string())),
        }
        match disk::whole(&path) {
            Ok(true) => {}
            Ok(false) => {
                let sum = disk::sum_path(&path);
                return Err(failed(format!("{} has another digest, or is missing", sum.display())));
            }
            Err(why) => return Err(failed(why.to_string())),
        }
        let code = Code::load(engine, kind, &path);
        code.map(Some).map_err(|why| failed(why.root_cause().to_string()))
    }

    /// Compiled code that came as a program, if its owner allows it.
    pub(super) fn allowed(
        &self,
        engine: &Engine,
        kind: Kind,
        program: &Program,
    ) -> Result<Code, Failure> {
        if !self.allowed.contains(&program.digest()) {
            return Err(Failure::NotAllowed { program: program.digest() });
        }
        let code = Code::take(engine, kind, program.bytes());
        code.map_err(|why| Failure::Ahead { reason: why.root_cause().to_string() })
    }
}

/// Whether the bytes are compiled code, and of which kind of program.
pub(super) fn kind(bytes: &[u8]) -> Option<Kind> {
    match Engine::detect_precompiled(bytes)? {
        Precompiled::Module => Some(Kind::Module),
        Precompiled::Component => Some(Kind::Component),
    }
}

/// Whether anybody else than its owner may write to this file or directory.
pub fn writable_by_others(path: &Path) -> io::Result<bool> {
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(path)?);
    Ok(mode & 0o022 != 0)
}

/// What programs can be compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// PCs and servers
    #[value(name = "x86_64")]
    X86_64,
    /// Raspberry Pi 3 and later with a 64-bit system
    Aarch64,
    /// Any 32-bit system, such as a Raspberry Pi's: code for wasmtime's interpreter
    #[value(alias = "armv6", alias = "pulley32")]
    Armv7,
    /// 64-bit processors that wasmtime has no compiler for: code for its interpreter
    Pulley64,
}

impl Target {
    /// This machine.
    pub const HERE: Option<Self> = if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        Some(Self::X86_64)
    } else if cfg!(all(target_arch = "aarch64", target_os = "linux")) {
        Some(Self::Aarch64)
    } else if cfg!(target_pointer_width = "32") {
        Some(Self::Armv7)
    } else {
        None
    };

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Armv7 => "armv7",
            Self::Pulley64 => "pulley64",
        }
    }

    #[cfg(feature = "compiler")]
    const fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux",
            Self::Aarch64 => "aarch64-unknown-linux",
            Self::Armv7 => "pulley32",
            Self::Pulley64 => "pulley64",
        }
    }
}

/// Compiles a program for machines of that kind, with no more than all of them have.
#[cfg(feature = "compiler")]
pub fn precompile(
    program: &Program,
    target: Target,
    metering: super::runtime::Metering,
) -> Result<Vec<u8>, Failure> {
    let kind = Kind::of(program)?;
    let mut config = super::runtime::config(1 << 20, metering);
    let failed = |why| Failure::host(&format!("compile for {}", target.name()), why);
    config.target(target.triple()).map_err(failed)?;
    let engine = Engine::new(&config).map_err(failed)?;
    let compiled = match kind {
        Kind::Module => engine.precompile_module(program.bytes()),
        Kind::Component => engine.precompile_component(program.bytes()),
    };
    compiled.map_err(|error| Failure::Compile { reason: error.root_cause().to_string() })
}
