//! Access tokens: signed JWTs of issuers that were configured (RFC 7519, RFC 8725).
//!
//! The issuer in a token picks the configuration, and the configuration says everything else: which
//! algorithms, whose keys, for whom. Nothing that a token says about how to verify it is believed
//! beyond that: no `jku`, no `x5u`, no key in the header. Times have a leeway of at most a minute.
//! What a token is missing, or has of another type, refuses it. Verifying takes a thread of the
//! lane; waiting for keys takes none. This module must not know users.

mod keys;
mod ring;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::backend::{Answer, Attributes, BackEnd, Proof, Request, Secret, Work};
use super::reason::Reason;
use crate::store::records::Timestamp;
use ring::KeyRing;

pub use keys::{Alg, KEYS_MAX, KeySet, NoKey, SET_BYTES_MAX, SetError};
pub use ring::{KeySource, RefreshSettings};

/// Bytes of a token. Those of large directories with a hundred groups have four thousand.
pub const TOKEN_BYTES_MAX: usize = 8192;
/// Seconds that clocks may differ by, at most.
pub const LEEWAY_S_MAX: u32 = 60;
/// Groups or permissions taken from a token.
const WORDS_MAX: usize = 256;

/// Who may sign tokens, and what is read of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSettings {
    /// `iss`, to the letter.
    pub issuer: String,
    /// `aud` must have one of these. At least one.
    pub audiences: Vec<String>,
    /// Algorithms that the issuer signs with. At least one.
    pub algorithms: Vec<Alg>,
    /// Where its keys are.
    pub keys: KeySource,
    /// The claim that has the user's name. Default `preferred_username`.
    pub user_claim: String,
    /// The claim that has groups: a list of texts, or a text with spaces. Default `groups`.
    pub groups_claim: Option<String>,
    /// The claim that has permissions, likewise. Default none.
    pub permissions_claim: Option<String>,
    /// Seconds that clocks may differ by, 0 to 60. Default 30.
    pub leeway_s: u32,
    /// How often keys are fetched.
    pub refresh: RefreshSettings,
}

impl IssuerSettings {
    /// With defaults for the rest.
    #[must_use]
    pub fn new(issuer: &str, audience: &str, algorithm: Alg, keys: KeySource) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audiences: vec![audience.to_owned()],
            algorithms: vec![algorithm],
            keys,
            user_claim: "preferred_username".to_owned(),
            groups_claim: Some("groups".to_owned()),
            permissions_claim: None,
            leeway_s: 30,
            refresh: RefreshSettings::default(),
        }
    }
}

/// The back end of access tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    issuers: Arc<[Issuer]>,
}

#[derive(Debug)]
struct Issuer {
    settings: IssuerSettings,
    ring: KeyRing,
}

impl Tokens {
    /// Trusts these issuers. Fetches nothing yet.
    ///
    /// # Errors
    ///
    /// Which issuer is not configured sensibly, and why.
    pub fn new(issuers: Vec<IssuerSettings>) -> Result<Self, String> {
        let issuer = |settings: IssuerSettings| {
            let name = &settings.issuer;
            if name.is_empty() || settings.audiences.is_empty() || settings.algorithms.is_empty() {
                return Err(format!(
                    "token issuer \"{name}\" needs a name, an audience and an algorithm"
                ));
            }
            if settings.leeway_s > LEEWAY_S_MAX {
                return Err(format!(
                    "token issuer \"{name}\": leeway of {} s, at most {LEEWAY_S_MAX}: set the clocks instead",
                    settings.leeway_s
                ));
            }
            let ring = KeyRing::new(settings.keys.clone(), settings.refresh)?;
            Ok(Issuer { settings, ring })
        };
        let issuers: Vec<Issuer> = issuers.into_iter().map(issuer).collect::<Result<_, _>>()?;
        let mut names: Vec<&str> = issuers.iter().map(|i| i.settings.issuer.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(format!(
                "token issuer \"{}\" is there twice",
                twice.first().unwrap_or(&"")
            ));
        }
        Ok(Self { issuers: issuers.into() })
    }

