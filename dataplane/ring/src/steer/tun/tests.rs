//! Packets of this kernel through queues of a real TUN.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use super::*;
use crate::driver::VNET_HEADER_BYTES;
use crate::tests::net::{in_own_network, ip, set_up};
use crate::tun::TunOptions;

const PORT: u16 = 4444;

/// Looks at all queues before a packet counts as lost: seconds.
const LOOKS_MAX: u32 = 1_000_000;

/// A TUN of several queues that takes every packet of its namespace.
struct Fixture {
    queues: Vec<TunQueue>,
    files: Vec<File>,
    sockets: [UdpSocket; 2],
}

impl Fixture {
    fn new(queues: usize) -> Self {
        let options = TunOptions { multi_queue: true, ..TunOptions::named("rws0") };
        let mut all = vec![TunQueue::open(&options).unwrap()];
        while all.len() < queues {
            let next = all[0].another().unwrap();
            all.push(next);
        }
        assert!(ip("address add 10.0.0.1/8 dev rws0"));
        set_up("rws0");
        assert!(ip("-6 address add fd00::1/8 dev rws0 nodad"));
        assert!(ip("route add default dev rws0"));
        assert!(ip("-6 route add default dev rws0"));
        let files = all.iter().map(|queue| queue.descriptor().try_clone_to_owned().unwrap());
        let files = files.map(File::from).collect();
        let sockets = ["0.0.0.0:0", "[::]:0"].map(|address| UdpSocket::bind(address).unwrap());
        Self { queues: all, files, sockets }
    }

    /// Sends a datagram and says which queue it came to.
    fn queue_of(&mut self, to: IpAddr) -> u16 {
        self.sockets[usize::from(to.is_ipv6())].send_to(b"steered", (to, PORT)).unwrap();
        self.arrived(|packet| destination(packet) == Some(to) && is_ours(packet))
    }

