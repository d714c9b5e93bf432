//! Who is let in at the broker, and what each may say and hear there: the roster and the topic
//! table put together.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::{
    Namespace,
    topic::{Grants, Role},
};

use crate::{Entry, LiveRoster, Name, Roster, Token};

/// Decides for one platform's place on a broker.
#[derive(Debug)]
pub struct Porter {
    roster: LiveRoster,
    namespace: Namespace,
    // Asked about every message, changed when somebody connects; held for a look-up.
    admitted: Mutex<BTreeMap<String, (Role, Arc<Grants>)>>,
}

/// What one who connects has to show.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    pub client_id: &'a str,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    /// Common name and DER of a certificate that was checked.
    pub certificate: Option<(&'a str, &'a [u8])>,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("certificate", &self.certificate.map(|(name, _)| name))
            .finish_non_exhaustive()
    }
}

/// Why one who connects is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it shows neither user name and password nor a certificate")]
    Stranger,
    #[error("user name or password is wrong")]
    Password,
    #[error("{0} is not on the roster")]
    Unknown(String),
    #[error("{0} was revoked")]
    Revoked(Name),
    #[error("the certificate is not the one that {0} was given")]
    Certificate(Name),
    #[error("the certificate of {0} comes with another's user name")]
    Mixed(Name),
    #[error("{0} has no role at the broker")]
    NoRole(Name),
    #[error("{name} uses client id {client_id:?}, which is another's")]
    ClientId { name: Name, client_id: String },
}

impl Porter {
    pub fn new(roster: LiveRoster, namespace: Namespace) -> Self {
        Self { roster, namespace, admitted: Mutex::default() }
    }

    /// The name and role of one who may come in.
    pub fn admit(&self, shown: &Credentials<'_>) -> Result<(Name, Role), Refusal> {
        let roster = self.roster.now();
        let (name, entry) = match shown.certificate {
            Some((name, der)) => by_certificate(&roster, name, der, shown.username)?,
            None => by_password(&roster, shown)?,
        };
        let role = entry.role.ok_or_else(|| Refusal::NoRole(name.clone()))?;
        if is_anothers(&roster, &name, shown.client_id) {
            let client_id = shown.client_id.chars().take(200).collect();
            return Err(Refusal::ClientId { name, client_id });
        }
        let grants = Arc::new(Grants::new(&self.namespace, role, Some(name.as_proplet())));
        self.lock().insert(name.to_string(), (role, grants));
        Ok((name, role))
    }

    pub fn may_publish(&self, name: &str, topic: &str) -> bool {
        self.grants(name).is_some_and(|grants| grants.may_publish(topic))
    }

    pub fn may_subscribe(&self, name: &str, filter: &str) -> bool {
        self.grants(name).is_some_and(|grants| grants.may_subscribe(filter))
    }

    /// Whether one who was let in may stay: as what it came, with the certificate that it showed.
    pub fn is_welcome(&self, name: &str, certificate: Option<&[u8]>) -> bool {
        let role = self.lock().get(name).map(|(role, _)| *role);
        let roster = self.roster.now();
        roster.get(name).is_some_and(|entry| {
            !entry.is_revoked()
                && entry.role == role
                && certificate.is_none_or(|der| entry.holds(der))
        })
    }

    fn grants(&self, name: &str) -> Option<Arc<Grants>> {
        self.lock().get(name).map(|(_, grants)| Arc::clone(grants))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Role, Arc<Grants>)>> {
        // Each change is one insert.
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn by_certificate<'a>(
    roster: &'a Roster,
    name: &str,
    der: &[u8],
    username: Option<&str>,
) -> Result<(Name, &'a Entry), Refusal> {
    let unknown = || Refusal::Unknown(name.chars().take(200).collect());
    let entry = roster.get(name).ok_or_else(unknown)?;
    let name: Name = name.parse().map_err(|_| unknown())?;
    if entry.is_revoked() {
        return Err(Refusal::Revoked(name));
    }
    if !entry.holds(der) {
        return Err(Refusal::Certificate(name));
    }
    if username.is_some_and(|username| username != name.as_str()) {
        return Err(Refusal::Mixed(name));
    }
    Ok((name, entry))
}

fn by_password<'a>(
    roster: &'a Roster,
    shown: &Credentials<'_>,
) -> Result<(Name, &'a Entry), Refusal> {
    let (Some(username), Some(password)) = (shown.username, shown.password) else {
        return Err(Refusal::Stranger);
    };
    let name: Name = username.parse().map_err(|_| Refusal::Password)?;
    let password = std::str::from_utf8(password).map_err(|_| Refusal::Password)?;
    // Whoever was given a token may use the whole of it as the password.
    let token = password.parse::<Token>().ok().filter(|token| *token.name() == name);
    let secret = token.as_ref().map_or(password, Token::secret);
    let entry = roster.get(username).filter(|entry| entry.knows(secret));
    let entry = entry.ok_or(Refusal::Password)?;
    if entry.is_revoked() {
        return Err(Refusal::Revoked(name));
    }
    Ok((name, entry))
}

