//! The keys of a configuration: public, private, preshared. The secret ones erase themselves and
//! never print.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{KEY_BYTES, Random, equal, provider};

/// An X25519 public key: the identity of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; KEY_BYTES]);

impl fmt::Debug for PublicKey {
    /// The first four bytes in hexadecimal: enough to tell peers apart in a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PublicKey({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// An X25519 private key, clamped (RFC 7748 section 5), with what the provider prepared from it.
pub struct PrivateKey {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    secret: provider::Secret,
}

impl PrivateKey {
    /// Takes 32 bytes, clamping them. That all-zero bytes mean "no key" is the configuration's
    /// business.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        let mut bytes = Zeroizing::new(bytes);
        bytes[0] &= 0b1111_1000;
        bytes[31] = (bytes[31] & 0b0111_1111) | 0b0100_0000;
        let secret = provider::Secret::new(&bytes);
        Self { bytes, secret }
    }

    /// Draws a new key.
    #[must_use]
    pub fn generate(random: &mut dyn Random) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        random.fill(&mut bytes[..]);
        Self::from_bytes(*bytes)
    }

    /// The clamped bytes. The copy is the caller's to erase.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; KEY_BYTES] {
        *self.bytes
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.secret.public())
    }

    /// The X25519 shared secret; None if it is all zeros, that is if `theirs` is a point of low
    /// order (RFC 7748 section 6.1).
    #[must_use]
    pub fn agree(&self, theirs: &PublicKey) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
        let shared = Zeroizing::new(self.secret.agree(&theirs.0)?);
        // Both providers refuse by themselves; the rule is ours, so it is also checked here.
        (!equal(&shared[..], &[0; KEY_BYTES])).then_some(shared)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A preshared key, mixed into every handshake; all zeros (the default) means that none is set, and
/// is mixed too.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey(pub [u8; KEY_BYTES]);

impl PresharedKey {
    /// Whether a key is set, that is whether it is not all zeros.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !equal(&self.0, &[0; KEY_BYTES])
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

impl PartialEq for PresharedKey {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0, &other.0)
    }
}

impl Eq for PresharedKey {}
