//! Client certificates: whose chain is believed, whether it was taken back, and whom it names.
//!
//! TLS has proved that the client holds the key; here the chain is validated for the purpose of a
//! client, with revocation lists for every certificate below the authority. What the client is told
//! is three sentences ("no certificate provided", "certificate validation failed", "certificate
//! revoked"); the details are in the log and the counters. Whoever came in by a certificate can be
//! found again when it is revoked ([`Certificates::revoked_now`]). This module must not know TLS or
//! users.

mod identity;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::aws_lc_rs as algorithms;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::backend::{Answer, BackEnd, CertificateId, Proof, Request, Work};
use super::reason::Reason;
use crate::store::records::Timestamp;
use trust::Trust;

pub use identity::UserFrom;
pub use trust::Kind;

/// Certificates that a client may present: its own and the way up.
pub const CHAIN_MAX: usize = 10;
/// Bytes of one.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// How long before its end something should be renewed.
pub const NOTICE_DAYS: i64 = 14;

const DAY_MS: i64 = 86_400_000;

/// What certificates may be signed with: nothing below SHA-256, RSA from 2048 bits, curves from
/// 256.
static SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// What to do when a revocation list is missing for an authority or past its next update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListPolicy {
    /// Refuse.
    #[default]
    Strict,
    /// Warn, and believe what is there.
    Warn,
}

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSettings {
    /// PEM file of authorities, at most 256.
    pub authorities: PathBuf,
    /// Revocation lists, PEM or DER, at most 256. Without any, nothing is ever revoked.
    pub lists: Vec<PathBuf>,
    /// What to do when they do not tell.
    pub list_policy: ListPolicy,
    /// Where the user's name is.
    pub user_from: UserFrom,
    /// Permissions by the object identifier of a certificate policy, as `1.3.6.1.4.1.99999.1`. The
    /// authority signs policies, and clients cannot ask for them.
    pub permissions: BTreeMap<String, String>,
}

impl CertificateSettings {
    /// With defaults for the rest.
    #[must_use]
    pub fn new(authorities: PathBuf, lists: Vec<PathBuf>) -> Self {
        Self {
            authorities,
            lists,
            list_policy: ListPolicy::default(),
            user_from: UserFrom::default(),
            permissions: BTreeMap::new(),
        }
    }
}

/// Something that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What kind of thing.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Whole days left; negative if it is over.
    pub days_left: i64,
    /// When it ends.
    pub ends: Timestamp,
    /// Whether it is time to renew it: [`NOTICE_DAYS`] before its end, or in the last quarter of a
    /// life that is shorter, as lists have that are made every few days.
    pub is_near: bool,
}

impl Expiry {
    /// Of something that is good from one moment to another.
    #[must_use]
    pub fn of(kind: Kind, name: String, life: (Timestamp, Timestamp), now: Timestamp) -> Self {
        let (begins, ends) = life;
        let notice = (NOTICE_DAYS * DAY_MS).min(ends.since(begins) / 4);
        let is_near = ends.since(now) < notice.max(0) || ends <= now;
        Self { kind, name, days_left: days(ends, now), ends, is_near }
    }
}

/// The back end of client certificates.
#[derive(Clone, Debug)]
pub struct Certificates {
    settings: Arc<CertificateSettings>,
    trust: Arc<RwLock<Arc<Trust>>>,
}

impl Certificates {
    /// Reads authorities and lists.
    ///
    /// # Errors
    ///
    /// Which file cannot be read or is damaged, and how.
    pub fn new(settings: CertificateSettings) -> Result<Self, String> {
        let trust = Trust::read(&settings.authorities, &settings.lists)?;
        let trust = Arc::new(RwLock::new(Arc::new(trust)));
        Ok(Self { settings: Arc::new(settings), trust })
    }

    /// Reads the files again if they have changed. Blocks. True if something new is in force: then
    /// [`Self::revoked_now`] may have another answer.
    ///
    /// # Errors
    ///
    /// As for `new`; what was in force stays in force.
    pub fn reload(&self) -> Result<bool, String> {
        let CertificateSettings { authorities, lists, .. } = &*self.settings;
        if !self.trust().is_outdated(authorities, lists) {
            return Ok(false);
        }
        let trust = Trust::read(authorities, lists)?;
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
        Ok(true)
    }

    /// Which of these certificates, by which somebody came in, are revoked by now. Whether one of
    /// an authority above is has to be asked for that one.
    #[must_use]
    pub fn revoked_now(&self, live: &[CertificateId]) -> Vec<CertificateId> {
        let trust = self.trust();
        let is_revoked = |id: &&CertificateId| {
            let own = trust.lists.iter().filter(|list| list.issuer() == id.issuer);
            own.into_iter().any(|list| matches!(list.find_serial(&id.serial), Ok(Some(_))))
        };
        live.iter().filter(is_revoked).cloned().collect()
    }

