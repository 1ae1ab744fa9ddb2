//! What a responder answers (RFC 6960, section 4.2), read and not yet believed.
//!
//! Only the shape is looked at: everything is a slice of what came, so that the signature is
//! checked over the very bytes that were read. Whatever this gateway would have to understand and
//! does not (an extension that is critical, another type of answer, trailing bytes) makes the
//! answer worthless as a whole. This module must not know who may sign, or what is asked.

use x509_parser::asn1_rs::{Any, Class, FromDer as _};
use x509_parser::prelude::ASN1Time;

use crate::store::records::Timestamp;

/// Bytes of an answer: one with a responder's certificate has two thousand, with RSA 4096.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Certificates in an answer: the responder's, and perhaps the way up.
const CERTIFICATES_MAX: usize = 8;
/// Certificates that an answer speaks of. Responders that sign ahead speak of one.
const SINGLES_MAX: usize = 64;

/// The type of answer that is read, id-pkix-ocsp-basic: 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
/// 1.3.14.3.2.26 and 2.16.840.1.101.3.4.2.1.
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

/// Universal tags.
const BOOLEAN: u32 = 1;
const INTEGER: u32 = 2;
const BIT_STRING: u32 = 3;
const OCTET_STRING: u32 = 4;
const OBJECT_IDENTIFIER: u32 = 6;
const ENUMERATED: u32 = 10;
const SEQUENCE: u32 = 16;
const GENERALIZED_TIME: u32 = 24;

/// Why nothing was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The responder says that it does not answer; nobody has signed that.
    #[error("the responder refuses: {}", refusal(*.0))]
    Refusal(u8),
    /// Not an answer, or one with something that is not understood.
    #[error("{0}")]
    Malformed(&'static str),
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The bytes under the signature.
    pub signed: &'a [u8],
    /// Who says to have signed.
    pub responder: Responder<'a>,
    /// With which algorithm: contents of an `AlgorithmIdentifier`.
    pub algorithm: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
    /// Certificates that came with it.
    pub certificates: Vec<&'a [u8]>,
    /// What is said of each certificate.
    pub singles: Vec<Single<'a>>,
}

/// How a responder names itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responder<'a> {
    /// Contents of its name.
    Name(&'a [u8]),
    /// SHA-1 of its key.
    Key(&'a [u8]),
}

/// By which hash an answer names an issuer. Nothing is believed because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// What nearly all use.
    Sha1,
    /// What newer ones use.
    Sha256,
}

/// What is said of a certificate.
#[derive(Debug, PartialEq, Eq)]
pub struct Single<'a> {
    /// Hash of the two that follow; none if it is an unknown one, and then it is of another
    /// certificate than ours.
    pub hash: Option<Hash>,
    /// Of the issuer's name.
    pub name: &'a [u8],
    /// Of the issuer's key.
    pub key: &'a [u8],
    /// Serial number, as it is encoded.
    pub serial: &'a [u8],
    /// What is said.
    pub status: Status,
    /// Since when that is known to be right.
    pub this_update: Timestamp,
    /// When more will be known.
    pub next_update: Option<Timestamp>,
}

/// What a responder says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It is not revoked.
    Good,
    /// It is.
    Revoked,
    /// It knows of no such certificate.
    Unknown,
}

impl<'a> Answer<'a> {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// The responder refused, or it is no answer that can be understood.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let malformed = |what| move || ReadError::Malformed(what);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(ReadError::Malformed("the answer is too long"));
        }
        let mut outer = Reader(bytes);
        let mut response = outer.sequence().ok_or_else(malformed("no answer of OCSP"))?;
        outer.end().ok_or_else(malformed("bytes after the answer"))?;
        match response.universal(ENUMERATED).ok_or_else(malformed("no status of the answer"))? {
            [0] => {}
            [status] => return Err(ReadError::Refusal(*status)),
            _ => return Err(ReadError::Malformed("no status of the answer")),
        }
        let basic = basic(response).ok_or_else(malformed("not a basic answer of OCSP"))?;
        let mut inside = Reader(basic);
        let mut parts = inside.sequence().ok_or_else(malformed("no basic answer"))?;
        inside.end().ok_or_else(malformed("bytes after the basic answer"))?;
        let signed = parts.next().ok_or_else(malformed("nothing is signed"))?;
        let (algorithm, signature) = signature(&mut parts).ok_or_else(malformed("no signature"))?;
        let certificates =
            certificates(&mut parts).ok_or_else(malformed("damaged certificates"))?;
        parts.end().ok_or_else(malformed("bytes after the certificates"))?;
        let (responder, singles) = said(&signed)
            .ok_or_else(malformed("what is said is damaged, too much or not understood"))?;
        Ok(Self { signed: signed.whole, responder, algorithm, signature, certificates, singles })
    }
}

/// The contents of the basic answer.
fn basic<'a>(mut response: Reader<'a>) -> Option<&'a [u8]> {
    let mut tagged = Reader(response.tagged(0)?);
    response.end()?;
    let mut bytes = tagged.sequence()?;
    tagged.end()?;
    let kind = bytes.universal(OBJECT_IDENTIFIER)?;
    let basic = bytes.universal(OCTET_STRING)?;
    bytes.end()?;
    (kind == BASIC).then_some(basic)
}

fn signature<'a>(parts: &mut Reader<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let algorithm = parts.sequence()?.0;
    let [0, signature @ ..] = parts.universal(BIT_STRING)? else { return None };
    Some((algorithm, signature))
}

