//! What one session does over time and along its path: sizes, marks, keepalives, rekeying, roaming,
//! and the search for what a path carries.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use ringway_dataplane::counters::Histogram;
use ringway_dataplane::{Command, PeerChange, PeerStatus, SessionState};
use ringway_flow::Policy;
use ringway_proto::DropReason;
use ringway_proto::ip::checksum;
use ringway_proto::wireguard::{KEEPALIVE_TIMEOUT, NEW_HANDSHAKE_AFTER, REKEY_AFTER_TIME};
use ringway_ring::Ecn;
use ringway_tests::driver::Sent;
use ringway_tests::packets::{TcpPacket, echo_reply};
use ringway_tests::pair::{Families, Pair};

const SECOND: Duration = Duration::from_secs(1);

/// Bytes of the virtio header.
const VNET: usize = 10;

fn kinds(sent: &[Sent]) -> Vec<u8> {
    sent.iter().map(|sent| sent.bytes[0]).collect()
}

#[test]
fn packets_of_both_families_pass_in_tunnels_of_both_families() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        let (out, back) = (pair.to_exit(b"out"), pair.to_client(b"back"));
        pair.send(&out);
        assert_eq!(pair.gateway.written[0][VNET..], out, "{families:?}");
        let sent = pair.inside(&back);
        assert_eq!(sent[0].from.unwrap().address, families.gateway().ip());
        assert_eq!(pair.client.received, [back], "{families:?}");
        assert_eq!(pair.gateway.all_drops(), 0);
    }
}

#[test]
fn padding_fills_sixteen_bytes_and_never_goes_beyond_the_mtu() {
    for mtu in [1_280_u16, 1_389, 1_420] {
        let mut pair = Pair::connected();
        let policy = Policy { inner_mtu: mtu, ..Policy::default() };
        pair.gateway.command(Command::SetPolicy(Box::new(policy)));
        for len in (28..100).chain(usize::from(mtu) - 40..=usize::from(mtu)) {
            let sent = pair.inside(&pair.to_client(&vec![1; len - 28]));
            let padded = len.next_multiple_of(16).min(usize::from(mtu));
            assert_eq!(sent[0].bytes.len(), 32 + padded, "{len} bytes of at most {mtu}");
        }
        let count = 72 + 41;
        assert_eq!(pair.client.received.len(), count);
    }
}

#[test]
fn congestion_marks_go_in_and_come_out() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        for mark in 0..4_u8 {
            let mut packet = pair.to_client(b"marked");
            set_mark(&mut packet, mark);
            assert_eq!(
                pair.inside(&packet)[0].ecn,
                Ecn(mark),
                "the outer header has the inner mark"
            );
        }
        for (inner, outer, expected) in [(0, 3, 0), (1, 3, 3), (2, 3, 3), (2, 1, 2), (3, 0, 3)] {
            let mut packet = pair.to_exit(b"marked");
            set_mark(&mut packet, inner);
            let sealed = pair.client.send(&packet, pair.gateway.now);
            let (from, to) = (pair.client.address, pair.gateway.ip());
            pair.gateway.deliver(&sealed, from, to, Ecn(outer));
            pair.gateway.run();
            set_mark(&mut packet, expected);
            let written = pair.gateway.written.pop().unwrap();
            assert_eq!(written[VNET..], packet, "{inner} inside, {outer} outside");
        }
    }
}

fn set_mark(packet: &mut [u8], mark: u8) {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & 0xcf | mark << 4;
        return;
    }
    packet[1] = packet[1] & 0xfc | mark;
    packet[10..12].fill(0);
    let header = checksum::sum(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&header.to_be_bytes());
}

#[test]
fn segment_sizes_in_handshakes_are_reduced_both_ways_and_only_if_too_large() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        let (own, beyond) = (families.inside(), families.beyond());
        let most = if families.inside_v6 { 1_360_u16 } else { 1_380 };
        for announced in [536, most, most + 1, 1_460, 8_960] {
            let [high, low] = announced.to_be_bytes();
            let syn = |path| {
                let options = &[2, 4, high, low];
                TcpPacket { path, sequence: 5, flags: 2, options, payload: &[] }.build()
            };
            let at = if families.inside_v6 { 62 } else { 42 };
            let size = |packet: &[u8]| u16::from_be_bytes([packet[at], packet[at + 1]]);
            pair.send(&syn((own, beyond)));
            let written = pair.gateway.written.pop().unwrap();
            assert_eq!(size(&written[VNET..]), announced.min(most));
            assert!(transport_holds(&written[VNET..]));
            pair.inside(&syn((beyond, own)));
            let received = pair.client.received.pop().unwrap();
            assert_eq!(size(&received), announced.min(most));
            assert!(transport_holds(&received));
        }
    }
}

