#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use ringway_proto::crypto::PresharedKey;

use super::*;
use crate::gateway::fake_cores::{desk, on_control_thread};
use crate::plane::Nets;

#[test]
fn a_peer_with_many_prefixes_is_told_in_pieces_that_name_it() {
    let net = |n: u32| format!("10.{}.{}.0/24", n >> 8, n & 255).parse().unwrap();
    let nets: Nets = (0..2500).map(net).collect();
    let peer = |allowed_ips| Peer {
        preshared: PresharedKey::default(),
        keepalive_s: 25,
        account: None,
        allowed_ips,
        owner: CoreId(0),
    };
    let peers = [
        (PublicKey([1; 32]), peer(Nets::default())),
        (PublicKey([2; 32]), peer(nets.clone())),
        (PublicKey([3; 32]), peer(Nets::default())),
    ];
    let peers = peers.iter().map(|(public, peer)| (public, peer));
    let endpoint = (PublicKey([2; 32]), "192.0.2.7:9".parse().unwrap());
    let pieces = steps(None, peers, &Endpoints::from([endpoint]));
    let told = pieces.iter().flatten().filter(|step| **step == Operation::Endpoint(endpoint.1));
    assert_eq!(told.count(), 1);
    assert!(pieces.iter().all(|piece| piece.len() <= STEPS_PER_MESSAGE + STEPS_PER_PEER));
    assert!(pieces.iter().all(|piece| matches!(piece[0], Operation::Peer(_))));
    let given: Nets = pieces
        .iter()
        .flatten()
        .filter_map(|step| match step {
            Operation::AllowedIp(net) => Some(*net),
            _ => None,
        })
        .collect();
    assert!(given.iter().eq(nets.iter()));
}

/// A wire whose other end is never read from after the greeting, and that end.
async fn unread() -> (Wire, Wire) {
    let (one, two) = UnixStream::pair().unwrap();
    let opened = tokio::join!(Wire::open(one, false, "one"), Wire::open(two, true, "two"));
    (opened.0.unwrap().0, opened.1.unwrap().0)
}

/// A process that ends when its input does.
fn other() -> (Child, Rival) {
    let child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let rival = Rival::hold(rustix::process::Pid::from_child(&child)).unwrap();
    (child, rival)
}

#[test]
fn whoever_does_not_take_the_sessions_is_given_up_and_the_cores_go_on_where_they_were() {
    on_control_thread(async {
        let (desk, told) = desk(2);
        let (mut wire, _two) = unread().await;
        let mut progress = Progress::Given;
        // The sessions of these cores never end, and the socket is full soon.
        let paused = pause(&mut wire, &desk, &mut progress);
        timeout(Duration::from_millis(50), paused).await.unwrap_err();
        assert!(told.paused.get() && progress == Progress::Paused);

        let (mut child, rival) = other();
        // It has gone by itself, so that it is not waited for.
        drop(child.stdin.take());
        let begun = Instant::now();
        let outcome = go_on(&mut wire, &desk, &rival, progress, Stays::TooLong).await;
        assert!(matches!(outcome, Outcome::Stays(_)), "{outcome:?}");
        assert!(begun.elapsed() < LEAVE_TIMEOUT, "a refusal was waited for");
        assert!(!told.paused.get());
        assert_eq!(told.counters_ahead.get(), 0);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn whoever_was_told_to_begin_and_is_silent_is_ended_and_its_counters_are_left_out() {
    on_control_thread(async {
        let (desk, told) = desk(1);
        let (mut wire, _two) = unread().await;
        let mut progress = Progress::Paused;
        desk.pause_cores().await.unwrap();
        let until = Instant::now() + Duration::from_millis(20);
        let why = commit(&mut wire, until, &mut progress).await.unwrap_err();
        assert!(matches!(why, Stays::TooLong), "{why}");
        assert_eq!(progress, Progress::Committed);

        let (mut child, rival) = other();
        let outcome = go_on(&mut wire, &desk, &rival, progress, why).await;
        assert!(matches!(outcome, Outcome::Stays(_)), "{outcome:?}");
        assert_eq!(child.try_wait().unwrap().unwrap().signal(), Some(9));
        assert!(!told.paused.get());
        assert_eq!(told.counters_ahead.get(), RESUME_LEAP);
    });
}

#[test]
fn cores_that_cannot_go_on_are_the_end_of_the_gateway() {
    on_control_thread(async {
        let (desk, _told) = desk(1);
        let (mut wire, _two) = unread().await;
        desk.pause_cores().await.unwrap();
        desk.stop();
        let (mut child, rival) = other();
        let outcome = go_on(&mut wire, &desk, &rival, Progress::Paused, Stays::TooLong).await;
        assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
        assert_eq!(child.try_wait().unwrap().unwrap().signal(), Some(9));
    });
}