    /// The queue to which a packet came that `wanted` knows; the kernel sends others too.
    fn arrived(&mut self, wanted: impl Fn(&[u8]) -> bool) -> u16 {
        let mut bytes = [0; 4096];
        for _ in 0..LOOKS_MAX {
            for (number, file) in self.files.iter_mut().enumerate() {
                match file.read(&mut bytes) {
                    Ok(len) if wanted(&bytes[VNET_HEADER_BYTES..len]) => return number as u16,
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            std::thread::yield_now();
        }
        panic!("it did not come");
    }

    /// Writes an answer of `from` to one queue, as the core of that queue would.
    fn write(&mut self, queue: usize, from: Ipv4Addr) {
        let port = self.sockets[0].local_addr().unwrap().port();
        let mut packet = vec![0; VNET_HEADER_BYTES];
        packet.extend([0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        packet.extend(from.octets());
        packet.extend([10, 0, 0, 1]);
        let sum = packet[VNET_HEADER_BYTES..]
            .chunks(2)
            .fold(0u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[VNET_HEADER_BYTES + 10..][..2].copy_from_slice(&sum.to_be_bytes());
        packet.extend(PORT.to_be_bytes());
        packet.extend(port.to_be_bytes());
        packet.extend([0, 12, 0, 0]);
        packet.extend(b"back");
        self.files[queue].write_all(&packet).unwrap();
        let mut bytes = [0; 64];
        let (len, sender) = self.sockets[0].recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..len], sender), (b"back".as_slice(), (from, PORT).into()));
    }
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

fn is_ours(packet: &[u8]) -> bool {
    packet.ends_with(b"steered")
}

/// Prefixes in plain Rust.
#[derive(Default)]
struct Oracle(Vec<(IpAddr, u8, u16)>);

impl Oracle {
    fn insert(&mut self, address: IpAddr, len: u8, core: u16) {
        self.remove(address, len);
        self.0.push((masked(address, len), len, core));
    }

    fn remove(&mut self, address: IpAddr, len: u8) -> bool {
        let before = self.0.len();
        self.0.retain(|entry| (entry.0, entry.1) != (masked(address, len), len));
        self.0.len() < before
    }

    fn core_of(&self, address: IpAddr) -> Option<u16> {
        let covers = |entry: &&(IpAddr, u8, u16)| {
            entry.0.is_ipv4() == address.is_ipv4() && masked(address, entry.1) == entry.0
        };
        self.0.iter().filter(covers).max_by_key(|entry| entry.1).map(|entry| entry.2)
    }
}

/// Addresses that differ in few bits, so that prefixes nest and neighbours exist.
fn random_address(number: u32) -> IpAddr {
    let bits = (number >> 8) & 0xff;
    if number & 1 == 0 {
        Ipv4Addr::new(10, 1, (bits & 3) as u8, bits as u8).into()
    } else {
        Ipv6Addr::from_bits(0xfd00_0001_u128 << 96 | u128::from(bits) << 64 | u128::from(bits & 7))
            .into()
    }
}

#[test]
fn privileged_packets_come_to_the_queue_of_the_longest_prefix_while_prefixes_change() {
    for queues in [1, 2, 4u16] {
        in_own_network(move || prefixes_change(queues));
    }
}

fn prefixes_change(queues: u16) {
    let mut fixture = Fixture::new(queues.into());
    let mut steering = TunSteering::attach(&fixture.queues[0], queues, 1000).unwrap();
    let mut oracle = Oracle::default();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(queues);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as u32
    };
    let mut strangers = 0;
    for _ in 0..600 {
        let address = random_address(next());
        let lens: &[u8] =
            if address.is_ipv4() { &[0, 8, 16, 22, 24, 30, 32] } else { &[0, 48, 64, 127, 128] };
        // The shortest are rare, or there would be no strangers.
        let len = lens[(next() as usize % (lens.len() * 4)).max(lens.len() * 3) - lens.len() * 3];
        let len = if len == 0 && next() % 8 != 0 { lens[lens.len() - 1] } else { len };
        match next() % 4 {
            0 => {
                let core = (next() % u32::from(queues)) as u16;
                steering.insert(address, len, core).unwrap();
                oracle.insert(address, len, core);
            }
            1 => {
                let known = oracle.remove(address, len);
                assert_eq!(steering.remove(address, len).unwrap(), known);
            }
            _ => {
                let stranger = oracle.core_of(address).is_none();
                strangers += u32::from(stranger);
                let expected =
                    oracle.core_of(address).unwrap_or_else(|| steering.core_of_stranger(address));
                assert_eq!(fixture.queue_of(address), expected, "{address}, stranger: {stranger}");
            }
        }
        assert_eq!(steering.len(), oracle.0.len());
    }
    assert!(strangers > 10, "{strangers}");
    assert_eq!(steering.is_empty(), oracle.0.is_empty());
}

#[test]
fn privileged_nested_prefixes_uncover_each_other_when_they_go() {
    in_own_network(|| {
        let mut fixture = Fixture::new(4);
        let mut steering = TunSteering::attach(&fixture.queues[0], 4, 16).unwrap();
        let nests: [(IpAddr, [u8; 4]); 2] = [
            (Ipv4Addr::new(10, 9, 8, 7).into(), [0, 8, 24, 32]),
            (Ipv6Addr::new(0xfd00, 9, 8, 7, 0, 0, 0, 1).into(), [0, 16, 64, 128]),
        ];
        for (address, lens) in nests {
            for (core, len) in (0..4).zip(lens) {
                steering.insert(address, len, core).unwrap();
                assert_eq!(fixture.queue_of(address), core);
            }
            for (core, len) in (0..4).zip(lens).rev() {
                assert_eq!(fixture.queue_of(address), core);
                assert!(steering.remove(address, len).unwrap());
            }
            assert_eq!(fixture.queue_of(address), steering.core_of_stranger(address));
            // One that moves needs no removal.
            for core in [2, 0, 3] {
                steering.insert(address, lens[2], core).unwrap();
                assert_eq!(fixture.queue_of(address), core);
            }
            assert_eq!(steering.len(), 1);
            assert!(steering.remove(address, lens[2]).unwrap());
        }
    });
}

#[test]
fn privileged_writes_of_the_way_back_do_not_move_a_flow() {
    in_own_network(|| {
        let mut fixture = Fixture::new(4);
        let peer = Ipv4Addr::new(10, 3, 0, 9);
        let mut steering = TunSteering::attach(&fixture.queues[0], 4, 16).unwrap();
        steering.insert(peer.into(), 32, 1).unwrap();
        for queue in [0, 2, 3, 1, 0] {
            fixture.write(queue, peer);
            assert_eq!(fixture.queue_of(peer.into()), 1);
        }
        // Without it they do: the test would show nothing otherwise.
        TunSteering::detach(&fixture.queues[0]).unwrap();
        for queue in [0, 2, 3] {
            fixture.write(queue, peer);
            assert_eq!(usize::from(fixture.queue_of(peer.into())), queue);
        }
        steering.attach_to(&fixture.queues[0]).unwrap();
        assert_eq!(fixture.queue_of(peer.into()), 1);
        drop(steering);
        assert_eq!(fixture.queue_of(peer.into()), 1, "the program outlives its maker");
    });
}

#[test]
fn privileged_strangers_spread_over_all_queues_and_each_keeps_to_one() {
    in_own_network(|| {
        let mut fixture = Fixture::new(4);
        let steering = TunSteering::attach(&fixture.queues[0], 4, 16).unwrap();
        let mut counts = [0; 4];
        for n in 0..200u8 {
            let v4 = Ipv4Addr::new(10, 5, n, 1).into();
            let v6 = Ipv6Addr::new(0xfd00, 0, 0, n.into(), 0, 0, 0, 2).into();
            for address in [v4, v6] {
                let queue = fixture.queue_of(address);
                assert_eq!(queue, steering.core_of_stranger(address));
                counts[usize::from(queue)] += 1;
            }
        }
        assert!(counts.iter().all(|count| *count > 60), "{counts:?}");
    });
}

#[test]
fn privileged_what_is_no_ip_packet_comes_to_the_first_queue() {
    in_own_network(|| {
        let mut fixture = Fixture::new(4);
        let mut steering = TunSteering::attach(&fixture.queues[0], 4, 16).unwrap();
        steering.insert(Ipv4Addr::UNSPECIFIED.into(), 0, 3).unwrap();
        steering.insert(Ipv6Addr::UNSPECIFIED.into(), 0, 3).unwrap();
        let raw = raw::Socket::open("rws0");
        let mut whole = vec![0x45; 40];
        whole[16..20].copy_from_slice(&[10, 1, 1, 1]);
        raw.send(&whole);
        assert_eq!(fixture.arrived(|packet| packet == whole), 3);
        for malformed in [vec![0x55; 40], vec![0x45; 19], vec![0x65; 39], vec![0; 60], vec![0x45]] {
            raw.send(&malformed);
            assert_eq!(fixture.arrived(|packet| packet == malformed), 0, "{malformed:02x?}");
        }
    });
}

#[test]
fn privileged_more_prefixes_than_there_is_room_for_are_refused_by_name() {
    let mut steering = TunSteering::new(2, 2).unwrap();
    for n in 0..2 {
        steering.insert(Ipv4Addr::new(10, 0, 0, n).into(), 32, 1).unwrap();
        steering.insert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()).into(), 128, 1).unwrap();
    }
    let error = steering.insert(Ipv4Addr::new(10, 0, 0, 9).into(), 32, 1).unwrap_err();
    assert!(matches!(error, TunSteeringError::Full { prefixes_max: 2, .. }), "{error:?}");
    assert!(error.to_string().contains("10.0.0.9/32"), "{error}");
    assert_eq!(steering.len(), 4);
    assert!(steering.remove(Ipv4Addr::new(10, 0, 0, 0).into(), 32).unwrap());
    steering.insert(Ipv4Addr::new(10, 0, 0, 9).into(), 32, 1).unwrap();
    assert!(!steering.remove(Ipv4Addr::new(10, 0, 0, 77).into(), 32).unwrap());
}

