//! Enrolment: a device shows a token that is good once, and gets a certificate for a key that it
//! has made itself. Nothing that is secret travels but that token.

use std::{fmt, str::FromStr, time::Duration};

use protocol::{Timestamp, topic::Role};
use serde::{Deserialize, Serialize};

use crate::{
    Authority, Certified, Entry, Name, RequestError, Requested, Roster, RosterError, SigningKey,
    Token, TokenError, Validity, is_signed, moment, request,
    secret::{FINGERPRINT_LEN, fingerprint, is_same},
};

/// Begins what a device signs to show that the signing key is its own.
const DOMAIN: &str = "aileron enrolment 1";

/// `NAME.SECRET.AUTHORITY`: who may join, what proves it, and by what the device knows whom it
/// talks to. One string, so that a person has one thing to copy.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    token: Token,
    authority: String,
}

/// A token for joining, as the roster keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// SHA-256 of its secret.
    pub secret_sha256: String,
    /// RFC 3339.
    pub expires_at: String,
    /// RFC 3339; there from its use on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<String>,
}

/// What a device sends.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// NAME.SECRET
    token: String,
    /// PKCS #10, PEM.
    request: String,
    /// Public half of the key with which updates are going to be signed: Ed25519, base64.
    signing_key: String,
    /// That key's signature over the request.
    proof: String,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest").finish_non_exhaustive()
    }
}

/// What a device gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub name: String,
    /// Its own, PEM.
    pub certificate: String,
    /// Whose certificates it trusts at the broker, PEM.
    pub broker_ca: String,
    pub mqtt_address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt_server_name: Option<String>,
    pub domain_id: String,
    pub channel_id: String,
    pub topic_prefix: String,
}

/// Why a device does not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The same for a name that is unknown and a secret that is wrong.
    #[error("the token is unknown, revoked or wrong")]
    Unknown,
    #[error("the token was used at {0}; ask for a new one")]
    Used(String),
    #[error("the token expired at {0}; ask for a new one")]
    Expired(String),
    #[error("the signing key is not a key, or not the device's own")]
    SigningKey,
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Roster(#[from] RosterError),
}

impl JoinError {
    /// One word, to count by.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Token(_) => "malformed_token",
            Self::Unknown => "unknown_token",
            Self::Used(_) => "used_token",
            Self::Expired(_) => "expired_token",
            Self::SigningKey => "signing_key",
            Self::Request(RequestError::Unreadable(_)) => "unreadable_request",
            Self::Request(RequestError::Name { .. }) => "other_name",
            Self::Request(RequestError::Authority | RequestError::Hosts | RequestError::Usage) => {
                "asks_too_much"
            }
            Self::Request(RequestError::Sign(_)) | Self::Roster(_) => "failed",
        }
    }
}

/// A device on its way in: the keys that it has made, and what it sends.
#[derive(Debug)]
pub struct Applicant {
    pub keys: Requested,
    pub signing_key: SigningKey,
    pub request: JoinRequest,
}

impl JoinToken {
    /// A new one for `name`, to be shown to `authority`, a fingerprint.
    pub fn make(name: Name, authority: String) -> Self {
        Self { token: Token::make(name), authority }
    }

    pub const fn name(&self) -> &Name {
        self.token.name()
    }

    /// Fingerprint of the certificate of the authority that made it.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The whole, to be shown once.
    pub fn expose(&self) -> String {
        format!("{}.{}", self.token.expose(), self.authority)
    }

    /// As the roster keeps it.
    pub fn invitation(&self, now: Timestamp, good_for: Duration) -> Invitation {
        Invitation {
            secret_sha256: fingerprint(self.token.secret().as_bytes()),
            expires_at: (now + good_for).to_string(),
            used_at: None,
        }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.token, self.authority)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (token, authority) = text.rsplit_once('.').ok_or(TokenError::Join)?;
        let is_hex = authority.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if authority.len() != FINGERPRINT_LEN || !is_hex {
            return Err(TokenError::Join);
        }
        let token = token.parse().map_err(|_| TokenError::Join)?;
        Ok(Self { token, authority: authority.to_owned() })
    }
}

impl Applicant {
    /// Makes the keys of the device that the token names.
    pub fn new(token: &JoinToken) -> Result<Self, RequestError> {
        let failed = |why: &dyn fmt::Display| RequestError::Sign(why.to_string());
        let keys = request::make(token.name()).map_err(|why| failed(&why))?;
        let signing_key = SigningKey::make().map_err(|why| failed(&why))?;
        let proof = signing_key.sign(&statement(token.name(), &keys.request_pem));
        let request = JoinRequest {
            token: token.token.expose(),
            request: keys.request_pem.clone(),
            signing_key: signing_key.public(),
            proof,
        };
        Ok(Self { keys, signing_key, request })
    }
}

impl JoinRequest {
    /// The name that it claims, if it can be read; for logs.
    pub fn name(&self) -> Option<Name> {
        self.token.parse::<Token>().ok().map(|token| token.name().clone())
    }

    /// Lets the device in: its certificate, and its place on the roster. A request that is refused
    /// leaves the roster, and its token, as they were.
    pub fn admit(
        &self,
        authority: &Authority,
        roster: &mut Roster,
        now: Timestamp,
        days: u32,
    ) -> Result<(Name, Certified), JoinError> {
        let token: Token = self.token.parse()?;
        let name = token.name().clone();
        let invitation = usable(roster, &token, now)?;
        if !is_signed(&self.signing_key, &statement(&name, &self.request), &self.proof) {
            return Err(JoinError::SigningKey);
        }
        let good = Validity::days(moment(now), days);
        let certified = authority.certify(&self.request, &name, good)?;
        let entry = Entry {
            role: Some(Role::Proplet),
            certificate_sha256: Some(fingerprint(&certified.certificate_der)),
            public_key: Some(self.signing_key.clone()),
            invitation: Some(Invitation { used_at: Some(now.to_string()), ..invitation }),
            ..Entry::new(now.to_string())
        };
        roster.admit(name.clone(), entry);
        Ok((name, certified))
    }
}

/// The invitation that a token answers, if it still can.
fn usable(roster: &Roster, token: &Token, now: Timestamp) -> Result<Invitation, JoinError> {
    let entry = roster.get(token.name().as_str()).filter(|entry| !entry.is_revoked());
    let invitation = entry.and_then(|entry| entry.invitation.clone());
    let digest = fingerprint(token.secret().as_bytes());
    let invitation = invitation.filter(|own| is_same(&own.secret_sha256, &digest));
    let invitation = invitation.ok_or(JoinError::Unknown)?;
    if let Some(at) = &invitation.used_at {
        return Err(JoinError::Used(at.clone()));
    }
    // An end that cannot be read has passed.
    let end = Timestamp::try_from(invitation.expires_at.clone());
    if end.is_ok_and(|end| now < end) {
        Ok(invitation)
    } else {
        Err(JoinError::Expired(invitation.expires_at))
    }
}

fn statement(name: &Name, request: &str) -> Vec<u8> {
    let digest = fingerprint(request.as_bytes());
    format!("{DOMAIN}\n{name}\n{digest}\n").into_bytes()
}
