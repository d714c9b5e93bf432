//! Why an encrypted connection came to nothing, in words that name the setting to look at.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "words for some of what rustls knows; it says the rest itself, and may learn more"
)]

use std::{error::Error as StdError, io};

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// The reason, if encryption is the reason.
pub(in super::super) fn explain(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = error.downcast_ref::<Error>().or_else(|| {
            // What an I/O error was made of is not its source, but hidden inside.
            error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<Error>()
        });
        if let Some(found) = found {
            return Some(in_words(found));
        }
        next = error.source();
    }
    None
}

fn in_words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => of_theirs(why, error),
        Error::AlertReceived(why) => of_ours(*why, error),
        Error::InvalidMessage(_) => {
            format!("what answers there does not speak TLS (mqtt_address): {error}")
        }
        // Rustls grows; whatever else it says is said as it is.
        other => format!("TLS: {other}"),
    }
}

/// What we do not like about the broker's certificate.
fn of_theirs(why: &CertificateError, error: &Error) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the broker's certificate has expired: {error}")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the broker's certificate is not valid yet, or our clock is slow: {error}")
        }
        CertificateError::Revoked => "the broker's certificate was revoked (mqtt_crl_file)".into(),
        CertificateError::UnknownIssuer => {
            "the broker's certificate is signed by nobody whom we trust (mqtt_ca_file)".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "the broker's certificate is for another host (mqtt_address, mqtt_server_name): \
                 {error}"
            )
        }
        other => format!("the broker's certificate is not good: {other}"),
    }
}

/// What the broker does not like about ours.
fn of_ours(why: AlertDescription, error: &Error) -> String {
    let why = match why {
        AlertDescription::CertificateExpired => "it has expired",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::UnknownCA => "the broker does not trust who signed it",
        AlertDescription::CertificateRequired => "there is none, and the broker demands one",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "the broker does not take it",
        // The rest has nothing to do with our certificate.
        other => return format!("the broker ends the TLS handshake ({other:?}): {error}"),
    };
    format!("the broker refuses our certificate: {why} (mqtt_cert_file)")
}
