//! Client certificates: whose chain is believed, whether it was taken back, and whom it names.
//!
//! TLS has proved that the client holds the key; here the chain is validated for the purpose of a
//! client, with revocation lists for every certificate below the authority, and responders
//! ([`ocsp`]) are asked about each if that is wanted. What the client is told is three sentences
//! ("no certificate provided", "certificate validation failed", "certificate revoked"); the details
//! are in the log and the counters. Whoever came in by a certificate can be found again when it is
//! revoked ([`Certificates::revoked_now`]). This module must not know TLS or users.

mod identity;
pub mod ocsp;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::aws_lc_rs as algorithms;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::backend::{Answer, BackEnd, CertificateId, Proof, Request, Work};
use super::reason::Reason;
use crate::store::records::Timestamp;
use ocsp::answer::Status;
use ocsp::{Issuer, Note, OcspPolicy, OcspSettings, Outcome, Question, Responders};
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
/// How long before somebody stops waiting the answer is given without a responder's.
const MARGIN: Duration = Duration::from_millis(200);

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
    /// Whether authorities are asked about each certificate.
    pub ocsp: OcspSettings,
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
            ocsp: OcspSettings::default(),
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
    /// None if nobody is asked.
    responders: Option<Arc<Responders>>,
    /// Certificates that let in though no responder said that they are good.
    unanswered: Arc<AtomicU64>,
}

/// Whose chain it is, and what has to be asked about it.
struct Examined {
    proof: Proof,
    questions: Vec<Arc<Question>>,
    /// Whether nobody can be asked about the client's own certificate.
    is_nameless: bool,
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
        let responders = match settings.ocsp.policy {
            OcspPolicy::Off => None,
            OcspPolicy::Warn | OcspPolicy::Strict => Some(Arc::new(Responders::new()?)),
        };
        Ok(Self { settings: Arc::new(settings), trust, responders, unanswered: Arc::default() })
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
        let mut revoked: Vec<CertificateId> = live.iter().filter(is_revoked).cloned().collect();
        if let Some(responders) = &self.responders {
            revoked.extend(responders.revoked(live));
            revoked.sort();
            revoked.dedup();
        }
        revoked
    }

    /// Who asks about single certificates, if anybody does.
    #[must_use]
    pub fn responders(&self) -> Option<Asking<'_>> {
        self.responders.as_ref().map(|responders| Asking { own: self, responders })
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

    /// Whom a chain proves, the client's own certificate first, with what responders have said
    /// already: nobody is asked.
    ///
    /// # Errors
    ///
    /// Why nobody.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Proof, Reason> {
        let examined = self.examine(chain, now)?;
        let silent = || examined.questions.iter().map(|_| Outcome::Silent).collect();
        let outcomes = match &self.responders {
            Some(responders) => responders.known(&examined.questions, now).unwrap_or_else(silent),
            None => Vec::new(),
        };
        self.conclude(examined, &outcomes)
    }

    /// Everything but what responders say.
    fn examine(
        &self,
        chain: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Examined, Reason> {
        let (own, above) = chain.split_first().ok_or(Reason::CertificateNone)?;
        if chain.len() > CHAIN_MAX || chain.iter().any(|one| one.len() > CERTIFICATE_BYTES_MAX) {
            return Err(Reason::CertificateMalformed);
        }
        let (certificates, questions, is_nameless) = self.validate(own, above, now)?;
        let (_, parsed) =
            X509Certificate::from_der(own).map_err(|_| Reason::CertificateMalformed)?;
        if !identity::is_strong(&parsed) {
            return Err(Reason::CertificateWeak);
        }
        let settings = &self.settings;
        let mut proof = identity::read(&parsed, settings.user_from, &settings.permissions)?;
        proof.attributes.certificates = certificates;
        Ok(Examined { proof, questions, is_nameless })
    }

    /// The certificates on the way up, the client's own first, without the one that is trusted;
    /// what has to be asked about them; and whether nobody can be asked about the first.
    #[expect(clippy::type_complexity, reason = "three things that are taken apart at once")]
    fn validate(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(Vec<CertificateId>, Vec<Arc<Question>>, bool), Reason> {
        let refused = |error: webpki::Error| {
            // The details are for the operator alone.
            tracing::debug!(%error, "client certificate refused");
            reason(&error)
        };
        let trust = self.trust();
        let certificate = EndEntityCert::try_from(own).map_err(refused)?;
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
                unix(now),
                KeyUsage::client_auth(),
                options,
                None,
            )
            .map_err(refused)?;
        let (questions, is_nameless) = self.questions(&way);
        let between = way.intermediate_certificates().map(|one| id(one));
        let ids = std::iter::once(id(&certificate)).chain(between).collect();
        Ok((ids, questions, is_nameless))
    }

    /// What is to be asked about a chain that is validated. An authority that names no responder
    /// is not asked about: lists are for those.
    fn questions(&self, way: &VerifiedPath<'_>) -> (Vec<Arc<Question>>, bool) {
        let OcspSettings { policy, responder } = &self.settings.ocsp;
        if *policy == OcspPolicy::Off {
            return (Vec::new(), false);
        }
        let anchor = way.anchor();
        let top = Issuer::new(&anchor.subject, &anchor.subject_public_key_info);
        let between: Vec<&webpki::Cert<'_>> = way.intermediate_certificates().collect();
        let issuers = between.iter().map(|one| {
            let key = one.subject_public_key_info();
            Issuer::new(one.subject(), ocsp::question::contents(&key).unwrap_or_default())
        });
        let own: &webpki::Cert<'_> = way.end_entity();
        let certificates = std::iter::once(own).chain(between.iter().copied());
        let mut questions = Vec::new();
        let mut is_nameless = false;
        for (place, (one, issuer)) in certificates.zip(issuers.chain([top])).enumerate() {
            let named = ocsp::question::named(&one.der());
            let is_asked = named.is_some() || place == 0;
            let asked = responder.clone().filter(|_| is_asked).or(named);
            is_nameless |= place == 0 && asked.is_none();
            questions.extend(asked.map(|responder| {
                Arc::new(Question { id: id(one), issuer: Arc::new(issuer), responder })
            }));
        }
        (questions, is_nameless)
    }

    /// What follows from what the responders say.
    fn conclude(&self, examined: Examined, outcomes: &[Outcome]) -> Result<Proof, Reason> {
        let Examined { proof, is_nameless, .. } = examined;
        if outcomes.contains(&Outcome::Said(Status::Revoked)) {
            return Err(Reason::CertificateRevoked);
        }
        let good = Outcome::Said(Status::Good);
        let nobody = is_nameless.then_some(Outcome::Silent);
        let Some(worst) =
            nobody.into_iter().chain(outcomes.iter().copied()).find(|one| *one != good)
        else {
            return Ok(proof);
        };
        match self.settings.ocsp.policy {
            OcspPolicy::Strict => Err(match worst {
                Outcome::Said(Status::Unknown) => Reason::OcspUnknown,
                Outcome::Invalid => Reason::OcspInvalid,
                Outcome::Silent | Outcome::Said(Status::Good | Status::Revoked) => {
                    Reason::OcspSilent
                }
            }),
            OcspPolicy::Off | OcspPolicy::Warn => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                let answer = if is_nameless { "no responder is named" } else { worst.word() };
                tracing::warn!(answer, "a certificate lets in without a responder's word for it");
                Ok(proof)
            }
        }
    }

    /// Asks and concludes, before `deadline` if it is near.
    async fn ask(self, examined: Examined, now: Timestamp, deadline: Instant) -> Answer {
        let outcomes = match &self.responders {
            Some(responders) => {
                let asking = responders.outcomes(&examined.questions, &self.trust(), now);
                // Whoever waits less long must hear of it, and this back end is not to blame.
                let until = deadline.checked_sub(MARGIN).unwrap_or(deadline);
                let told = tokio::time::timeout_at(until.into(), asking).await;
                told.unwrap_or_else(|_| vec![Outcome::Silent])
            }
            None => Vec::new(),
        };
        self.conclude(examined, &outcomes).map_or_else(Answer::Refused, Answer::Accepted)
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
        let (now, deadline) = (request.now, request.deadline);
        Work::stage(move |_| {
            let examined = match this.examine(&request.credentials.certificates, now) {
                Ok(examined) => examined,
                Err(reason) => return Work::Done(Answer::Refused(reason)),
            };
            let known = match &this.responders {
                Some(responders) => responders.known(&examined.questions, now),
                None => Some(Vec::new()),
            };
            match known {
                Some(outcomes) => {
                    let proof = this.conclude(examined, &outcomes);
                    Work::Done(proof.map_or_else(Answer::Refused, Answer::Accepted))
                }
                None => {
                    Work::waiting(
                        async move { Work::Done(this.ask(examined, now, deadline).await) },
                    )
                }
            }
        })
    }
}