fn certificates<'a>(parts: &mut Reader<'a>) -> Option<Vec<&'a [u8]>> {
    let Some(tagged) = parts.tagged(0) else { return Some(Vec::new()) };
    let mut tagged = Reader(tagged);
    let mut list = tagged.sequence()?;
    tagged.end()?;
    let mut certificates = Vec::new();
    while list.end().is_none() {
        let one = list.next()?;
        if certificates.len() == CERTIFICATES_MAX || !one.is_universal(SEQUENCE) {
            return None;
        }
        certificates.push(one.whole);
    }
    Some(certificates)
}

/// `ResponseData`.
fn said<'a>(signed: &Item<'a>) -> Option<(Responder<'a>, Vec<Single<'a>>)> {
    if !signed.is_universal(SEQUENCE) {
        return None;
    }
    let mut data = Reader(signed.content);
    if let Some(version) = data.tagged(0) {
        let mut version = Reader(version);
        // The first, which is 0, and there is no other.
        if version.universal(INTEGER)? != [0] || version.end().is_none() {
            return None;
        }
    }
    let responder = if let Some(name) = data.tagged(1) {
        let mut name = Reader(name);
        let contents = name.sequence()?.0;
        name.end()?;
        Responder::Name(contents)
    } else {
        let mut key = Reader(data.tagged(2)?);
        let hash = key.universal(OCTET_STRING)?;
        key.end()?;
        Responder::Key(hash)
    };
    let _produced_at = data.time()?;
    let mut list = data.sequence()?;
    let mut singles = Vec::new();
    while list.end().is_none() {
        if singles.len() == SINGLES_MAX {
            return None;
        }
        singles.push(single(list.sequence()?)?);
    }
    harmless(&mut data)?;
    data.end()?;
    Some((responder, singles))
}

fn single(mut parts: Reader<'_>) -> Option<Single<'_>> {
    let mut id = parts.sequence()?;
    let mut algorithm = id.sequence()?;
    let hash = match algorithm.universal(OBJECT_IDENTIFIER)? {
        SHA1 => Some(Hash::Sha1),
        SHA256 => Some(Hash::Sha256),
        _ => None,
    };
    let name = id.universal(OCTET_STRING)?;
    let key = id.universal(OCTET_STRING)?;
    let serial = id.universal(INTEGER)?;
    id.end()?;
    let status = parts.next()?;
    let status = match (status.class, status.tag, status.content) {
        (Class::ContextSpecific, 0, []) => Status::Good,
        (Class::ContextSpecific, 1, revoked) => {
            // When, and perhaps why: it does not matter here.
            Reader(revoked).time()?;
            Status::Revoked
        }
        (Class::ContextSpecific, 2, []) => Status::Unknown,
        _ => return None,
    };
    let this_update = parts.time()?;
    let next_update = match parts.tagged(0) {
        None => None,
        Some(tagged) => {
            let mut tagged = Reader(tagged);
            let time = tagged.time()?;
            tagged.end()?;
            Some(time)
        }
    };
    harmless(&mut parts)?;
    parts.end()?;
    Some(Single { hash, name, key, serial, status, this_update, next_update })
}

/// Extensions, if there are any: none may be critical, because none is understood.
fn harmless(parts: &mut Reader<'_>) -> Option<()> {
    let Some(tagged) = parts.tagged(1) else { return Some(()) };
    let mut tagged = Reader(tagged);
    let mut list = tagged.sequence()?;
    tagged.end()?;
    while list.end().is_none() {
        let mut extension = list.sequence()?;
        extension.universal(OBJECT_IDENTIFIER)?;
        if extension.universal(BOOLEAN).is_some_and(|critical| critical != [0]) {
            return None;
        }
        extension.universal(OCTET_STRING)?;
        extension.end()?;
    }
    Some(())
}

const fn refusal(status: u8) -> &'static str {
    match status {
        1 => "it does not understand the question",
        2 => "an error of its own",
        3 => "try later",
        5 => "the question must be signed",
        6 => "it is not responsible for this certificate",
        _ => "for a reason that is not known",
    }
}

/// One element of DER.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    class: Class,
    tag: u32,
    /// What is in it.
    pub(super) content: &'a [u8],
    /// With its header.
    pub(super) whole: &'a [u8],
}

impl Item<'_> {
    fn is_universal(&self, tag: u32) -> bool {
        self.class == Class::Universal && self.tag == tag
    }
}

/// Elements of DER one after the other. Whoever asks for one that is not next takes nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn next(&mut self) -> Option<Item<'a>> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        let whole = self.0.get(..self.0.len().checked_sub(rest.len())?)?;
        self.0 = rest;
        Some(Item { class: any.class(), tag: any.tag().0, content: any.data, whole })
    }

    fn take(&mut self, class: Class, tag: u32) -> Option<Item<'a>> {
        let mut ahead = *self;
        let item = ahead.next().filter(|item| item.class == class && item.tag == tag)?;
        *self = ahead;
        Some(item)
    }

    fn universal(&mut self, tag: u32) -> Option<&'a [u8]> {
        self.take(Class::Universal, tag).map(|item| item.content)
    }

    /// What is under an explicit tag.
    fn tagged(&mut self, tag: u32) -> Option<&'a [u8]> {
        self.take(Class::ContextSpecific, tag).map(|item| item.content)
    }

    pub(super) fn sequence(&mut self) -> Option<Self> {
        self.universal(SEQUENCE).map(Self)
    }

    pub(super) fn bits(&mut self) -> Option<&'a [u8]> {
        self.universal(BIT_STRING)?.strip_prefix(&[0])
    }

    fn time(&mut self) -> Option<Timestamp> {
        let item = self.take(Class::Universal, GENERALIZED_TIME)?;
        let (_, time) = ASN1Time::from_der(item.whole).ok()?;
        Some(Timestamp(time.timestamp().checked_mul(1000)?))
    }

    /// Whether nothing is left.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