fn transport_holds(packet: &[u8]) -> bool {
    let start = if packet[0] >> 4 == 6 { 40 } else { 20 };
    let len = (packet.len() - start) as u32;
    (checksum::pseudo_of(packet, 6, len) + checksum::sum(&packet[start..])).finish() == 0
}

#[test]
fn a_packet_that_is_too_big_is_answered_with_what_fits() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        let headers = if families.inside_v6 { 48 } else { 28 };
        let big = pair.to_client(&vec![1; 1_421 - headers]);
        assert!(pair.inside(&big).is_empty());
        assert_eq!(pair.drops(DropReason::InsideTooBig), 1);
        let error = &pair.gateway.written[0][VNET..];
        let (start, kind, mtu_at) = if families.inside_v6 { (40, 2, 46) } else { (20, 3, 26) };
        assert_eq!(error[start], kind);
        assert_eq!(u16::from_be_bytes([error[mtu_at], error[mtu_at + 1]]), 1_420);
        assert!(error[start + 8..].starts_with(&big[..start]), "it quotes the packet");
        pair.inside(&pair.to_client(&vec![1; 1_420 - headers]));
        assert_eq!(pair.client.received.len(), 1);
    }
}

#[test]
fn a_passive_keepalive_answers_data_once_after_ten_seconds() {
    let mut pair = Pair::connected();
    pair.send(&pair.to_exit(b"no answer to this"));
    let started = pair.now().mono;
    let sent = pair.pass_alone(60 * SECOND);
    assert_eq!(sent.len(), 1, "one keepalive, and then silence");
    assert_eq!((sent[0].1.bytes[0], sent[0].1.bytes.len()), (4, 32));
    let after = sent[0].0.since(started);
    assert!((KEEPALIVE_TIMEOUT..KEEPALIVE_TIMEOUT + Duration::from_millis(10)).contains(&after));
}

#[test]
fn an_answer_makes_a_passive_keepalive_needless() {
    let mut pair = Pair::connected();
    pair.send(&pair.to_exit(b"question"));
    pair.pass_alone(5 * SECOND);
    pair.inside(&pair.to_client(b"answer"));
    // The client, too, has something to answer after ten seconds, but the gateway not.
    assert!(pair.pass(14 * SECOND).is_empty());
}

#[test]
fn persistent_keepalives_come_at_their_interval_with_and_without_a_session() {
    let mut pair = Pair::connected();
    let public = pair.client.public();
    let change = PeerChange { keepalive_s: Some(20), ..PeerChange::of(public) };
    pair.gateway.put_peer(change);
    let sent = pair.gateway.run();
    assert_eq!(sent.len(), 1, "the first one at once");
    pair.answer(sent);
    let sent = pair.pass(101 * SECOND);
    assert_eq!(sent.len(), 5);
    assert!(sent.iter().all(|(_, sent)| sent.bytes.len() == 32));
    // Long after all keys are gone it still tries, so that a hole in a firewall stays open.
    pair.pass_alone(1_000 * SECOND);
    let sent = pair.pass_alone(100 * SECOND);
    assert!(sent.iter().any(|(_, sent)| sent.bytes[0] == 1), "an initiation");
    pair.gateway.put_peer(PeerChange { keepalive_s: Some(0), ..PeerChange::of(public) });
    pair.pass_alone(120 * SECOND);
    assert!(pair.pass_alone(600 * SECOND).is_empty(), "off is off");
}

