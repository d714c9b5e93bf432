//! Images without a registry: from scratch, with programs of this machine and the libraries that they need.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Puts a file into a root file system, at its own path.
fn put(root: &Path, file: &Path) {
    let at = root.join(file.strip_prefix("/").unwrap());
    if !at.exists() {
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::copy(file, &at).unwrap();
    }
}

/// Puts the libraries of a program or library into a root file system, and the loader.
fn put_libraries(root: &Path, program: &Path) {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.for_each(|library| put(root, Path::new(library)));
}

fn put_as(root: &Path, file: &Path, at: &str) {
    put_libraries(root, file);
    let at = root.join(at);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::copy(file, at).unwrap();
}

/// A build context with example programs and a shell, and nothing else.
pub(crate) fn rust(dir: &Path) {
    let own = std::env::current_exe().unwrap();
    let examples = own.parent().unwrap().parent().unwrap().join("examples");
    let root = dir.join("root");
    for name in ["echo", "ml_inference", "mqtt_gateway"] {
        let program = examples.join(name);
        assert!(program.exists(), "cargo build -p cosim --examples");
        put_as(&root, &program, &format!("bin/{name}"));
    }
    put_as(&root, Path::new("/bin/sh"), "bin/sh");
    put_as(&root, Path::new("/usr/bin/head"), "bin/head");
    fs::create_dir_all(root.join("run")).unwrap();
    fs::write(dir.join("Dockerfile"), "FROM scratch\nCOPY root /\nCMD [\"/bin/echo\"]\n").unwrap();
}

/// A build context with this machine's Python: the base for the Dockerfiles beside the Python library.
pub(crate) fn python(dir: &Path) {
    let ask = "import sys, sysconfig; print(sys.executable); print(sysconfig.get_path('stdlib'))";
    let output = Command::new("python3").args(["-c", ask]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (program, library) = text.trim().split_once('\n').unwrap();
    let root = dir.join("root");
    let program = fs::canonicalize(program).unwrap();
    put_as(&root, &program, &format!("{}", program.strip_prefix("/").unwrap().display()));
    copy_library(&root, Path::new(library));
    fs::create_dir_all(root.join("run")).unwrap();
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    let link = root.join("usr/bin/python3");
    if !link.exists() {
        std::os::unix::fs::symlink(&program, link).unwrap();
    }
    let text = "FROM scratch\nCOPY root /\nENV PATH=/usr/bin:/bin\n";
    fs::write(dir.join("Dockerfile"), text).unwrap();
}

/// The standard library, without what no service imports.
fn copy_library(root: &Path, library: &Path) {
    const LEFT_OUT: &[&str] =
        &["test", "site-packages", "dist-packages", "idlelib", "ensurepip", "lib2to3", "tkinter"];
    let mut open: Vec<PathBuf> = vec![library.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let skipped =
                LEFT_OUT.contains(&&*name) || name.starts_with("config-") || name == "__pycache__";
            if skipped {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.is_file() {
                put(root, &path);
                if name.ends_with(".so") {
                    put_libraries(root, &path);
                }
            }
        }
    }
}
