//! Everything locked: TLS both ways at the broker, a role for everybody, HTTPS and tokens at the
//! manager, signed updates; and a round on top of it, as an operator runs it.

use crate::site::{Site, secret_in, secret_of};

#[test]
fn a_round_is_run_with_everything_locked_and_no_secret_is_logged() {
    let site = Site::new();
    let again = site.aileron(&["ca", "init"]);
    assert!(!again.status.success(), "an authority is not made twice");
    let admin = site.does(&["token", "new", "admin", "--scopes", "admin"]);
    let _broker = site.broker();
    let services = site.services();
    let _proplets = [site.proplet("p1"), site.proplet("p2")];
    site.does(&["ca", "issue", "operator", "--role", "operator"]);
    services[0].wait_for_log("asks for tokens");
    let url = format!("https://localhost:{}", site.http);
    let refused = site.aileron(&["proplet", "list", "--http", &url, "--http-ca-file", "ca/ca.pem"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("needs a token"), "{said}");
    site.wait_for_alive(&admin, 2);
    let round = site.round(&admin, "p1,p2", &["--timeout-s=60"]);
    assert!(round.status.success(), "{}", String::from_utf8_lossy(&round.stderr));
    site.does(&["token", "revoke", "p2"]);
    site.wait_for_alive(&admin, 1);
    let keys = ["p1.sign", "p2.sign", "p1.key", "manager.key", "ca/ca.key"];
    let mut secrets: Vec<String> = keys.iter().map(|key| secret_of(&site.path(key))).collect();
    secrets.push(secret_in(&admin));
    site.no_log_holds(&secrets, 5);
}
