//! What is read from certificates: whom they are for, until when they are good, and whose signature
//! their keys have made. Whether one is to be trusted is the TLS library's business.

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, Pem, X509Certificate};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The last common name of its subject.
    pub name: Option<String>,
    pub from: OffsetDateTime,
    pub until: OffsetDateTime,
}

/// The DER of the first certificate in a PEM file.
pub fn first_certificate(pem: &[u8]) -> Option<Vec<u8>> {
    let found = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    let mut found = found.filter(|item| item.label == "CERTIFICATE");
    found.next().map(|item| item.contents)
}

/// Reads a certificate's DER.
pub fn facts(der: &[u8]) -> Option<Facts> {
    let (_, read) = X509Certificate::from_der(der).ok()?;
    let names = read.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    Some(Facts {
        name: names.last().map(str::to_owned),
        from: read.validity().not_before.to_datetime(),
        until: read.validity().not_after.to_datetime(),
    })
}

/// Whether the key of a certificate (DER) has signed this: ECDSA over P-256, as our authorities
/// sign.
pub fn has_signed(der: &[u8], statement: &[u8], signature: &[u8]) -> bool {
    let Ok((_, read)) = X509Certificate::from_der(der) else { return false };
    let key: &[u8] = &read.public_key().subject_public_key.data;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(statement, signature).is_ok()
}