#[test]
fn a_session_is_renewed_before_its_end_by_whoever_began_it() {
    for gateway_begins in [true, false] {
        let mut pair = if gateway_begins { Pair::reachable() } else { Pair::connected() };
        if gateway_begins {
            pair.inside(&pair.to_client(b"first"));
            assert!(pair.client.ready(pair.now()));
        }
        let mut initiations = Vec::new();
        let start = pair.now().mono;
        for second in 0..400_u32 {
            let before = pair.client.received.len();
            let sent = pair.inside(&pair.to_client(&second.to_be_bytes()));
            assert_eq!(pair.client.received.len(), before + 1, "second {second}");
            initiations.extend(kinds(&sent).contains(&1).then(|| pair.now().mono.since(start)));
            pair.send(&pair.to_exit(&second.to_be_bytes()));
            pair.pass(SECOND);
        }
        assert_eq!(pair.gateway.all_drops(), 0);
        let counters = pair.gateway.shard.counters_mut();
        let (begun, answered) =
            (counters.handshakes_completed_initiator, counters.handshakes_completed_responder);
        if gateway_begins {
            assert_eq!((begun, answered), (4, 0));
            assert!(initiations[0] >= REKEY_AFTER_TIME, "{initiations:?}");
        } else {
            assert_eq!((begun, answered), (0, 4));
        }
    }
}

#[test]
fn a_peer_that_lost_its_keys_is_found_again_by_its_silence() {
    let mut pair = Pair::connected();
    let public = ringway_tests::gateway::Gateway::public_of(ringway_tests::pair::SEED);
    pair.client.restart(public);
    let packet = pair.to_client(b"are you there?");
    let start = pair.now().mono;
    pair.inside(&packet);
    assert!(pair.client.received.is_empty());
    let sent = pair.pass(20 * SECOND);
    let (at, _) = sent.iter().find(|(_, sent)| sent.bytes[0] == 1).unwrap();
    let after = at.since(start);
    let jitter = Duration::from_millis(345);
    assert!((NEW_HANDSHAKE_AFTER..NEW_HANDSHAKE_AFTER + jitter).contains(&after), "{after:?}");
    assert!(pair.client.ready(pair.now()));
}

#[test]
fn an_endpoint_moves_only_after_authentication() {
    let mut pair = Pair::connected();
    let home = pair.client.address;
    let away: SocketAddr = "203.0.113.77:7777".parse().unwrap();
    let old = pair.client.send(&pair.to_exit(b"old"), pair.now()).remove(0);
    pair.talk(vec![old.clone()]);
    let fresh = pair.client.send(&pair.to_exit(b"fresh"), pair.now()).remove(0);
    let mut forged = fresh.clone();
    *forged.last_mut().unwrap() ^= 1;
    for datagram in [old, forged, vec![0; 100]] {
        pair.gateway.receive(&[datagram], away);
        assert_eq!(pair.gateway.peers()[0].endpoint, Some(home));
    }
    pair.gateway.receive(&[fresh], away);
    assert_eq!(pair.gateway.peers()[0].endpoint, Some(away));
    assert_eq!(pair.gateway.shard.counters_mut().roamed, 1);
    assert_eq!(pair.inside(&pair.to_client(b"hello there"))[0].to, away);
}

/// Largest inner packet that fits a datagram of `outer` bytes, of those that the search asks for.
fn expected_mtu(outer: usize, families: Families) -> u16 {
    let fits = outer - if families.outside_v6 { 80 } else { 60 };
    let sizes = [576, 768, 1024, 1200, 1280, 1380, 1420];
    sizes.into_iter().filter(|size| usize::from(*size) <= fits).max().unwrap()
}

/// A search by a gateway with inner addresses, from which it can ask.
fn search(outer: usize, families: Families) -> (Pair, bool) {
    search_as(addresses(), outer, families)
}

fn addresses() -> Policy {
    Policy {
        address_v4: Some([10, 0, 0, 1].into()),
        address_v6: Some("fd00::1".parse().unwrap()),
        ..Policy::default()
    }
}

/// A gateway with inner addresses, and its client.
fn with_addresses(families: Families) -> Pair {
    let mut pair = Pair::connected_over(families);
    pair.gateway.command(Command::SetPolicy(Box::new(addresses())));
    pair
}

