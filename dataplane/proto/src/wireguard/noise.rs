//! Noise_IKpsk2 as WireGuard runs it (sections 5.4.1 to 5.4.5): three message patterns, two roles.
//!
//! The precomputed static-static secret is an argument, so a handshake costs the responder three
//! Diffie-Hellman operations and one key generation. Every all-zero result is refused. MACs,
//! indices, timestamps' order and peers are other modules' business.

use std::time::Duration;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::identity::Identity;
use super::messages::{
    INITIATION_BYTES, INITIATION_EPHEMERAL, INITIATION_SENDER, INITIATION_STAMP, INITIATION_STATIC,
    RESPONSE_BYTES, RESPONSE_EMPTY, RESPONSE_EPHEMERAL, RESPONSE_RECEIVER, RESPONSE_SENDER,
    TYPE_INITIATION, TYPE_RESPONSE, field, index_at, write_head,
};
use crate::crypto::{AeadKey, PresharedKey, PrivateKey, PublicKey, Random, TAG_BYTES, hash, kdf};
use crate::{DropReason, ReceiverIndex};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// A Diffie-Hellman result that is not all zeros.
pub(super) type Shared = Zeroizing<[u8; 32]>;

/// A timestamp of an initiation: TAI64N, 12 bytes big-endian, ordered as bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64n(pub [u8; 12]);

impl Tai64n {
    /// Our stamps are multiples of this many nanoseconds (16.8 ms), as the kernel's are: finer than
    /// the 20 ms between initiations that a peer accepts, too coarse to be a clock for an observer.
    const STEP_NANOS: u32 = 1 << 24;
    /// The label of 1970-01-01 00:00:00, with the ten seconds by which TAI led UTC then.
    const EPOCH: u64 = (1 << 62) + 10;

    /// The stamp for an initiation sent at `wall` (time since the Unix epoch), later than
    /// `previous` in any case: also when the clock was stepped back, and when it stands still.
    #[must_use]
    pub fn after(previous: Self, wall: Duration) -> Self {
        let nanos = wall.subsec_nanos() & !(Self::STEP_NANOS - 1);
        let blurred = Self::label(Self::EPOCH.saturating_add(wall.as_secs()), nanos);
        if blurred > previous {
            return blurred;
        }
        let (seconds, nanos) = previous.parts();
        match nanos.saturating_add(Self::STEP_NANOS) {
            over if over >= 1_000_000_000 => Self::label(seconds.saturating_add(1), 0),
            nanos => Self::label(seconds, nanos),
        }
    }

    fn label(seconds: u64, nanos: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }

    fn parts(self) -> (u64, u32) {
        (u64::from_be_bytes(field(&self.0, 0..8)), u32::from_be_bytes(field(&self.0, 8..12)))
    }
}

/// The two transport keys that a handshake gives, from our side, and the peer's index.
pub(super) struct SessionKeys {
    pub(super) send: Shared,
    pub(super) receive: Shared,
    pub(super) theirs: ReceiverIndex,
}

/// The initiator's state between its initiation and the response.
pub(super) struct Initiation {
    symmetric: Symmetric,
    ephemeral: PrivateKey,
}

impl Initiation {
    /// Writes the first message, except for its MACs.
    pub(super) fn create(
        identity: &Identity,
        peer: &PublicKey,
        static_static: &Shared,
        stamp: Tai64n,
        sender: ReceiverIndex,
        random: &mut dyn Random,
        out: &mut [u8; INITIATION_BYTES],
    ) -> Result<Self, DropReason> {
        let mut symmetric = Symmetric::new(peer);
        let ephemeral = PrivateKey::generate(random);

        write_head(out, TYPE_INITIATION, sender);
        symmetric.write_ephemeral(&ephemeral, &mut out[INITIATION_EPHEMERAL]);

        let key = symmetric.mix_for_key(&agree(&ephemeral, peer)?[..]);
        symmetric.seal(&key, &identity.public().0, &mut out[INITIATION_STATIC]);

        let key = symmetric.mix_for_key(&static_static[..]);
        symmetric.seal(&key, &stamp.0, &mut out[INITIATION_STAMP]);
        Ok(Self { symmetric, ephemeral })
    }

