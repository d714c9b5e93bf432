//! Secrets: made here, shown once, kept as digests.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::{Name, NameError};

/// Hexadecimal digits of a secret: 244 bits that nobody can guess, so that one plain digest keeps
/// it; a slow one would only make the service slow.
pub(crate) const SECRET_LEN: usize = 64;

/// `NAME.SECRET`, as a caller shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    name: Name,
    secret: String,
}

/// Why a text is not a token; it does not repeat the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a token is NAME.SECRET, with {SECRET_LEN} hexadecimal digits at the end")]
    Shape,
    #[error("the name in the token is none: {0}")]
    Name(#[from] NameError),
    #[error(
        "a token for joining is NAME.SECRET.AUTHORITY, the last two of {SECRET_LEN} hexadecimal \
         digits each"
    )]
    Join,
}

impl Token {
    /// A new secret for `name`.
    pub fn make(name: Name) -> Self {
        let halves = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        let secret = halves.map(|half| half.simple().to_string()).concat();
        Self { name, secret }
    }

    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The part that proves it: a password at the broker.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The whole token, to be shown to its owner once.
    pub fn expose(&self) -> String {
        format!("{}.{}", self.name, self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.***", self.name)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (name, secret) = text.rsplit_once('.').ok_or(TokenError::Shape)?;
        let is_hex = secret.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if secret.len() != SECRET_LEN || !is_hex {
            return Err(TokenError::Shape);
        }
        Ok(Self { name: name.parse()?, secret: secret.to_owned() })
    }
}

/// Hexadecimal digits of a fingerprint.
pub(crate) const FINGERPRINT_LEN: usize = 64;

/// SHA-256 in hexadecimal digits: of a secret, or of a certificate's DER.
pub fn fingerprint(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

/// Whether two texts are the same, in a time that does not say where they differ.
pub(crate) fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_hides_itself() {
        let token = Token::make("site-1.p1".parse().unwrap());
        assert_eq!(token.expose().parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(token.secret()));
        assert_ne!(token, Token::make("site-1.p1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        let long = "a".repeat(64);
        for bad in ["", "x", "p1.", "p1.abc", &format!(".{long}"), &format!("p/1.{long}")] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
        let upper = format!("p1.{}", "A".repeat(64));
        let refused = upper.parse::<Token>().unwrap_err().to_string();
        assert!(!refused.contains("AAAA"), "{refused}");
    }

    #[test]
    fn a_token_for_joining_is_no_token_whose_name_is_a_secret() {
        let (secret, authority) = ("ab".repeat(32), "cd".repeat(32));
        for name in ["p1", "site-1.p1", "p/1", "AILERON_JOIN_TOKEN=p1", &"p".repeat(120)] {
            let refused = format!("{name}.{secret}.{authority}").parse::<Token>().unwrap_err();
            let said = format!("{refused} {refused:?}");
            assert!(!said.contains("abab") && !said.contains("cdcd"), "{said}");
            assert!(format!("{name}.{secret}").parse::<Name>().is_err());
        }
        assert!("p1.abcdef".parse::<Name>().is_ok());
    }

    #[test]
    fn sameness_is_sameness() {
        assert!(is_same("abc", "abc") && is_same("", ""));
        assert!(!is_same("abc", "abd") && !is_same("abc", "ab") && !is_same("", "a"));
    }
}