#[test]
fn privileged_without_the_privilege_the_error_says_which() {
    let error = std::thread::spawn(|| {
        raw::drop_capabilities();
        TunSteering::new(2, 16).unwrap_err()
    });
    let error = error.join().unwrap();
    assert!(matches!(error, TunSteeringError::NotAllowed), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("CAP_BPF") && text.contains("handed over"), "{text}");
}

/// Packets that no socket of IP would send, and a thread without capabilities.
mod raw {
    #![allow(unsafe_code, reason = "such sockets and capabilities have no wrapper here")]

    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    pub(super) struct Socket {
        fd: OwnedFd,
        interface: u32,
    }

    impl Socket {
        pub(super) fn open(name: &str) -> Self {
            // SAFETY: no pointers are passed.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0) };
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            // SAFETY: the descriptor was just made and nobody else knows it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let name = std::ffi::CString::new(name).unwrap();
            Self { fd, interface: crate::sys::interface_index(&name) }
        }

        pub(super) fn send(&self, packet: &[u8]) {
            // SAFETY: plain data, for which zero is valid.
            let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_protocol = (libc::ETH_P_IP as u16).to_be();
            to.sll_ifindex = self.interface as i32;
            // SAFETY: both pointers and lengths describe values that outlive the call.
            let sent = unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    packet.as_ptr().cast(),
                    packet.len(),
                    0,
                    (&raw const to).cast(),
                    size_of_val(&to) as libc::socklen_t,
                )
            };
            assert_eq!(sent, packet.len() as isize, "{}", std::io::Error::last_os_error());
        }
    }

    /// Takes all capabilities from the calling thread.
    pub(super) fn drop_capabilities() {
        // Version 3 of the interface, this thread; all sets empty.
        let header = [0x2008_0522_u32, 0];
        let sets = [0u32; 6];
        // SAFETY: both arrays have the size that this version demands and outlive the call.
        let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}