/// A TCP sender beyond the gateway, whose segment nobody acknowledges, over a path that swallows
/// datagrams of more than `outer` bytes. Returns the pair and whether the segment arrived at last.
fn search_as(policy: Policy, outer: usize, families: Families) -> (Pair, bool) {
    let mut pair = Pair::connected_over(families);
    pair.gateway.command(Command::SetPolicy(Box::new(policy)));
    // A flow is watched once none was for a while.
    pair.pass(10 * SECOND);
    let path = (families.beyond(), families.inside());
    let headers = if families.inside_v6 { 60 } else { 40 };
    let mut size = 1_420 - headers;
    let mut timeout = Duration::from_millis(200);
    for _ in 0..12 {
        let payload = vec![3; size];
        let segment =
            TcpPacket { path, sequence: 1_000, flags: 0x10, options: &[], payload: &payload };
        let segment = segment.build();
        let sent = pair.gateway.inside(&segment);
        pass_narrow(&mut pair, sent, outer);
        if pair.client.received.contains(&segment) {
            return (pair, true);
        }
        if let Some(error) = pair.gateway.written.pop() {
            let at = VNET + if families.inside_v6 { 46 } else { 26 };
            size = usize::from(u16::from_be_bytes([error[at], error[at + 1]])) - headers;
            continue;
        }
        // Something small comes from the client meanwhile: the path is not down.
        let until = pair.now().mono + timeout;
        while pair.now().mono < until {
            let span = until.since(pair.now().mono).min(SECOND);
            pass_time(&mut pair, span, outer);
            let out = pair.client.send(&pair.to_exit(b"still here"), pair.gateway.now);
            let sent = narrow_up(&mut pair, out);
            pass_narrow(&mut pair, sent, outer);
            pair.gateway.written.clear();
        }
        timeout *= 2;
    }
    (pair, false)
}

/// What is small enough reaches the client, which answers echo requests as a host does, and so on.
fn pass_narrow(pair: &mut Pair, sent: Vec<Sent>, outer: usize) {
    let headers = if pair.families.outside_v6 { 48 } else { 28 };
    pass_over(pair, sent, &|sent| sent.bytes.len() + headers <= outer);
}

/// What the path `carries` reaches the client, which answers echo requests as a host does, and so
/// on.
fn pass_over(pair: &mut Pair, mut sent: Vec<Sent>, carries: &dyn Fn(&Sent) -> bool) {
    let now = pair.now();
    while !sent.is_empty() {
        let mut out = Vec::new();
        for sent in sent.iter().filter(|sent| carries(sent)) {
            let before = pair.client.received.len();
            out.extend(pair.client.receive(&sent.bytes, now));
            let reply = pair.client.received[before..].last().and_then(|packet| echo_reply(packet));
            out.extend(reply.into_iter().flat_map(|reply| pair.client.send(&reply, now)));
        }
        sent = narrow_up(pair, out);
    }
}

/// The client's datagrams are small. Returns what the gateway sends then.
fn narrow_up(pair: &mut Pair, out: Vec<Vec<u8>>) -> Vec<Sent> {
    let from = pair.client.address;
    out.into_iter().flat_map(|datagram| pair.gateway.receive(&[datagram], from)).collect()
}

/// Time passes, and both do what is due.
fn pass_time(pair: &mut Pair, span: Duration, outer: usize) {
    let headers = if pair.families.outside_v6 { 48 } else { 28 };
    pass_time_over(pair, span, &|sent| sent.bytes.len() + headers <= outer);
}

fn pass_time_over(pair: &mut Pair, span: Duration, carries: &dyn Fn(&Sent) -> bool) {
    let end = pair.now().mono + span;
    while pair.now().mono < end {
        let next = pair.gateway.wake_at.into_iter().chain(pair.client.deadline()).min();
        let at = next.unwrap_or(end).clamp(pair.now().mono, end);
        let sent = pair.gateway.advance(at.since(pair.now().mono));
        pass_over(pair, sent, carries);
        let out = pair.client.wake(pair.gateway.now);
        let sent = narrow_up(pair, out);
        pass_over(pair, sent, carries);
    }
}

/// Segments of a TCP flow to the client, by number, which arrive together at the gateway.
fn segments(pair: &mut Pair, numbers: std::ops::Range<u32>) -> Vec<Sent> {
    let path = (pair.families.beyond(), pair.families.inside());
    let payload = [3; 1_300];
    for number in numbers {
        let sequence = number * 1_300;
        let segment = TcpPacket { path, sequence, flags: 0x10, options: &[], payload: &payload };
        pair.gateway.shard.driver_mut().inject_packet(&segment.build());
    }
    pair.gateway.run()
}

