//! What happens to inner packets between tunnel and TUN, and what is learned about paths.

use std::time::Duration;

use ringway_flow::{ANSWER_BYTES_MAX, Allowance, Counters, PathMtu, Policy, answer};
use ringway_proto::ip::{Fragment, Packet, Version, protocol};
use ringway_proto::{DropReason, Instant};

use super::input::Input;
use super::sums::is_sound;

/// A packet that was sound stays sound and keeps its addresses and length; an answer to it is a
/// sound ICMP error to its sender, and is itself never answered.
pub(crate) fn packets_stay_sound_and_answers_are_not_answered(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mtu, outer_ecn, reason) = (input.u16(), input.byte() % 4, input.byte());
    let mut packet = input.take(usize::MAX).to_vec();
    let Ok(view) = Packet::parse(&packet) else { return };
    packet.truncate(view.total_len());
    let was_sound = is_tcp(&view) && is_sound(&packet);
    let (policy, mut counters) = (Policy::default(), Counters::default());
    let gone = ringway_flow::to_exit(&mut packet, &view, outer_ecn, mtu, &policy, &mut counters);
    if gone.is_ok() {
        ringway_flow::to_client(&mut packet, &view, mtu, &policy, &mut counters);
        let after = Packet::parse(&packet).expect("still a packet");
        assert_eq!((after.source(), after.destination()), (view.source(), view.destination()));
        assert_eq!((after.protocol(), after.total_len()), (view.protocol(), view.total_len()));
        assert!(!was_sound || is_sound(&packet));
    }

    let reason = DropReason::ALL[usize::from(reason) % DropReason::COUNT];
    let mut allowance = Allowance::new(1000, 10);
    let mut out = vec![0; ANSWER_BYTES_MAX];
    let now = Instant::ZERO + Duration::from_secs(100);
    let Some(len) = answer(&packet, reason, mtu, &policy, &mut allowance, now, &mut out) else {
        return;
    };
    let message = &out[..len];
    let parsed = Packet::parse(message).expect("an answer is a packet");
    assert_eq!((parsed.total_len(), parsed.destination()), (len, view.source()));
    assert!(is_sound(message));
    let mut again = vec![0; ANSWER_BYTES_MAX];
    let second = answer(message, reason, mtu, &policy, &mut allowance, now, &mut again);
    assert_eq!(second, None, "an error is answered with an error");
}

fn is_tcp(view: &Packet) -> bool {
    view.protocol() == protocol::TCP && view.fragment() == Fragment::Whole
}

/// Whatever routers, clients and time say, the size stays between the least and the ceiling, and a
/// search comes to its end.
pub(crate) fn a_path_stays_within_its_bounds(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut ceiling = input.u16();
    let mut path = PathMtu::new(ceiling);
    let mut now = Instant::ZERO + Duration::from_secs(1000);
    while !input.is_empty() {
        match input.byte() % 6 {
            0 => path.outer_too_big(input.u16(), version(&mut input), now),
            1 => {
                ceiling = input.u16();
                path.reset(ceiling);
            }
            2 => path.heard(now),
            3 => {
                let len = usize::from(input.byte());
                let packet = input.take(len);
                if let Ok(view) = Packet::parse(packet) {
                    path.sent(packet, &view, usize::from(input.u16()), now);
                    path.take_answer(packet, &view, now);
                }
            }
            4 => now = now + Duration::from_millis(u64::from(input.u16())),
            _ => {
                let probes = std::iter::from_fn(|| path.poll_probe()).take(100).count();
                assert!(probes < 100, "probes without end");
                let _ = path.poll_change();
                path.handle_timeout(now);
            }
        }
        let least = path.mtu(Version::V4);
        assert!(least >= 500 && least <= path.mtu(Version::V6));
        assert!(path.mtu(Version::V6) <= ceiling.max(least));
    }
    for _ in 0..100 {
        let Some(at) = path.poll_timeout().filter(|_| path.is_searching()) else { return };
        path.handle_timeout(at);
    }
    panic!("a search that never ends");
}

fn version(input: &mut Input<'_>) -> Version {
    if input.byte().is_multiple_of(2) { Version::V4 } else { Version::V6 }
}
