//! Sessions: keys, roles, counters.

use super::pair::{Pair, ipv4, ipv6};
use crate::wireguard::{Outcome, SendState};

#[test]
fn a_handshake_gives_both_sides_a_session_that_carries_both_families() {
    let mut pair = Pair::new();
    pair.handshake();
    for from_a in [true, false] {
        let outcome = pair.send(from_a, &ipv4(61));
        assert_eq!(outcome, Outcome::Packet { start: 16, len: 61 });
        let outcome = pair.send(from_a, &ipv6(1280));
        assert_eq!(outcome, Outcome::Packet { start: 16, len: 1280 });
    }
    assert_eq!(pair.a.tunnel.send_state(pair.now), SendState::Ready);
}