    /// Opens the response and derives the transport keys. Changes nothing, so a forged response
    /// does not spoil the handshake.
    pub(super) fn finish(
        &self,
        identity: &Identity,
        preshared: &PresharedKey,
        message: &[u8; RESPONSE_BYTES],
    ) -> Result<SessionKeys, DropReason> {
        let mut symmetric = self.symmetric.clone();
        let theirs = PublicKey(field(message, RESPONSE_EPHEMERAL));
        symmetric.read_ephemeral(&theirs);
        symmetric.mix(&agree(&self.ephemeral, &theirs)?[..]);
        symmetric.mix(&agree(identity.private(), &theirs)?[..]);
        let key = symmetric.mix_preshared(preshared);
        symmetric.open(&key, &message[RESPONSE_EMPTY], &mut [])?;
        let [send, receive] = symmetric.split();
        Ok(SessionKeys { send, receive, theirs: index_at(message, RESPONSE_SENDER) })
    }
}

/// An initiation whose static key was decrypted, and nothing else: who sent it is known, but not
/// yet whether it is fresh, nor that the sender owns the key. Plain data: it may go to another
/// core.
#[derive(Clone)]
pub struct OpenedInitiation {
    /// The claimed static key: says who decides about the rest.
    pub peer: PublicKey,
    symmetric: Symmetric,
    ephemeral: PublicKey,
    sender: ReceiverIndex,
    stamp: [u8; 12 + TAG_BYTES],
}

impl OpenedInitiation {
    /// Decrypts the static key: one Diffie-Hellman operation with our static key. MACs are the
    /// caller's to check before.
    ///
    /// # Errors
    /// The reasons of [`super::classify`] for what is no initiation,
    /// [`DropReason::HandshakeLowOrderPoint`], [`DropReason::HandshakeUndecryptable`].
    pub fn open(identity: &Identity, message: &[u8]) -> Result<Self, DropReason> {
        if super::classify(message)? != super::Message::Initiation {
            return Err(DropReason::MessageTypeUnknown);
        }
        let mut symmetric = Symmetric::new(&identity.public());
        let ephemeral = PublicKey(field(message, INITIATION_EPHEMERAL));
        symmetric.read_ephemeral(&ephemeral);
        let key = symmetric.mix_for_key(&agree(identity.private(), &ephemeral)?[..]);
        let mut peer = PublicKey([0; 32]);
        symmetric.open(&key, &message[INITIATION_STATIC], &mut peer.0)?;
        Ok(Self {
            peer,
            symmetric,
            ephemeral,
            sender: index_at(message, INITIATION_SENDER),
            stamp: field(message, INITIATION_STAMP),
        })
    }

    /// Proves that the sender owns the static key, and decrypts the timestamp.
    pub(super) fn authenticate(&mut self, static_static: &Shared) -> Result<Tai64n, DropReason> {
        let key = self.symmetric.mix_for_key(&static_static[..]);
        let mut stamp = Tai64n::default();
        self.symmetric.open(&key, &self.stamp, &mut stamp.0)?;
        Ok(stamp)
    }

    /// Writes the second message, except for its MACs, and derives the transport keys. Only after
    /// [`OpenedInitiation::authenticate`].
    pub(super) fn respond(
        mut self,
        preshared: &PresharedKey,
        sender: ReceiverIndex,
        random: &mut dyn Random,
        out: &mut [u8; RESPONSE_BYTES],
    ) -> Result<SessionKeys, DropReason> {
        let ephemeral = PrivateKey::generate(random);
        write_head(out, TYPE_RESPONSE, sender);
        out[RESPONSE_RECEIVER].copy_from_slice(&self.sender.0.to_le_bytes());
        self.symmetric.write_ephemeral(&ephemeral, &mut out[RESPONSE_EPHEMERAL]);
        self.symmetric.mix(&agree(&ephemeral, &self.ephemeral)?[..]);
        self.symmetric.mix(&agree(&ephemeral, &self.peer)?[..]);
        let key = self.symmetric.mix_preshared(preshared);
        self.symmetric.seal(&key, &[], &mut out[RESPONSE_EMPTY]);
        let [receive, send] = self.symmetric.split();
        Ok(SessionKeys { send, receive, theirs: self.sender })
    }
}

/// Diffie-Hellman with the reason that a handshake gives for a point of low order.
pub(super) fn agree(private: &PrivateKey, public: &PublicKey) -> Result<Shared, DropReason> {
    private.agree(public).ok_or(DropReason::HandshakeLowOrderPoint)
}

