//! The directory of blobs: whole or not there, whatever happened to its files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use protocol::{
    Digest, Manifest,
    manifest::{CHUNK_BYTES_MIN, ChunkError, Format},
};
use service::{BlobError, BlobRules, Blobs};
use tempfile::TempDir;

const CHUNK: usize = CHUNK_BYTES_MIN as usize;

fn open(dir: &Path, bytes_max: u64) -> Blobs {
    Blobs::open(dir, BlobRules { bytes_max }).unwrap()
}

fn roomy(dir: &Path) -> Blobs {
    open(dir, 1 << 20)
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n * 7 % 256).unwrap() ^ seed).collect()
}

fn manifest(bytes: &[u8]) -> Manifest {
    Manifest::of(bytes, CHUNK_BYTES_MIN, Format::safetensors()).unwrap()
}

fn piece(bytes: &[u8], index: u32) -> &[u8] {
    bytes.chunks(CHUNK).nth(index as usize).unwrap()
}

fn fill(blobs: &mut Blobs, manifest: &Manifest, bytes: &[u8], indexes: &[u32]) {
    for index in indexes {
        blobs.write(manifest, *index, piece(bytes, *index)).unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn partial(dir: &Path) -> PathBuf {
    let name = names(dir).into_iter().find(|name| name.ends_with(".part")).unwrap();
    dir.join(name)
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn pieces_in_any_order_become_the_blob_and_nothing_else_is_left() {
    let dir = dir();
    let whole = bytes(5 * CHUNK - 9, 1);
    let manifest = manifest(&whole);
    let sha256 = manifest.sha256();
    let mut blobs = roomy(dir.path());
    assert_eq!(blobs.begin(&manifest).unwrap().count(), 0);
    fill(&mut blobs, &manifest, &whole, &[4, 0, 2, 1]);
    let why = blobs.finish(&manifest).unwrap_err();
    assert_eq!(why.to_string(), format!("4 of 5 chunks of blob {sha256} are here"));
    assert!(!blobs.holds(&sha256));
    fill(&mut blobs, &manifest, &whole, &[3, 3]);
    let path = blobs.finish(&manifest).unwrap();
    assert_eq!(fs::read(&path).unwrap(), whole);
    assert_eq!(names(dir.path()), [sha256.to_string()]);
    for index in 0..5 {
        assert_eq!(blobs.read_chunk(&manifest, index).unwrap(), piece(&whole, index));
    }
    assert!(blobs.begin(&manifest).unwrap().is_full(), "nothing to fetch");
    blobs.write(&manifest, 0, piece(&whole, 0)).unwrap();
    assert_eq!(blobs.finish(&manifest).unwrap(), path);
    assert_eq!(roomy(dir.path()).path(&sha256), Some(path), "also after a restart");
}

#[test]
fn after_a_restart_only_pieces_that_are_right_are_there() {
    let dir = dir();
    let whole = bytes(6 * CHUNK + 100, 2);
    let manifest = manifest(&whole);
    let mut blobs = roomy(dir.path());
    blobs.begin(&manifest).unwrap();
    fill(&mut blobs, &manifest, &whole, &[0, 1, 3, 6]);
    drop(blobs);
    // A piece that was never flushed, a piece that rotted, a file that was cut.
    let file = File::options().write(true).open(partial(dir.path())).unwrap();
    file.write_all_at(b"x", CHUNK as u64 + 17).unwrap();
    file.set_len(6 * CHUNK as u64 + 99).unwrap();
    let mut blobs = roomy(dir.path());
    let have = blobs.begin(&manifest).unwrap();
    assert_eq!(have.missing().collect::<Vec<_>>(), [1, 2, 4, 5, 6]);
    fill(&mut blobs, &manifest, &whole, &[1, 2, 4, 5, 6]);
    assert_eq!(fs::read(blobs.finish(&manifest).unwrap()).unwrap(), whole);
}

#[test]
fn a_partial_file_that_is_too_long_is_cut() {
    let dir = dir();
    let whole = bytes(2 * CHUNK, 3);
    let manifest = manifest(&whole);
    roomy(dir.path()).begin(&manifest).unwrap();
    let mut grown = whole.clone();
    grown.extend(b"more");
    fs::write(partial(dir.path()), grown).unwrap();
    let mut blobs = roomy(dir.path());
    assert!(blobs.begin(&manifest).unwrap().is_full());
    assert_eq!(fs::read(blobs.finish(&manifest).unwrap()).unwrap(), whole);
}

#[test]
fn a_manifest_that_lies_about_the_whole_is_found_out_and_harms_nobody() {
    let dir = dir();
    let (good, evil) = (bytes(2000, 4), bytes(2000, 5));
    let honest = manifest(&good);
    let pieces = manifest(&evil);
    let digests = (0..2).map(|index| pieces.digest_of(index).unwrap()).collect();
    let lying =
        Manifest::new(honest.sha256(), 2000, CHUNK_BYTES_MIN, digests, Format::wasm()).unwrap();
    let mut blobs = roomy(dir.path());
    blobs.begin(&honest).unwrap();
    blobs.begin(&lying).unwrap();
    fill(&mut blobs, &honest, &good, &[0]);
    fill(&mut blobs, &lying, &evil, &[0, 1]);
    let why = blobs.finish(&lying).unwrap_err();
    assert!(matches!(why, BlobError::Digest { .. }), "{why}");
    assert_eq!(
        why.to_string(),
        format!("blob {} has digest {}", honest.sha256(), Digest::of(&evil))
    );
    assert!(matches!(blobs.write(&lying, 0, &evil[..CHUNK]), Err(BlobError::NotBegun { .. })));
    fill(&mut blobs, &honest, &good, &[1]);
    assert_eq!(fs::read(blobs.finish(&honest).unwrap()).unwrap(), good);
    assert_eq!(names(dir.path()), [honest.sha256().to_string()]);
}

#[test]
fn two_transfers_of_one_blob_share_its_file() {
    let dir = dir();
    let whole = bytes(3 * CHUNK, 6);
    let manifest = manifest(&whole);
    let mut blobs = roomy(dir.path());
    blobs.begin(&manifest).unwrap();
    fill(&mut blobs, &manifest, &whole, &[0]);
    assert_eq!(blobs.begin(&manifest).unwrap().missing().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(names(dir.path()).len(), 1);
    // One gives up, the other goes on.
    blobs.abandon(&manifest);
    fill(&mut blobs, &manifest, &whole, &[1, 2]);
    blobs.finish(&manifest).unwrap();
    blobs.abandon(&manifest);
    assert_eq!(blobs.begin(&manifest).unwrap().count(), 3);
}

#[test]
fn what_was_abandoned_is_gone_on_with_or_swept() {
    let dir = dir();
    let (one, other) = (bytes(2 * CHUNK, 7), bytes(2 * CHUNK, 8));
    let (first, second) = (manifest(&one), manifest(&other));
    let mut blobs = roomy(dir.path());
    for (manifest, bytes) in [(&first, &one), (&second, &other)] {
        blobs.begin(manifest).unwrap();
        fill(&mut blobs, manifest, bytes, &[1]);
    }
    assert_eq!(blobs.sweep(&BTreeSet::new()).unwrap(), 0, "both are under way");
    blobs.abandon(&first);
    blobs.abandon(&second);
    assert_eq!(blobs.bytes(), 4 * CHUNK as u64);
    assert_eq!(blobs.sweep(&[second.sha256()].into()).unwrap(), 1);
    assert_eq!(blobs.begin(&second).unwrap().count(), 1);
    assert_eq!(blobs.begin(&first).unwrap().count(), 0);
    assert!(matches!(blobs.write(&manifest(b"?"), 0, b"?"), Err(BlobError::NotBegun { .. })));
    drop(blobs);
    fs::write(dir.path().join("cut-off.tmp"), "x").unwrap();
    fs::write(dir.path().join("notes"), "stay").unwrap();
    let mut blobs = roomy(dir.path());
    assert_eq!(blobs.sweep(&BTreeSet::new()).unwrap(), 2);
    assert_eq!(names(dir.path()), ["notes"]);
}

#[test]
fn the_least_recently_used_goes_unless_it_is_pinned() {
    let dir = dir();
    let mut blobs = open(dir.path(), 3000);
    let contents: Vec<_> = (0..4).map(|seed| bytes(1000, 20 + seed)).collect();
    let put = |blobs: &mut Blobs, n: usize| {
        blobs.put(&contents[n], CHUNK_BYTES_MIN, Format::wasm()).map(|manifest| manifest.sha256())
    };
    let [a, b, c] = [0, 1, 2].map(|n| put(&mut blobs, n).unwrap());
    assert_eq!(blobs.bytes(), 3000);
    assert!(blobs.path(&a).is_some(), "used again");
    blobs.pin(&b);
    let d = put(&mut blobs, 3).unwrap();
    assert_eq!([a, b, c, d].map(|it| blobs.holds(&it)), [true, true, false, true]);
    put(&mut blobs, 2).unwrap();
    assert_eq!([a, b, c, d].map(|it| blobs.holds(&it)), [false, true, true, true]);
    assert_eq!(names(dir.path()).len(), 3);

    // What cannot be had costs nobody anything.
    let huge = bytes(2500, 30);
    let why = blobs.begin(&manifest(&huge)).unwrap_err();
    assert_eq!(why.to_string(), "no room for 2500 bytes: 1000 of 3000 are in use");
    assert!(why.is_lack_of_room());
    assert_eq!(blobs.bytes(), 3000);
    blobs.unpin(&b);
    blobs.begin(&manifest(&huge)).unwrap();
    assert_eq!(blobs.bytes(), 2500);
}

#[test]
fn after_a_restart_the_oldest_goes_first() {
    let dir = dir();
    let mut blobs = roomy(dir.path());
    let [a, b] = [1, 2].map(|seed| {
        blobs.put(&bytes(1000, seed), CHUNK_BYTES_MIN, Format::wasm()).unwrap().sha256()
    });
    let age = |digest: &Digest, s| {
        let file = File::options().write(true).open(dir.path().join(digest.to_string())).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(s);
        file.set_modified(time).unwrap();
    };
    age(&a, 2_000_000_000);
    age(&b, 1_000_000_000);
    let mut blobs = open(dir.path(), 2000);
    blobs.put(&bytes(500, 3), CHUNK_BYTES_MIN, Format::wasm()).unwrap();
    assert!(blobs.holds(&a) && !blobs.holds(&b));
}

#[test]
fn a_blob_that_rots_is_not_handed_on() {
    let dir = dir();
    let whole = bytes(3 * CHUNK, 9);
    let mut blobs = roomy(dir.path());
    let manifest = blobs.put(&whole, CHUNK_BYTES_MIN, Format::safetensors()).unwrap();
    let path = blobs.path(&manifest.sha256()).unwrap();
    File::options().write(true).open(&path).unwrap().write_all_at(b"?", 1500).unwrap();
    assert!(blobs.read_chunk(&manifest, 0).is_ok());
    let why = blobs.read_chunk(&manifest, 1).unwrap_err();
    assert!(matches!(why, BlobError::Chunk(ChunkError::Digest { index: 1 })), "{why}");
    let again = blobs.manifest(&manifest.sha256(), CHUNK_BYTES_MIN, Format::safetensors());
    assert!(matches!(again, Err(BlobError::Digest { .. })), "{again:?}");
    File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    assert!(matches!(blobs.read_chunk(&manifest, 2), Err(BlobError::Io { .. })));
    blobs.remove(&manifest.sha256()).unwrap();
    assert!(matches!(blobs.read_chunk(&manifest, 0), Err(BlobError::Missing { .. })));
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_file_is_taken_over_and_cut_in_any_way() {
    let (dir, elsewhere) = (dir(), dir());
    let whole = bytes(300_000, 10);
    let from = elsewhere.path().join("model.safetensors");
    let mut blobs = roomy(dir.path());
    for _ in 0..2 {
        fs::write(&from, &whole).unwrap();
        let manifest = blobs.adopt(&from, 70_000, Format::safetensors()).unwrap();
        assert_eq!(manifest, Manifest::of(&whole, 70_000, Format::safetensors()).unwrap());
        assert!(!from.exists(), "moved");
        let other = blobs.manifest(&manifest.sha256(), 4096, Format::safetensors()).unwrap();
        assert_eq!((other.count(), other.sha256()), (74, manifest.sha256()));
        assert_eq!(blobs.read_chunk(&other, 73).unwrap(), &whole[73 * 4096..]);
    }
    assert_eq!(names(dir.path()).len(), 1);
    fs::write(&from, b"").unwrap();
    assert!(matches!(blobs.adopt(&from, 4096, Format::wasm()), Err(BlobError::Manifest(_))));
    assert!(matches!(
        blobs.adopt(&from.with_extension("none"), 4096, Format::wasm()),
        Err(BlobError::Io { .. })
    ));
}

#[test]
fn a_piece_of_another_length_is_not_written() {
    let dir = dir();
    let whole = bytes(CHUNK + 10, 11);
    let manifest = manifest(&whole);
    let mut blobs = roomy(dir.path());
    blobs.begin(&manifest).unwrap();
    for (index, len) in [(0, CHUNK - 1), (1, 11), (2, 0), (2, 10), (u32::MAX, 10)] {
        let why = blobs.write(&manifest, index, &vec![0; len]).unwrap_err();
        assert!(matches!(why, BlobError::Chunk(ChunkError::Length { .. })), "{why}");
    }
    assert_eq!(fs::metadata(partial(dir.path())).unwrap().len(), 0);
}

/// Needs to be allowed to mount; where it is not, a full disk is left to the limit's test.
#[test]
fn a_disk_that_is_full_is_an_error_and_when_there_is_room_it_goes_on() {
    let dir = dir();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "none"])
        .arg(dir.path())
        .output()
        .is_ok_and(|done| done.status.success());
    if !mounted {
        return;
    }
    let _unmounted = Unmount(dir.path().to_owned());
    let whole = bytes(60 * CHUNK, 12);
    let manifest = manifest(&whole);
    let ballast = dir.path().join("ballast");
    fs::write(&ballast, vec![0; 40 * CHUNK]).unwrap();
    let mut blobs = roomy(dir.path());
    blobs.begin(&manifest).unwrap();
    let mut refused = vec![];
    for index in 0..60 {
        if let Err(why) = blobs.write(&manifest, index, piece(&whole, index)) {
            assert!(why.is_lack_of_room(), "{why}");
            refused.push(index);
        }
    }
    assert!(refused.len() > 20, "{refused:?}");
    let put = blobs.put(&bytes(50 * CHUNK, 13), CHUNK_BYTES_MIN, Format::wasm()).unwrap_err();
    assert!(put.is_lack_of_room(), "{put}");
    fs::remove_file(&ballast).unwrap();
    fill(&mut blobs, &manifest, &whole, &refused);
    assert_eq!(fs::read(blobs.finish(&manifest).unwrap()).unwrap(), whole);
    assert_eq!(names(dir.path()), [manifest.sha256().to_string()]);
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