#[test]
fn where_trains_are_lost_and_single_datagrams_are_not_trains_end() {
    for families in Families::ALL {
        let mut pair = with_addresses(families);
        pair.pass(10 * SECOND);
        let carries = |sent: &Sent| sent.together == 1;
        // After every timeout one segment alone, which arrives, and then several together.
        for lost_from in 0..20 {
            for numbers in [lost_from..lost_from + 1, lost_from + 1..lost_from + 4] {
                let sent = segments(&mut pair, numbers);
                pass_over(&mut pair, sent, &carries);
            }
            pass_time_over(&mut pair, Duration::from_millis(400), &carries);
        }
        let client = pair.client.address.ip();
        assert_eq!(pair.gateway.shard.driver_mut().suspected, [client], "{families:?}");
        assert!(pair.gateway.written.is_empty(), "answers to probes stay here");
        let before = pair.client.received.len();
        let sent = segments(&mut pair, 100..103);
        pass_over(&mut pair, sent, &carries);
        assert_eq!(pair.client.received.len(), before + 3);
        assert_eq!(pair.gateway.peers()[0].path_mtu, 1_420, "sizes are not to blame");
    }
}

#[test]
fn the_search_for_a_black_hole_finds_what_the_path_carries() {
    for families in Families::ALL {
        for outer in [1_124, 1_280, 1_339, 1_340, 1_400, 1_459, 1_480, 1_500] {
            let expected = expected_mtu(outer, families);
            let (mut pair, arrived) = search(outer, families);
            let context = format!("{families:?} over {outer}");
            assert!(arrived, "{context}");
            assert_eq!(pair.gateway.peers()[0].path_mtu, expected, "{context}");
            let counters = pair.gateway.shard.counters_mut();
            assert_eq!(counters.path_probes > 0, expected < 1_420, "{context}");
            assert!(pair.gateway.written.is_empty(), "answers to probes stay here: {context}");
            assert!(pair.gateway.shard.driver_mut().at_rest());
        }
    }
}

#[test]
fn without_an_address_to_ask_from_sizes_go_down_step_by_step() {
    let (mut pair, arrived) = search_as(Policy::default(), 1_340, Families::V4);
    assert!(arrived);
    assert_eq!(pair.gateway.peers()[0].path_mtu, 1_280);
    let counters = pair.gateway.shard.counters_mut();
    assert_eq!((counters.path_probes, counters.path_narrowed), (0, 2));
}

#[test]
fn a_path_that_was_narrow_is_tried_again_after_ten_minutes() {
    let (mut pair, arrived) = search(1_340, Families::V4);
    assert!(arrived);
    assert_eq!(pair.gateway.peers()[0].path_mtu, 1_280);
    pass_time(&mut pair, 700 * SECOND, 1_500);
    // Keys are gone by then: a packet makes a new session, and the answers follow.
    for _ in 0..4 {
        let sent = pair.gateway.inside(&pair.to_client(b"still there?"));
        pass_narrow(&mut pair, sent, 1_500);
        pass_time(&mut pair, SECOND, 1_500);
    }
    assert_eq!(pair.gateway.peers()[0].path_mtu, 1_420);
}

#[test]
fn a_peer_that_moves_or_is_moved_has_an_unknown_path() {
    let away: SocketAddr = "203.0.113.78:7878".parse().unwrap();
    let (mut pair, _) = search(1_340, Families::V4);
    assert_eq!(pair.gateway.peers()[0].path_mtu, 1_280);
    pair.client.address = away;
    pair.send(&pair.to_exit(b"moved"));
    assert_eq!(pair.gateway.peers()[0].path_mtu, 1_420);

    let (mut pair, _) = search(1_340, Families::V4);
    let public = pair.client.public();
    let moved = |to| PeerChange { endpoint: Some(to), ..PeerChange::of(public) };
    pair.gateway.put_peer(moved(pair.client.address));
    assert_eq!(pair.gateway.peers()[0].path_mtu, 1_280, "that is where it was");
    pair.gateway.put_peer(moved(away));
    assert_eq!(pair.gateway.peers()[0].path_mtu, 1_420);
}

