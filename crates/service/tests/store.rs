//! The state file: round trips, one user at a time, and clear words when something is wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;

use protocol::{Entry, Envelope, Topic};
use service::{PromiseId, Store, StoreError};

const TABLES: &[&str] = &["letters", "numbers"];

fn open(dir: &Path) -> Result<Store, StoreError> {
    Store::open(dir, "test", TABLES)
}

fn promise(text: &str) -> Envelope {
    Envelope { topic: Topic::TaskResults, payload: text.to_owned().into() }
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("not/yet/there");
    let mut store = open(&nested).unwrap();
    let entries = [
        Entry::put("numbers", "b", &2),
        Entry::put("letters", "x", &"ex"),
        Entry::put("numbers", "a", &1),
        Entry::put_bytes("numbers", "", vec![0, 255]),
    ];
    let ids = store.commit(&entries, &[promise("p"), promise("q")], &[]).unwrap();
    store.commit(&[Entry::forget("numbers", "b")], &[], &ids[..1]).unwrap();
    drop(store);

    let mut store = open(&nested).unwrap();
    let places: Vec<_> =
        store.entries().unwrap().into_iter().map(|entry| (entry.table, entry.key)).collect();
    let expected = [("letters", "x"), ("numbers", ""), ("numbers", "a")];
    assert_eq!(places, expected.map(|(table, key)| (table, key.to_owned())));
    assert_eq!(store.promises().unwrap(), [(ids[1], promise("q"))]);

    let later = store.commit(&[], &[promise("r")], &ids).unwrap();
    assert!(later[0] > ids[1], "a place is never used twice");
    store.commit(&[], &[], &[PromiseId(999)]).unwrap();
}

#[test]
fn a_second_user_is_told_that_the_file_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path()).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused:?}");
    assert!(refused.to_string().contains("test.db"), "{refused}");
    drop(held);
    open(dir.path()).unwrap();
}

#[test]
fn a_table_of_another_version_is_named_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut newer = Store::open(dir.path(), "test", &["letters", "novelties"]).unwrap();
    newer.commit(&[Entry::put("novelties", "k", &1)], &[], &[]).unwrap();
    drop(newer);

    let older = open(dir.path()).unwrap();
    let refused = older.entries().unwrap_err();
    assert!(matches!(&refused, StoreError::Table { table, .. } if table == "novelties"));
    drop(older);
    let newer = Store::open(dir.path(), "test", &["letters", "novelties"]).unwrap();
    assert_eq!(newer.entries().unwrap().len(), 1);
}

#[test]
fn what_is_no_state_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    std::fs::write(&path, "this is a letter to my grandmother, not a database. ".repeat(100))
        .unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Sqlite { action: "open", .. }), "{refused:?}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is a letter"));
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = open(&file.join("state")).unwrap_err();
    assert!(matches!(&refused, StoreError::Directory { path, .. } if path.starts_with(&file)));
}

#[test]
fn a_full_file_refuses_the_whole_commit_and_takes_it_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    let quota = store.quota();
    quota.set_bytes_max(0);
    let entries = [
        Entry::put("numbers", "small", &1),
        Entry::put_bytes("letters", "large", vec![b'x'; 1 << 20]),
    ];
    let refused = store.commit(&entries, &[promise("p")], &[]).unwrap_err();
    assert!(matches!(refused, StoreError::Sqlite { action: "write", .. }), "{refused:?}");
    assert!(store.entries().unwrap().is_empty() && store.promises().unwrap().is_empty());

    quota.set_bytes_max(u64::MAX);
    store.commit(&entries, &[promise("p")], &[]).unwrap();
    assert_eq!((store.entries().unwrap().len(), store.promises().unwrap().len()), (2, 1));
}

/// A child process that holds the file is killed; the file is free at once.
#[test]
fn a_killed_process_leaves_the_file_free_and_whole() {
    const ROLE: &str = "STORE_TEST_CHILD_DIR";
    if let Some(dir) = std::env::var_os(ROLE) {
        let mut store = open(Path::new(&dir)).unwrap();
        for n in 0_u64.. {
            store.commit(&[Entry::put("numbers", "n", &n)], &[promise("p")], &[]).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_leaves_the_file_free_and_whole"])
        .env(ROLE, dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // Its write-ahead log grows with every commit.
    let wal = dir.path().join("test.db-wal");
    while std::fs::metadata(&wal).map_or(0, |wal| wal.len()) < 200_000 {
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let refused = open(dir.path());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(refused, Err(StoreError::InUse { .. })), "{refused:?}");

    let store = open(dir.path()).unwrap();
    let entries = store.entries().unwrap();
    let n: u64 = entries[0].read().unwrap().unwrap();
    let promises = store.promises().unwrap().len() as u64;
    assert_eq!(n + 1, promises, "entries and promises go together");
}
