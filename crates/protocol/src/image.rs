//! Addresses of images in registries: `oci://host/name:tag`, or `oci://host/name@sha256:digest`.

use std::{fmt, str::FromStr};

use crate::Digest;

/// How the address of an image begins.
const OCI: &str = "oci://";

const TEXT_LEN_MAX: usize = 4096;
const HOST_LEN_MAX: usize = 253;
const NAME_LEN_MAX: usize = 255;
const TAG_LEN_MAX: usize = 128;
/// What an image without a tag is called.
const TAG_DEFAULT: &str = "latest";

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRef {
    host: Box<str>,
    name: Box<str>,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Tag(String),
    /// That of the image's manifest.
    Digest(Digest),
}

/// A text that is not the address of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not the address of an image: {what}; it takes oci://host/name:tag or oci://host/name@sha256:<64 hexadecimal digits>"
)]
pub struct ImageRefError {
    /// Shortened, and without a name or password before the host.
    text: String,
    what: &'static str,
}

impl ImageRef {
    /// Whether this names an image, or at least means to.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(OCI)
    }

    /// The registry, with its port if that is not 443.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    /// What names one image for ever.
    pub const fn digest(&self) -> Option<Digest> {
        match self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(digest),
        }
    }

    /// The image that has this digest, whatever the tag means later.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        let (host, name) = (self.host.clone(), self.name.clone());
        Self { host, name, version: Version::Digest(digest) }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OCI}{}/{}", self.host, self.name)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@sha256:{digest}"),
        }
    }
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        let wrong = |what| ImageRefError { text: shown(text), what };
        if text.len() > TEXT_LEN_MAX {
            return Err(wrong("it is too long"));
        }
        let rest = text.strip_prefix(OCI).ok_or(wrong("it does not begin with oci://"))?;
        let (host, rest) = rest.split_once('/').ok_or(wrong("there is no name behind the host"))?;
        if host.contains('@') {
            return Err(wrong("user name and password do not belong into it"));
        }
        if !is_host(host) {
            return Err(wrong("the host is none"));
        }
        let (rest, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((rest, digest)) => {
                let digits = digest.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
                let digest = digits.ok_or(wrong("what stands behind @ is not a SHA-256 digest"))?;
                (rest, Some(digest))
            }
        };
        let (name, tag) = match rest.split_once(':') {
            None => (rest, TAG_DEFAULT),
            Some((name, tag)) => (name, tag),
        };
        if !is_name(name) {
            return Err(wrong("the name takes a-z 0-9 . _ - and / between its parts"));
        }
        if !is_tag(tag) {
            return Err(wrong("the tag takes 1 to 128 of A-Z a-z 0-9 . _ -"));
        }
        let version = digest.map_or_else(|| Version::Tag(tag.to_owned()), Version::Digest);
        Ok(Self { host: host.into(), name: name.into(), version })
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<core::net::Ipv6Addr>().is_ok() => {
            return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        }
        Some(_) => return false,
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let letters = host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    let labels = host.split('.').all(|label| !label.is_empty());
    host.len() <= HOST_LEN_MAX && letters && labels && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|it| it > 0)
}

fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = part.as_bytes();
        let ends =
            bytes.first().copied().is_some_and(plain) && bytes.last().copied().is_some_and(plain);
        ends && bytes.iter().all(|byte| plain(*byte) || b"._-".contains(byte))
    };
    text.len() <= NAME_LEN_MAX && text.split('/').all(is_part)
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let all = text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
    text.len() <= TAG_LEN_MAX && text.bytes().next().is_some_and(word) && all
}

/// Fit for logs: what stands before the host may be a secret.
fn shown(text: &str) -> String {
    let hidden = text.strip_prefix(OCI).and_then(|rest| {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (_, host) = host.rsplit_once('@')?;
        Some(format!("{OCI}***@{host}/{path}"))
    });
    hidden.as_deref().unwrap_or(text).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_tag_or_a_digest() {
        let digest = Digest::of(b"manifest");
        for (text, host, name, tag) in [
            ("oci://registry.example/fl-client:1", "registry.example", "fl-client", Some("1")),
            ("oci://127.0.0.1:5000/a/b_c/d-e.f", "127.0.0.1:5000", "a/b_c/d-e.f", Some("latest")),
            ("oci://[::1]:5000/a:B.c-D_1", "[::1]:5000", "a", Some("B.c-D_1")),
            (&format!("oci://localhost/a@sha256:{digest}"), "localhost", "a", None),
        ] {
            let image: ImageRef = text.parse().unwrap();
            assert_eq!((image.host(), image.name(), image.tag()), (host, name, tag), "{text}");
            assert_eq!(image.to_string().parse(), Ok(image));
        }
        let both: ImageRef = format!("oci://h/a:1@sha256:{digest}").parse().unwrap();
        assert_eq!(both.digest(), Some(digest));
        let tagged: ImageRef = "oci://h/a:1".parse().unwrap();
        assert_eq!(tagged.digest(), None);
        assert_eq!(tagged.pinned(digest), both);
    }

    #[test]
    fn what_is_no_image_is_named_without_its_secrets() {
        for text in [
            "",
            "h/a:1",
            "https://h/a:1",
            "oci://",
            "oci://h",
            "oci://h/",
            "oci:///a",
            "oci://h/A",
            "oci://h/a:",
            "oci://h/a:-",
            "oci://h/a b",
            "oci://h/a//b",
            "oci://h/../a",
            "oci://h/-a",
            "oci://h:0/a",
            "oci://h:99999/a",
            "oci://h:+1/a",
            "oci://h:/a",
            "oci://h_h/a",
            "oci://[1]/a",
            "oci://h..h/a",
            "oci://h/a@sha256:12",
            "oci://h/a@sha512:12",
            "oci://h/a?b=c",
        ] {
            let why = text.parse::<ImageRef>().unwrap_err().to_string();
            assert!(why.starts_with(&format!("{text:?} is not")), "{why}");
        }
        let why = "oci://user:secret@h/a:1".parse::<ImageRef>().unwrap_err().to_string();
        assert!(why.contains("***@h") && !why.contains("secret"), "{why}");
        let long = format!("oci://h/{}", "a".repeat(5000)).parse::<ImageRef>().unwrap_err();
        assert!(long.to_string().len() < 500);
    }
}
