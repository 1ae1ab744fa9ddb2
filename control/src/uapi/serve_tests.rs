#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::gateway::fake_cores::{Told, desk, on_control_thread};
use std::fmt::Write as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A client connected to a gateway whose cores are fake.
fn connect(told: &mut Option<Rc<Told>>) -> (UnixStream, Rc<Desk>) {
    let (desk, cores) = desk(2);
    *told = Some(cores);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let served = Rc::clone(&desk);
    tokio::task::spawn_local(async move { converse(theirs, &served, Access::ReadAndWrite).await });
    (ours, desk)
}

/// Reads one answer, up to and with its empty line.
async fn answer(client: &mut UnixStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\n\n") {
        let count = client.read_buf(&mut text).await.unwrap();
        assert_ne!(count, 0, "hung up after {:?}", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).unwrap()
}

async fn ask(client: &mut UnixStream, request: &str) -> String {
    client.write_all(request.as_bytes()).await.unwrap();
    answer(client).await
}

fn hex(n: u32) -> String {
    format!("{n:064x}")
}

#[test]
fn what_was_set_can_be_read_on_the_same_connection() {
    on_control_thread(async {
        let (mut client, _desk) = connect(&mut None);
        let request = format!(
            "set=1\nprivate_key={}\nlisten_port=4321\nfwmark=0\npublic_key={}\n\
             persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/64\n\n",
            hex(1),
            hex(2)
        );
        assert_eq!(ask(&mut client, &request).await, "errno=0\n\n");
        let text = ask(&mut client, "get=1\n\n").await;
        let expected = format!(
            "private_key={}41\nlisten_port=4321\npublic_key={}\npreshared_key={}\n\
             protocol_version=1\nendpoint=192.0.2.9:4711\nlast_handshake_time_sec=0\n\
             last_handshake_time_nsec=0\ntx_bytes=2\nrx_bytes=1\n\
             persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\n\
             allowed_ip=fd00::/64\nerrno=0\n\n",
            "0".repeat(62),
            hex(2),
            hex(0)
        );
        assert_eq!(text, expected);
    });
}

#[test]
fn refusals_have_their_numbers_and_the_conversation_goes_on() {
    on_control_thread(async {
        let mut told = None;
        let (mut client, _desk) = connect(&mut told);
        assert_eq!(ask(&mut client, "set=1\nlisten_port=x\n\n").await, "errno=-22\n\n");
        assert_eq!(ask(&mut client, "set=1\nnonsense\n\n").await, "errno=-71\n\n");
        told.unwrap().peers_max.set(0);
        let request = format!("set=1\npublic_key={}\n\n", hex(1));
        assert_eq!(ask(&mut client, &request).await, "errno=-28\n\n");
        assert_eq!(ask(&mut client, "get=1\n\n").await, "errno=0\n\n");
    });
}

#[test]
fn a_taken_port_is_an_address_in_use() {
    on_control_thread(async {
        let holder = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let (mut client, desk) = connect(&mut None);
        desk.set_link(true).await.unwrap();
        let request = format!("set=1\nlisten_port={}\n\n", holder.local_addr().unwrap().port());
        assert_eq!(ask(&mut client, &request).await, "errno=-98\n\n");
    });
}

#[test]
fn a_client_that_goes_away_inside_a_request_changes_nothing() {
    on_control_thread(async {
        let (mut client, desk) = connect(&mut None);
        let request = format!("set=1\npublic_key={}\nallowed_ip=10.0.0.0/8\n", hex(1));
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(answer(&mut client).await, "errno=-71\n\n");
        assert_eq!(desk.with_plane(|plane| plane.peers().len()), 0);
    });
}

#[test]
fn ten_thousand_peers_and_a_peer_with_as_many_prefixes_are_read_whole() {
    on_control_thread(async {
        let (mut client, _desk) = connect(&mut None);
        let mut request = String::from("set=1\n");
        for n in 1..=10_000 {
            writeln!(request, "public_key={}", hex(n)).unwrap();
        }
        for n in 0..10_000 {
            writeln!(request, "allowed_ip=10.{}.{}.0/24", n / 256, n % 256).unwrap();
        }
        request.push('\n');
        assert_eq!(ask(&mut client, &request).await, "errno=0\n\n");
        let text = ask(&mut client, "get=1\n\n").await;
        assert_eq!(text.matches("public_key=").count(), 10_000);
        assert_eq!(text.matches("allowed_ip=").count(), 10_000);
        assert!(text.ends_with("errno=0\n\n"));
    });
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    on_control_thread(async {
        let (mut slow, desk) = connect(&mut None);
        let mut request = String::from("set=1\n");
        for n in 1..=5_000 {
            writeln!(request, "public_key={}", hex(n)).unwrap();
        }
        request.push('\n');
        assert_eq!(ask(&mut slow, &request).await, "errno=0\n\n");
        slow.write_all(b"get=1\n\n").await.unwrap();
        let (mut other, theirs) = UnixStream::pair().unwrap();
        let served = Rc::clone(&desk);
        tokio::task::spawn_local(
            async move { converse(theirs, &served, Access::ReadAndWrite).await },
        );
        assert_eq!(ask(&mut other, "set=1\nlisten_port=7\n\n").await, "errno=0\n\n");
        assert!(answer(&mut slow).await.ends_with("errno=0\n\n"));
    });
}

#[test]
fn a_gateway_with_a_file_shows_itself_and_takes_no_change() {
    on_control_thread(async {
        let (desk, told) = desk(1);
        let (mut client, theirs) = UnixStream::pair().unwrap();
        let served = Rc::clone(&desk);
        tokio::task::spawn_local(async move { converse(theirs, &served, Access::ReadOnly).await });
        let request = format!("set=1\nprivate_key={}\npublic_key={}\n\n", hex(1), hex(2));
        assert_eq!(ask(&mut client, &request).await, "errno=-1\n\n");
        assert!(told.peers.borrow().is_empty());
        assert_eq!(ask(&mut client, "get=1\n\n").await, "errno=0\n\n");
    });
}
