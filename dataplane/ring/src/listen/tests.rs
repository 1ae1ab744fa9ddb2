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
fn sockets_that_are_taken_over_get_no_smaller_and_only_what_they_lack() {
    let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
    let [Some(fd), _] = sockets.descriptors() else { panic!("{sockets:?}") };
    let bytes = |name| sys::option(fd, libc::SOL_SOCKET, name).unwrap();
    let buffers = || [libc::SO_RCVBUF, libc::SO_SNDBUF].map(bytes);
    let before = buffers();
    sys::set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 0).unwrap();
    let options = UdpOptions { buffer_bytes: 4096, ..UdpOptions::default() };
    let second = || [Some(fd.try_clone_to_owned().unwrap()), None];
    UdpSockets::adopt(second(), [None, None], &options).unwrap();
    assert_eq!(buffers(), before);
    assert_eq!(sys::option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO).unwrap(), 1);
}

#[test]
fn what_is_no_socket_of_the_family_is_not_taken_over() {
    let options = UdpOptions::default();
    let ipv4 = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for data in [[None, Some(ipv4.into())], [Some(stream.into()), None], [Some(file.into()), None]]
    {
        let refused = UdpSockets::adopt(data, [None, None], &options);
        assert!(matches!(refused, Err(ListenError::Other { .. })), "{refused:?}");
    }
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

fn steering(cores: u16) -> crate::steer::Steering {
    let owner = crate::steer::Owner { cores, core_bits: 4, secret: 0 };
    crate::steer::Steering { rules: Vec::new(), owner }
}

#[test]
fn a_group_has_two_banks_per_core_and_one_without_steering() {
    for cores in [1, 3] {
        let group = UdpGroup::open(&UdpOptions::default(), cores, Some(&steering(cores))).unwrap();
        assert!(group.steered, "{:?}", group.refusal);
        assert_eq!(group.sockets.len(), usize::from(cores));
        let port = group.sockets[0].port();
        assert!(group.sockets.iter().all(|s| s.has_initiations() && s.port() == port));
        let plain = UdpGroup::open(&UdpOptions::default(), cores, None).unwrap();
        assert!(!plain.steered);
        assert!(plain.refusal.is_none());
        assert!(plain.sockets.iter().all(|s| !s.has_initiations() && s.has_ipv4()));
    }
}

#[test]
fn nobody_else_can_have_the_port_of_a_group_not_even_another_group() {
    let first = UdpGroup::open(&UdpOptions::default(), 2, Some(&steering(2))).unwrap();
    let port = first.sockets[0].port();
    let options = UdpOptions { port, ..Default::default() };
    for cores in [1, 2] {
        let second = UdpGroup::open(&options, cores, Some(&steering(cores)));
        assert!(matches!(second, Err(ListenError::Busy { .. })), "{second:?}");
    }
    drop(first);
    assert_eq!(UdpGroup::open(&options, 2, None).unwrap().sockets[1].port(), port);
}

#[test]
fn a_bank_of_initiations_is_small_and_both_banks_can_be_taken_over() {
    let group = UdpGroup::open(&UdpOptions::default(), 1, Some(&steering(1))).unwrap();
    let sockets = &group.sockets[0];
    let second = sockets.try_clone().unwrap();
    let fds = |fds: [Option<std::os::fd::BorrowedFd<'_>>; 2]| {
        fds.map(|fd| fd.map(|fd| fd.try_clone_to_owned().unwrap()))
    };
    let third = UdpSockets::adopt(
        fds(second.descriptors()),
        fds(second.initiations()),
        &UdpOptions::default(),
    )
    .unwrap();
    assert!(third.has_initiations() && third.has_gro());
    let [Some(fd), _] = third.initiations() else { panic!("{third:?}") };
    let bytes = sys::option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF).unwrap();
    // The kernel takes twice what is asked for, or what the system allows.
    assert!(usize::try_from(bytes).unwrap() <= 2 * INITIATIONS_BUFFER_BYTES, "{bytes}");
}

/// In a namespace of its own: how much memory a socket's programs may take.
fn allow_program_bytes(bytes: u32) {
    std::fs::write("/proc/sys/net/core/optmem_max", bytes.to_string()).unwrap();
}

#[test]
fn privileged_where_the_kernel_refuses_to_steer_there_are_sockets_of_one_bank() {
    // Room for nothing at all, or only for the program that keeps a socket closed.
    for bytes in [1, 200] {
        crate::tests::net::in_own_network(move || {
            allow_program_bytes(bytes);
            for cores in [1, 3] {
                let steering = steering(cores);
                let group = UdpGroup::open(&UdpOptions::default(), cores, Some(&steering)).unwrap();
                assert!(!group.steered);
                let refusal = group.refusal.as_ref().unwrap();
                assert_eq!(refusal.raw_os_error(), Some(libc::ENOMEM), "{refusal}");
                assert_eq!(group.sockets.len(), usize::from(cores));
                assert!(group.sockets.iter().all(|sockets| !sockets.has_initiations()));
                takes_part(&group);
            }
        });
    }
}

#[test]
fn every_socket_of_a_group_takes_part_once_it_is_open() {
    for cores in [1, 3] {
        takes_part(&UdpGroup::open(&UdpOptions::default(), cores, None).unwrap());
        let steering = steering(cores);
        takes_part(&UdpGroup::open(&UdpOptions::default(), cores, Some(&steering)).unwrap());
    }
}

/// Sends from enough ports and addresses that some datagram comes to every socket that may get one.
fn takes_part(group: &UdpGroup) {
    let data = group.sockets.iter().map(|sockets| sockets.descriptors()[0]);
    let initiations = group.sockets.iter().map(|sockets| sockets.initiations()[0]);
    // Without rules nothing is steered to data.
    let fds: Vec<_> = if group.steered { initiations.collect() } else { data.collect() };
    let fds = fds.into_iter().flatten().map(|fd| fd.try_clone_to_owned().unwrap());
    let sockets: Vec<_> = fds.map(std::net::UdpSocket::from).collect();
    for n in 0..100 {
        let client = std::net::UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 1 + n), 0)).unwrap();
        client.send_to(b"hello", ("127.0.0.1", group.sockets[0].port())).unwrap();
    }
    let mut bytes = [0; 16];
    for socket in sockets {
        let counts = std::iter::from_fn(|| socket.recv(&mut bytes).ok()).count();
        assert!(counts > 0, "a socket got nothing");
    }
}
