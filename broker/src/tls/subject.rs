//! The common name on a certificate, read from its DER (RFC 5280, section 4.1).
//!
//! Only for certificates whose signature was checked.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
/// The explicit tag of the version, which old certificates lack.
const VERSION: u8 = 0xa0;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The last common name of the subject: the most specific one.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate, _) = element(certificate)?;
    let (SEQUENCE, to_be_signed, _) = element(certificate)? else { return None };
    let mut rest = to_be_signed;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, mut subject, _) = element(rest)? else { return None };
    let mut found = None;
    while let Some((SET, mut attributes, after)) = element(subject) {
        while let Some((SEQUENCE, attribute, next)) = element(attributes) {
            found = name_in(attribute).or(found);
            attributes = next;
        }
        subject = after;
    }
    found
}

fn name_in(attribute: &[u8]) -> Option<String> {
    let (OID, COMMON_NAME, value) = element(attribute)? else { return None };
    let (UTF8_STRING | PRINTABLE_STRING | IA5_STRING, text, _) = element(value)? else {
        return None;
    };
    String::from_utf8(text.to_vec()).ok()
}

/// Tag, contents, and what comes after.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let len = bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
            (len, rest)
        }
        // Indefinite, or longer than any certificate.
        _ => return None,
    };
    let (contents, after) = rest.split_at_checked(len)?;
    Some((tag, contents, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_cut_off_or_garbled_is_no_name_and_no_panic() {
        let now = time::OffsetDateTime::UNIX_EPOCH;
        let authority = access::Authority::new("site", now).unwrap();
        let subject = access::Subject { name: "proplet-7".into(), hosts: vec![] };
        let issued = authority.issue(&subject, access::Validity::days(now, 1)).unwrap();
        let der = issued.certificate_der;
        assert_eq!(common_name(&der).as_deref(), Some("proplet-7"));
        for len in 0..der.len() {
            assert_eq!(common_name(&der[..len]), None, "cut off at {len}");
        }
        for at in 0..der.len() {
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut garbled = der.clone();
                garbled[at] = byte;
                let _whatever = common_name(&garbled);
            }
        }
    }
}
