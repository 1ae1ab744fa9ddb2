//! Key sets of token issuers (JWKS, RFC 7517): what is read of them and what is believed.
//!
//! Only public keys that one of the five algorithms can use are taken; each is bound to the kind of
//! key that it is, so that no token can have it used as anything else. Shared secrets are never
//! taken, RSA below 2048 bits neither. A set is bounded in bytes and keys. This module must not
//! know where a set comes from.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// Bytes of a key set: sixty keys with certificate chains are less.
pub const SET_BYTES_MAX: usize = 256 * 1024;
/// Keys of a set: issuers have two or three, before and after a change.
pub const KEYS_MAX: usize = 64;
/// RSA moduli in bits, from what is still safe to what still verifies quickly.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Algorithms that an issuer may be pinned to. There is no other: `none` is no signature, and the
/// HS family is made with a key that whoever verifies could sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alg {
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA-PSS with SHA-256.
    Ps256,
}

impl Alg {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::EdDsa, Self::Es256, Self::Es384, Self::Rs256, Self::Ps256];

    /// As tokens and the configuration write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    /// What `word` stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.word() == word)
    }

    pub(super) const fn verifier(self) -> Algorithm {
        match self {
            Self::EdDsa => Algorithm::EdDSA,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::Rs256 => Algorithm::RS256,
            Self::Ps256 => Algorithm::PS256,
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::EdDsa => Kind::Ed25519,
            Self::Es256 => Kind::P256,
            Self::Es384 => Kind::P384,
            Self::Rs256 | Self::Ps256 => Kind::Rsa,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ed25519,
    P256,
    P384,
    Rsa,
}

/// The keys of an issuer.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Keys of the set that were left out, and why.
    pub left_out: Vec<String>,
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    kind: Kind,
    /// The only algorithm that it may be used with, if the set says so.
    alg: Option<String>,
    key: DecodingKey,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = self.keys.iter().map(|key| key.id.as_deref().unwrap_or("without kid"));
        f.debug_list().entries(ids).finish()
    }
}

/// Why a key set is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// More than [`SET_BYTES_MAX`].
    #[error("the key set has more than {SET_BYTES_MAX} bytes")]
    Large,
    /// More than [`KEYS_MAX`].
    #[error("the key set has {0} keys, at most {KEYS_MAX}")]
    Many(usize),
    /// Not JSON of the right shape.
    #[error("not a key set: {0}")]
    Malformed(String),
    /// Nothing in it can be used.
    #[error("the key set has no key that can be used{0}")]
    Empty(String),
}

/// Why no key fits a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// No key has this identifier.
    Unknown,
    /// The key is there and is for another algorithm.
    OtherAlgorithm,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Entry {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

impl KeySet {
    /// Reads a key set.
    ///
    /// # Errors
    ///
    /// Too large, malformed, or without a key that can be used. Single keys that cannot be are left
    /// out.
    pub fn parse(bytes: &[u8]) -> Result<Self, SetError> {
        if bytes.len() > SET_BYTES_MAX {
            return Err(SetError::Large);
        }
        let malformed = |error: serde_json::Error| SetError::Malformed(error.to_string());
        let set: Set = serde_json::from_slice(bytes).map_err(malformed)?;
        if set.keys.len() > KEYS_MAX {
            return Err(SetError::Many(set.keys.len()));
        }
        let mut this = Self::default();
        for (at, value) in set.keys.into_iter().enumerate() {
            let entry = serde_json::from_value(value).map_err(|error| error.to_string());
            match entry.and_then(|entry| key(entry).map_err(str::to_owned)) {
                Ok(key) => this.keys.push(key),
                Err(why) => this.left_out.push(format!("key {}: {why}", at + 1)),
            }
        }
        if this.keys.is_empty() {
            let why = this.left_out.first().map(|why| format!(" ({why})")).unwrap_or_default();
            return Err(SetError::Empty(why));
        }
        Ok(this)
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key for a token that names `id` and `alg`. A token that names no key gets the only one
    /// that fits, if there is only one.
    pub(super) fn find(&self, id: Option<&str>, alg: Alg) -> Result<&DecodingKey, NoKey> {
        let fits = |key: &&Key| {
            key.kind == alg.kind() && key.alg.as_deref().is_none_or(|own| own == alg.word())
        };
        let named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
        let mut fitting = self.keys.iter().filter(named).filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(&key.key),
            // Of two with one name the first is as good; without a name nothing says which.
            (Some(key), Some(_)) if id.is_some() => Ok(&key.key),
            (None, _) if self.keys.iter().any(|key| named(&key)) => Err(NoKey::OtherAlgorithm),
            (_, _) => Err(NoKey::Unknown),
        }
    }
}

fn key(entry: Entry) -> Result<Key, &'static str> {
    if entry.d.is_some() {
        return Err("it holds a private key, which does not belong there");
    }
    if entry.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err("it is not for signatures");
    }
    if entry.key_ops.is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err("it is not for verifying");
    }
    let (x, y) = (entry.x.as_deref(), entry.y.as_deref());
    let damaged = "a number in it is damaged";
    let (kind, key) = match (entry.kty.as_str(), entry.crv.as_deref()) {
        ("OKP", Some("Ed25519")) => {
            let x = sized(x, 32).ok_or(damaged)?;
            (Kind::Ed25519, DecodingKey::from_ed_components(x))
        }
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let (kind, bytes) = if curve == "P-256" { (Kind::P256, 32) } else { (Kind::P384, 48) };
            let x = sized(x, bytes).ok_or(damaged)?;
            let y = sized(y, bytes).ok_or(damaged)?;
            (kind, DecodingKey::from_ec_components(x, y))
        }
        ("RSA", None) => {
            let (n, e) = (entry.n.as_deref().ok_or(damaged)?, entry.e.as_deref().ok_or(damaged)?);
            if !RSA_BITS.contains(&bits(n).ok_or(damaged)?) {
                return Err("an RSA key has 2048 to 8192 bits");
            }
            if !matches!(bits(e).ok_or(damaged)?, 2..=32) {
                return Err("its public exponent is none");
            }
            (Kind::Rsa, DecodingKey::from_rsa_components(n, e))
        }
        _ => return Err("its kind is none of Ed25519, P-256, P-384 and RSA"),
    };
    let key = key.map_err(|_| damaged)?;
    Ok(Key { id: entry.kid, kind, alg: entry.alg, key })
}

/// The text, if it is so many bytes in base64.
fn sized(text: Option<&str>, bytes: usize) -> Option<&str> {
    text.filter(|text| URL_SAFE_NO_PAD.decode(text).is_ok_and(|decoded| decoded.len() == bytes))
}

/// Bits of a number in base64.
fn bits(text: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    let top = bytes.get(first)?;
    Some((bytes.len() - first) * 8 - top.leading_zeros() as usize)
}