/// Chaining key and transcript hash.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Symmetric {
    chain: [u8; 32],
    hash: [u8; 32],
}

impl Symmetric {
    fn new(responder: &PublicKey) -> Self {
        let chain = hash(&[CONSTRUCTION]);
        let mut state = Self { hash: hash(&[&chain, IDENTIFIER]), chain };
        state.mix_hash(&responder.0);
        state
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// `MixKey` without a cipher key.
    fn mix(&mut self, input: &[u8]) {
        [self.chain] = *kdf(&self.chain, input);
    }

    /// `MixKey`: the key for the next field.
    fn mix_for_key(&mut self, input: &[u8]) -> Zeroizing<[u8; 32]> {
        let keys = kdf::<2>(&self.chain, input);
        self.chain = keys[0];
        Zeroizing::new(keys[1])
    }

    /// `MixKeyAndHash` with the preshared key.
    fn mix_preshared(&mut self, preshared: &PresharedKey) -> Zeroizing<[u8; 32]> {
        let keys = kdf::<3>(&self.chain, &preshared.0);
        self.chain = keys[0];
        self.mix_hash(&keys[1]);
        Zeroizing::new(keys[2])
    }

    fn write_ephemeral(&mut self, ephemeral: &PrivateKey, out: &mut [u8]) {
        let public = ephemeral.public();
        out.copy_from_slice(&public.0);
        self.read_ephemeral(&public);
    }

    fn read_ephemeral(&mut self, public: &PublicKey) {
        self.mix_hash(&public.0);
        self.mix(&public.0);
    }

    /// `EncryptAndHash`: `out` is the text's length plus a tag.
    fn seal(&mut self, key: &[u8; 32], text: &[u8], out: &mut [u8]) {
        let (body, tag) = out.split_at_mut(text.len());
        body.copy_from_slice(text);
        tag.copy_from_slice(&AeadKey::new(key).seal(0, &self.hash, body));
        self.mix_hash(out);
    }

    /// `DecryptAndHash`: `sealed` is the length of `out` plus a tag.
    fn open(&mut self, key: &[u8; 32], sealed: &[u8], out: &mut [u8]) -> Result<(), DropReason> {
        let Some((body, tag)) = sealed.split_last_chunk::<TAG_BYTES>() else {
            return Err(DropReason::HandshakeUndecryptable);
        };
        out.copy_from_slice(body);
        AeadKey::new(key)
            .open(0, &self.hash, out, tag)
            .map_err(|_| DropReason::HandshakeUndecryptable)?;
        self.mix_hash(sealed);
        Ok(())
    }

    /// The transport keys: initiator's sending key first.
    fn split(&self) -> [Shared; 2] {
        kdf::<2>(&self.chain, &[]).map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stamp_is_blurred_to_a_sixtieth_of_a_second() {
        let stamp = Tai64n::after(Tai64n::default(), Duration::new(1, 999_999_999));
        let (seconds, nanos) = stamp.parts();
        assert_eq!(seconds, 0x4000_0000_0000_000b);
        assert_eq!(nanos % Tai64n::STEP_NANOS, 0);
        assert!(999_999_999 - nanos < Tai64n::STEP_NANOS);
    }

    #[test]
    fn a_stamp_is_later_than_the_last_when_the_clock_stands_still_or_goes_back() {
        let noon = Duration::from_secs(1_760_000_000);
        let mut last = Tai64n::after(Tai64n::default(), noon);
        for wall in [noon, noon, Duration::ZERO, noon - Duration::from_secs(3600), noon] {
            let stamp = Tai64n::after(last, wall);
            assert!(stamp > last);
            last = stamp;
        }
        assert_eq!(Tai64n::after(last, 2 * noon), Tai64n::after(Tai64n::default(), 2 * noon));
    }

    proptest! {
        #[test]
        fn stamps_of_any_clock_ascend_and_stay_well_formed(
            walls in proptest::collection::vec((0..u64::MAX >> 2, 0..1_000_000_000_u32), 1..50),
        ) {
            let mut last = Tai64n::default();
            for (seconds, nanos) in walls {
                let stamp = Tai64n::after(last, Duration::new(seconds, nanos));
                prop_assert!(stamp > last);
                prop_assert!(stamp.parts().1 < 1_000_000_000);
                prop_assert_eq!(stamp.parts().1 % Tai64n::STEP_NANOS, 0);
                last = stamp;
            }
        }
    }
}
