//! Everything locked: TLS both ways at the broker, a role for everybody, HTTPS and tokens at the
//! manager, signed updates; and a round on top of it, as an operator runs it.

use std::{
    fs,
    path::Path,
    process::{Command as Words, Output},
};

use e2e::{Command, Process, aileron, eventually, free_port};

struct Site {
    dir: tempfile::TempDir,
    mqtt: u16,
    http: u16,
}

impl Site {
    fn aileron(&self, words: &[&str]) -> Output {
        let dir = self.dir.path();
        let mut command = Words::new(aileron());
        command.args(words).current_dir(dir);
        command.env("AILERON_ROSTER_FILE", dir.join("roster.json")).env("AILERON_CA_DIR", "ca");
        command.output().unwrap()
    }

    #[track_caller]
    fn does(&self, words: &[&str]) -> String {
        let output = self.aileron(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A service with a certificate of its own.
    fn service(&self, name: &str, service: &str, more: &[(&str, &str)]) -> Process {
        let signing_key = format!("{name}.sign");
        self.does(&["ca", "issue", name, "--role", service, "--signing-key", &signing_key]);
        let prefix = service.to_uppercase().replace('-', "_");
        let own = [
            ("MQTT_ADDRESS", format!("ssl://localhost:{}", self.mqtt)),
            ("MQTT_CA_FILE", "ca/ca.pem".to_owned()),
            ("MQTT_CERT_FILE", format!("{name}.pem")),
            ("MQTT_KEY_FILE", format!("{name}.key")),
            ("STATE_DIR", format!("{name}-state")),
        ];
        let more = more.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let env: Vec<_> = own
            .into_iter()
            .chain(more)
            .map(|(key, value)| (format!("{prefix}_{key}"), value))
            .collect();
        Command::service(self.dir.path(), name, service, &env).start()
    }

    /// A proplet with some rows to learn from.
    fn proplet(&self, id: &str) -> Process {
        let data = self.dir.path().join(format!("{id}-data"));
        fs::create_dir(&data).unwrap();
        let rows: String = (0..32_u32)
            .map(|i| format!("{}.0,{}.0,{}.0,{}.0\n", i % 2, i % 3, i % 5, i % 7))
            .collect();
        fs::write(data.join("rows.csv"), rows).unwrap();
        let data = data.display().to_string();
        let key = format!("{id}.sign");
        self.service(id, "proplet", &[("ID", id), ("DATA_DIR", &data), ("SIGNING_KEY_FILE", &key)])
    }

    fn broker(&self) -> Process {
        let words = [
            format!("--listen=127.0.0.1:{}", self.mqtt),
            "--roster-file=roster.json".to_owned(),
            "--tls-cert-file=broker.pem".to_owned(),
            "--tls-key-file=broker.key".to_owned(),
            "--tls-client-ca-file=ca/ca.pem".to_owned(),
        ];
        let mut command = Command::service(self.dir.path(), "broker", "broker", &[]);
        command.args.extend(words);
        command.start()
    }
}

#[test]
fn a_round_is_run_with_everything_locked_and_no_secret_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site { dir, mqtt: free_port(), http: free_port() };
    site.does(&["ca", "init"]);
    let again = site.aileron(&["ca", "init"]);
    assert!(!again.status.success(), "an authority is not made twice");
    site.does(&["ca", "issue", "broker", "--hosts", "localhost"]);
    site.does(&["ca", "issue", "web", "--hosts", "localhost"]);
    let admin = site.does(&["token", "new", "admin", "--scopes", "admin"]);
    let http = site.http.to_string();
    let _broker = site.broker();
    let manager = site.service(
        "manager",
        "manager",
        &[
            ("HTTP_PORT", &http),
            ("HTTP_TLS_CERT_FILE", "web.pem"),
            ("HTTP_TLS_KEY_FILE", "web.key"),
            ("ROSTER_FILE", "roster.json"),
        ],
    );
    let _services = [
        site.service(
            "coordinator",
            "coordinator",
            &[("HTTP_PORT", "0"), ("SIGNATURES", "required"), ("ROSTER_FILE", "roster.json")],
        ),
        site.service("model-server", "model-server", &[]),
        site.proplet("p1"),
        site.proplet("p2"),
    ];
    site.does(&["ca", "issue", "operator", "--role", "operator"]);
    manager.wait_for_log("asks for tokens");
    let url = format!("https://localhost:{}", site.http);
    let web = ["--http", &url, "--http-ca-file", "ca/ca.pem"];
    let mut listing = vec!["proplet", "list", "--format", "json"];
    listing.extend(web);
    let refused = site.aileron(&listing);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("needs a token"), "{said}");
    listing.extend(["--token", &admin]);
    eventually("both proplets are alive", || {
        let said = String::from_utf8(site.aileron(&listing).stdout).unwrap();
        (said.matches("\"alive\": true").count() == 2).then_some(())
    });
    let mqtt = format!("ssl://localhost:{}", site.mqtt);
    let mut round = vec!["round", "start", "--watch", "--participants", "p1,p2", "--timeout-s=60"];
    round.extend(["--hyperparams", r#"{"model":"linear"}"#]);
    round.extend(["--mqtt-address", &mqtt, "--mqtt-ca-file", "ca/ca.pem"]);
    round.extend(["--mqtt-cert-file", "operator.pem", "--mqtt-key-file", "operator.key"]);
    round.extend(web);
    round.extend(["--token", &admin]);
    site.does(&round);
    let proplet_revoked = ["token", "revoke", "p2"];
    site.does(&proplet_revoked);
    eventually("the revoked proplet is offline", || {
        let said = String::from_utf8(site.aileron(&listing).stdout).unwrap();
        (said.matches("\"alive\": true").count() == 1).then_some(())
    });
    no_secret_is_logged(site.dir.path(), &admin);
}

/// Reads every log: no token, no private key.
fn no_secret_is_logged(dir: &Path, token: &str) {
    let secret = token.rsplit('.').next().unwrap();
    let mut logs = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            logs += 1;
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains(secret), "{} holds a token", path.display());
            assert!(!text.contains("PRIVATE KEY"), "{} holds a key", path.display());
            for id in ["p1", "p2"] {
                let key = fs::read_to_string(dir.join(format!("{id}.sign"))).unwrap();
                let key = key.trim().strip_prefix("ed25519 ").unwrap();
                assert!(!text.contains(key), "{} holds a signing key", path.display());
            }
        }
    }
    assert!(logs >= 5, "there are logs to look at");
}
