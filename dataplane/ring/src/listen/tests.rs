//! Sockets against this kernel.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::sys;

#[test]
fn both_families_get_the_same_free_port() {
    let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
    assert!(sockets.has_ipv4());
    let ports: Vec<u16> = sockets
        .descriptors()
        .into_iter()
        .flatten()
        .map(|fd| sys::bound_address(fd).unwrap().port())
        .collect();
    assert!(ports.iter().all(|port| *port == sockets.port()), "{ports:?}");
    assert_ne!(sockets.port(), 0);
}

#[test]
fn bound_sockets_can_be_taken_over() {
    let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
    let fds = sockets.descriptors().map(|fd| fd.map(|fd| fd.try_clone_to_owned().unwrap()));
    let second = UdpSockets::adopt(fds, [None, None], &UdpOptions::default()).unwrap();
    assert_eq!(second.port(), sockets.port());
    assert_eq!(second.has_ipv6(), sockets.has_ipv6());
}

#[test]
fn a_busy_port_is_named_with_the_command_that_finds_its_holder() {
    let holder = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let options = UdpOptions { port, ipv6: None, ..Default::default() };
    let error = UdpSockets::bind(&options).unwrap_err().to_string();
    assert!(error.contains(&format!("UDP port {port} (IPv4) is in use")), "{error}");
    assert!(error.contains(&format!("ss -ulpn 'sport = :{port}'")), "{error}");
}

#[test]
fn a_port_that_is_free_in_one_family_only_is_not_taken() {
    // The second bind of the pair must fail and the error must name the family that is busy.
    let options = UdpOptions { ipv4: None, ..Default::default() };
    let Ok(holder) = UdpSockets::bind(&options) else { return };
    let both = UdpOptions { port: holder.port(), ..Default::default() };
    let error = UdpSockets::bind(&both).unwrap_err();
    assert!(matches!(error, ListenError::Busy { family: "IPv6", .. }), "{error}");
}

#[test]
fn a_foreign_address_is_named() {
    let address = Ipv4Addr::new(192, 0, 2, 77);
    let options = UdpOptions { ipv4: Some(address), ipv6: None, ..Default::default() };
    let error = UdpSockets::bind(&options).unwrap_err();
    assert!(error.to_string().contains("192.0.2.77"), "{error}");
}

#[test]
fn shared_ports_can_be_bound_twice() {
    let mut options = UdpOptions { shared: true, ..Default::default() };
    let first = UdpSockets::bind(&options).unwrap();
    options.port = first.port();
    assert_eq!(UdpSockets::bind(&options).unwrap().port(), first.port());
}

#[test]
fn the_options_the_driver_relies_on_are_set() {
    let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
    let [ipv4, ipv6] = sockets.descriptors();
    let ipv4 = ipv4.unwrap();
    let get = |fd, level, name| sys::option(fd, level, name).unwrap();
    assert_eq!(get(ipv4, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_DONT);
    assert_eq!(get(ipv4, libc::IPPROTO_IP, libc::IP_PKTINFO), 1);
    assert_eq!(get(ipv4, libc::IPPROTO_IP, libc::IP_RECVTOS), 1);
    assert_eq!(get(ipv4, libc::SOL_UDP, libc::UDP_GRO), 1);
    if let Some(ipv6) = ipv6 {
        assert_eq!(get(ipv6, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), 1);
        assert_eq!(get(ipv6, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO), 1);
    }
    assert!(sockets.receive_buffer_bytes() > 0);
}

#[test]
fn privileged_the_mark_can_be_changed_at_run_time() {
    let options = UdpOptions { mark: 7, ..Default::default() };
    let sockets = UdpSockets::bind(&options).unwrap();
    let mark = |fd| sys::option(fd, libc::SOL_SOCKET, libc::SO_MARK).unwrap();
    assert!(sockets.descriptors().into_iter().flatten().all(|fd| mark(fd) == 7));
    sockets.set_mark(0x9000_0001).unwrap();
    assert!(sockets.descriptors().into_iter().flatten().all(|fd| mark(fd) as u32 == 0x9000_0001));
}
