#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

const KEY: &str = "0102030405060708091011121314151617181920212223242526272829303132";

fn zones(name: &str) -> Option<u32> {
    (name == "eth0").then_some(2)
}

/// All requests in `input`, and what its end makes of the rest.
fn parse_all(pieces: &[&[u8]]) -> Vec<Request> {
    let mut parser = Parser::new(zones);
    let mut requests = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let (taken, request) = parser.feed(rest);
            assert!(taken > 0);
            rest = &rest[taken..];
            let hang_up = matches!(request, Some(Request::HangUp(_)));
            requests.extend(request);
            if hang_up {
                return requests;
            }
        }
    }
    requests.extend(parser.finish());
    requests
}

fn parse(input: &str) -> Vec<Request> {
    parse_all(&[input.as_bytes()])
}

fn set(lines: &str) -> Vec<Operation> {
    match parse(&format!("set=1\n{lines}\n")).as_slice() {
        [Request::Set(operations)] => operations.clone(),
        other => panic!("{lines}: {other:?}"),
    }
}

fn peer(line: &str) -> Vec<Operation> {
    let mut operations = set(&format!("public_key={KEY}\n{line}\n"));
    assert!(matches!(operations.remove(0), Operation::Peer(_)));
    operations
}

fn refusal(lines: &str) -> Errno {
    match parse(&format!("set=1\n{lines}\n\n")).as_slice() {
        [Request::Refused(refused)] => refused.errno,
        other => panic!("{lines}: {other:?}"),
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn a_get_is_a_line_and_an_empty_line() {
    assert_eq!(parse("get=1\n\n"), [Request::Get]);
    assert_eq!(parse("get=1\n\nget=1\n\n"), [Request::Get, Request::Get]);
    let [Request::HangUp(refused)] = parse("get=1\nx=y\n\n")[..] else { panic!() };
    assert_eq!(refused.errno, Errno::INVALID);
}

#[test]
fn every_key_of_the_interface_is_understood() {
    let upper = KEY.to_uppercase();
    for key in [KEY, &upper] {
        let steps = set(&format!("private_key={key}\n"));
        let [Operation::PrivateKey(secret)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(secret.bytes()[..3], [1, 2, 3]);
    }
    assert_eq!(set("listen_port=0\n"), [Operation::ListenPort(0)]);
    assert_eq!(set("listen_port=65535\n"), [Operation::ListenPort(65535)]);
    assert_eq!(set("fwmark=4294967295\n"), [Operation::Fwmark(u32::MAX)]);
    assert_eq!(set("replace_peers=true\n"), [Operation::ReplacePeers]);
    assert_eq!(set(""), []);
}

#[test]
fn every_key_of_a_peer_is_understood() {
    assert_eq!(peer("update_only=true"), [Operation::UpdateOnly]);
    assert_eq!(peer("remove=true"), [Operation::Remove]);
    assert!(matches!(&peer(&format!("preshared_key={KEY}"))[..], [Operation::Preshared(_)]));
    let endpoint = |text: &str| [Operation::Endpoint(text.parse().unwrap())];
    assert_eq!(peer("endpoint=192.0.2.1:51820"), endpoint("192.0.2.1:51820"));
    assert_eq!(peer("endpoint=[2001:db8::1]:1"), endpoint("[2001:db8::1]:1"));
    assert_eq!(peer("endpoint=[fe80::1%3]:1"), endpoint("[fe80::1%3]:1"));
    assert_eq!(peer("endpoint=[fe80::1%eth0]:1"), endpoint("[fe80::1%2]:1"));
    assert_eq!(peer("persistent_keepalive_interval=25"), [Operation::Keepalive(25)]);
    assert_eq!(peer("replace_allowed_ips=true"), [Operation::ReplaceAllowedIps]);
    assert_eq!(peer("allowed_ip=10.1.2.3/8"), [Operation::AllowedIp(net("10.0.0.0/8"))]);
    assert_eq!(peer("allowed_ip=::/0"), [Operation::AllowedIp(net("::/0"))]);
    assert_eq!(peer("allowed_ip=-fd00::1/128"), [Operation::RemoveAllowedIp(net("fd00::1/128"))]);
    assert_eq!(peer("protocol_version=1"), []);
}

#[test]
fn steps_keep_their_order() {
    let steps = set(&format!(
        "public_key={KEY}\nallowed_ip=10.0.0.0/8\nreplace_allowed_ips=true\npublic_key={KEY}\nremove=true\n"
    ));
    assert_eq!(
        steps[1..3],
        [Operation::AllowedIp(net("10.0.0.0/8")), Operation::ReplaceAllowedIps]
    );
    assert_eq!(steps[4], Operation::Remove);
}

#[test]
fn a_value_that_means_nothing_is_invalid() {
    let bad_interface = [
        "private_key=01",
        "private_key=",
        "private_key=zz02030405060708091011121314151617181920212223242526272829303132",
        "listen_port=65536",
        "listen_port=-1",
        "listen_port=+1",
        "listen_port=",
        "fwmark=4294967296",
        "fwmark=0x1",
        "replace_peers=false",
        "replace_peers=",
        "unknown=1",
        "endpoint=192.0.2.1:1",
        "=",
        "public_key=00",
    ];
    for line in bad_interface {
        assert_eq!(refusal(line), Errno::INVALID, "{line}");
    }
    let bad_peer = [
        "update_only=1",
        "remove=yes",
        "preshared_key=00",
        "endpoint=192.0.2.1",
        "endpoint=192.0.2.1:65536",
        "endpoint=example.com:1",
        "endpoint=2001:db8::1:1",
        "endpoint=[fe80::1%nosuch]:1",
        "endpoint=[fe80::1%eth0]:x",
        "persistent_keepalive_interval=off",
        "persistent_keepalive_interval=65536",
        "replace_allowed_ips=1",
        "allowed_ip=10.0.0.0",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=::/129",
        "allowed_ip=10.0.0/8",
        "allowed_ip=/8",
        "allowed_ip=",
        "allowed_ip=--10.0.0.0/8",
        "protocol_version=2",
        "private_key=0102030405060708091011121314151617181920212223242526272829303132",
        "listen_port=1",
    ];
    for line in bad_peer {
        assert_eq!(refusal(&format!("public_key={KEY}\n{line}")), Errno::INVALID, "{line}");
    }
}

#[test]
fn a_line_without_an_equals_sign_breaks_the_protocol() {
    assert_eq!(refusal("listen_port"), Errno::PROTOCOL);
    assert_eq!(refusal(&format!("public_key={KEY}\nremove")), Errno::PROTOCOL);
    let bad_utf8: &[&[u8]] = &[b"set=1\n\xff=1\n\n"];
    let [Request::Refused(refused)] = parse_all(bad_utf8)[..] else { panic!() };
    assert_eq!(refused.errno, Errno::PROTOCOL);
}

#[test]
fn a_bad_line_takes_the_whole_request_with_it_and_the_next_one_is_heard() {
    let requests = parse("set=1\nlisten_port=1\nfwmark=x\nlisten_port=2\n\nget=1\n\n");
    assert!(matches!(requests[0], Request::Refused(_)));
    assert_eq!(requests[1], Request::Get);
}

#[test]
fn what_is_no_request_ends_the_conversation() {
    for input in ["hello\n", "\n", "get=2\n", "set=1 \n"] {
        let requests = parse(input);
        let [Request::HangUp(refused)] = &requests[..] else { panic!("{input}: {requests:?}") };
        assert_eq!(refused.errno, Errno::PROTOCOL);
    }
}

#[test]
fn a_request_that_breaks_off_is_refused_whole() {
    for input in ["set=1\nlisten_port=1\n", "set=1\nlisten_port=1", "get=1\n", "se"] {
        let [Request::HangUp(refused)] = parse(input)[..] else { panic!("{input}") };
        assert_eq!(refused.errno, Errno::PROTOCOL, "{input}");
    }
    assert_eq!(parse(""), []);
}

#[test]
fn a_line_that_never_ends_is_given_up() {
    let mut parser = Parser::new(zones);
    let long = [b'x'; LINE_BYTES_MAX + 1];
    let (_, Some(Request::HangUp(refused))) = parser.feed(&long) else { panic!() };
    assert_eq!(refused.errno, Errno::IO);
    assert!(parser.line.is_empty());
}

#[test]
fn a_request_that_never_ends_is_given_up_at_its_limit() {
    let mut parser = Parser::new(zones);
    assert!(parser.feed(b"set=1\n").1.is_none());
    let lines = b"replace_peers=true\n".repeat(10_000);
    let mut fed = 0;
    loop {
        let (taken, request) = parser.feed(&lines);
        fed += taken;
        let Some(request) = request else { continue };
        let Request::HangUp(refused) = request else { panic!("{request:?}") };
        assert_eq!(refused.errno, Errno::TOO_BIG);
        break;
    }
    assert!(fed <= REQUEST_BYTES_MAX + 20);
    assert_eq!(parser.operations.capacity(), 0);
}

#[test]
fn hexadecimal_digits_are_exactly_these() {
    for byte in 0..=255_u8 {
        let expected = char::from(byte).to_digit(16).map_or(0x80, |value| value as u8);
        assert_eq!(nibble(byte), expected, "{byte:#x}");
    }
}

fn sample() -> String {
    format!(
        "set=1\nprivate_key={KEY}\nlisten_port=1\nreplace_peers=true\npublic_key={KEY}\n\
         endpoint=[2001:db8::1]:1\nallowed_ip=10.0.0.0/8\n\nget=1\n\nset=1\nfwmark=x\n\nset=1\nfwmark=1\n"
    )
}

proptest! {
    #[test]
    fn it_does_not_matter_how_the_input_is_cut(cuts in prop::collection::vec(0_usize..400, 0..8)) {
        let text = sample();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let piece = |ends: &[usize]| &text.as_bytes()[ends[0]..ends[1]];
        let pieces: Vec<_> = cuts.windows(2).map(piece).collect();
        prop_assert_eq!(parse_all(&pieces), parse(&text));
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        parse_all(&[&input]);
    }

    #[test]
    fn any_lines_are_taken_without_a_panic(
        lines in prop::collection::vec("(get|set|public_key|endpoint|allowed_ip|remove)=[-\\[\\]:%/.0-9a-f]{0,70}\n?", 0..30)
    ) {
        parse(&format!("set=1\n{}\n", lines.concat()));
    }
}

#[test]
fn the_input_may_be_cut_at_any_byte() {
    let text = sample();
    let whole = parse(&text);
    for at in 0..text.len() {
        let (left, right) = text.as_bytes().split_at(at);
        assert_eq!(parse_all(&[left, right]), whole, "cut at {at}");
    }
}
