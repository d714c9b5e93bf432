//! Settings as an operator meets them: where they come from, who wins, and what errors say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{ffi::OsString, net::IpAddr, path::PathBuf};

use service::{
    settings::{Environment, MqttArgs, Resolved, Settings, SettingsError, StateArgs, resolve},
    telemetry::{LogArgs, LogFormat},
};

#[derive(Clone, Debug, clap::Args)]
struct Demo {
    #[command(flatten)]
    mqtt: MqttArgs,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    log: LogArgs,
    /// Address of the HTTP API
    #[arg(default_value = "127.0.0.1")]
    http_host: IpAddr,
    /// Port of the HTTP API, 0 to 65535
    #[arg(default_value_t = 7070)]
    http_port: u16,
    /// Whether rounds start by themselves
    lazy_rounds: bool,
    /// Hosts that modules are fetched from
    hosts: Vec<String>,
    /// Largest share of updates that may fail, 0 to 1
    #[arg(default_value_t = 0.5)]
    share: f64,
    /// Name of this service
    name: String,
}

impl Settings for Demo {
    const SERVICE: &'static str = "model-server";
    const ABOUT: &'static str = "Stands in for a service";

    fn check(&self) -> Result<(), SettingsError> {
        if self.share > 1.0 {
            return Err(SettingsError::invalid("share", self.share, "at most 1"));
        }
        Ok(())
    }
}

struct Asked {
    words: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    dir: tempfile::TempDir,
}

fn asked(words: &str) -> Asked {
    Asked {
        words: words.split_whitespace().map(OsString::from).collect(),
        variables: vec![],
        dir: tempfile::tempdir().unwrap(),
    }
}

