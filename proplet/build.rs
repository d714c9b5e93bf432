//! Builds the FL client module that the proplet carries in itself.
//!
//! The guest is another package for another target, so a second cargo builds it, in a target
//! directory of its own: in the outer one it would wait for the lock that the outer cargo holds.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "wasm32-wasip1";
const PACKAGE: &str = "client-wasm";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = here.parent().ok_or("the proplet lies outside its workspace")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target_dir = out.join("guest");
    ensure_target()?;
    build(workspace, &target_dir)?;
    let release = target_dir.join(TARGET).join("release");
    let module = release.join(PACKAGE).with_extension("wasm");
    fs::copy(&module, out.join("fl-client.wasm"))
        .map_err(|error| format!("{}: {error}", module.display()))?;
    watch(workspace, &release);
    Ok(())
}

fn variable(name: &str) -> Result<OsString> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set; build with cargo").into())
}

/// The standard library for the target is installed, or can be.
fn ensure_target() -> Result<()> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let found = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let installed =
        found.is_ok_and(|it| Path::new(String::from_utf8_lossy(&it.stdout).trim()).is_dir());
    if installed {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    if added.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(format!(
        "the built-in FL client needs the target {TARGET}; run: rustup target add {TARGET}"
    )
    .into())
}

fn build(workspace: &Path, target_dir: &Path) -> Result<()> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(workspace).args(["build", "--release", "--package", PACKAGE]);
    cargo.args(["--bin", PACKAGE, "--target", TARGET, "--target-dir"]).arg(target_dir);
    if workspace.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    forget_outer_build(&mut cargo);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace));
    for (name, value) in [
        ("OPT_LEVEL", "3"),
        ("LTO", "fat"),
        ("CODEGEN_UNITS", "1"),
        ("PANIC", "abort"),
        ("STRIP", "symbols"),
        ("DEBUG", "0"),
    ] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    let status = cargo.status().map_err(|error| format!("{cargo:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{cargo:?}: {status}").into()) }
}

/// What the outer build is told is not meant for the guest: flags, wrappers (clippy's), profiles.
fn forget_outer_build(cargo: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let outer =
            ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_"]
                .iter()
                .any(|prefix| text.starts_with(prefix));
        let single = [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MAKEFLAGS",
            "CARGO_TARGET_DIR",
            "MAKEFLAGS",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
        ];
        if outer || single.contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
}

/// Vector instructions; and no paths of this machine, so that every machine makes the same module.
fn flags(workspace: &Path) -> OsString {
    let mut flags = OsString::from("-Ctarget-feature=+simd128");
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME").or_else(|| env::var_os("USERPROFILE"))?;
        Some(PathBuf::from(home).join(".cargo"))
    });
    for (from, to) in [(Some(workspace.to_owned()), "/aileron"), (home, "/cargo")] {
        if let Some(from) = from {
            flags.push("\x1f--remap-path-prefix=");
            flags.push(from);
            flags.push(format!("={to}"));
        }
    }
    flags
}

/// Build again when a source changes that the guest was made of, as its dep-info lists them.
fn watch(workspace: &Path, release: &Path) {
    let mut watched = vec![
        workspace.join(PACKAGE).join("Cargo.toml"),
        workspace.join(PACKAGE).join("src"),
        workspace.join("Cargo.lock"),
        workspace.join("proplet").join("build.rs"),
    ];
    let dep_info = fs::read_to_string(release.join(PACKAGE).with_extension("d"));
    let dep_info = dep_info.unwrap_or_default();
    let sources = dep_info.split_once(": ").map_or("", |(_, sources)| sources);
    watched.extend(sources.split_whitespace().map(PathBuf::from).filter(|path| path.exists()));
    for path in watched {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}
