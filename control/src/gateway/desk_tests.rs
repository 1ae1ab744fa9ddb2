#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::gateway::fake_cores::{desk, on_control_thread};
use ringway_proto::crypto::PublicKey;

fn key(n: u16) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    PublicKey(bytes)
}

fn put(n: u16) -> [Operation; 2] {
    let net = format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap();
    [Operation::Peer(key(n)), Operation::AllowedIp(net)]
}

#[test]
fn a_request_is_finished_when_the_cores_have_done_it_even_through_full_channels() {
    on_control_thread(async {
        let (desk, told) = desk(2);
        desk.configure((0..500).flat_map(put).collect()).await.unwrap();
        assert_eq!(told.peers.borrow().len(), 500);
        assert_eq!(desk.with_plane(Plane::pending), 0);
    });
}

#[test]
fn peers_are_read_page_by_page_over_all_cores() {
    on_control_thread(async {
        let (desk, told) = desk(2);
        desk.configure((0..300).flat_map(put).collect()).await.unwrap();
        let mut seen = Vec::new();
        let mut place = Some(Place::default());
        while let Some(from) = place {
            let (page, next) = desk.read_peers(from, 1000).await.unwrap();
            assert!(page.peers.len() <= PEERS_PER_PAGE);
            seen.extend(page.peers.iter().map(|status| status.public));
            place = next;
        }
        assert!(seen.iter().eq(told.peers.borrow().keys().map(|(_, public)| public)));
        assert!(desk.read_peers(Place { core: 9, slot: 0 }, 1).await.is_err());
    });
}

#[test]
fn sockets_come_and_go_with_the_interface_and_move_with_the_port() {
    on_control_thread(async {
        let (desk, told) = desk(1);
        desk.configure(vec![Operation::ListenPort(0)]).await.unwrap();
        assert_eq!(told.sockets_replaced.get(), 0, "a port that nobody listens on needs no socket");
        desk.set_link(true).await.unwrap();
        assert!(told.sockets.get());
        let (first, _) = desk.port_and_mark();
        assert_ne!(first, 0);
        desk.configure(vec![Operation::ListenPort(first)]).await.unwrap();
        assert_eq!(told.sockets_replaced.get(), 1, "the same port again replaces nothing");
        desk.configure(vec![Operation::ListenPort(0)]).await.unwrap();
        assert_eq!(told.sockets_replaced.get(), 2);
        desk.set_link(false).await.unwrap();
        assert!(!told.sockets.get());
        assert_eq!(desk.snapshot().about.listen_port, 0);
    });
}

#[test]
fn a_port_that_is_taken_changes_nothing_else_either() {
    on_control_thread(async {
        let holder = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let taken = holder.local_addr().unwrap().port();
        let (desk, told) = desk(1);
        desk.set_link(true).await.unwrap();
        let before = desk.port_and_mark();
        let request = [Operation::ListenPort(taken)].into_iter().chain(put(1)).collect();
        let refused = desk.configure(request).await;
        assert!(matches!(refused, Err(DeskError::Port(ListenError::Busy { .. }))), "{refused:?}");
        assert_eq!(desk.port_and_mark(), before);
        assert!(told.peers.borrow().is_empty());
    });
}

#[test]
fn a_gateway_whose_port_was_taken_comes_up_with_the_next_one() {
    on_control_thread(async {
        let holder = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let taken = holder.local_addr().unwrap().port();
        let (desk, told) = desk(1);
        let request = put(1).into_iter().chain([Operation::Keepalive(25)]).collect();
        desk.configure(request).await.unwrap();
        desk.configure(vec![Operation::ListenPort(taken)]).await.unwrap();
        assert!(matches!(desk.set_link(true).await, Err(DeskError::Port(_))));
        assert!(!told.sockets.get());
        let again = desk.configure(vec![Operation::ListenPort(taken)]).await;
        assert!(matches!(again, Err(DeskError::Port(_))));
        desk.configure(vec![Operation::ListenPort(0)]).await.unwrap();
        assert!(told.sockets.get());
        assert_eq!(told.peers.borrow()[&(0, key(1))], 25, "keepalives begin too");
    });
}

