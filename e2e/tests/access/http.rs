//! The HTTP APIs: the coordinator's behind tokens, and every service with a port on an address that
//! other machines reach.

use std::{
    process::{Command as Words, Stdio},
    time::{Duration, Instant},
};

use e2e::{Command, eventually, free_port, tool};

use crate::site::{Site, secret_in};

/// What revocation may take.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

/// The status of a call to the coordinator, and what it said.
fn call(site: &Site, port: u16, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let mut curl = Words::new(tool("curl"));
    curl.args(["-sS", "-m", "20", "-w", "\n%{http_code}", "-X", method, "--cacert", "ca/ca.pem"]);
    if let Some(token) = token {
        curl.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    if method == "POST" {
        curl.args(["--data-binary", "{}"]);
    }
    curl.arg(format!("https://localhost:{port}{path}")).current_dir(site.dir());
    let output = curl.stderr(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap_or_default();
    (status.parse().unwrap_or(0), body.to_owned())
}

#[test]
fn the_coordinators_api_is_behind_tokens_and_https() {
    let site = Site::new();
    let [reader, driver, admin] = ["read", "tasks", "admin"]
        .map(|scope| site.does(&["token", "new", &format!("{scope}er"), "--scopes", scope]));
    let port = free_port();
    let http = port.to_string();
    let own = [
        ("HTTP_PORT", http.as_str()),
        ("HTTP_TLS_CERT_FILE", "web.pem"),
        ("HTTP_TLS_KEY_FILE", "web.key"),
        ("ROSTER_FILE", "roster.json"),
    ];
    let _broker = site.broker();
    let coordinator = site.service("coordinator", "coordinator", &own);
    coordinator.wait_for_log("asks for tokens");
    let status =
        |method: &str, path: &str, token: Option<&str>| call(&site, port, method, path, token).0;
    eventually("it answers", || (status("GET", "/openapi.json", None) == 200).then_some(()));
    let paths = ["/fl/rounds", "/fl/sessions", "/fl/models", "/metrics", "/no/such/path"];
    let guess = format!("reader.{}", "0".repeat(64));
    for path in paths {
        assert_eq!(status("GET", path, None), 401, "{path}");
        assert_eq!(status("GET", path, Some(&guess)), 401, "{path}");
    }
    for path in ["/fl/rounds", "/fl/sessions", "/fl/models", "/metrics"] {
        assert_eq!(status("GET", path, Some(&reader)), 200, "{path}");
    }
    for path in ["/fl/rounds", "/fl/sessions", "/fl/sessions/s-1/stop"] {
        assert_eq!(status("POST", path, None), 401, "{path}");
        assert_eq!(status("POST", path, Some(&reader)), 403, "{path}");
        // An empty object is no order, but whoever gave it may give some.
        for token in [&driver, &admin] {
            let given = status("POST", path, Some(token));
            assert!([400, 404, 422].contains(&given), "{path}: {given}");
        }
    }
    let plain =
        Words::new(tool("curl")).args(["-sS", &format!("http://localhost:{port}/health")]).output();
    assert!(!plain.unwrap().status.success(), "it does not speak plain HTTP");

    site.does(&["token", "revoke", "reader"]);
    let since = Instant::now();
    eventually("the revoked token is refused", || {
        (status("GET", "/fl/rounds", Some(&reader)) == 401).then_some(())
    });
    assert!(since.elapsed() < REVOKED_WITHIN, "it took {:?}", since.elapsed());
    assert_eq!(status("GET", "/fl/rounds", Some(&driver)), 200);
    let secrets = [&reader, &driver, &admin].map(|token| secret_in(token));
    site.no_log_holds(&secrets, 2);
    assert!(!coordinator.log().contains(&guess));
}

#[test]
fn whatever_other_machines_could_reach_does_not_start_without_credentials() {
    let site = Site::new();
    for (words, named) in [
        (&["manager", "--http-host", "0.0.0.0", "--http-port", "0"][..], "roster_file"),
        (&["manager", "--http-host", "::", "--http-port", "0"], "roster_file"),
        (&["coordinator", "--http-host", "0.0.0.0", "--http-port", "0"], "roster_file"),
        (&["coordinator", "--http-host", "::ffff:10.0.0.1", "--http-port", "0"], "roster_file"),
        (&["broker", "--listen", "0.0.0.0:0"], "roster_file"),
        (&["broker", "--listen", "[::]:0"], "roster_file"),
        (&["registrar", "--mqtt-address", "ssl://b", "--http-host", "0.0.0.0"], "ca_dir"),
        (&["model-server", "--http-port", "0", "--http-host", "0.0.0.0"], "http_host"),
        (&["proplet", "--http-port", "0", "--http-host", "0.0.0.0"], "http_host"),
    ] {
        let output = site.aileron(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(64) && said.contains(named), "{words:?}: {said}");
    }
    let output = site.aileron(&["up", "--broker-listen", "0.0.0.0:0", "--proplets", "0"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("0.0.0.0"), "up: {said}");
}

#[test]
fn a_registrar_on_any_address_talks_tls_and_wants_a_token() {
    let site = Site::new();
    let port = free_port();
    let env = [
        ("HTTP_HOST", "0.0.0.0".to_owned()),
        ("HTTP_PORT", port.to_string()),
        ("CA_DIR", "ca".to_owned()),
        ("ROSTER_FILE", "roster.json".to_owned()),
        ("MQTT_ADDRESS", "ssl://localhost:1".to_owned()),
    ]
    .map(|(key, value)| (format!("REGISTRAR_{key}"), value));
    let registrar = Command::service(site.dir(), "registrar", "registrar", &env).start();
    registrar.wait_for_log("registrar started");
    assert_eq!(call(&site, port, "GET", "/health", None).0, 200);
    let (status, said) = call(&site, port, "POST", "/join", None);
    assert_eq!(status, 400, "{said}");
    let plain =
        Words::new(tool("curl")).args(["-sS", &format!("http://localhost:{port}/ca.pem")]).output();
    assert!(!plain.unwrap().status.success(), "it does not speak plain HTTP");
}
