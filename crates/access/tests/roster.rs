//! The roster as its users see it: written, read, followed, and shut to others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    time::SystemTime,
};

use access::{Authority, Entry, LiveRoster, Roster, Scope, Token, fingerprint};
use protocol::topic::Role;
use time::OffsetDateTime;

fn entry(token: &Token) -> Entry {
    let secret_sha256 = Some(fingerprint(token.secret().as_bytes()));
    Entry { role: Some(Role::Proplet), secret_sha256, ..Entry::new("2026-01-12T10:30:45Z") }
}

#[test]
fn a_roster_is_read_back_holds_no_secret_and_is_for_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/roster.json");
    assert!(Roster::load(&path).unwrap_err().to_string().contains("deep/roster.json"));
    let token = Token::make("p1".parse().unwrap());
    let mut roster = Roster::load_or_new(&path).unwrap();
    roster.add(token.name().clone(), entry(&token)).unwrap();
    roster.save(&path).unwrap();
    assert_eq!(Roster::load(&path).unwrap(), roster);
    assert!(!fs::read_to_string(&path).unwrap().contains(token.secret()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn only_the_right_secret_of_one_who_is_not_revoked_is_taken() {
    let token = Token::make("p1".parse().unwrap());
    let mut roster = Roster::default();
    roster.add(token.name().clone(), entry(&token)).unwrap();
    assert_eq!(roster.holder(&token).unwrap().role, Some(Role::Proplet));
    assert!(roster.holder(&Token::make("p1".parse().unwrap())).is_none());
    assert!(roster.holder(&Token::make("p2".parse().unwrap())).is_none());
    assert!(roster.add(token.name().clone(), entry(&token)).is_err(), "the name is taken");
    roster.revoke(token.name(), "2026-01-13T00:00:00Z").unwrap();
    assert!(roster.holder(&token).is_none());
    let again = Token::make("p1".parse().unwrap());
    roster.add(again.name().clone(), entry(&again)).unwrap();
    assert!(roster.holder(&again).is_some() && roster.holder(&token).is_none());
    assert!(roster.revoke(&"nobody".parse().unwrap(), "").is_err());
}

#[test]
fn scopes_include_the_lesser_ones() {
    let with = |scope| Entry { scopes: [scope].into(), ..Entry::new("") };
    assert!(with(Scope::Admin).may(Scope::Tasks) && with(Scope::Tasks).may(Scope::Read));
    assert!(!with(Scope::Read).may(Scope::Tasks) && !with(Scope::Tasks).may(Scope::Admin));
    assert!(!Entry::new("").may(Scope::Read));
}

/// A roster with one holder, in its file.
fn saved(path: &Path) -> (Token, Roster) {
    let token = Token::make("p1".parse().unwrap());
    let mut roster = Roster::default();
    roster.add(token.name().clone(), entry(&token)).unwrap();
    roster.save(path).unwrap();
    (token, roster)
}

#[test]
fn a_live_roster_follows_its_file_and_survives_a_bad_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster.json");
    let (token, mut roster) = saved(&path);
    let live = LiveRoster::open(&path).unwrap();
    assert!(live.now().holder(&token).is_some());
    fs::write(&path, "{ not a roster").unwrap();
    assert!(live.now().holder(&token).is_some(), "a bad file lets nobody in or out");
    roster.revoke(token.name(), "2026-01-13T00:00:00Z").unwrap();
    roster.save(&path).unwrap();
    assert!(live.now().holder(&token).is_none());
    assert!(live.last().holder(&token).is_none());
}

#[test]
fn a_roster_stays_whose_it_was_and_readable_to_whom_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster.json");
    let lock = dir.path().join("roster.json.lock");
    Roster::default().save(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    // Only root can give a file away; as anybody else, the mode is looked at alone.
    let _ = chown(&path, Some(12_345), Some(23_456));
    let of = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    let before = of(&path);
    assert_eq!(before.2, 0o640);
    let token = Token::make("p1".parse().unwrap());
    for _ in 0..2 {
        let change = |roster: &mut Roster| {
            roster.add(token.name().clone(), entry(&token))?;
            roster.revoke(token.name(), "2026-01-13T00:00:00Z")
        };
        Roster::edit(&path, change).unwrap();
        assert_eq!((of(&path), of(&lock)), (before, before));
        // One that an earlier version has left behind.
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_roster_that_could_not_be_read_is_read_as_soon_as_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster.json");
    let (token, mut roster) = saved(&path);
    let live = LiveRoster::open(&path).unwrap();
    roster.revoke(token.name(), "2026-01-13T00:00:00Z").unwrap();
    roster.save(&path).unwrap();
    let good = fs::read(&path).unwrap();
    // The same file, of the same length and time: all that changes is whether it can be read.
    let write = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH)
    };
    write(&vec![b'?'; good.len()]).unwrap();
    assert!(live.now().holder(&token).is_some() && live.now().holder(&token).is_some());
    write(&good).unwrap();
    assert!(live.now().holder(&token).is_none());
}

#[test]
fn an_unknown_field_or_role_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster.json");
    for (text, named) in [
        (r#"{"entries":{"p1":{"role":"root","created_at":""}}}"#, "root"),
        (r#"{"entries":{"p1":{"scpoes":[],"created_at":""}}}"#, "scpoes"),
        (r#"{"entries":{"p/1":{"created_at":""}}}"#, "'/'"),
    ] {
        fs::write(&path, text).unwrap();
        let refused = Roster::load(&path).unwrap_err().to_string();
        assert!(refused.contains(named), "{refused}");
    }
}

#[test]
fn an_authority_is_kept_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let made = Authority::new("site", OffsetDateTime::UNIX_EPOCH).unwrap();
    made.save(dir.path()).unwrap();
    let key = dir.path().join("ca.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Authority::load(dir.path()).unwrap().pem(), made.pem());
    let other = Authority::new("other", OffsetDateTime::UNIX_EPOCH).unwrap();
    assert!(other.save(dir.path()).unwrap_err().to_string().contains("already"));
}
