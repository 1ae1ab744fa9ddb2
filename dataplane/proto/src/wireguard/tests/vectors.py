"""Known answers for noise.rs and cookie.rs, computed from the formulas of the WireGuard whitepaper.

Needs Python 3 and the package `cryptography`; prints the constants of `vectors.rs`."""

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


def h(*parts):
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key, *parts):
    return hashlib.blake2s(b"".join(parts), key=key, digest_size=16).digest()


def kdf(n, key, data):
    prk = hmac.new(key, data, hashlib.blake2s).digest()
    out, last = [], b""
    for i in range(1, n + 1):
        last = hmac.new(prk, last + bytes([i]), hashlib.blake2s).digest()
        out.append(last)
    return out


def pub(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private, public):
    return X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(public))


def aead(key, counter, text, ad):
    return ChaCha20Poly1305(key).encrypt(bytes(4) + struct.pack("<Q", counter), text, ad)


def show(name, data):
    print(f"{name} {data.hex()}")


STATIC_I = bytes(range(0x00, 0x20))
STATIC_R = bytes(range(0x20, 0x40))
EPHEMERAL_I = bytes(range(0x40, 0x60))
EPHEMERAL_R = bytes(range(0x60, 0x80))
PRESHARED = bytes(range(0x80, 0xa0))
INDEX_I, INDEX_R = 0x01020304, 0xa1b2c3d4
STAMP = (0x400000000000000a + 1_760_000_000).to_bytes(8, "big") + (29 << 24).to_bytes(4, "big")

ck = h(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
hs = h(ck, b"WireGuard v1 zx2c4 Jason@zx2c4.com")
show("initial_chain", ck)
show("initial_hash", hs)
hs = h(hs, pub(STATIC_R))

message = bytes([1, 0, 0, 0]) + struct.pack("<I", INDEX_I) + pub(EPHEMERAL_I)
(ck,) = kdf(1, ck, pub(EPHEMERAL_I))
hs = h(hs, pub(EPHEMERAL_I))
ck, k = kdf(2, ck, dh(EPHEMERAL_I, pub(STATIC_R)))
sealed = aead(k, 0, pub(STATIC_I), hs)
hs = h(hs, sealed)
message += sealed
ck, k = kdf(2, ck, dh(STATIC_I, pub(STATIC_R)))
sealed = aead(k, 0, STAMP, hs)
hs = h(hs, sealed)
message += sealed
mac1 = mac(h(b"mac1----", pub(STATIC_R)), message)
show("initiation", message + mac1 + bytes(16))
cookie = bytes(range(0xc0, 0xd0))
show("initiation_mac2", mac(cookie, message, mac1))

message = bytes([2, 0, 0, 0]) + struct.pack("<II", INDEX_R, INDEX_I) + pub(EPHEMERAL_R)
(ck,) = kdf(1, ck, pub(EPHEMERAL_R))
hs = h(hs, pub(EPHEMERAL_R))
(ck,) = kdf(1, ck, dh(EPHEMERAL_R, pub(EPHEMERAL_I)))
(ck,) = kdf(1, ck, dh(EPHEMERAL_R, pub(STATIC_I)))
ck, t, k = kdf(3, ck, PRESHARED)
hs = h(hs, t)
sealed = aead(k, 0, b"", hs)
hs = h(hs, sealed)
message += sealed
show("response", message + mac(h(b"mac1----", pub(STATIC_I)), message) + bytes(16))

send_i, send_r = kdf(2, ck, b"")
show("keepalive_i", bytes([4, 0, 0, 0]) + struct.pack("<IQ", INDEX_R, 0) + aead(send_i, 0, b"", b""))
show("data_r", bytes([4, 0, 0, 0]) + struct.pack("<IQ", INDEX_I, 0)
     + aead(send_r, 0, b"E\0\0\x14" + bytes(28), b""))

show("blake2s_abc", h(b"abc"))
show("mac_abc", mac(bytes(range(32)), b"abc"))
show("hmac_abc", hmac.new(bytes(range(32)), b"abc", hashlib.blake2s).digest())
for i, k in enumerate(kdf(3, bytes(range(32)), b"input")):
    show(f"kdf_{i + 1}", k)
secret = bytes(range(0xd0, 0xf0))
show("cookie_v4", mac(secret, bytes([192, 0, 2, 1]), struct.pack(">H", 51820)))
show("cookie_v6", mac(secret, bytes.fromhex("20010db8000000000000000000000001"), struct.pack(">H", 51820)))