/// Whether a client id is the one by which another on the roster is known: services and proplets
/// end theirs with their name, and who takes it first keeps the other out.
fn is_anothers(roster: &Roster, own: &Name, client_id: &str) -> bool {
    let ends_with = |name: &str| {
        let start = client_id.strip_suffix(name);
        start.is_some_and(|start| start.is_empty() || start.ends_with('-'))
    };
    !ends_with(own.as_str()) && roster.iter().any(|(name, _)| ends_with(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint;

    const AT: &str = "2026-01-12T10:30:45Z";

    struct Scene {
        _dir: tempfile::TempDir,
        porter: Porter,
        tokens: Vec<Token>,
    }

    fn scene() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roster.json");
        let mut roster = Roster::default();
        let mut tokens = vec![];
        for (name, role) in
            [("p1", Some(Role::Proplet)), ("manager", Some(Role::Manager)), ("ci", None)]
        {
            let token = Token::make(name.parse().unwrap());
            let secret_sha256 = Some(fingerprint(token.secret().as_bytes()));
            let certificate_sha256 = (name == "p1").then(|| fingerprint(b"der"));
            let entry = Entry { role, secret_sha256, certificate_sha256, ..Entry::new(AT) };
            roster.add(token.name().clone(), entry).unwrap();
            tokens.push(token);
        }
        roster.save(&path).unwrap();
        let namespace = Namespace::new("", &"d".parse().unwrap(), &"c".parse().unwrap()).unwrap();
        let porter = Porter::new(LiveRoster::open(&path).unwrap(), namespace);
        Scene { _dir: dir, porter, tokens }
    }

    fn shown<'a>(username: &'a str, password: &'a str) -> Credentials<'a> {
        let (username, password) = (Some(username), Some(password.as_bytes()));
        Credentials { client_id: "x", username, password, certificate: None }
    }

    fn with_certificate<'a>(name: &'a str, der: &'a [u8]) -> Credentials<'a> {
        let certificate = Some((name, der));
        Credentials { client_id: "x", username: None, password: None, certificate }
    }

    #[test]
    fn a_secret_or_a_certificate_lets_in_and_nothing_else_does() {
        let Scene { porter, tokens, .. } = scene();
        let p1 = &tokens[0];
        let admitted = (p1.name().clone(), Role::Proplet);
        assert_eq!(porter.admit(&shown("p1", p1.secret())), Ok(admitted.clone()));
        assert_eq!(porter.admit(&shown("p1", &p1.expose())), Ok(admitted.clone()));
        assert_eq!(porter.admit(&with_certificate("p1", b"der")), Ok(admitted));
        let refused = |shown: &Credentials<'_>| porter.admit(shown).unwrap_err();
        assert_eq!(refused(&shown("p1", "guess")), Refusal::Password);
        assert_eq!(refused(&shown("p2", p1.secret())), Refusal::Password);
        assert_eq!(refused(&shown("manager", &p1.expose())), Refusal::Password);
        assert_eq!(refused(&shown("p/1", p1.secret())), Refusal::Password);
        let nothing = Credentials { username: None, password: None, ..shown("", "") };
        assert_eq!(refused(&nothing), Refusal::Stranger);
        let ci = "ci".parse().unwrap();
        assert_eq!(refused(&shown("ci", tokens[2].secret())), Refusal::NoRole(ci));
        assert!(matches!(refused(&with_certificate("p9", b"der")), Refusal::Unknown(_)));
        assert!(matches!(refused(&with_certificate("p1", b"other")), Refusal::Certificate(_)));
        let mixed = Credentials { username: Some("manager"), ..with_certificate("p1", b"der") };
        assert!(matches!(refused(&mixed), Refusal::Mixed(_)));
    }

    #[test]
    fn nobody_takes_the_client_id_of_another() {
        let Scene { porter, tokens, .. } = scene();
        let with_id = |client_id| Credentials { client_id, ..shown("p1", tokens[0].secret()) };
        for fine in ["p1", "d-c-p1", "anything", "aileron-operator-0"] {
            assert!(porter.admit(&with_id(fine)).is_ok(), "{fine}");
        }
        for anothers in ["manager", "d-c-manager"] {
            let refused = porter.admit(&with_id(anothers)).unwrap_err();
            assert!(refused.to_string().contains(anothers), "{refused}");
        }
    }

    #[test]
    fn who_is_revoked_or_changes_role_is_no_longer_welcome() {
        let scene = scene();
        let (porter, tokens) = (&scene.porter, &scene.tokens);
        porter.admit(&shown("p1", tokens[0].secret())).unwrap();
        assert!(porter.is_welcome("p1", None) && porter.is_welcome("p1", Some(b"der")));
        assert!(!porter.is_welcome("p1", Some(b"other")));
        assert!(porter.may_publish("p1", "m/d/c/c/control/proplet/alive"));
        assert!(!porter.may_publish("nobody", "m/d/c/c/control/proplet/alive"));
        let path = porter.roster.path().to_owned();
        let mut roster = Roster::load(&path).unwrap();
        roster.revoke(tokens[0].name(), AT).unwrap();
        roster.save(&path).unwrap();
        assert!(!porter.is_welcome("p1", None));
        let again = porter.admit(&shown("p1", tokens[0].secret())).unwrap_err();
        assert!(matches!(again, Refusal::Revoked(_)));
    }
}
