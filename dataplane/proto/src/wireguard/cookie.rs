//! MACs and cookies (sections 5.3, 5.4.4 and 5.4.7), both roles.
//!
//! [`CookieChecker`] is the responder: it tells cheaply whether a handshake message knows our
//! public key, and under load whether its sender receives at the address it claims. `CookieJar`
//! is what a tunnel keeps to answer a cookie reply with a second MAC.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::identity::{Identity, cookie_key, mac1_key};
use super::messages::{
    COOKIE_NONCE, COOKIE_RECEIVER, COOKIE_REPLY_BYTES, COOKIE_TAG, COOKIE_VALUE, INITIATION_BYTES,
    RESPONSE_BYTES, TYPE_COOKIE_REPLY, field,
};
use crate::crypto::{MAC_BYTES, PublicKey, Random, equal, mac, xopen, xseal};
use crate::{DropReason, Instant};

/// Age at which the responder draws a new cookie secret.
pub const COOKIE_SECRET_AGE_MAX: Duration = Duration::from_secs(120);
/// Age at which an initiator stops using a cookie: 5 s less, for the way.
pub const COOKIE_AGE_MAX: Duration = Duration::from_secs(120 - 5);

/// The responder's side, one per core. Both MACs are compared in constant time.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct CookieChecker {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    secret: [u8; 32],
    /// When the secret was drawn; None before the first cookie.
    #[zeroize(skip)]
    born: Option<Instant>,
}

impl CookieChecker {
    /// For messages to `identity`.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        let public = identity.public();
        Self {
            mac1_key: mac1_key(&public),
            cookie_key: cookie_key(&public),
            secret: [0; 32],
            born: None,
        }
    }

    /// Whether the first MAC of an initiation or a response is that of somebody who knows our
    /// public key. False for anything else.
    #[must_use]
    pub fn check_mac1(&self, message: &[u8]) -> bool {
        let Some(parts) = Macs::of(message) else { return false };
        equal(&mac(&self.mac1_key, &[parts.body]), parts.mac1)
    }

    /// Whether the second MAC proves that the sender received our last cookie at `from`. Only asked
    /// under load, after [`CookieChecker::check_mac1`].
    #[must_use]
    pub fn check_mac2(&self, message: &[u8], from: SocketAddr, now: Instant) -> bool {
        let Some(parts) = Macs::of(message) else { return false };
        // Zeros say that there is none, which is all that most of a flood has.
        if parts.mac2 == [0; MAC_BYTES] || !self.secret_is_fresh(now) {
            return false;
        }
        let cookie = self.cookie(from);
        equal(&mac(&cookie, &[parts.body, parts.mac1]), parts.mac2)
    }

    /// Answers a handshake message, whose first MAC was right, with a cookie for `from`.
    ///
    /// # Errors
    /// [`DropReason::DatagramTruncated`] if `message` is neither an initiation nor a response by
    /// its length; `out` is untouched then.
    pub fn reply(
        &mut self,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
        random: &mut dyn Random,
        out: &mut [u8; COOKIE_REPLY_BYTES],
    ) -> Result<(), DropReason> {
        let parts = Macs::of(message).ok_or(DropReason::DatagramTruncated)?;
        if !self.secret_is_fresh(now) {
            random.fill(&mut self.secret);
            self.born = Some(now);
        }
        let mut nonce = [0; 24];
        random.fill(&mut nonce);
        let mut cookie = self.cookie(from);
        let tag = xseal(&self.cookie_key, &nonce, parts.mac1, &mut cookie);
        out[..4].copy_from_slice(&[TYPE_COOKIE_REPLY, 0, 0, 0]);
        // The sender field is at the same place in both messages.
        out[COOKIE_RECEIVER].copy_from_slice(&message[4..8]);
        out[COOKIE_NONCE].copy_from_slice(&nonce);
        out[COOKIE_VALUE].copy_from_slice(&cookie);
        out[COOKIE_TAG].copy_from_slice(&tag);
        Ok(())
    }

    fn secret_is_fresh(&self, now: Instant) -> bool {
        self.born.is_some_and(|born| now.since(born) < COOKIE_SECRET_AGE_MAX)
    }

    /// The cookie of an address: the port is part of it, so that neighbours behind one translator
    /// have different ones.
    fn cookie(&self, from: SocketAddr) -> [u8; MAC_BYTES] {
        let port = from.port().to_be_bytes();
        match from.ip().to_canonical() {
            IpAddr::V4(ip) => mac(&self.secret, &[&ip.octets(), &port]),
            IpAddr::V6(ip) => mac(&self.secret, &[&ip.octets(), &port]),
        }
    }
}