#[test]
fn a_core_that_is_full_makes_the_request_fail() {
    on_control_thread(async {
        let (desk, told) = desk(1);
        told.peers_max.set(3);
        let outcome = desk.configure((0..5).flat_map(put).collect()).await;
        assert!(matches!(outcome, Err(DeskError::Refused(Refusal::TooManyPeers))), "{outcome:?}");
        assert_eq!(desk.with_plane(|plane| plane.peers().len()), 3);
    });
}

#[test]
fn keepalives_wait_for_the_interface() {
    on_control_thread(async {
        let (desk, told) = desk(1);
        let request = put(1).into_iter().chain([Operation::Keepalive(25)]).collect();
        desk.configure(request).await.unwrap();
        assert_eq!(told.peers.borrow()[&(0, key(1))], 0);
        desk.set_link(true).await.unwrap();
        assert_eq!(told.peers.borrow()[&(0, key(1))], 25);
    });
}

#[test]
fn a_new_mtu_reaches_every_core() {
    on_control_thread(async {
        let (desk, told) = desk(3);
        desk.set_mtu(1280).await.unwrap();
        assert_eq!(told.inner_mtu.get(), 1280);
        assert_eq!(desk.snapshot().about.inner_mtu, 1280);
        assert_eq!(desk.snapshot().cores.len(), 3);
    });
}

#[test]
fn whoever_waits_for_a_core_that_ends_is_told() {
    on_control_thread(async {
        let (desk, told) = desk(1);
        told.deaf.set(true);
        let waiting = tokio::task::spawn_local({
            let desk = Rc::clone(&desk);
            async move {
                let page = desk.read_peers(Place::default(), 1);
                let change = desk.configure(put(1).into());
                tokio::join!(page, change)
            }
        });
        tokio::task::yield_now().await;
        desk.core_ended(Err(io::Error::other("broken")));
        let (page, change) = waiting.await.unwrap();
        assert!(matches!(page, Err(DeskError::Stopping)));
        assert!(matches!(change, Err(DeskError::Stopping)));
        assert_eq!(desk.take_failure().unwrap().to_string(), "broken");
        assert!(matches!(desk.set_mtu(1).await, Err(DeskError::Stopping)));
    });
}

#[test]
fn all_cores_are_told_to_stop_once() {
    on_control_thread(async {
        let (desk, _told) = desk(2);
        assert!(desk.cores_answer().await);
        desk.stop();
        desk.stop();
        assert_eq!(desk.with_plane(Plane::pending), 2);
        assert!(!desk.cores_answer().await);
    });
}

#[test]
fn when_one_core_has_ended_the_others_are_told_to_stop() {
    on_control_thread(async {
        let (desk, told) = desk(2);
        desk.core_ended(Err(io::Error::other("broken")));
        desk.stop();
        while told.stopped.get() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(desk.take_failure().is_some_and(|error| error.to_string() == "broken"));
    });
}

#[test]
fn the_interface_is_followed_only_when_nobody_holds_changes_back() {
    on_control_thread(async {
        let (desk, told) = desk(1);
        let held = desk.hold().await;
        let followed = {
            let desk = Rc::clone(&desk);
            tokio::task::spawn_local(async move {
                desk.set_link(true).await?;
                desk.set_mtu(1300).await
            })
        };
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!((told.sockets.get(), told.inner_mtu.get()), (false, 0));
        drop(held);
        followed.await.unwrap().unwrap();
        assert_eq!((told.sockets.get(), told.inner_mtu.get()), (true, 1300));
    });
}

#[test]
fn a_change_that_waited_until_the_gateway_was_given_away_is_refused() {
    on_control_thread(async {
        let (desk, told) = desk(1);
        let held = desk.hold().await;
        let changes = {
            let desk = Rc::clone(&desk);
            tokio::task::spawn_local(async move {
                (desk.set_link(true).await, desk.configure(put(1).into()).await)
            })
        };
        tokio::task::yield_now().await;
        desk.stop();
        drop(held);
        let (link, peer) = changes.await.unwrap();
        assert!(matches!(link, Err(DeskError::Stopping)), "{link:?}");
        assert!(matches!(peer, Err(DeskError::Stopping)), "{peer:?}");
        assert!(!told.sockets.get());
    });
}