    /// When authorities and revocation lists end, the nearest end first.
    #[must_use]
    pub fn expiries(&self, now: Timestamp) -> Vec<Expiry> {
        let trust = self.trust();
        let all = trust.lives.iter();
        let mut expiries: Vec<Expiry> =
            all.map(|(kind, name, life)| Expiry::of(*kind, name.clone(), *life, now)).collect();
        expiries.sort_by_key(|expiry| expiry.ends);
        expiries
    }

    /// Whom a chain proves, the client's own certificate first.
    ///
    /// # Errors
    ///
    /// Why nobody.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Proof, Reason> {
        let (own, above) = chain.split_first().ok_or(Reason::CertificateNone)?;
        if chain.len() > CHAIN_MAX || chain.iter().any(|one| one.len() > CERTIFICATE_BYTES_MAX) {
            return Err(Reason::CertificateMalformed);
        }
        let certificates = self.validate(own, above, now)?;
        let (_, parsed) =
            X509Certificate::from_der(own).map_err(|_| Reason::CertificateMalformed)?;
        if !identity::is_strong(&parsed) {
            return Err(Reason::CertificateWeak);
        }
        let settings = &self.settings;
        let mut proof = identity::read(&parsed, settings.user_from, &settings.permissions)?;
        proof.attributes.certificates = certificates;
        Ok(proof)
    }

    /// The certificates on the way up, the client's own first, without the one that is trusted.
    fn validate(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<Vec<CertificateId>, Reason> {
        let refused = |error: webpki::Error| {
            // The details are for the operator alone.
            tracing::debug!(%error, "client certificate refused");
            reason(&error)
        };
        let trust = self.trust();
        let certificate = EndEntityCert::try_from(own).map_err(refused)?;
        let ms = u64::try_from(now.0).unwrap_or(0);
        let time = UnixTime::since_unix_epoch(Duration::from_millis(ms));
        let lists: Vec<&CertRevocationList<'_>> = trust.lists.iter().collect();
        let (status, expiration) = match self.settings.list_policy {
            ListPolicy::Strict => (UnknownStatusPolicy::Deny, ExpirationPolicy::Enforce),
            ListPolicy::Warn => (UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore),
        };
        let options = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options.with_status_policy(status).with_expiration_policy(expiration).build()
        });
        let way = certificate
            .verify_for_usage(
                SIGNATURES,
                &trust.anchors,
                above,
                time,
                KeyUsage::client_auth(),
                options,
                None,
            )
            .map_err(refused)?;
        let id = |issuer: &[u8], serial: &[u8]| CertificateId {
            issuer: issuer.to_vec(),
            serial: serial.to_vec(),
        };
        let between = way.intermediate_certificates().map(|one| id(one.issuer(), one.serial()));
        Ok(std::iter::once(id(certificate.issuer(), certificate.serial())).chain(between).collect())
    }

    fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl BackEnd for Certificates {
    fn name(&self) -> &'static str {
        "certificate"
    }

    fn begin(&self, request: Request) -> Work {
        let this = self.clone();
        Work::blocking(move |_| {
            let proof = this.verify(&request.credentials.certificates, request.now);
            proof.map_or_else(Answer::Refused, Answer::Accepted)
        })
    }
}

/// How many whole days a client's certificate has left; none if it is no certificate.
#[must_use]
pub fn days_left(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let end = parsed.validity().not_after.timestamp().saturating_mul(1000);
    Some(days(Timestamp(end), now))
}

const fn days(end: Timestamp, now: Timestamp) -> i64 {
    end.since(now).div_euclid(DAY_MS)
}

/// What an error of the validation means. What is not named is a chain that convinces nobody.
fn reason(error: &webpki::Error) -> Reason {
    use webpki::Error as E;

    if matches!(error, E::CertExpired { .. }) {
        Reason::CertificateExpired
    } else if matches!(error, E::CertNotValidYet { .. }) {
        Reason::CertificateNotYet
    } else if matches!(error, E::CertRevoked) {
        Reason::CertificateRevoked
    } else if matches!(
        error,
        E::UnknownRevocationStatus
            | E::CrlExpired { .. }
            | E::InvalidCrlSignatureForPublicKey
            | E::IssuerNotCrlSigner
            | E::UnsupportedCrlSignatureAlgorithmContext(_)
            | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_)
    ) {
        Reason::CertificateStatus
    } else if matches!(
        error,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension | E::CaUsedAsEndEntity
    ) {
        Reason::CertificatePurpose
    } else if matches!(
        error,
        E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
    ) {
        Reason::CertificateWeak
    } else if matches!(
        error,
        E::BadDer
            | E::BadDerTime
            | E::TrailingData(_)
            | E::MalformedExtensions
            | E::ExtensionValueInvalid
            | E::InvalidCertValidity
            | E::InvalidSerialNumber
            | E::UnsupportedCertVersion
            | E::SignatureAlgorithmMismatch
    ) {
        Reason::CertificateMalformed
    } else {
        Reason::CertificateUntrusted
    }
}

#[cfg(test)]
#[path = "../certificate_tests.rs"]
mod tests;
