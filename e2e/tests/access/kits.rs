//! Start-up kits and preflight, on a platform with everything locked: what was tampered with is not
//! unpacked, and what is wrong with a device is said before it starts.

use std::{fs, path::Path, process::Output};

use e2e::{Command, free_port};
use serde_json::Value;

use crate::site::{Site, secret_in, secret_of};

#[track_caller]
fn refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(why), "not {why:?}: {said}");
}

/// Every check by name: its status, and what it says.
fn preflight(site: &Site, config: &str) -> (bool, Vec<(String, String, String)>) {
    let output = site.aileron(&["preflight", "--json", "--config", config]);
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(said["ok"].as_bool(), Some(output.status.success()), "{said}");
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let checks = said["checks"].as_array().unwrap().iter().map(|check| {
        let failed = check["status"] == "failed";
        assert_eq!(failed, check["advice"].is_string(), "who fails is told what to do: {check}");
        (text(check, "name"), text(check, "status"), text(check, "detail"))
    });
    (output.status.success(), checks.collect())
}

/// The first check that fails.
#[track_caller]
fn fails_at(site: &Site, config: &str, name: &str, why: &str) {
    let (ok, checks) = preflight(site, config);
    let failed: Vec<_> = checks.iter().filter(|(_, status, _)| status == "failed").collect();
    assert!(!ok && !failed.is_empty(), "{checks:?}");
    let found = failed.iter().any(|(at, _, detail)| at == name && detail.contains(why));
    assert!(found, "not {name} {why:?}: {failed:?}");
}