/// The initiator's side, one per tunnel.
#[derive(Default)]
pub(super) struct CookieJar {
    /// First MAC of the last handshake message sent: the additional data of a reply to it.
    last_mac1: Option<[u8; MAC_BYTES]>,
    cookie: Option<([u8; MAC_BYTES], Instant)>,
}

impl CookieJar {
    /// Writes both MACs of a handshake message to `peer`; the second is zeros without a cookie.
    pub(super) fn stamp(&mut self, peer: &PublicKey, message: &mut [u8], now: Instant) {
        let body_bytes = message.len() - 2 * MAC_BYTES;
        let (body, macs) = message.split_at_mut(body_bytes);
        let (mac1, mac2) = macs.split_at_mut(MAC_BYTES);
        let first = mac(&mac1_key(peer), &[body]);
        mac1.copy_from_slice(&first);
        self.last_mac1 = Some(first);
        match &mut self.cookie {
            Some((cookie, born)) if is_usable(*born, now) => {
                mac2.copy_from_slice(&mac(cookie, &[body, &first]));
            }
            Some((stale, _)) => {
                mac2.fill(0);
                stale.zeroize();
                self.cookie = None;
            }
            None => mac2.fill(0),
        }
    }

    /// Whether the last handshake message may still be answered with a cookie.
    pub(super) const fn is_waiting(&self) -> bool {
        self.last_mac1.is_some()
    }

    /// Whether it neither waits for a cookie nor has one that could still be used.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        !self.is_waiting() && !self.cookie.is_some_and(|(_, born)| is_usable(born, now))
    }

    /// The last handshake message was answered otherwise.
    pub(super) const fn stop_waiting(&mut self) {
        self.last_mac1 = None;
    }

    /// Takes a cookie that answers our last handshake message; one reply per message.
    pub(super) fn accept(
        &mut self,
        peer: &PublicKey,
        message: &[u8; COOKIE_REPLY_BYTES],
        now: Instant,
    ) -> Result<(), DropReason> {
        let mac1 = self.last_mac1.ok_or(DropReason::HandshakeUnexpected)?;
        let mut cookie = field(message, COOKIE_VALUE);
        let (nonce, tag) = (field(message, COOKIE_NONCE), field(message, COOKIE_TAG));
        xopen(&cookie_key(peer), &nonce, &mac1, &mut cookie, &tag)
            .map_err(|_| DropReason::HandshakeUndecryptable)?;
        self.last_mac1 = None;
        self.cookie = Some((cookie, now));
        Ok(())
    }
}

impl Drop for CookieJar {
    fn drop(&mut self) {
        if let Some((cookie, _)) = &mut self.cookie {
            cookie.zeroize();
        }
    }
}

/// Whether a cookie that came at `born` is young enough for another message.
fn is_usable(born: Instant, now: Instant) -> bool {
    now.since(born) < COOKIE_AGE_MAX
}

/// A handshake message cut at its MACs. The second covers the first.
struct Macs<'a> {
    body: &'a [u8],
    mac1: &'a [u8],
    mac2: &'a [u8],
}

impl<'a> Macs<'a> {
    fn of(message: &'a [u8]) -> Option<Self> {
        if !matches!(message.len(), INITIATION_BYTES | RESPONSE_BYTES) {
            return None;
        }
        let (body, macs) = message.split_at(message.len() - 2 * MAC_BYTES);
        let (mac1, mac2) = macs.split_at(MAC_BYTES);
        Some(Self { body, mac1, mac2 })
    }
}