    /// Fetches keys that are due. To be called every few seconds, not by whoever signs in.
    pub async fn refresh(&self, now: Timestamp) {
        for issuer in self.issuers.iter().filter(|issuer| issuer.ring.is_due(now)) {
            issuer.ring.refresh(now).await;
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.issuers.iter().position(|issuer| issuer.settings.issuer == name)
    }
}

impl BackEnd for Tokens {
    fn name(&self) -> &'static str {
        "token"
    }

    fn begin(&self, request: Request) -> Work {
        let Some(token) = &request.credentials.token else {
            return Work::Done(Answer::Refused(Reason::CredentialMissing));
        };
        let parsed = Parsed::read(token);
        let found = parsed.and_then(|parsed| {
            let at = self.find(parsed.issuer()?).ok_or(Reason::TokenIssuer)?;
            Ok((parsed, at))
        });
        let (parsed, at) = match found {
            Ok(found) => found,
            Err(reason) => return Work::Done(Answer::Refused(reason)),
        };
        let (this, now) = (self.clone(), request.now);
        match this.key(at, &parsed, now) {
            Err(Reason::TokenKeyUnknown | Reason::TokenKeysStale) => Work::waiting(async move {
                if let Some(issuer) = this.issuers.get(at) {
                    issuer.ring.refresh(now).await;
                }
                Work::blocking(move |_| this.verify(at, &parsed, now))
            }),
            Err(reason) => Work::Done(Answer::Refused(reason)),
            Ok(()) => Work::blocking(move |_| this.verify(at, &parsed, now)),
        }
    }
}

impl Tokens {
    /// Whether there is a key for this token.
    fn key(&self, at: usize, parsed: &Parsed, now: Timestamp) -> Result<(), Reason> {
        let issuer = self.issuers.get(at).ok_or(Reason::TokenIssuer)?;
        let alg = parsed.alg(&issuer.settings)?;
        let keys = issuer.ring.keys(now).ok_or(Reason::TokenKeysStale)?;
        keys.find(parsed.header.kid.as_deref(), alg).map(drop).map_err(no_key)
    }

    fn verify(&self, at: usize, parsed: &Parsed, now: Timestamp) -> Answer {
        let proved = self.issuers.get(at).ok_or(Reason::TokenIssuer).and_then(|issuer| {
            let keys = issuer.ring.keys(now).ok_or(Reason::TokenKeysStale)?;
            parsed.verify(&issuer.settings, &keys)?;
            parsed.claims(&issuer.settings, now)
        });
        proved.map_or_else(Answer::Refused, Answer::Accepted)
    }
}

const fn no_key(error: NoKey) -> Reason {
    match error {
        NoKey::Unknown => Reason::TokenKeyUnknown,
        NoKey::OtherAlgorithm => Reason::TokenAlgorithm,
    }
}

/// A token whose form is right. Nothing in it has been proved.
pub struct Parsed {
    header: Header,
    claims: Map<String, Value>,
    /// What is signed.
    message: Secret,
    signature: String,
}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parsed").field("header", &self.header).finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
    b64: Option<serde::de::IgnoredAny>,
}

