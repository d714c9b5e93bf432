//! A platform with everything locked, as its operator sets it up: an authority, a roster, a broker
//! with TLS both ways, and services with certificates of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command as Words, Output},
};

use e2e::{Command, Process, aileron, eventually, free_port};

pub(crate) struct Site {
    dir: tempfile::TempDir,
    pub(crate) mqtt: u16,
    pub(crate) http: u16,
}

impl Site {
    /// An authority, and certificates for the broker and the manager's HTTP API.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Self { dir, mqtt: free_port(), http: free_port() };
        site.does(&["ca", "init"]);
        site.does(&["ca", "issue", "broker", "--hosts", "localhost"]);
        site.does(&["ca", "issue", "web", "--hosts", "localhost"]);
        site
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn aileron(&self, words: &[&str]) -> Output {
        let dir = self.dir.path();
        let mut command = Words::new(aileron());
        command.args(words).current_dir(dir);
        command.env("AILERON_ROSTER_FILE", dir.join("roster.json")).env("AILERON_CA_DIR", "ca");
        command.output().unwrap()
    }

    #[track_caller]
    pub(crate) fn does(&self, words: &[&str]) -> String {
        let output = self.aileron(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A service with a certificate of its own.
    pub(crate) fn service(&self, name: &str, service: &str, more: &[(&str, &str)]) -> Process {
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

    /// A directory with some rows to learn from.
    pub(crate) fn data(&self, id: &str) -> String {
        let data = self.dir.path().join(format!("{id}-data"));
        fs::create_dir(&data).unwrap();
        let rows: String = (0..32_u32)
            .map(|i| format!("{}.0,{}.0,{}.0,{}.0\n", i % 2, i % 3, i % 5, i % 7))
            .collect();
        fs::write(data.join("rows.csv"), rows).unwrap();
        data.display().to_string()
    }

    /// A proplet with data of its own.
    pub(crate) fn proplet(&self, id: &str) -> Process {
        let (data, key) = (self.data(id), format!("{id}.sign"));
        self.service(id, "proplet", &[("ID", id), ("DATA_DIR", &data), ("SIGNING_KEY_FILE", &key)])
    }

    pub(crate) fn broker(&self) -> Process {
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

    /// Manager with HTTPS and tokens, coordinator that wants signatures, model server.
    pub(crate) fn services(&self) -> [Process; 3] {
        let http = self.http.to_string();
        let web = [
            ("HTTP_PORT", http.as_str()),
            ("HTTP_TLS_CERT_FILE", "web.pem"),
            ("HTTP_TLS_KEY_FILE", "web.key"),
            ("ROSTER_FILE", "roster.json"),
        ];
        let judge =
            [("HTTP_PORT", "0"), ("SIGNATURES", "required"), ("ROSTER_FILE", "roster.json")];
        [
            self.service("manager", "manager", &web),
            self.service("coordinator", "coordinator", &judge),
            self.service("model-server", "model-server", &[]),
        ]
    }

    /// Words that lead a command to the manager's HTTP API.
    pub(crate) fn web(&self, token: &str) -> Vec<String> {
        let url = format!("https://localhost:{}", self.http);
        ["--http", &url, "--http-ca-file", "ca/ca.pem", "--token", token].map(str::to_owned).into()
    }

    /// Waits until so many proplets are alive at the manager.
    #[track_caller]
    pub(crate) fn wait_for_alive(&self, token: &str, count: usize) {
        let web = self.web(token);
        let listing = ["proplet", "list", "--format", "json"];
        let words: Vec<&str> = listing.into_iter().chain(web.iter().map(String::as_str)).collect();
        eventually(&format!("{count} proplets are alive"), || {
            let said = String::from_utf8(self.aileron(&words).stdout).unwrap();
            (said.matches("\"alive\": true").count() == count).then_some(())
        });
    }

    /// Starts a round with these proplets and waits for its end; what it printed.
    pub(crate) fn round(&self, token: &str, participants: &str, more: &[&str]) -> Output {
        let mqtt = format!("ssl://localhost:{}", self.mqtt);
        let web = self.web(token);
        let mut round = vec!["round", "start", "--watch", "--participants", participants];
        round.extend(["--hyperparams", r#"{"model":"linear"}"#]);
        round.extend(["--mqtt-address", &mqtt, "--mqtt-ca-file", "ca/ca.pem"]);
        round.extend(["--mqtt-cert-file", "operator.pem", "--mqtt-key-file", "operator.key"]);
        round.extend(more);
        round.extend(web.iter().map(String::as_str));
        self.aileron(&round)
    }

    /// Every log that was written here: none of it holds any of `secrets`, or a private key.
    pub(crate) fn no_log_holds(&self, secrets: &[String], logs_min: usize) {
        let mut logs = 0;
        for entry in fs::read_dir(self.dir()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                logs += 1;
                let text = fs::read_to_string(&path).unwrap();
                assert!(!text.contains("PRIVATE KEY"), "{} holds a key", path.display());
                for secret in secrets {
                    assert!(secret.len() > 16, "{secret:?} is no secret");
                    assert!(!text.contains(secret), "{} holds a secret", path.display());
                }
            }
        }
        assert!(logs >= logs_min, "there are {logs} logs to look at");
    }
}

/// A private key's file, as one line of it that nobody may see.
pub(crate) fn secret_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| !line.starts_with('-')).unwrap();
    line.trim_start_matches("ed25519 ").trim().to_owned()
}

/// The part of a token that nobody may see.
pub(crate) fn secret_in(token: &str) -> String {
    token.split('.').find(|part| part.len() == 64).unwrap().to_owned()
}
