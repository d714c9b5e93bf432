//! Enrolment as it happens in the field: an operator's token, a device that makes its own keys, and
//! a registrar between them; and who is revoked is out again.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command as Words, Output},
    thread,
    time::{Duration, Instant, SystemTime},
};

use e2e::{Command, Process, eventually, free_port, tool};

use crate::site::{Site, secret_in, secret_of};

/// What revocation may take.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

struct Registrar {
    process: Process,
    url: String,
}

fn registrar(site: &Site, name: &str, ca_dir: &str) -> Registrar {
    let port = free_port();
    let env = [
        ("HTTP_PORT", port.to_string()),
        ("HOSTS", "localhost".to_owned()),
        ("CA_DIR", ca_dir.to_owned()),
        ("ROSTER_FILE", "roster.json".to_owned()),
        ("MQTT_ADDRESS", format!("ssl://localhost:{}", site.mqtt)),
    ]
    .map(|(key, value)| (format!("REGISTRAR_{key}"), value));
    let process = Command::service(site.dir(), name, "registrar", &env).start();
    process.wait_for_log("registrar started");
    Registrar { process, url: format!("https://localhost:{port}") }
}

fn enroll(site: &Site, url: &str, token: &str, out: &str) -> Output {
    site.aileron(&["enroll", url, "--join", token, "--out", out])
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(why), "not {why:?}: {said}");
}

/// What curl gets: a body, and the status behind it.
fn curl(words: &[&str]) -> (String, String) {
    let mut curl = Words::new(tool("curl"));
    let output = curl.args(["-ksS", "-w", "\n%{http_code}"]).args(words).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap();
    (body.to_owned(), status.to_owned())
}