impl Parsed {
    /// Reads the form of a token.
    ///
    /// # Errors
    ///
    /// [`Reason::TokenOversized`] or [`Reason::TokenMalformed`].
    pub fn read(token: &Secret) -> Result<Self, Reason> {
        let token = token.expose();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Reason::TokenOversized);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Reason::TokenMalformed);
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Reason::TokenMalformed);
        decode(signature)?;
        let message = header.len() + 1 + claims.len();
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| Reason::TokenMalformed)?;
        // What is marked critical must be understood, and there is nothing that we do.
        let is_token = header.typ.as_deref().is_none_or(|typ| {
            let typ = typ.to_ascii_lowercase();
            matches!(typ.trim_start_matches("application/"), "jwt" | "at+jwt")
        });
        if header.crit.is_some() || header.b64.is_some() || !is_token {
            return Err(Reason::TokenMalformed);
        }
        let claims: Map<String, Value> =
            serde_json::from_slice(&decode(claims)?).map_err(|_| Reason::TokenMalformed)?;
        let message = token.get(..message).ok_or(Reason::TokenMalformed)?;
        Ok(Self { header, claims, message: Secret::new(message), signature: signature.to_owned() })
    }

    /// Whom it claims to be from.
    ///
    /// # Errors
    ///
    /// [`Reason::TokenIssuer`] if it does not say.
    pub fn issuer(&self) -> Result<&str, Reason> {
        self.claims.get("iss").and_then(Value::as_str).ok_or(Reason::TokenIssuer)
    }

    fn alg(&self, settings: &IssuerSettings) -> Result<Alg, Reason> {
        let alg = Alg::from_word(&self.header.alg).ok_or(Reason::TokenAlgorithm)?;
        settings.algorithms.contains(&alg).then_some(alg).ok_or(Reason::TokenAlgorithm)
    }

    /// Whether one of `keys` has signed it as the issuer does.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn verify(&self, settings: &IssuerSettings, keys: &KeySet) -> Result<(), Reason> {
        let alg = self.alg(settings)?;
        let key = keys.find(self.header.kid.as_deref(), alg).map_err(no_key)?;
        let message = self.message.expose().as_bytes();
        let is_signed = jsonwebtoken::crypto::verify(&self.signature, message, key, alg.verifier());
        if is_signed.is_ok_and(|is_signed| is_signed) {
            Ok(())
        } else {
            Err(Reason::TokenSignature)
        }
    }

    /// What it says, if it holds now and is meant for us.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn claims(&self, settings: &IssuerSettings, now: Timestamp) -> Result<Proof, Reason> {
        let leeway = f64::from(settings.leeway_s.min(LEEWAY_S_MAX));
        let seconds = now.0 as f64 / 1000.0;
        let expires = self.time("exp")?.ok_or(Reason::TokenClaims)?;
        if seconds >= expires + leeway {
            return Err(Reason::TokenExpired);
        }
        for begin in ["nbf", "iat"] {
            if self.time(begin)?.is_some_and(|begin| begin > seconds + leeway) {
                return Err(Reason::TokenNotYet);
            }
        }
        if self.issuer()? != settings.issuer {
            return Err(Reason::TokenIssuer);
        }
        let is_for_us = |audience: &str| settings.audiences.iter().any(|own| own == audience);
        let is_meant = match self.claims.get("aud") {
            Some(Value::String(audience)) => is_for_us(audience),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).any(is_for_us),
            _ => false,
        };
        if !is_meant {
            return Err(Reason::TokenAudience);
        }
        let user = self.claims.get(&settings.user_claim).and_then(Value::as_str);
        let user = user.and_then(super::name::checked).ok_or(Reason::TokenClaims)?;
        let attributes = Attributes {
            groups: self.words(settings.groups_claim.as_deref())?,
            permissions: self.words(settings.permissions_claim.as_deref())?,
            valid_until: Some(Timestamp((expires * 1000.0) as i64)),
            ..Attributes::default()
        };
        Ok(Proof { user: Some(user), attributes, password_print: None })
    }

    /// A moment in seconds since the epoch.
    fn time(&self, claim: &str) -> Result<Option<f64>, Reason> {
        let Some(value) = self.claims.get(claim) else { return Ok(None) };
        let time = value.as_f64().filter(|time| time.is_finite() && *time >= 0.0);
        time.map(Some).ok_or(Reason::TokenClaims)
    }

    /// A list of texts, or a text with spaces in between. Absent is empty.
    fn words(&self, claim: Option<&str>) -> Result<Vec<String>, Reason> {
        let words: Vec<String> = match claim.and_then(|claim| self.claims.get(claim)) {
            None => Vec::new(),
            Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
            Some(Value::Array(list)) => {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                list.iter().map(text).collect::<Option<_>>().ok_or(Reason::TokenClaims)?
            }
            Some(_) => return Err(Reason::TokenClaims),
        };
        if words.len() > WORDS_MAX {
            return Err(Reason::TokenClaims);
        }
        Ok(words)
    }
}

#[cfg(test)]
#[path = "../token_tests.rs"]
mod tests;
