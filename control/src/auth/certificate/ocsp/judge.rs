//! Whether an answer is believed, and what it says.
//!
//! It must be about the certificate that was asked for, signed by its issuer or by somebody whom
//! that issuer has appointed by a certificate of its own for this purpose, and of now. Pure: time
//! and revocation lists are arguments. This module must not know where an answer comes from.

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::super::{SIGNATURES, unix};
use super::answer::{Answer, Hash, ReadError, Responder, Single, Status};
use super::question::{Question, contents, public_key};
use crate::store::records::Timestamp;

/// How far clocks may be apart, in milliseconds.
const SKEW_MS: i64 = 5 * 60_000;
/// How long an answer is used that does not say when the next one comes: its responder looks at
/// every question.
const UNDATED_MS: i64 = 10_000;
/// How old such an answer may be. Longer, and somebody could have kept it.
const UNDATED_AGE_MS: i64 = 10 * 60_000;
/// How long any other is used.
const USED_MS_MAX: i64 = 12 * 3_600_000;

/// id-kp-OCSPSigning, 1.3.6.1.5.5.7.3.9.
static FOR_ANSWERS: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09];
/// id-pkix-ocsp-nocheck, 1.3.6.1.5.5.7.48.1.5: the responder's certificate is good until it ends.
const NOT_REVOKED: &str = "1.3.6.1.5.5.7.48.1.5";

/// What an answer says that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the responder says.
    pub status: Status,
    /// Until when that may be used.
    pub until: Timestamp,
}

/// Why an answer says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Worthless {
    /// It cannot be read, or the responder refused to answer.
    #[error(transparent)]
    Unread(#[from] ReadError),
    /// It is about other certificates.
    #[error("the answer is about another certificate")]
    Other,
    /// Nobody who may answer has signed it.
    #[error("the answer is not signed by the issuer or by whom it appointed")]
    Signature,
    /// It is of another time.
    #[error("the answer is of another time: look at the clocks and at the responder")]
    Time,
}

/// What `bytes` answer to `question`.
///
/// # Errors
///
/// Why they say nothing.
pub fn judge(
    bytes: &[u8],
    question: &Question,
    lists: &[CertRevocationList<'_>],
    now: Timestamp,
) -> Result<Verdict, Worthless> {
    let answer = Answer::read(bytes)?;
    let single = answer.singles.iter().find(|single| is_about(single, question));
    let single = single.ok_or(Worthless::Other)?;
    if !is_signed(&answer, question, lists, now) {
        return Err(Worthless::Signature);
    }
    let until = until(single, now).ok_or(Worthless::Time)?;
    Ok(Verdict { status: single.status, until })
}

fn is_about(single: &Single<'_>, question: &Question) -> bool {
    let hashes = single.hash.and_then(|hash| question.issuer.hashes(hash));
    let is_issuer = hashes.is_some_and(|(name, key)| name == single.name && key == single.key);
    is_issuer && single.serial == question.id.serial
}

/// Until when an answer may be used at `now`; none if it may not.
fn until(single: &Single<'_>, now: Timestamp) -> Option<Timestamp> {
    let begun = single.this_update;
    if begun > now.plus_ms(SKEW_MS) {
        return None;
    }
    match single.next_update {
        Some(next) if next < begun || next.plus_ms(SKEW_MS) <= now => None,
        // A clock that is ahead of ours by less than the skew must not have us ask at once again.
        Some(next) => Some(next.min(now.plus_ms(USED_MS_MAX)).max(now.plus_ms(UNDATED_MS))),
        None if now.since(begun) > UNDATED_AGE_MS => None,
        None => Some(now.plus_ms(UNDATED_MS)),
    }
}

fn is_signed(
    answer: &Answer<'_>,
    question: &Question,
    lists: &[CertRevocationList<'_>],
    now: Timestamp,
) -> bool {
    let issuer = &question.issuer;
    let named = |name: &[u8], key: &[u8]| match answer.responder {
        Responder::Name(own) => own == name,
        Responder::Key(hash) => hash == Hash::Sha1.of(key),
    };
    let by = |(algorithm, key): (&[u8], &[u8])| is_signature(answer, algorithm, key);
    if let Some((algorithm, key)) = issuer.public_key()
        && named(&issuer.name, key)
        && by((algorithm, key))
    {
        return true;
    }
    answer.certificates.iter().any(|certificate| {
        let certificate = CertificateDer::from(*certificate);
        let Ok(appointed) = EndEntityCert::try_from(&certificate) else { return false };
        let whole = appointed.subject_public_key_info();
        let Some(key) = contents(&whole).and_then(public_key) else { return false };
        named(appointed.subject(), key.1)
            && by(key)
            && is_appointed(&appointed, &certificate, question, lists, now)
    })
}

/// Whether the issuer itself has given somebody a certificate for answers that is good now.
fn is_appointed(
    appointed: &EndEntityCert<'_>,
    certificate: &CertificateDer<'_>,
    question: &Question,
    lists: &[CertRevocationList<'_>],
    now: Timestamp,
) -> bool {
    let issuer = [TrustAnchor {
        subject: question.issuer.name.as_slice().into(),
        subject_public_key_info: question.issuer.key.as_slice().into(),
        name_constraints: None,
    }];
    // Without that extension whoever has stolen a responder's key could answer for ever: the
    // lists that are there are looked at. Asking about responders has no end.
    let is_asked = !says_not_revoked(certificate);
    let lists: Vec<&CertRevocationList<'_>> = lists.iter().filter(|_| is_asked).collect();
    let options = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        options
            .with_status_policy(UnknownStatusPolicy::Allow)
            .with_expiration_policy(ExpirationPolicy::Ignore)
            .build()
    });
    let time: UnixTime = unix(now);
    let usage = KeyUsage::required(FOR_ANSWERS);
    let way = appointed.verify_for_usage(SIGNATURES, &issuer, &[], time, usage, options, None);
    way.is_ok()
}

fn says_not_revoked(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
        parsed.extensions().iter().any(|extension| extension.oid.to_id_string() == NOT_REVOKED)
    })
}

/// Whether the key has signed the answer, with an algorithm that is good enough for certificates.
fn is_signature(answer: &Answer<'_>, algorithm: &[u8], key: &[u8]) -> bool {
    SIGNATURES
        .iter()
        .filter(|known| known.signature_alg_id().as_ref() == answer.algorithm)
        .filter(|known| known.public_key_alg_id().as_ref() == algorithm)
        .any(|known| known.verify_signature(key, answer.signed, answer.signature).is_ok())
}
