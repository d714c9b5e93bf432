//! The Debian packages: what is in them, and that what is in them runs.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use e2e::tool;

use crate::{
    crossed::{self, Processor},
    good, project,
};

#[test]
fn a_package_has_the_program_its_unit_and_settings_that_stay() {
    if !crossed::wanted() {
        return;
    }
    for (name, processor) in
        [("aileron-proplet", Processor::Arm64), ("aileron-proplet-small", Processor::Armhf)]
    {
        if !crossed::reaches(name, processor) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let package = crossed::package(name, processor, dir.path());
        says_what_it_is(&package, name, processor);
        let root = dir.path().join("root");
        good(Command::new("dpkg-deb").arg("--raw-extract").arg(&package).arg(&root));
        the_files_are_whole(&package, &root);
        the_unit_names_what_is_there(&root);
        let mut program = Command::new(tool(processor.emulator()));
        program.envs(processor.environment().iter().copied());
        let said = good(program.arg(root.join("usr/bin/aileron-proplet")).arg("--version"));
        assert_eq!(said, concat!("aileron-proplet ", env!("CARGO_PKG_VERSION")));
        let ahead = root.join("usr/lib/aileron/precompiled");
        let settings = fs::read_to_string(root.join("etc/aileron/proplet.toml")).unwrap();
        let is_set = settings.contains("\nprecompiled_dir = \"/usr/lib/aileron/precompiled\"");
        assert_eq!((ahead.exists(), is_set), (name.ends_with("small"), name.ends_with("small")));
    }
}

fn says_what_it_is(package: &Path, name: &str, processor: Processor) {
    let field = |field: &str| good(Command::new("dpkg-deb").arg("--field").arg(package).arg(field));
    assert_eq!(field("Package"), name);
    assert_eq!(field("Architecture"), processor.name());
    assert_eq!(field("Version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(field("Depends"), processor.depends());
    let other = if name.ends_with("small") { "aileron-proplet" } else { "aileron-proplet-small" };
    assert_eq!(field("Conflicts"), other);
}

fn the_files_are_whole(package: &Path, root: &Path) {
    let list = good(Command::new("dpkg-deb").arg("--contents").arg(package));
    for line in list.lines() {
        assert!(line.contains(" root/root "), "{line}");
        assert!(!line[..10].contains('w') || line.as_bytes()[5] == b'-', "for others: {line}");
    }
    good(Command::new("md5sum").args(["--check", "--quiet", "DEBIAN/md5sums"]).current_dir(root));
    let conffiles = fs::read_to_string(root.join("DEBIAN/conffiles")).unwrap();
    assert_eq!(conffiles, "/etc/aileron/proplet.toml\n");
    for script in ["postinst", "prerm", "postrm"] {
        let path = root.join("DEBIAN").join(script);
        good(Command::new("sh").arg("-n").arg(&path));
        assert!(!fs::read_to_string(path).unwrap().contains('@'), "{script} was not filled in");
    }
}

fn the_unit_names_what_is_there(root: &Path) {
    let unit = root.join("lib/systemd/system/aileron-proplet.service");
    let unit = fs::read_to_string(unit).unwrap();
    assert!(!unit.contains("%i"), "{unit}");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let mut words = start.split_whitespace();
    let program = words.next().unwrap().trim_start_matches('/');
    assert!(root.join(program).is_file(), "{start}");
    let config = words.find_map(|word| word.strip_prefix("--config=")).unwrap();
    assert!(root.join(config.trim_start_matches('/')).is_file(), "{start}");
}

/// What stays of the states, and of the enabled units, when `package` is purged and dpkg still knows
/// `others`.
fn after_purge(package: &str, service: &str, others: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let (root, bin) = (dir.path().join("root"), dir.path().join("bin"));
    let (private, state) = (root.join("var/lib/private/aileron"), root.join("var/lib/aileron"));
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    for dir in [&private, &state, &wants, &bin] {
        fs::create_dir_all(dir).unwrap();
    }
    for name in ["manager", "coordinator", "proplet"] {
        fs::create_dir(private.join(name)).unwrap();
        fs::write(private.join(name).join("state.db"), "").unwrap();
        symlink(format!("../private/aileron/{name}"), state.join(name)).unwrap();
    }
    for unit in ["aileron@manager.service", "aileron-proplet.service"] {
        symlink(format!("/lib/systemd/system/{unit}"), wants.join(unit)).unwrap();
    }
    // Of what is purged, the settings are still there.
    let known = others.iter().map(|it| format!("{it}) printf installed ;;")).collect::<String>();
    let query = format!(
        "#!/bin/sh\ncase $4 in {package}) printf config-files ;; {known} *) exit 1 ;; esac\n"
    );
    fs::write(bin.join("dpkg-query"), query).unwrap();
    fs::set_permissions(bin.join("dpkg-query"), fs::Permissions::from_mode(0o755)).unwrap();
    let script = fs::read_to_string(project().join("deploy/debian/postrm")).unwrap();
    let script = script.replace("@PACKAGE@", package).replace("@SERVICE@", service);
    // Of this machine's systemd nothing is wanted.
    let script = script.replace("/run/systemd/system", "/nowhere");
    let path = format!("{}:{}", bin.display(), env::var("PATH").unwrap());
    let mut purge = Command::new("sh");
    purge.args(["-c", &script, "postrm", "purge"]).env("PATH", path).env("DPKG_ROOT", &root);
    good(&mut purge);
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names(&private).len(), names(&state).len());
    let mut left = [names(&private), names(&wants)].concat();
    left.sort();
    left
}

#[test]
fn purging_a_package_leaves_what_is_another_s() {
    let proplet = |package, others: &[&str]| after_purge(package, "aileron-proplet", others);
    let rest = ["aileron@manager.service", "coordinator", "manager"];
    assert_eq!(proplet("aileron-proplet", &[]), rest);
    assert_eq!(proplet("aileron-proplet-small", &[]), rest);
    let all =
        ["aileron-proplet.service", "aileron@manager.service", "coordinator", "manager", "proplet"];
    assert_eq!(proplet("aileron-proplet", &["aileron-proplet-small"]), all);
    // A proplet may run from either, on the same state.
    assert_eq!(proplet("aileron-proplet", &["aileron"]), [&rest[..], &["proplet"]].concat());
    let services = |others: &[&str]| after_purge("aileron", "aileron@", others);
    assert_eq!(services(&[]), ["aileron-proplet.service"]);
    assert_eq!(services(&["aileron-proplet"]), ["aileron-proplet.service", "proplet"]);
}
