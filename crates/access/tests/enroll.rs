//! Enrolment as its two sides see it: who gets in, who does not, and what is left of a token.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{fs, path::Path, sync::Barrier, thread, time::Duration};

use access::{
    Applicant, Authority, Entry, JoinError, JoinRequest, JoinToken, RequestError, Roster,
    SigningKey, facts, fingerprint, moment,
};
use protocol::{Timestamp, topic::Role};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_micros(1_768_464_194_000_000);
const HOUR: Duration = Duration::from_secs(3600);

struct Site {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, authority: Authority::new("site", moment(NOW)).unwrap() }
    }

    fn roster(&self) -> std::path::PathBuf {
        self.dir.path().join("roster.json")
    }

    fn invite(&self, name: &str) -> JoinToken {
        let token = JoinToken::make(name.parse().unwrap(), self.authority.fingerprint().unwrap());
        let entry = Entry { invitation: Some(token.invitation(NOW, HOUR)), ..Entry::new("") };
        Roster::edit(&self.roster(), |all| all.add(token.name().clone(), entry)).unwrap();
        token
    }

    fn admit(&self, request: &JoinRequest, at: Timestamp) -> Result<String, JoinError> {
        Roster::edit(&self.roster(), |roster| {
            let (name, certified) = request.admit(&self.authority, roster, at, 30)?;
            let said = facts(&certified.certificate_der).unwrap();
            assert_eq!(said.name.as_deref(), Some(name.as_str()));
            Ok(fingerprint(&certified.certificate_der))
        })
    }
}

/// A request whose fields were changed on the way.
fn with(request: &JoinRequest, changes: &[(&str, Value)]) -> JoinRequest {
    let mut said = serde_json::to_value(request).unwrap();
    for (field, value) in changes {
        said[field] = value.clone();
    }
    serde_json::from_value(said).unwrap()
}

/// A request in the name of `token` with a certificate request of any kind, signed as it should be.
fn asking(token: &JoinToken, params: &CertificateParams) -> JoinRequest {
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let key = SigningKey::make().unwrap();
    let statement =
        format!("aileron enrolment 1\n{}\n{}\n", token.name(), fingerprint(pem.as_bytes()));
    let request = Applicant::new(token).unwrap().request;
    let proof = key.sign(statement.as_bytes());
    let changes =
        [("request", json!(pem)), ("signing_key", json!(key.public())), ("proof", json!(proof))];
    with(&request, &changes)
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_device_joins_once_with_keys_of_its_own_and_the_roster_holds_no_secret() {
    let site = Site::new();
    let token = site.invite("p1");
    let roster = Roster::load(&site.roster()).unwrap();
    assert!(roster.get("p1").unwrap().is_invited());
    let read: JoinToken = token.expose().parse().unwrap();
    assert_eq!(read, token);
    let device = Applicant::new(&read).unwrap();
    let certificate = site.admit(&device.request, NOW).unwrap();
    let roster = Roster::load(&site.roster()).unwrap();
    let entry = roster.get("p1").unwrap();
    assert_eq!(entry.role, Some(Role::Proplet));
    assert_eq!(entry.certificate_sha256.as_deref(), Some(&*certificate));
    assert_eq!(entry.public_key, Some(device.signing_key.public()));
    assert!(!entry.is_invited());
    let secret = token.expose().split('.').nth(1).unwrap().to_owned();
    let private = device.signing_key.text();
    let private = private.trim().strip_prefix("ed25519 ").unwrap();
    for hidden in [secret.as_str(), private, "PRIVATE"] {
        assert!(!text(&site.roster()).contains(hidden));
    }
    // The very same again, and another device with the same token.
    let other = Applicant::new(&token).unwrap();
    for again in [&device.request, &other.request] {
        let why = site.admit(again, NOW + HOUR).unwrap_err();
        assert!(matches!(why, JoinError::Used(_)), "{why}");
    }
    assert_eq!(Roster::load(&site.roster()).unwrap(), roster, "a refusal changes nothing");
}

#[test]
fn who_has_no_good_token_stays_out_and_a_refusal_does_not_use_it_up() {
    let site = Site::new();
    let token = site.invite("p1");
    let good = Applicant::new(&token).unwrap().request;
    let fingerprint = site.authority.fingerprint().unwrap();
    let strangers = JoinToken::make("p1".parse().unwrap(), fingerprint.clone());
    let unknown = JoinToken::make("p2".parse().unwrap(), fingerprint);
    for token in [&strangers, &unknown] {
        let request = Applicant::new(token).unwrap().request;
        let why = site.admit(&request, NOW).unwrap_err();
        assert!(matches!(why, JoinError::Unknown), "{why}");
    }
    let late = site.admit(&good, NOW + HOUR).unwrap_err();
    assert!(matches!(late, JoinError::Expired(_)), "{late}");
    // The secret of one name does not open another's place.
    let second = site.invite("p3");
    let swapped = token.expose().replacen("p1.", "p3.", 1);
    let swapped = Applicant::new(&swapped.parse().unwrap()).unwrap().request;
    assert!(matches!(site.admit(&swapped, NOW), Err(JoinError::Unknown)));
    Roster::edit(&site.roster(), |all| all.revoke(second.name(), "")).unwrap();
    let revoked = Applicant::new(&second).unwrap().request;
    assert!(matches!(site.admit(&revoked, NOW), Err(JoinError::Unknown)));
    assert!(site.admit(&good, NOW).is_ok(), "after all that, the token is still good");
}

#[test]
fn what_was_changed_on_the_way_is_refused() {
    let site = Site::new();
    let token = site.invite("p1");
    let good = Applicant::new(&token).unwrap().request;
    let other = Applicant::new(&token).unwrap();
    let others = serde_json::to_value(&other.request).unwrap();
    for (field, value) in [
        ("signing_key", others["signing_key"].clone()),
        ("request", others["request"].clone()),
        ("proof", others["proof"].clone()),
        ("proof", json!("")),
        ("signing_key", json!("AAAA")),
    ] {
        let why = site.admit(&with(&good, &[(field, value)]), NOW).unwrap_err();
        assert!(matches!(why, JoinError::SigningKey), "{field}: {why}");
    }
    for token in ["", "p1", "p1.abc", "../x.0"] {
        let why = site.admit(&with(&good, &[("token", json!(token))]), NOW).unwrap_err();
        assert!(matches!(why, JoinError::Token(_)), "{token}: {why}");
    }
    assert!(site.admit(&good, NOW).is_ok());
}

#[test]
fn a_request_for_more_than_a_client_certificate_in_the_own_name_is_refused() {
    let site = Site::new();
    let token = site.invite("p1");
    let mut authority = named("p1");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut hosts = named("p1");
    hosts.subject_alt_names =
        CertificateParams::new(["broker.example".to_owned()]).unwrap().subject_alt_names;
    let mut server = named("p1");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut signer = named("p1");
    signer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let mut two_names = named("manager");
    two_names.distinguished_name.push(DnType::OrganizationName, "p1");
    let refused = |params: &CertificateParams| match site.admit(&asking(&token, params), NOW) {
        Err(JoinError::Request(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&authority), RequestError::Authority);
    assert_eq!(refused(&hosts), RequestError::Hosts);
    assert_eq!(refused(&server), RequestError::Usage);
    assert_eq!(refused(&signer), RequestError::Usage);
    for params in [&named("manager"), &two_names, &named("")] {
        assert!(matches!(refused(params), RequestError::Name { .. }));
    }
    let mut plain = named("p1");
    plain.is_ca = IsCa::ExplicitNoCa;
    assert!(site.admit(&asking(&token, &plain), NOW).is_ok());
}

#[test]
fn of_many_with_one_token_exactly_one_gets_in() {
    let site = Site::new();
    let token = site.invite("p1");
    let start = Barrier::new(8);
    let outcomes = thread::scope(|scope| {
        let devices: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let request = Applicant::new(&token).unwrap().request;
                    start.wait();
                    site.admit(&request, NOW)
                })
            })
            .collect();
        devices.into_iter().map(|device| device.join().unwrap()).collect::<Vec<_>>()
    });
    let (joined, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((joined.len(), refused.len()), (1, 7));
    assert!(refused.into_iter().all(|why| matches!(why, Err(JoinError::Used(_)))));
    let entry = Roster::load(&site.roster()).unwrap().get("p1").unwrap().clone();
    assert_eq!(entry.certificate_sha256, joined.into_iter().next().unwrap().ok());
}