/// What is asked about certificates while they give access, and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    own: &'a Certificates,
    responders: &'a Arc<Responders>,
}

impl Asking<'_> {
    /// Answers that are over. Those that give access still are to be asked for
    /// [again](Self::ask_again), the others [forgotten](Self::forget).
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Vec<Arc<Question>> {
        self.responders.due(now)
    }

    /// These give no access any more, unless that has just begun.
    pub fn forget(&self, questions: &[Arc<Question>], now: Timestamp) {
        for question in questions {
            self.responders.forget(question, now);
        }
    }

    /// Asks about these again, in the background. Must be called in a runtime.
    pub fn ask_again(&self, questions: &[Arc<Question>], now: Timestamp) {
        self.responders.ask_again(questions, &self.own.trust(), now);
    }

    /// Another process has asked about this, which may give access still.
    pub fn restore(&self, question: Question) {
        self.responders.restore(question);
    }

    /// What has to be noted so that the next process can [restore](Self::restore) it, in order.
    #[must_use]
    pub fn take_notes(&self) -> Vec<Note> {
        self.responders.take_notes()
    }

    /// Whether somebody has turned out to be revoked since this was asked last.
    #[must_use]
    pub fn take_news(&self) -> bool {
        self.responders.take_news()
    }

    /// How often each kind of answer was given.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.responders.counts()
    }

    /// How many sign-ins were let in though no responder said that the certificate is good.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.own.unanswered.load(Ordering::Relaxed)
    }

    /// How many answers are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.responders.len()
    }
}

/// How many whole days a client's certificate has left; none if it is no certificate.
#[must_use]
pub fn days_left(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let end = parsed.validity().not_after.timestamp().saturating_mul(1000);
    Some(days(Timestamp(end), now))
}

fn id(certificate: &webpki::Cert<'_>) -> CertificateId {
    let (issuer, serial) = (certificate.issuer().to_vec(), certificate.serial().to_vec());
    CertificateId { issuer, serial }
}

fn unix(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now.0).unwrap_or(0)))
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

#[cfg(test)]
#[path = "../certificate_asking_tests.rs"]
mod asking_tests;