#[test]
fn a_device_joins_runs_and_is_out_within_a_second_of_its_revocation() {
    let site = Site::new();
    let admin = site.does(&["token", "new", "admin", "--scopes", "admin"]);
    let broker = site.broker();
    let _services = site.services();
    let door = registrar(&site, "registrar", "ca");
    let token = site.does(&["token", "join", "edge-1", "--expires", "10m"]);
    let data = site.data("edge-1");
    let words = ["enroll", &door.url, "--join", &token, "--out", "edge-1", "--data-dir", &data];
    let joined = site.aileron(&words);
    let said = String::from_utf8_lossy(&joined.stderr).into_owned();
    assert!(joined.status.success(), "{said}");
    for file in ["proplet.toml", "proplet.key", "proplet.sign", "proplet.pem", "ca.pem"] {
        let mode = fs::metadata(site.path("edge-1").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(!enroll(&site, &door.url, &token, "edge-1").status.success(), "nothing is overwritten");
    refused(&enroll(&site, &door.url, &token, "edge-1b"), "was used at");
    assert!(!site.path("edge-1b/proplet.key").exists(), "who is refused leaves no keys behind");

    let mut command = Command::service(site.dir(), "edge-1-proplet", "proplet", &[]);
    command.args.push("--config=edge-1/proplet.toml".to_owned());
    let proplet = command.start();
    site.wait_for_alive(&admin, 1);
    site.does(&["ca", "issue", "operator", "--role", "operator"]);
    let round = site.round(&admin, "edge-1", &["--timeout-s=60"]);
    let why = String::from_utf8_lossy(&round.stderr).into_owned();
    assert!(
        round.status.success(),
        "its updates are signed with the key that it joined with: {why}"
    );

    let before = broker.log().matches("no longer welcome").count();
    let told = Instant::now();
    site.does(&["token", "revoke", "edge-1"]);
    let done = Instant::now();
    eventually("the revoked device is cut off", || {
        (broker.log().matches("no longer welcome").count() > before).then_some(())
    });
    let (whole, after) = (told.elapsed(), done.elapsed());
    e2e::say(&format!("cut off {after:?} after the revocation, {whole:?} with the command"));
    assert!(after < REVOKED_WITHIN, "it took {after:?}");
    site.wait_for_alive(&admin, 0);
    broker.wait_for_log("was revoked");

    let key = site.path("edge-1");
    let mut secrets = vec![secret_in(&token), secret_in(&admin)];
    secrets.extend(["proplet.key", "proplet.sign"].map(|file| secret_of(&key.join(file))));
    secrets.push(secret_of(&site.path("ca/ca.key")));
    drop(proplet);
    site.no_log_holds(&secrets, 6);
    let roster = fs::read_to_string(site.path("roster.json")).unwrap();
    assert!(secrets.iter().all(|secret| !roster.contains(secret)), "nor does the roster");
    assert!(!joined.stdout.is_empty() && !said.contains(&secrets[0]));
}

#[test]
fn a_token_lets_in_one_device_and_whatever_is_wrong_is_refused_and_counted() {
    let site = Site::new();
    let door = registrar(&site, "registrar", "ca");
    let token = site.does(&["token", "join", "edge-1"]);
    let outcomes: Vec<Output> = thread::scope(|scope| {
        let (site, url, token) = (&site, &door.url, &token);
        let devices: Vec<_> = (0..6)
            .map(|n| scope.spawn(move || enroll(site, url, token, &format!("twin-{n}"))))
            .collect();
        devices.into_iter().map(|device| device.join().unwrap()).collect()
    });
    let (joined, late): (Vec<_>, Vec<_>) =
        outcomes.into_iter().partition(|output| output.status.success());
    assert_eq!((joined.len(), late.len()), (1, 5));
    late.iter().for_each(|output| refused(output, "was used at"));

    // A secret that was guessed, a name that nobody invited, a time that has passed.
    let second = site.does(&["token", "join", "edge-2"]);
    let guessed = second.replace(&secret_in(&second), &"0".repeat(64));
    refused(&enroll(&site, &door.url, &guessed, "x"), "unknown, revoked or wrong");
    let renamed = second.replacen("edge-2", "edge-3", 1);
    refused(&enroll(&site, &door.url, &renamed, "x"), "unknown, revoked or wrong");
    let brief = site.does(&["token", "join", "edge-4", "--expires", "1s"]);
    let over = SystemTime::now() + Duration::from_secs(1);
    eventually("the token has expired", || (SystemTime::now() > over).then_some(()));
    refused(&enroll(&site, &door.url, &brief, "x"), "expired at");
    refused(&enroll(&site, &door.url, "edge-2", "x"), "NAME.SECRET.AUTHORITY");
    refused(&enroll(&site, "http://localhost:1", &second, "x"), "https://");

    // Another authority answers where the device was sent: it gets nothing from it.
    site.does(&["ca", "init", "--name", "Other", "--ca-dir", "other"]);
    let impostor = registrar(&site, "impostor", "other");
    refused(
        &enroll(&site, &impostor.url, &second, "x"),
        "is not the registrar that made the token",
    );
    assert!(!impostor.process.log().contains("refused"), "it was not asked");
    let elsewhere = door.url.replace("localhost", "127.0.0.1");
    refused(&enroll(&site, &elsewhere, &second, "x"), "not valid for name");

    let join = format!("{}/join", door.url);
    fs::write(site.path("large"), vec![b'a'; 100_000]).unwrap();
    let large = format!("@{}", site.path("large").display());
    let (said, status) = curl(&["--data-binary", &large, &join]);
    assert!(status == "413" && said.contains("16384"), "{status} {said}");
    let hidden = "{\"token\":\"do-not-repeat-me\"}";
    for body in ["", "[]", "{\"token\":5}", hidden] {
        let (said, status) = curl(&["--data-binary", body, &join]);
        assert!(status == "400" && !said.contains("do-not-repeat-me"), "{status} {said}");
    }
    let (figures, _) = curl(&[&format!("{}/metrics", door.url)]);
    for (outcome, count) in [
        ("joined", 1),
        ("used_token", 5),
        ("unknown_token", 2),
        ("expired_token", 1),
        ("malformed", 5),
    ] {
        let line = format!("aileron_joins_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(figures.contains(&line), "no {line} in {figures}");
    }
    assert!(enroll(&site, &door.url, &second, "edge-2").status.success(), "it is still good");
    let tokens = [&token, &second, &brief].map(|token| secret_in(token));
    site.no_log_holds(&tokens, 2);
    assert!(!door.process.log().contains("do-not-repeat-me"));
}

#[test]
fn a_registrar_starts_only_with_what_it_needs() {
    let site = Site::new();
    for (words, named) in [
        (&["--mqtt-address=tcp://localhost:1883"][..], "ssl://"),
        (&["--mqtt-address=ssl://localhost:8883", "--ca-dir=nowhere"], "nowhere"),
        (
            &["--mqtt-address=ssl://localhost:8883", "--ca-dir=ca", "--mqtt-ca-file=x"],
            "mqtt_ca_file",
        ),
        (&["--ca-dir=ca"], "mqtt_address"),
    ] {
        let output = site.aileron(&[&["registrar"], words].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(64) && said.contains(named), "{words:?}: {said}");
    }
}