fn swap(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_kit_is_unpacked_as_it_was_made_and_its_device_runs() {
    let site = Site::new();
    let admin = site.does(&["token", "new", "admin", "--scopes", "admin"]);
    let _broker = site.broker();
    let _services = site.services();
    let address = format!("ssl://localhost:{}", site.mqtt);
    let made = site.aileron(&["kit", "edge-1", "edge-2", "--mqtt-address", &address]);
    let said = String::from_utf8(made.stderr).unwrap();
    assert!(made.status.success(), "{said}");
    let authority =
        said.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned();
    let check = |file: &str| site.aileron(&["kit", "verify", file, "--authority", &authority]);
    assert!(check("edge-1.kit").status.success() && check("edge-2.kit").status.success());

    // One byte of each kind of part: a key, the list, its signature; and a cut.
    let whole = fs::read(site.path("edge-1.kit")).unwrap();
    for text in ["PRIVATE KEY", "[proplet]", "\"created_at\"", "ed25519 ", "BEGIN CERTIFICATE"] {
        let at = whole.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        let mut changed = whole.clone();
        changed[at + 1] ^= 1;
        fs::write(site.path("bad.kit"), changed).unwrap();
        refused(&check("bad.kit"), "not to be trusted");
        let out = ["kit", "install", "bad.kit", "--authority", &authority, "--out", "bad"];
        assert!(!site.aileron(&out).status.success());
        assert!(!site.path("bad").exists(), "nothing of it is unpacked");
    }
    fs::write(site.path("bad.kit"), &whole[..whole.len() / 2]).unwrap();
    assert!(!check("bad.kit").status.success());
    fs::write(site.path("bad.kit"), "no archive").unwrap();
    refused(&check("bad.kit"), "not a start-up kit");
    let other = format!("sha256:{}", "0".repeat(64));
    refused(&site.aileron(&["kit", "verify", "edge-1.kit", "--authority", &other]), "was made by");
    refused(&site.aileron(&["kit", "verify", "edge-1.kit", "--authority", "x"]), "sha256:");
    refused(&site.aileron(&["kit", "edge-1", "--mqtt-address", &address]), "already");
    refused(&site.aileron(&["kit", "edge-9", "--mqtt-address", "tcp://localhost:1"]), "ssl://");

    let install = ["kit", "install", "edge-1.kit", "--authority", &authority, "--out", "edge-1"];
    site.does(&install);
    refused(&site.aileron(&install), "is there already");
    let config = "edge-1/proplet.toml";
    let (ok, checks) = preflight(&site, config);
    assert!(ok, "{checks:?}");
    let of = |name: &str| checks.iter().find(|(at, _, _)| at == name).unwrap().clone();
    for name in ["settings", "kit", "certificate", "clock", "state", "guest", "memory"] {
        assert_eq!(of(name).1, "ok", "{name}");
    }
    for name in ["name", "tcp", "tls", "connect", "subscribe", "publish", "model"] {
        assert_eq!(of(name).1, "ok", "{name}");
    }
    let mut command = Command::service(site.dir(), "edge-1-proplet", "proplet", &[]);
    command.args.push(format!("--config={config}"));
    let _proplet = command.start();
    site.wait_for_alive(&admin, 1);
    // Of a device that runs it does not say that it does not.
    let (ok, again) = preflight(&site, config);
    let publish = again.iter().find(|(at, _, _)| at == "publish").unwrap();
    assert!(ok && publish.1 == "skipped" && publish.2.contains("runs"), "{again:?}");
    site.wait_for_alive(&admin, 1);

    let keys = ["proplet.key", "proplet.sign"];
    let mut secrets: Vec<String> =
        keys.iter().map(|key| secret_of(&site.path("edge-1").join(key))).collect();
    secrets.push(secret_in(&admin));
    site.no_log_holds(&secrets, 5);
    assert!(secrets.iter().all(|secret| !said.contains(secret)));
    assert!(checks.iter().all(|(_, _, detail)| secrets.iter().all(|it| !detail.contains(it))));
}

#[test]
fn preflight_says_what_is_wrong_and_what_to_do() {
    let site = Site::new();
    site.does(&["token", "new", "admin", "--scopes", "admin"]);
    let broker = site.broker();
    let address = format!("ssl://localhost:{}", site.mqtt);
    site.does(&["kit", "edge-1", "--mqtt-address", &address]);
    let made = site.aileron(&["kit", "edge-2", "--mqtt-address", &address]);
    let said = String::from_utf8(made.stderr).unwrap();
    let authority =
        said.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned();
    for id in ["edge-1", "edge-2"] {
        let file = format!("{id}.kit");
        site.does(&["kit", "install", &file, "--authority", &authority, "--out", id]);
    }
    broker.wait_for_log("only who is on the roster");
    let config = "edge-1/proplet.toml";
    // There is no model server.
    fails_at(&site, config, "model", "nothing is heard");
    let settings = site.path(config);
    let whole = fs::read_to_string(&settings).unwrap();
    let restore = || fs::write(&settings, &whole).unwrap();

    swap(&settings, "state_dir", "data_dri");
    fails_at(&site, config, "settings", "data_dri");
    restore();
    swap(&settings, "edge-1", "edge-7");
    fails_at(&site, config, "certificate", "edge-7");
    fails_at(&site, config, "kit", "was changed");
    restore();
    swap(&settings, &address, "ssl://no-such-host.invalid:8883");
    fails_at(&site, config, "name", "no-such-host.invalid");
    restore();
    swap(&settings, &address, &format!("ssl://localhost:{}", free_port()));
    fails_at(&site, config, "tcp", "refused");
    restore();
    swap(&settings, "localhost", "127.0.0.1");
    fails_at(&site, config, "tls", "another host");
    restore();
    swap(&settings, "{here}/state", "/proc/nowhere");
    fails_at(&site, config, "state", "/proc/nowhere");
    restore();
    swap(&settings, "[proplet]", "[proplet]\nmemory_bytes_max = 1099511627776");
    fails_at(&site, config, "memory", "guests may take");
    restore();
    // Another's certificate, with its key.
    for file in ["proplet.pem", "proplet.key"] {
        fs::copy(site.path("edge-2").join(file), site.path("edge-1").join(file)).unwrap();
    }
    fails_at(&site, config, "certificate", "edge-2");
    site.does(&["token", "revoke", "edge-2"]);
    fails_at(&site, "edge-2/proplet.toml", "connect", "");
    let text = site.aileron(&["preflight", "--config", "edge-2/proplet.toml"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("failed   connect") && text.contains("-> "), "{text}");
    assert!(text.contains("skipped  subscribe"), "{text}");
}

#[test]
fn a_kit_without_keys_joins_when_it_is_installed() {
    let site = Site::new();
    let port = free_port();
    let env = [
        ("HTTP_PORT", port.to_string()),
        ("CA_DIR", "ca".to_owned()),
        ("ROSTER_FILE", "roster.json".to_owned()),
        ("MQTT_ADDRESS", format!("ssl://localhost:{}", site.mqtt)),
    ]
    .map(|(key, value)| (format!("REGISTRAR_{key}"), value));
    let registrar = Command::service(site.dir(), "registrar", "registrar", &env).start();
    registrar.wait_for_log("registrar started");
    let url = format!("https://localhost:{port}");
    let made = site.aileron(&["kit", "edge-1", "--join", &url]);
    let said = String::from_utf8(made.stderr).unwrap();
    assert!(made.status.success() && !said.contains("private keys"), "{said}");
    let kit = fs::read(site.path("edge-1.kit")).unwrap();
    assert!(!kit.windows(11).any(|window| window == b"PRIVATE KEY"));
    let authority =
        said.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned();
    let install = |out: &str| {
        site.aileron(&["kit", "install", "edge-1.kit", "--authority", &authority, "--out", out])
    };
    let joined = install("edge-1");
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    assert!(site.path("edge-1/proplet.key").exists() && site.path("edge-1/proplet.toml").exists());
    refused(&install("edge-1b"), "was used at");
}