#[test]
fn a_session_is_disconnected_connecting_linked_up_and_online_and_says_since_when() {
    let mut pair = Pair::reachable();
    let seen = |pair: &mut Pair| pair.gateway.peers().remove(0);
    let near = |at: Option<Duration>, wall: Duration| {
        let at = at.unwrap();
        at <= wall && wall - at < Duration::from_millis(135)
    };
    let status = seen(&mut pair);
    let nothing = PeerStatus::unknown(pair.client.public());
    let (endpoint, path_mtu) = (status.endpoint, status.path_mtu);
    assert_eq!(status, PeerStatus { endpoint, path_mtu, ..nothing });

    // The gateway begins, and is not answered.
    let packet = pair.to_client(b"anybody?");
    pair.gateway.inside(&packet);
    let begun = pair.now().wall;
    let status = seen(&mut pair);
    assert_eq!((status.state, status.live), (SessionState::Connecting, false));
    assert!(near(status.since, begun) && near(status.last_sent, begun));
    assert_eq!(status.last_received, None);

    // The client begins, is answered, and says nothing.
    pair.gateway.advance(3 * SECOND);
    let packet = pair.to_exit(b"hello");
    let home = pair.client.address;
    let initiation = pair.client.send(&packet, pair.now());
    let sent = pair.gateway.receive(&initiation, home);
    let linked = pair.now().wall;
    let status = seen(&mut pair);
    assert_eq!((status.state, status.live), (SessionState::LinkUp, false));
    assert!(near(status.since, linked) && near(status.last_received, linked));

    pair.gateway.advance(SECOND);
    pair.answer(sent);
    let online = pair.now().wall;
    for _ in 0..3 {
        let status = seen(&mut pair);
        assert_eq!((status.state, status.live), (SessionState::Online, true));
        assert!(near(status.since, online) && near(status.last_received, online));
        pair.gateway.advance(SECOND);
    }
    // Its keys grow too old.
    pair.gateway.advance(180 * SECOND);
    let status = seen(&mut pair);
    assert!(!status.live && status.state != SessionState::Online);
    assert!(near(status.last_received, online) && status.since.unwrap() > online);
}

#[test]
fn how_long_sessions_were_in_each_state_is_counted_when_they_leave_it() {
    // Counts in powers of two of milliseconds.
    let counted = |histogram: &Histogram| -> Vec<(usize, u64)> {
        let counts = histogram.counts().iter().copied().enumerate();
        counts.filter(|(_, count)| *count > 0).collect()
    };
    let of = |ms: u64| vec![((u64::BITS - ms.leading_zeros()) as usize, 1)];
    let mut pair = Pair::reachable();
    let ask = |pair: &mut Pair| {
        let packet = pair.to_exit(b"hello");
        let home = pair.client.address;
        let initiation = pair.client.send(&packet, pair.now());
        pair.gateway.receive(&initiation, home)
    };
    let sent = ask(&mut pair);
    pair.gateway.advance(Duration::from_millis(700));
    pair.answer(sent);
    let counters = pair.gateway.counters();
    assert_eq!(counted(&counters.session_link_up_ms), of(700));
    assert!(counted(&counters.session_online_ms).is_empty());
    assert!(counted(&counters.session_disconnected_ms).is_empty(), "nobody was there before");

    // Its keys grow too old; a minute later it comes again.
    pair.pass_alone(240 * SECOND);
    let sent = ask(&mut pair);
    pair.answer(sent);
    let counters = pair.gateway.counters();
    assert_eq!(counted(&counters.session_online_ms), of(180_000));
    assert_eq!(counted(&counters.session_disconnected_ms), of(60_000));

    // It is removed ten minutes later, in the middle of a session that it renews.
    let packet = pair.to_exit(b"still here");
    for _ in 0..25 {
        pair.pass(25 * SECOND);
        pair.send(&packet);
    }
    let key = pair.client.public();
    pair.gateway.command(Command::RemovePeer(key));
    let online = counted(&pair.gateway.counters().session_online_ms);
    let [long] = of(625_000)[..] else { unreachable!() };
    assert!(online.contains(&long) && online.len() == 2, "{online:?}");
}
