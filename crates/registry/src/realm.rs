//! Where a registry wants name and password to be shown, looked at before they are: the client
//! behind [`Remote`] shows them wherever the registry's challenge says, also unencrypted.

use http_auth::ChallengeParser;
use oci_client::errors::OciDistributionError;
use reqwest::{Certificate, Client, Url, header::WWW_AUTHENTICATE};

use crate::{
    RegistryError, Settings,
    remote::{CONNECT_MAX, Remote, USER_AGENT, certificates, chain},
};

/// What is repeated of an address that a registry has named.
const SHOWN_MAX: usize = 200;

/// Greets a registry without showing anything.
pub(crate) struct Scout {
    client: Client,
    plain_http: Vec<String>,
}

impl Scout {
    pub(crate) fn new(settings: &Settings) -> Result<Self, RegistryError> {
        let failed = |why: reqwest::Error| RegistryError::Client { why: chain(&why) };
        let extra = certificates(settings)?;
        let extra: Result<Vec<_>, _> =
            extra.iter().map(|certificate| Certificate::from_pem(&certificate.data)).collect();
        let client = Client::builder()
            .tls_certs_merge(extra.map_err(failed)?)
            .connect_timeout(CONNECT_MAX.min(settings.stall))
            .user_agent(USER_AGENT);
        let client = client.build().map_err(failed)?;
        Ok(Self { client, plain_http: settings.plain_http.clone() })
    }
}

impl Remote {
    /// Name and password go unencrypted to hosts that the owner has listed, and to no others.
    pub(crate) async fn look_at_realm(&self) -> Result<(), RegistryError> {
        let Some(scout) = &self.scout else { return Ok(()) };
        let host = self.reference.resolve_registry();
        let is_plain = scout.plain_http.iter().any(|listed| listed == host);
        let scheme = if is_plain { "http" } else { "https" };
        let greeted = scout.client.get(format!("{scheme}://{host}/v2/")).send().await;
        let greeted = greeted.map_err(|why| self.meant(OciDistributionError::RequestError(why)))?;
        let challenges = greeted.headers().get_all(WWW_AUTHENTICATE).iter();
        for realm in challenges.filter_map(|it| it.to_str().ok()).flat_map(realms) {
            if !is_trusted(&realm, &scout.plain_http) {
                let realm = realm.chars().take(SHOWN_MAX).collect();
                return Err(RegistryError::Realm { image: self.image.clone(), realm });
            }
        }
        Ok(())
    }
}

/// Whether what is shown at this address is for its host's eyes alone, or the owner does not mind.
fn is_trusted(realm: &str, plain_http: &[String]) -> bool {
    let Ok(url) = Url::parse(realm) else { return false };
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    url.scheme() == "https" || (url.scheme() == "http" && plain_http.contains(&host))
}

/// Where a challenge wants credentials to be shown in exchange for a token.
fn realms(challenge: &str) -> Vec<String> {
    let challenges = ChallengeParser::new(challenge).filter_map(Result::ok);
    let bearer = challenges.filter(|it| it.scheme.eq_ignore_ascii_case("Bearer"));
    let params = bearer.flat_map(|it| it.params);
    let realms = params.filter(|(name, _)| name.eq_ignore_ascii_case("realm"));
    realms.map(|(_, realm)| realm.to_unescaped()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_or_listed_is_trusted() {
        let plain_http = vec!["10.0.0.1:5000".to_owned(), "registry.local".to_owned()];
        for good in [
            "https://auth.example/token",
            "http://10.0.0.1:5000/token?a=b",
            "HTTP://registry.local/token",
            "http://registry.local:80/token",
        ] {
            assert!(is_trusted(good, &plain_http), "{good}");
        }
        for bad in [
            "http://auth.example/token",
            "http://10.0.0.1/token",
            "http://10.0.0.1:5001/token",
            "http://registry.local@auth.example/token",
            "ftp://registry.local/token",
            "/token",
            "",
        ] {
            assert!(!is_trusted(bad, &plain_http), "{bad}");
        }
    }

    #[test]
    fn a_challenge_says_where_a_token_is_to_be_had() {
        let both = r#"Basic realm="here", Bearer realm="http://a.example/\"t",service="s", bearer REALM=b"#;
        assert_eq!(realms(both), ["http://a.example/\"t", "b"]);
        assert!(realms("Basic realm=\"here\"").is_empty() && realms("?,,=").is_empty());
    }
}
