//! Requests for certificates (PKCS #10, RFC 2986): made by a device for a key of its own, and read
//! by the authority, which believes nothing of them but the key.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKey,
};

use crate::Name;

/// Why there is no certificate for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the certificate request cannot be read, or is not signed by its own key ({0})")]
    Unreadable(String),
    #[error("the certificate request is for {asked:?}, and the token for {name}")]
    Name { name: Name, asked: String },
    #[error("the certificate request asks to be an authority")]
    Authority,
    #[error("the certificate request asks for host names; a device gets none")]
    Hosts,
    #[error("the certificate request asks for more than to be a client")]
    Usage,
    #[error("the certificate cannot be made: {0}")]
    Sign(String),
}

/// A private key that stays where it was made, and the request for its certificate.
pub struct Requested {
    pub key_pem: String,
    pub request_pem: String,
}

impl std::fmt::Debug for Requested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requested").finish_non_exhaustive()
    }
}

/// A new key for `name`, and the request.
pub(crate) fn make(name: &Name) -> Result<Requested, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    let request_pem = params.serialize_request(&key)?.pem()?;
    Ok(Requested { key_pem: key.serialize_pem(), request_pem })
}

/// The key of a request that asks for no more than `name` gets.
pub(crate) fn read(pem: &str, name: &Name) -> Result<PublicKey, RequestError> {
    let read = CertificateSigningRequestParams::from_pem(pem);
    let CertificateSigningRequestParams { params, public_key } =
        read.map_err(|why| RequestError::Unreadable(why.to_string()))?;
    let mut asked = params.distinguished_name.iter().map(|(kind, value)| match (kind, value) {
        (DnType::CommonName, DnValue::Utf8String(text)) => text.clone(),
        (DnType::CommonName, DnValue::PrintableString(text)) => text.as_str().to_owned(),
        (_, _) => "something else than a common name".to_owned(),
    });
    let (first, more) = (asked.next().unwrap_or_default(), asked.next());
    if first != name.as_str() || more.is_some() {
        let asked = more.unwrap_or(first).chars().take(64).collect();
        return Err(RequestError::Name { name: name.clone(), asked });
    }
    match params.is_ca {
        IsCa::NoCa | IsCa::ExplicitNoCa => {}
        IsCa::Ca(_) => return Err(RequestError::Authority),
    }
    if !params.subject_alt_names.is_empty() {
        return Err(RequestError::Hosts);
    }
    if params.key_usages.iter().any(|usage| *usage != KeyUsagePurpose::DigitalSignature)
        || params
            .extended_key_usages
            .iter()
            .any(|usage| *usage != ExtendedKeyUsagePurpose::ClientAuth)
    {
        return Err(RequestError::Usage);
    }
    Ok(public_key)
}
