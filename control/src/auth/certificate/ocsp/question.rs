//! What a responder is asked, and where.
//!
//! A question is made of a chain that has been validated, and of nothing else: so no client can
//! have the gateway call whom it likes. It names the issuer by SHA-1, as RFC 5019 wants it; nothing
//! is believed because of that hash. There is no nonce, so that responders may sign ahead; how old
//! an answer may be is judged by its times. This module must not know how questions travel.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::answer::{Hash, Reader};
use crate::auth::backend::CertificateId;

/// Characters of a responder's address.
const ADDRESS_MAX: usize = 1024;
/// Characters of an address with its question, up to which it is fetched and not posted.
const FETCHED_MAX: usize = 255;
/// `AlgorithmIdentifier` of SHA-1.
const SHA1: &[u8] = &[0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00];

/// Who issued certificates: as much as an answer needs to be judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issuer {
    /// Contents of its name.
    pub(super) name: Vec<u8>,
    /// Contents of its `SubjectPublicKeyInfo`.
    pub(super) key: Vec<u8>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// About which certificate.
    pub id: CertificateId,
    /// Who issued it.
    pub issuer: Arc<Issuer>,
    /// Whom to ask: `http://…`.
    pub responder: String,
}

impl Issuer {
    /// Of the contents of its name and of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn new(name: &[u8], key: &[u8]) -> Self {
        Self { name: name.to_vec(), key: key.to_vec() }
    }

    /// The algorithm and the bits of its key.
    pub(super) fn public_key(&self) -> Option<(&[u8], &[u8])> {
        public_key(&self.key)
    }

    /// Hashes of its name and of its key.
    pub(super) fn hashes(&self, hash: Hash) -> Option<(Vec<u8>, Vec<u8>)> {
        let (_, key) = self.public_key()?;
        Some((hash.of(&element(0x30, &self.name)), hash.of(key)))
    }
}

impl Hash {
    pub(super) fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(bytes).to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
        }
    }
}

impl Question {
    /// `OCSPRequest`. None if the issuer's key is not one.
    #[must_use]
    pub fn encoded(&self) -> Option<Vec<u8>> {
        let (name, key) = self.issuer.hashes(Hash::Sha1)?;
        let parts = [
            SHA1.to_vec(),
            element(0x04, &name),
            element(0x04, &key),
            element(0x02, &self.id.serial),
        ];
        let certificate = element(0x30, &parts.concat());
        let list = element(0x30, &element(0x30, &certificate));
        Some(element(0x30, &element(0x30, &list)))
    }

    /// As it is kept across a restart.
    #[must_use]
    pub fn to_kept(&self) -> Vec<u8> {
        let text = |bytes: &[u8]| STANDARD.encode(bytes);
        let (id, issuer) = (&self.id, &self.issuer);
        let parts = [&id.issuer, &id.serial, &issuer.name, &issuer.key].map(|part| text(part));
        format!("{} {}", parts.join(" "), self.responder).into_bytes()
    }

    /// What was kept; none if it is damaged.
    #[must_use]
    pub fn from_kept(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let parts: Vec<&str> = text.split(' ').collect();
        let &[issuer, serial, name, key, address] = parts.as_slice() else { return None };
        let part = |text: &str| STANDARD.decode(text).ok();
        let id = CertificateId { issuer: part(issuer)?, serial: part(serial)? };
        let issuer = Issuer { name: part(name)?, key: part(key)? };
        responder(address).ok()?;
        issuer.public_key()?;
        Some(Self { id, issuer: Arc::new(issuer), responder: address.to_owned() })
    }

    /// The address to fetch the answer from, if it is short enough.
    pub(super) fn address(&self, encoded: &[u8]) -> Option<String> {
        let text = STANDARD.encode(encoded);
        let text = text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let address = format!("{}/{text}", self.responder.trim_end_matches('/'));
        (address.len() <= FETCHED_MAX).then_some(address)
    }
}

/// The first responder that a certificate names and that may be asked.
#[must_use]
pub fn named(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let access = parsed.extensions().iter().find_map(|extension| {
        let ParsedExtension::AuthorityInfoAccess(access) = extension.parsed_extension() else {
            return None;
        };
        Some(access)
    })?;
    let named = access.iter().filter(|one| one.access_method == OID_PKIX_ACCESS_DESCRIPTOR_OCSP);
    let addresses = named.filter_map(|one| {
        let GeneralName::URI(address) = &one.access_location else { return None };
        Some(*address)
    });
    addresses.into_iter().find(|address| is_askable(address)).map(str::to_owned)
}

fn is_askable(address: &str) -> bool {
    let is_outside = |url: &Url| {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            // Where clouds tell machines their secrets.
            Ok(IpAddr::V4(v4)) => !(v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()),
            Ok(IpAddr::V6(v6)) => !(v6.is_unicast_link_local() || v6.is_multicast()),
            Err(_) => true,
        }
    };
    responder(address).is_ok_and(|url| is_outside(&url))
}

/// Reads the address of a responder. Answers are signed, so that nothing but `http` is needed, and
/// a responder's own certificate would have to be asked for in turn.
///
/// # Errors
///
/// What is wrong with it.
pub fn responder(address: &str) -> Result<Url, String> {
    let url = Url::parse(address).map_err(|error| format!("\"{address}\" is no URL: {error}"))?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    if address.len() > ADDRESS_MAX {
        Err(format!("the address of the responder is longer than {ADDRESS_MAX} characters"))
    } else if url.scheme() != "http" || url.host_str().is_none_or(str::is_empty) {
        Err(format!("\"{address}\" is no http address"))
    } else if !is_plain || url.fragment().is_some() || url.query().is_some() {
        Err("the address of a responder has neither a user, nor \"?\", nor \"#\"".to_owned())
    } else {
        Ok(url)
    }
}

/// What is in a sequence that is all there is.
pub(in super::super) fn contents(whole: &[u8]) -> Option<&[u8]> {
    let mut outer = Reader(whole);
    let inside = outer.sequence()?;
    outer.end().map(|()| inside.0)
}

/// Algorithm and bits of the contents of a `SubjectPublicKeyInfo`.
pub(super) fn public_key(contents: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = Reader(contents);
    let algorithm = parts.sequence()?.0;
    let key = parts.bits()?;
    parts.end()?;
    Some((algorithm, key))
}

/// An element of DER.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = vec![tag];
    if len < 0x80 {
        out.push(len as u8);
    } else {
        let bytes = len.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (bytes.len() - zeros) as u8);
        out.extend_from_slice(&bytes[zeros..]);
    }
    out.extend_from_slice(content);
    out
}
