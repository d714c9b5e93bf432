//! From a project to its program, by the language's own tools.

use std::{env, fs, io, path::Path, process::Command};

use anyhow::{Context as _, bail};

use super::{Lang, Project};

const RUST_TARGET: &str = "wasm32-wasip1";
/// Where the sources of the C library lie in Debian, to tell "not installed" from "does not build".
const WASI_HEADERS: &str = "/usr/include/wasm32-wasi/stdio.h";
/// Vectors, optimisation, and no symbols that nobody reads.
const CLANG_FLAGS: &[&str] =
    &["--target=wasm32-wasi", "-O3", "-msimd128", "-Wall", "-Wl,--strip-all"];

/// Builds the program; its tools speak on the terminal.
pub(crate) fn build(project: &Project) -> anyhow::Result<()> {
    match project.lang {
        Lang::Rust => rust(project),
        Lang::C => clang(project, "clang", &[], "main.c"),
        Lang::Cpp => clang(project, "clang++", &["-std=c++17", "-fno-exceptions"], "main.cpp"),
        Lang::Python => python(project),
    }
}

fn rust(project: &Project) -> anyhow::Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&project.dir).args(["build", "--release", "--target", RUST_TARGET]);
    cargo.args(["--target-dir", "target"]);
    // What is meant for another build that called us must not reach this one.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    cargo.env("RUSTFLAGS", "-Ctarget-feature=+simd128");
    run(&mut cargo, project)?;
    let built = project.dir.join("target").join(RUST_TARGET).join("release");
    let built = built.join(format!("{}.wasm", project.name));
    fs::copy(&built, project.wasm())
        .with_context(|| format!("copy {} to {}", built.display(), project.wasm().display()))?;
    Ok(())
}

fn clang(project: &Project, tool: &str, more: &[&str], source: &str) -> anyhow::Result<()> {
    let mut clang = Command::new(tool);
    clang.current_dir(&project.dir).args(CLANG_FLAGS).args(more);
    clang.args(["-o", &format!("{}.wasm", project.name), source]);
    run(&mut clang, project).with_context(|| {
        if cfg!(target_os = "linux") && !Path::new(WASI_HEADERS).exists() {
            format!("{WASI_HEADERS} is missing: install wasi-libc")
        } else {
            format!("build {} in {}", source, project.dir.display())
        }
    })
}

fn python(project: &Project) -> anyhow::Result<()> {
    let mut tool = Command::new("componentize-py");
    tool.current_dir(&project.dir).args(["-d", "wit", "-w", "workload", "componentize"]);
    tool.args(["workload", "-o", &format!("{}.wasm", project.name)]);
    run(&mut tool, project)
}

fn run(tool: &mut Command, project: &Project) -> anyhow::Result<()> {
    let (lang, needs) = (project.lang, project.lang.needs());
    let name = tool.get_program().to_string_lossy().into_owned();
    match tool.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("{name} failed ({status}); a workload in {lang} needs {needs}"),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            bail!("{name} is not installed; a workload in {lang} needs {needs}")
        }
        Err(why) => Err(why).with_context(|| format!("run {name}")),
    }
}
