//! Every reason why a packet ends here: a closed list. Each has a counter, a name in the metrics
//! and a line in `control/manual/reasons.md` (ringway-tidy compares the two).

macro_rules! drop_reasons {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// Why a packet was dropped. One byte, `Copy`; the counter is an array indexed by it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $doc] $variant,)* }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name in metrics and in the manual.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What an operator should think when the counter moves.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

drop_reasons! {
    // Outside: what a datagram was before anything was known about its sender.
    DatagramTruncated "datagram_truncated" "Shorter than the shortest message of its type.",
    DatagramOversized "datagram_oversized" "Longer than its message type allows.",
    MessageTypeUnknown "message_type_unknown" "First byte is no WireGuard message type.",
    ReservedBitsSet "reserved_bits_set" "The three reserved bytes of the message type are not zero.",
    Mac1Wrong "mac1_wrong" "First MAC does not verify: the sender does not know our public key.",
    Mac2Missing "mac2_missing" "Under load and without a valid cookie: answered with a cookie reply, no curve work done.",
    HandshakeQueueFull "handshake_queue_full" "More handshakes waiting than the bounded queue holds, or at once than a turn looks at.",
    HandshakeRateLimited "handshake_rate_limited" "Source sent more handshakes than its share while under load.",
    HandshakeSourceFull "handshake_source_full" "Under load: the source has as many live sessions as one source may.",
    HandshakeSessionsFull "handshake_sessions_full" "Under load: there are as many live sessions as there may be.",
    HandshakeHalfOpenFull "handshake_half_open_full" "Under load: too many sessions wait for their client's first packet.",
    HandshakeDraining "handshake_draining" "The gateway takes no new sessions: it is being drained.",
    HandshakeUndecryptable "handshake_undecryptable" "A handshake message whose AEAD tag does not verify.",
    HandshakeLowOrderPoint "handshake_low_order_point" "A Diffie-Hellman result was all zeros.",
    HandshakePeerUnknown "handshake_peer_unknown" "Initiation of a static key that nobody configured.",
    HandshakeReplayed "handshake_replayed" "Initiation whose timestamp is not newer than the last one of the peer.",
    HandshakeTooSoon "handshake_too_soon" "Second initiation of a peer within 20 ms.",
    HandshakeUnexpected "handshake_unexpected" "Response or cookie that answers nothing we sent.",
    IndexUnknown "index_unknown" "Receiver index that no live keypair or handshake has: a stale session, or noise.",
    IndexExhausted "index_exhausted" "No receiver index was free for a new handshake.",
    KeypairExpired "keypair_expired" "Keypair older than 180 s or past its message limit.",
    DataUndecryptable "data_undecryptable" "Transport message whose tag does not verify.",
    DataReplayed "data_replayed" "Counter already seen or older than the replay window.",
    NoIdentity "no_identity" "No private key is set: nothing can be opened.",
    // Inside: what came out of a tunnel.
    InnerMalformed "inner_malformed" "Decrypted payload is not a whole IPv4 or IPv6 packet.",
    SourceNotAllowed "source_not_allowed" "Inner source address that the peer may not use (cryptokey routing).",
    // Inside: what came from the TUN.
    InsideNotIp "inside_not_ip" "Packet from the TUN that is not IPv4 or IPv6, or lies about its length.",
    InsideOffloadBad "inside_offload_bad" "Virtio header from the TUN that does not fit its packet.",
    InsideNoPeer "inside_no_peer" "No peer has the destination in its allowed IPs.",
    InsideNoEndpoint "inside_no_endpoint" "The peer has never told us its address.",
    InsideTooBig "inside_too_big" "Larger than the peer's path carries: answered with packet-too-big.",
    OverShare "over_share" "More than the session's share of an overloaded core.",
    StagedQueueFull "staged_queue_full" "More packets waiting for a handshake than the peer may stage.",
    StagedExpired "staged_expired" "Waited for a handshake that never finished.",
    // Accounts.
    RateExceededToExit "rate_exceeded_to_exit" "From a client, beyond the rate of its account or of one above it.",
    RateExceededToClient "rate_exceeded_to_client" "For a client, beyond the rate of its account or of one above it.",
    QuotaExceeded "quota_exceeded" "The volume of the account, or of one above it, is used up.",
    // Resources.
    TransmitExhausted "transmit_exhausted" "No transmit slot was free.",
    TunExhausted "tun_exhausted" "No TUN write slot was free.",
    ReceiveExhausted "receive_exhausted" "Receive pool empty: the kernel had nowhere to put a datagram.",
    SessionBudget "session_budget" "The session's byte budget is spent.",
    CrossingFull "crossing_full" "Arrived on a core that is not its own, and no room was left to hand it over.",
    CrossedTwice "crossed_twice" "Handed over by another core, but not this core's either.",
    SendRefused "send_refused" "The kernel refused a datagram (route, firewall, size).",
    TunRefused "tun_refused" "The kernel refused a packet written to the TUN.",
    PeerGone "peer_gone" "Belonged to a peer that has been removed.",
}
