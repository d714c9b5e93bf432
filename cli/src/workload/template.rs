//! Projects to start from, one a language, which this program carries in itself.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

/// Says in a project's directory what it is.
const MARKER: &str = "workload.json";
const NAME_LEN_MAX: usize = 64;

/// The languages that projects can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    Rust,
    C,
    Cpp,
    Python,
}

/// A project's directory, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Project {
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    pub(crate) lang: Lang,
}

/// Path in the project, and content.
type File = (&'static str, &'static str);

const EVERY: &[File] = &[
    ("README.md", include_str!("../../templates/any/README.md")),
    (".gitignore", include_str!("../../templates/any/gitignore")),
    ("data/sample.csv", include_str!("../../templates/any/sample.csv")),
];

/// A project in Rust carries the guest library along, whose tests stay here.
const RUST: &[File] = &[
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.txt")),
    ("src/main.rs", include_str!("../../templates/rust/main.rs")),
    ("guest/Cargo.toml", include_str!("../../templates/rust/guest.toml.txt")),
    ("guest/src/assignment.rs", include_str!("../../../crates/guest/src/assignment.rs")),
    ("guest/src/base.rs", include_str!("../../../crates/guest/src/base.rs")),
    ("guest/src/data.rs", include_str!("../../../crates/guest/src/data.rs")),
    ("guest/src/entry.rs", include_str!("../../../crates/guest/src/entry.rs")),
    ("guest/src/error.rs", include_str!("../../../crates/guest/src/error.rs")),
    ("guest/src/hyperparams.rs", include_str!("../../../crates/guest/src/hyperparams.rs")),
    ("guest/src/lib.rs", include_str!("../../../crates/guest/src/lib.rs")),
    ("guest/src/safetensors.rs", include_str!("../../../crates/guest/src/safetensors.rs")),
    ("guest/src/tensor.rs", include_str!("../../../crates/guest/src/tensor.rs")),
    ("guest/src/update.rs", include_str!("../../../crates/guest/src/update.rs")),
    ("guest/src/variates.rs", include_str!("../../../crates/guest/src/variates.rs")),
];
const C: &[File] = &[("main.c", include_str!("../../templates/c/main.c"))];
const CPP: &[File] = &[("main.cpp", include_str!("../../templates/cpp/main.cpp"))];
const PYTHON: &[File] = &[
    ("workload.py", include_str!("../../templates/python/workload.py")),
    ("wit/world.wit", include_str!("../../templates/python/world.wit")),
    ("wit/deps/cli/run.wit", include_str!("../../templates/python/run.wit")),
];

impl Lang {
    /// What it takes to build.
    pub(crate) const fn needs(self) -> &'static str {
        match self {
            Self::Rust => "cargo, and the target: rustup target add wasm32-wasip1",
            Self::C => "clang, lld and wasi-libc (the packages of these names in Debian)",
            Self::Cpp => {
                "clang, lld, wasi-libc, libc++-dev-wasm32 and libc++abi-dev-wasm32 (the packages \
                 of these names in Debian; with clang 14: libc++-14-dev-wasm32 and \
                 libc++abi-14-dev-wasm32)"
            }
            Self::Python => "componentize-py from PyPI: pip install componentize-py",
        }
    }

    const fn files(self) -> &'static [File] {
        match self {
            Self::Rust => RUST,
            Self::C => C,
            Self::Cpp => CPP,
            Self::Python => PYTHON,
        }
    }
}

impl fmt::Display for Lang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Python => "python",
        })
    }
}

/// Makes a project; nothing that is there already is touched.
pub(crate) fn write(dir: &Path, lang: Lang) -> anyhow::Result<Project> {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    ensure!(
        name.len() <= NAME_LEN_MAX
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(fits),
        "name takes 1 to {NAME_LEN_MAX} of a-z 0-9 - _, a letter first, not {name:?}"
    );
    ensure!(!dir.exists(), "{} is there already", dir.display());
    let project = Project { dir: dir.to_owned(), name, lang };
    for (path, content) in EVERY.iter().chain(lang.files()) {
        project.put(path, content)?;
    }
    let marker = json!({ "name": project.name, "lang": lang.to_string() });
    project.put(MARKER, &format!("{marker:#}\n"))?;
    Ok(project)
}

impl Project {
    /// The project in a directory.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(MARKER);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("read {}; is this a workload's directory?", path.display()))?;
        let marker: Value =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let field = |name: &str| {
            let text = marker[name].as_str().map(str::to_owned);
            text.with_context(|| format!("{}: {name:?} takes a text", path.display()))
        };
        let (name, lang) = (field("name")?, field("lang")?);
        let Ok(lang) = Lang::from_str(&lang, false) else {
            bail!("{}: \"lang\" takes rust, c, cpp or python, not {lang:?}", path.display());
        };
        if name.is_empty() || name.contains(['/', '\\']) {
            bail!("{}: \"name\" takes a file's name, not {name:?}", path.display());
        }
        Ok(Self { dir: dir.to_owned(), name, lang })
    }

    /// Where its program goes.
    pub(crate) fn wasm(&self) -> PathBuf {
        self.dir.join(format!("{}.wasm", self.name))
    }

    fn put(&self, path: &str, content: &str) -> anyhow::Result<()> {
        let content = match content.split_once("\n#[cfg(test)]") {
            Some((content, _)) => content,
            None => content,
        };
        let content =
            content.replace("{{name}}", &self.name).replace("{{needs}}", self.lang.needs());
        let path = self.dir.join(path);
        let dir = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(dir).with_context(|| format!("make directory {}", dir.display()))?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_in_rust_carries_all_of_the_guest_library() {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/guest/src");
        for entry in fs::read_dir(library).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let carried = RUST.iter().any(|(path, _)| *path == format!("guest/src/{name}"));
            assert!(carried, "{name} is missing from the template");
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        for lang in Lang::value_variants() {
            let at = dir.path().join(format!("mine-{lang}"));
            let project = write(&at, *lang).unwrap();
            assert_eq!(Project::open(&at).unwrap(), project);
            assert!(write(&at, *lang).unwrap_err().to_string().ends_with("is there already"));
        }
        for name in ["Mine", "1st", "a b", &"x".repeat(65)] {
            let said = write(&dir.path().join(name), Lang::C).unwrap_err().to_string();
            assert!(said.contains(&format!("{name:?}")), "{said}");
        }
    }

    #[test]
    fn a_directory_that_is_no_project_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let said = |text: &str| {
            fs::write(dir.path().join(MARKER), text).unwrap();
            format!("{:#}", Project::open(dir.path()).unwrap_err())
        };
        assert!(said(r#"{"name":"x","lang":"cobol"}"#).contains("not \"cobol\""));
        assert!(said(r#"{"name":"../x","lang":"c"}"#).contains("not \"../x\""));
        assert!(said(r#"{"name":1,"lang":"c"}"#).contains("\"name\" takes a text"));
        let nowhere = Project::open(&dir.path().join("nowhere")).unwrap_err();
        assert!(format!("{nowhere:#}").contains("is this a workload's directory?"));
    }
}