impl Asked {
    fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((format!("MODEL_SERVER_{variable}"), value.into()));
        self
    }

    fn file(mut self, toml: &str) -> Self {
        let path = self.path();
        std::fs::write(&path, toml).unwrap();
        self.variables.push(("MODEL_SERVER_CONFIG".to_owned(), path.into()));
        self
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("aileron.toml")
    }

    fn resolve(&self) -> Result<Resolved<Demo>, SettingsError> {
        let environment = self.variables.iter().cloned().collect::<Environment>();
        resolve::<Demo>(&self.words, &environment)
    }

    fn run(&self) -> Demo {
        match self.resolve() {
            Ok(Resolved::Run(settings)) => settings,
            Ok(Resolved::Print(text)) => panic!("printed {text}"),
            Err(why) => panic!("{why}"),
        }
    }

    /// The error, which must name everything in `parts`.
    fn fails(&self, parts: &[&str]) {
        let why = self.resolve().expect_err("it is wrong").to_string();
        for part in parts {
            assert!(why.contains(part), "{part:?} is missing in: {why}");
        }
    }

    fn prints(&self) -> String {
        match self.resolve() {
            Ok(Resolved::Print(text)) => text,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn defaults_fill_in_what_nobody_says() {
    let settings = asked("--name x").run();
    assert_eq!(settings.http_port, 7070);
    assert_eq!(settings.state.state_dir, PathBuf::from(".aileron/model-server"));
    assert_eq!(settings.mqtt.mqtt_address.to_string(), "tcp://127.0.0.1:1883");
    assert_eq!(settings.mqtt.domain_id.as_str(), "demo");
    assert_eq!(settings.mqtt.channel_id.as_str(), "fl");
    assert!(!settings.lazy_rounds && settings.hosts.is_empty());
    assert_eq!(settings.log.log_format, LogFormat::Text);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let toml = "[model-server]\nhttp_port = 1\nname = 'file'\nshare = 0.25\nhttp_host = '::1'\n";
    let all = asked("--http-port 3 --name flag").with("HTTP_PORT", "2").with("SHARE", "0.75");
    let settings = all.file(toml).run();
    assert_eq!((settings.http_port, settings.name.as_str()), (3, "flag"));
    assert_eq!((settings.share, settings.http_host.to_string().as_str()), (0.75, "::1"));
    assert_eq!(asked("").with("HTTP_PORT", "2").file(toml).run().http_port, 2);
    assert_eq!(asked("").with("HTTP_PORT", "").file(toml).run().http_port, 1, "empty is unset");
}

#[test]
fn booleans_and_lists_come_from_everywhere() {
    let toml = "[model-server]\nname = 'x'\nlazy_rounds = true\nhosts = ['a', 'b']\n";
    let settings = asked("").file(toml).run();
    assert!(settings.lazy_rounds);
    assert_eq!(settings.hosts, ["a", "b"]);
    let settings = asked("--lazy-rounds=false --hosts c --hosts d,e").file(toml).run();
    assert!(!settings.lazy_rounds);
    assert_eq!(settings.hosts, ["c", "d", "e"]);
    let settings = asked("").with("LAZY_ROUNDS", "off").with("HOSTS", "f,g").file(toml).run();
    assert!(!settings.lazy_rounds);
    assert_eq!(settings.hosts, ["f", "g"]);
    assert!(asked("--name x --lazy-rounds").run().lazy_rounds);
    assert!(asked("").file("[model-server]\nname = 'x'\nhosts = []\n").run().hosts.is_empty());
}

#[test]
fn a_bad_value_names_place_value_and_what_it_takes() {
    let takes = "Port of the HTTP API, 0 to 65535";
    asked("--name x --http-port 70707").fails(&["--http-port", "70707", takes]);
    asked("--name x").with("HTTP_PORT", "no").fails(&["MODEL_SERVER_HTTP_PORT", "\"no\"", takes]);
    let bad = asked("--name x").file("[model-server]\nhttp_port = -1\n");
    bad.fails(&["http_port in section [model-server] of", "aileron.toml", "\"-1\"", takes]);
    asked("--name x").with("LAZY_ROUNDS", "maybe").fails(&[
        "LAZY_ROUNDS",
        "maybe",
        "true or false",
    ]);
    asked("--name x --log-format loud").fails(&["--log-format", "loud", "one of text, json"]);
    asked("--name x --mqtt-address http://b").fails(&["--mqtt-address", "http://b", "tcp"]);
    asked("--name x --domain-id a/b").fails(&["--domain-id", "a/b", "A-Z a-z 0-9"]);
    asked("--name x --topic-prefix a/#").fails(&["--topic-prefix", "a/#"]);
    asked("--name x --mqtt-keep-alive-s 0").fails(&["--mqtt-keep-alive-s", "0", "1 to 65535"]);
    asked("--name x")
        .file("[model-server]\nhttp_port = [1, 2]\n")
        .fails(&["http_port", "not a list"]);
    asked("--name x").file("[model-server]\nhosts = [['a']]\n").fails(&["hosts", "list of lists"]);
    asked("--name x").file("[model-server.http_port]\na = 1\n").fails(&["http_port", "table"]);
    asked("--name x --share 2").fails(&["share", "2", "at most 1"]);
}

#[test]
fn an_unknown_name_is_an_error_with_a_guess() {
    let file = |toml| asked("--name x").file(toml);
    file("[model-server]\nhttp_prot = 1\n").fails(&["http_prot", "aileron.toml", "http_port?"]);
    file("[model-sever]\n").fails(&["[model-sever]", "aileron.toml", "model-server?"]);
    file("http_port = 1\n").fails(&["http_port", "aileron.toml", "[model-server]"]);
    file("model-server = 1\n").fails(&["model-server", "section"]);
    file("[model-server\n").fails(&["aileron.toml", "TOML"]);
    asked("--name x")
        .with("MQTT_ADRESS", "y")
        .fails(&["MODEL_SERVER_MQTT_ADRESS", "MQTT_ADDRESS?"]);
    asked("--name x --http-prot 1").fails(&["--http-prot", "--http-port"]);
    asked("--name x stray").fails(&["stray"]);
    asked("--name x --config /nowhere/at.all").fails(&["/nowhere/at.all", "No such file"]);
    assert_eq!(SettingsError::EXIT_CODE, 64);
}

#[test]
fn a_missing_setting_names_every_way_to_give_it() {
    asked("").fails(&["name is not set", "--name", "MODEL_SERVER_NAME", "[model-server]"]);
}

#[test]
fn other_services_and_platforms_are_left_alone() {
    let toml = "[manager]\nwhatever = 1\n[model-server]\nname = 'x'\n";
    let settings = asked("")
        .with("SERVICE_HOST", "10.0.0.1")
        .with("SERVICE_PORT_HTTP", "1")
        .with("PORT", "tcp://10.0.0.1:7070")
        .with("PORT_7070_TCP_ADDR", "10.0.0.1")
        .file(toml)
        .run();
    assert_eq!(settings.name, "x");
    let mut other = asked("--name x");
    other.variables.push(("MODEL_SERVERS".to_owned(), "1".into()));
    other.variables.push(("MANAGER_NONSENSE".to_owned(), "1".into()));
    other.run();
}

#[test]
fn effective_settings_are_a_file_again_and_hide_secrets() {
    let asked = asked("--print-config --http-port 1 --client-key hunter2 --hosts a --hosts b")
        .with("MQTT_USERNAME", "007")
        .file("[model-server]\nname = \"a \\\"name\\\"\"\nlazy_rounds = true\n");
    let printed = asked.prints();
    for line in [
        "[model-server]",
        "http_port = 1 # from --http-port",
        "mqtt_username = \"007\" # from MODEL_SERVER_MQTT_USERNAME",
        "hosts = [\"a\", \"b\"] # from --hosts",
        "share = 0.5 # default",
        "# client_key = \"***\" # from --client-key; secret",
        "# mqtt_ca_file is not set",
    ] {
        assert!(printed.lines().any(|l| l == line), "{line:?} is missing in:\n{printed}");
    }
    assert!(printed.contains(&format!("lazy_rounds = true # from {}", asked.path().display())));
    assert!(!printed.contains("hunter2"));

    let again = self::asked("").file(&printed).run();
    assert_eq!((again.http_port, again.name.as_str()), (1, "a \"name\""));
    assert_eq!(again.mqtt.mqtt_username.as_deref(), Some("007"));
    assert!(again.lazy_rounds && again.hosts == ["a", "b"]);
}

#[test]
fn a_secret_is_in_no_error_and_no_debug_output() {
    let settings = asked("--name x").with("CLIENT_KEY", "hunter2").run();
    assert!(!format!("{settings:?}").contains("hunter2"));
    let list = asked("--name x").file("[model-server]\nclient_key = ['hunter2']\n");
    let why = list.resolve().unwrap_err().to_string();
    assert!(why.contains("client_key") && !why.contains("hunter2"), "{why}");
}

#[test]
fn help_names_flags_variables_and_defaults() {
    let help = asked("--help").prints();
    for part in
        ["aileron model-server", "--http-port", "MODEL_SERVER_HTTP_PORT", "7070", "--config"]
    {
        assert!(help.contains(part), "{part:?} is missing in:\n{help}");
    }
    assert_eq!(asked("-h --http-port no").prints().lines().next(), Some(Demo::ABOUT));
}

#[test]
fn two_platforms_on_one_broker_have_different_client_ids() {
    let mqtt = |words: &str| asked(&format!("--name x {words}")).run().mqtt;
    assert_eq!(mqtt("").client_id_or("manager"), "demo-fl-manager");
    assert_eq!(mqtt("--topic-prefix a/b").client_id_or("manager"), "a-b-demo-fl-manager");
    assert_eq!(mqtt("--client-id me").client_id_or("manager"), "me");
    let config = mqtt("--client-id me --client-key k").config("x", None).unwrap();
    assert_eq!(config.credentials.unwrap().username, "me");
}

#[test]
fn certificates_are_read_before_anything_is_opened() {
    let ssl = |file: &str| {
        let words = format!("--name x --mqtt-address ssl://b --mqtt-ca-file {file}");
        asked(&words).run().mqtt.config("x", None)
    };
    let missing = ssl("/nowhere/ca.pem").unwrap_err().to_string();
    assert!(missing.contains("mqtt_ca_file") && missing.contains("/nowhere/ca.pem"), "{missing}");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let none = ssl(empty.path().to_str().unwrap()).unwrap_err().to_string();
    assert!(none.contains("holds none"), "{none}");
}

#[test]
fn a_file_can_name_places_beside_itself() {
    let asked = asked("").file(
        "[model-server]\nname = \"{here}\"\nstate_dir = \"{here}/state\"\n\
         hosts = [\"{here}/a\", \"b/{here}\", \"{hereafter}\"]\n",
    );
    let here = asked.path().parent().unwrap().to_owned();
    let settings = asked.run();
    assert_eq!(settings.name, here.display().to_string());
    assert_eq!(settings.state.state_dir, here.join("state"));
    let first = here.join("a").display().to_string();
    assert_eq!(
        settings.hosts,
        [first.as_str(), "b/{here}", "{hereafter}"],
        "only at the beginning"
    );
}
