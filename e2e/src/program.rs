//! The programs under test: `aileron` as cargo builds it, and the guest of the one-hot ledger.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

const GUEST_TARGET: &str = "wasm32-wasip1";

/// The program, beside the running test; built first if it is missing or older than its sources.
/// `AILERON_E2E_PROGRAM` names another one.
pub fn aileron() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(given) = env::var_os("AILERON_E2E_PROGRAM") {
            return given.into();
        }
        let program = profile_dir().join("aileron");
        let _lock = lock("aileron-e2e.build");
        if !is_fresh(&program) {
            let mut cargo = cargo();
            // It is built for the tests of its package, as in a run of all tests: what is compiled
            // for the one is then there for the other. A plain build has fewer features of some
            // crates below wasmtime, which would be compiled once more.
            cargo.args(["test", "--workspace", "--no-run", "--test", "help"]);
            if profile_dir().ends_with("release") {
                cargo.arg("--release");
            }
            run(&mut cargo);
        }
        program
    })
}

/// The guest of the one-hot ledger, base64, as it stands in a round's start.
pub fn one_hot_base64() -> &'static str {
    static MODULE: OnceLock<String> = OnceLock::new();
    MODULE.get_or_init(|| {
        let dir = target_dir().join("guests");
        let _lock = lock("aileron-e2e.guests");
        let mut cargo = cargo();
        cargo.args(["build", "--release", "--package", "client-wasm", "--bin", "one_hot"]);
        cargo.args(["--target", GUEST_TARGET, "--target-dir"]).arg(&dir);
        run(&mut cargo);
        let module = dir.join(GUEST_TARGET).join("release/one_hot.wasm");
        let bytes = fs::read(&module).unwrap_or_else(|why| panic!("{}: {why}", module.display()));
        STANDARD.encode(bytes)
    })
}

/// `target/debug`, say: two above the running test.
fn profile_dir() -> PathBuf {
    let test = env::current_exe().expect("the test knows its own path");
    let dir = test.parent().and_then(Path::parent).expect("a test lies in target/profile/deps");
    dir.to_owned()
}

fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile has a target directory").to_owned()
}

/// Whether the program is there and no source that it was made of is newer.
fn is_fresh(program: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
    let Some(built) = changed(program) else { return false };
    let sources = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let sources = sources.split_once(": ").map_or("", |(_, sources)| sources);
    let newer = |path: &str| changed(Path::new(path)).is_none_or(|at: SystemTime| at > built);
    !sources.split_whitespace().any(newer)
}

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    // What the test's own build was told is not meant for this one.
    for name in
        ["CARGO_ENCODED_RUSTFLAGS", "CARGO_MAKEFLAGS", "MAKEFLAGS", "RUSTC_WORKSPACE_WRAPPER"]
    {
        cargo.env_remove(name);
    }
    cargo
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}

/// Held while one test process builds; others wait and then find it built.
fn lock(name: &str) -> File {
    let path = target_dir().join(name);
    let file = File::options().create(true).append(true).open(&path);
    let file = file.unwrap_or_else(|why| panic!("open {}: {why}", path.display()));
    file.lock().unwrap_or_else(|why| panic!("lock {}: {why}", path.display()));
    file
}
