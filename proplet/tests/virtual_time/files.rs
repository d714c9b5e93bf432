//! Files in memory behave as files on the host do.

use proplet::executor::{
    Origin,
    virtual_time::{DataError, DataSet, Nans, VirtualSettings, VirtualWasm},
};

use crate::guests::{Lab, START_US, data, disks, job, listers, printed, wat};

const FILES: &[(&str, &str)] = &[("a.csv", "1,2"), ("deep/er/b.csv", "3,4"), ("deep/c", "5")];

#[test]
fn whatever_is_done_with_files_ends_as_it_does_live() {
    let lab = Lab::new();
    for (form, disk) in disks() {
        let mut job = job(&disk, &[]);
        job.data = Some(data(FILES));
        let live = lab.run_live(&job, FILES).end.unwrap();
        let live = String::from_utf8(live.stdout).unwrap();
        let here = lab.run(&job);
        assert!(live.lines().count() > 60, "{form}: {live}");
        let pairs = live.lines().zip(printed(&here).lines());
        let other: Vec<_> = pairs.filter(|(live, here)| live != here).collect();
        assert!(other.is_empty(), "{form}, live and here: {other:#?}");
        assert_eq!(printed(&here), live, "{form}");
    }
}

#[test]
fn directories_are_in_the_order_of_their_names_and_files_are_as_old_as_the_run() {
    let lab = Lab::new();
    for (form, lister) in listers() {
        let mut job = job(&lister, &[]);
        let names = ["z", "b", "a", "m/n", "B"];
        job.data = Some(data(&names.map(|name| (name, "x"))));
        let outcome = lab.run(&job);
        let lines: Vec<_> = printed(&outcome).lines().collect();
        let expected = ["B", "a", "b", "m", "z"].map(|name| format!("{name} {START_US}"));
        assert_eq!(lines, expected, "{form}");
    }
}

#[test]
fn paths_that_cannot_be_are_no_data_set() {
    for path in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b"] {
        let error = DataSet::new([(path.to_owned(), "x".into())].into()).unwrap_err();
        assert!(matches!(error, DataError::Path { path: named } if named == path), "{path:?}");
    }
    let both = ["a", "a/b"].map(|path| (path.to_owned(), "x".into()));
    assert!(matches!(DataSet::new(both.into()), Err(DataError::Path { .. })));
}

#[test]
fn a_directory_is_read_as_the_data_set_that_its_files_make() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("deep/er")).unwrap();
    for (name, text) in FILES {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let read = DataSet::read(dir.path()).unwrap();
    assert_eq!(read.digest(), data(FILES).digest());
    assert_ne!(read.digest(), data(&FILES[1..]).digest());
    let missing = DataSet::read(&dir.path().join("missing")).unwrap_err();
    assert!(missing.to_string().contains("missing"), "{missing}");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("a.csv", dir.path().join("link")).unwrap();
        assert!(matches!(DataSet::read(dir.path()), Err(DataError::Kind { .. })));
    }
}

#[test]
fn engines_of_each_configuration_keep_their_programs_apart_in_one_directory() {
    let lab = Lab::new();
    let nan = wat(r#"(module (memory (export "memory") 1) (func (export "_start")
        (if (i32.ne
                (i32.and (i32.reinterpret_f32 (f32.mul (f32.const nan:0x212345) (f32.const 1)))
                    (i32.const 0x7fffffff))
                (i32.const 0x7fc00000))
            (then unreachable))))"#);
    let settings = VirtualSettings::below(lab.dir.path());
    let canonical = VirtualSettings { nans: Nans::Canonical, ..settings.clone() };
    let live = lab.run_live(&job(&nan, &[]), &[]);
    assert_eq!(live.metrics.origin, Some(Origin::Compiled));
    for settings in [settings, canonical.clone()] {
        for origin in [Origin::Compiled, Origin::Disk] {
            let wasm = VirtualWasm::new(&settings).unwrap();
            assert_eq!(wasm.prepare(&nan), Ok(origin), "{:?}", settings.nans);
            assert_eq!(wasm.prepare(&nan), Ok(Origin::Memory));
        }
    }
    let canonical = VirtualWasm::new(&canonical).unwrap();
    assert_ne!(canonical.engine_mark(), lab.virtual_wasm.engine_mark());
    canonical.run(&job(&nan, &[])).end.unwrap();
}