#[test]
fn changes_at_the_same_time_are_all_kept() {
    let site = Site::new();
    thread::scope(|scope| {
        for n in 0..16 {
            let site = &site;
            scope.spawn(move || site.invite(&format!("p{n}")));
        }
    });
    assert_eq!(Roster::load(&site.roster()).unwrap().iter().count(), 16);
}

#[test]
fn a_new_invitation_takes_the_place_of_an_unused_one_and_of_nobody_else() {
    let site = Site::new();
    let (first, second) = (site.invite("p1"), site.invite("p1"));
    let first = Applicant::new(&first).unwrap().request;
    assert!(matches!(site.admit(&first, NOW), Err(JoinError::Unknown)));
    site.admit(&Applicant::new(&second).unwrap().request, NOW).unwrap();
    let third = JoinToken::make("p1".parse().unwrap(), site.authority.fingerprint().unwrap());
    let entry = Entry { invitation: Some(third.invitation(NOW, HOUR)), ..Entry::new("") };
    let taken = Roster::edit(&site.roster(), |all| all.add(third.name().clone(), entry));
    assert!(taken.unwrap_err().to_string().contains("already"));
}

#[test]
fn a_token_for_joining_hides_itself_and_nothing_else_is_taken_for_one() {
    let token = JoinToken::make("site-1.p1".parse().unwrap(), "a".repeat(64));
    let secret = token.expose().rsplit('.').nth(1).unwrap().to_owned();
    assert!(!format!("{token:?}").contains(&secret));
    let request = Applicant::new(&token).unwrap();
    assert!(!format!("{request:?}").contains(&secret));
    let whole = token.expose();
    for bad in ["", "x.y.z", &whole[..whole.len() - 1], &whole.to_uppercase()] {
        let why = bad.parse::<JoinToken>().unwrap_err().to_string();
        assert!(!why.contains(&secret) && why.contains("NAME.SECRET.AUTHORITY"), "{why}");
    }
}
