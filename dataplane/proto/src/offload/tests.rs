#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::DropReason;

/// A packet by its fields, built one by one and summed word by word: the oracle for both
/// directions.
#[derive(Clone, Debug)]
struct Spec {
    v6: bool,
    udp: bool,
    tos: u8,
    ttl: u8,
    id: u16,
    dont_fragment: bool,
    ports: (u16, u16),
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 16;
const ECE: u8 = 64;
const CWR: u8 = 128;

impl Spec {
    fn tcp(payload: &[u8]) -> Self {
        Self {
            v6: false,
            udp: false,
            tos: 0,
            ttl: 64,
            id: 7,
            dont_fragment: true,
            ports: (443, 50_000),
            sequence: 1000,
            acknowledgment: 77,
            flags: ACK,
            window: 501,
            options: Vec::new(),
            payload: payload.to_vec(),
        }
    }

    fn udp(payload: &[u8]) -> Self {
        Self { udp: true, ..Self::tcp(payload) }
    }

    fn protocol(&self) -> u8 {
        if self.udp { 17 } else { 6 }
    }

    fn addresses(&self) -> Vec<u8> {
        if self.v6 { (1..=32).collect() } else { vec![10, 0, 0, 1, 192, 168, 7, 9] }
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        if self.udp {
            bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
            bytes.extend([0, 0]);
        } else {
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend(self.acknowledgment.to_be_bytes());
            bytes.extend([((20 + self.options.len()) as u8 / 4) << 4, self.flags]);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend([0, 0, 0, 0]);
            bytes.extend(&self.options);
        }
        bytes.extend(&self.payload);
        bytes
    }

    fn ip(&self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.v6 {
            bytes.extend([0x60 | self.tos >> 4, self.tos << 4, 0x12, 0x34]);
            bytes.extend((len as u16).to_be_bytes());
            bytes.extend([self.protocol(), self.ttl]);
            bytes.extend(self.addresses());
        } else {
            bytes.extend([0x45, self.tos]);
            bytes.extend((20 + len as u16).to_be_bytes());
            bytes.extend(self.id.to_be_bytes());
            bytes.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, self.protocol()]);
            bytes.extend([0, 0]);
            bytes.extend(self.addresses());
            let sum = !plain_sum(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    fn pseudo(&self, len: usize) -> Vec<u8> {
        let mut bytes = self.addresses();
        bytes.extend([0, self.protocol()]);
        bytes.extend((len as u32).to_be_bytes());
        bytes
    }

    fn checksum_at(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    fn build(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let sum = !plain_sum(&[self.pseudo(transport.len()), transport.clone()].concat());
        let sum = if self.udp && sum == 0 { u16::MAX } else { sum };
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        [self.ip(transport.len()), transport].concat()
    }

    /// As the kernel hands it over: the checksum field holds the sum of the pseudo-header.
    fn build_partial(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let sum = plain_sum(&self.pseudo(transport.len()));
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        [self.ip(transport.len()), transport].concat()
    }

    fn vnet(&self, gso_size: Option<u16>) -> VnetHeader {
        let ip = if self.v6 { 40 } else { 20 };
        VnetHeader {
            needs_csum: true,
            gso: gso_size.map(|_| match (self.udp, self.v6) {
                (true, _) => GsoType::UdpL4,
                (false, true) => GsoType::Tcp6,
                (false, false) => GsoType::Tcp4,
            }),
            ecn: self.flags & CWR != 0 && gso_size.is_some(),
            header_len: ip,
            gso_size: gso_size.unwrap_or(0),
            csum_start: ip,
            csum_offset: self.checksum_at() as u16,
        }
    }

    /// The packets that this one stands for when cut every `size` bytes.
    fn cut(&self, size: usize) -> Vec<Self> {
        let parts: Vec<_> = self.payload.chunks(size).collect();
        let mut specs = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let mut flags = self.flags;
            if index > 0 {
                flags &= !CWR;
            }
            if index + 1 < parts.len() {
                flags &= !(FIN | PSH);
            }
            specs.push(Self {
                id: self.id.wrapping_add(index as u16),
                sequence: self.sequence.wrapping_add((index * size) as u32),
                flags,
                payload: part.to_vec(),
                ..self.clone()
            });
        }
        specs
    }
}

fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn cut_by_segments(vnet: &VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let segments = Segments::new(vnet, packet).unwrap();
    let mut all = Vec::new();
    for index in 0..segments.count() {
        let mut out = vec![0xee; segments.len_max() + 1];
        let len = segments.write(index, &mut out);
        assert_eq!(len, segments.len_of(index));
        assert_eq!(out[len], 0xee);
        out.truncate(len);
        all.push(out);
    }
    all
}

fn spec() -> impl Strategy<Value = Spec> {
    let kind = (any::<bool>(), any::<bool>(), any::<u8>(), any::<u8>(), any::<u16>());
    let flags = prop_oneof![Just(ACK), Just(ACK | PSH), Just(ACK | FIN), Just(ACK | ECE | CWR)];
    let tcp = (any::<u32>(), any::<u32>(), flags, any::<u16>(), 0usize..=10);
    (kind, tcp, any::<bool>(), 1usize..20_000, any::<u8>()).prop_map(
        |((v6, udp, tos, ttl, id), tcp, dont_fragment, len, seed)| Spec {
            v6,
            udp,
            tos,
            ttl,
            id,
            dont_fragment,
            ports: (id, 53),
            sequence: tcp.0,
            acknowledgment: tcp.1,
            flags: if udp { 0 } else { tcp.2 },
            window: tcp.3,
            options: pattern(tcp.4 * 4, seed),
            payload: pattern(len, seed),
        },
    )
}

/// What the caller of the coalescer does, with a table of two groups.
fn coalesce_all(packets: &[Vec<u8>], verify: bool) -> Vec<Vec<u8>> {
    struct Open {
        group: Group,
        write: Vec<u8>,
    }
    fn close(open: Open, done: &mut Vec<Vec<u8>>) {
        let Open { group, mut write } = open;
        group.finish_head(&mut write);
        done.push(write);
    }
    let (mut table, mut done) = (Vec::<Open>::new(), Vec::new());
    for packet in packets {
        let alone = [&[0; VnetHeader::BYTES][..], packet].concat();
        match Class::of(packet, verify) {
            Class::Flow(candidate) => {
                let at = table.iter().position(|open| open.group.key() == candidate.key());
                if let Some(at) = at {
                    if table[at].group.try_append(&candidate) {
                        table[at].write.extend_from_slice(&packet[candidate.headers_len()..]);
                        continue;
                    }
                    close(table.remove(at), &mut done);
                } else if table.len() == 2 {
                    close(table.remove(0), &mut done);
                }
                table.push(Open { group: Group::start(&candidate), write: alone });
            }
            Class::Fragment => {
                table.drain(..).for_each(|open| close(open, &mut done));
                done.push(alone);
            }
            Class::Other => done.push(alone),
        }
    }
    table.drain(..).for_each(|open| close(open, &mut done));
    done
}

fn cut_again(writes: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for write in writes {
        let (vnet, packet) = VnetHeader::parse(write).unwrap();
        packets.extend(cut_by_segments(&vnet, packet));
    }
    packets
}

proptest! {
    #[test]
    fn a_super_packet_is_cut_into_what_the_oracle_builds(
        spec in spec(), size in prop_oneof![1usize..9, 500usize..1500, Just(30_000)],
    ) {
        let mut spec = spec;
        spec.payload.truncate(size * 70);
        let expected: Vec<_> = spec.cut(size).iter().map(Spec::build).collect();
        let vnet = spec.vnet(Some(size as u16));
        prop_assert_eq!(cut_by_segments(&vnet, &spec.build_partial()), expected);
    }

    #[test]
    fn a_single_packet_gets_the_checksum_that_is_missing(spec in spec()) {
        let vnet = spec.vnet(None);
        let cut = cut_by_segments(&vnet, &spec.build_partial());
        prop_assert!(plain_sum(&[spec.pseudo(spec.transport().len()),
            cut[0][usize::from(vnet.csum_start)..].to_vec()].concat()) == 0xffff);
        let whole = spec.build();
        prop_assert_eq!(&cut[0][..20], &whole[..20]);
        prop_assert_eq!(cut_by_segments(&VnetHeader::default(), &whole), vec![whole.clone()]);
    }

    #[test]
    fn what_was_joined_is_cut_into_the_same_packets_in_the_order_of_each_flow(
        flows in proptest::collection::vec((spec(), 1usize..1400), 1..4),
        order in proptest::collection::vec((0usize..4, 0u8..12), 1..120),
    ) {
        // Each flow is a stream cut into packets, of which some are lost, changed or cut elsewhere.
        let mut queues: Vec<_> = flows.iter().enumerate().map(|(index, (spec, size))| {
            let mut spec = spec.clone();
            spec.ports.1 = index as u16;
            spec.dont_fragment = false; // Identifications then count.
            spec.payload.truncate(size * 70);
            spec.cut(*size).into_iter()
        }).collect();
        let mut packets = Vec::new();
        for (at, change) in order {
            let count = queues.len();
            let Some(mut spec) = queues[at % count].next() else { continue };
            match change {
                0 => continue,
                1 => spec.tos ^= 2,
                2 => spec.flags |= PSH * u8::from(!spec.udp),
                3 => spec.window ^= 1,
                4 => spec.id ^= 1,
                5 => spec.flags |= SYN * u8::from(!spec.udp),
                _ => {}
            }
            packets.push(spec.build());
        }
        let writes = coalesce_all(&packets, true);
        let again = cut_again(&writes);
        prop_assert!(writes.len() <= packets.len());
        for queue in 0..flows.len() {
            let at = |packet: &[u8]| if packet[0] >> 4 == 4 { packet[23] } else { packet[43] };
            let of = |all: &[Vec<u8>]| {
                all.iter().filter(|p| usize::from(at(p)) == queue).cloned().collect::<Vec<_>>()
            };
            prop_assert_eq!(of(&again), of(&packets));
        }
    }

    #[test]
    fn no_bytes_make_the_offload_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..5,
        spec in spec(), flips in proptest::collection::vec((0usize..100, any::<u8>()), 0..6),
    ) {
        let mut packet = spec.build();
        packet.truncate(600);
        let mut whole = [&spec.vnet(Some(100)).to_bytes()[..], &packet].concat();
        for (at, value) in flips {
            let at = at % whole.len();
            whole[at] = value;
        }
        for bytes in [[&[1, [0, 1, 4, 5, 0x81][kind]][..], &bytes].concat(), whole] {
            let Ok((vnet, packet)) = VnetHeader::parse(&bytes) else { continue };
            if let Ok(segments) = Segments::new(&vnet, packet) {
                let mut out = vec![0; segments.len_max()];
                for index in 0..segments.count() {
                    segments.write(index, &mut out);
                }
            }
            coalesce_all(&[packet.to_vec(), packet.to_vec()], false);
        }
    }
}

#[test]
fn sixty_four_packets_of_a_stream_leave_in_one_write() {
    let stream = Spec { flags: ACK | PSH, ..Spec::tcp(&pattern(64_000, 1)) };
    let packets: Vec<_> = stream.cut(1000).iter().map(Spec::build).collect();
    let writes = coalesce_all(&packets, true);
    assert_eq!(writes.len(), 1);
    let (vnet, packet) = VnetHeader::parse(&writes[0]).unwrap();
    assert_eq!(vnet, VnetHeader { header_len: 40, ..stream.vnet(Some(1000)) });
    assert_eq!(packet, stream.build_partial());
}

#[test]
fn a_super_packet_never_grows_beyond_what_its_length_field_says() {
    for v6 in [false, true] {
        let stream = Spec { v6, ..Spec::tcp(&pattern(100_000, 1)) };
        let packets: Vec<_> = stream.cut(2000).iter().map(Spec::build).collect();
        let writes = coalesce_all(&packets, true);
        assert_eq!(writes.len(), 2);
        assert_eq!(cut_again(&writes), packets);
    }
}

#[test]
fn datagrams_of_one_flow_join_until_a_shorter_one() {
    let datagrams = Spec::udp(&pattern(5100, 3));
    let mut packets: Vec<_> = datagrams.cut(500).iter().map(Spec::build).collect();
    packets.extend(datagrams.cut(500).iter().map(Spec::build));
    let writes = coalesce_all(&packets, true);
    assert_eq!(writes.len(), 2);
    let (vnet, packet) = VnetHeader::parse(&writes[0]).unwrap();
    assert_eq!(vnet, VnetHeader { header_len: 28, ..datagrams.vnet(Some(500)) });
    assert_eq!(packet, datagrams.build_partial());
}

#[test]
fn a_packet_with_a_wrong_checksum_goes_alone_and_in_order() {
    let stream = Spec::tcp(&pattern(4000, 1));
    let mut packets: Vec<_> = stream.cut(1000).iter().map(Spec::build).collect();
    packets[1][500] ^= 1;
    let writes = coalesce_all(&packets, true);
    assert_eq!(writes.len(), 3);
    for (write, len) in writes.iter().zip([1040, 1040, 2040]) {
        assert_eq!(write.len() - VnetHeader::BYTES, len);
    }
    assert_eq!(writes[1][..10], [0; 10]);
    assert_eq!(writes[1][10..], packets[1]);
    assert_eq!(coalesce_all(&packets, false).len(), 1);
}

#[test]
fn a_corrupt_ip_header_is_not_written_anew() {
    let stream = Spec::tcp(&pattern(2000, 1));
    let mut packets: Vec<_> = stream.cut(1000).iter().map(Spec::build).collect();
    packets[1][10] ^= 1;
    assert_eq!(coalesce_all(&packets, false).len(), 2);
}

#[test]
fn identifications_need_not_count_where_they_mean_nothing() {
    let mut specs = Spec::tcp(&pattern(3000, 1)).cut(1000);
    for (spec, id) in specs.iter_mut().zip([0, 0, 900]) {
        spec.id = id;
    }
    let packets: Vec<_> = specs.iter().map(Spec::build).collect();
    assert_eq!(coalesce_all(&packets, true).len(), 1);
    specs.iter_mut().for_each(|spec| spec.dont_fragment = false);
    let packets: Vec<_> = specs.iter().map(Spec::build).collect();
    assert_eq!(coalesce_all(&packets, true).len(), 3);
}

#[test]
fn what_is_special_goes_alone() {
    let join = |change: fn(&mut Spec)| {
        let mut specs = Spec::tcp(&pattern(2000, 1)).cut(1000);
        change(&mut specs[1]);
        coalesce_all(&specs.iter().map(Spec::build).collect::<Vec<_>>(), true).len()
    };
    assert_eq!(join(|_| {}), 1);
    assert_eq!(join(|spec| spec.flags |= PSH), 1);
    assert_eq!(join(|spec| spec.flags |= FIN), 1);
    assert_eq!(join(|spec| spec.flags |= SYN), 2);
    assert_eq!(join(|spec| spec.flags |= 4), 2);
    assert_eq!(join(|spec| spec.flags |= 32), 2);
    assert_eq!(join(|spec| spec.flags |= CWR), 2);
    assert_eq!(join(|spec| spec.flags |= ECE), 2);
    assert_eq!(join(|spec| spec.flags = 0), 2);
    assert_eq!(join(|spec| spec.payload.clear()), 2);
    assert_eq!(join(|spec| spec.payload.push(1)), 2);
    assert_eq!(join(|spec| spec.sequence += 1), 2);
    assert_eq!(join(|spec| spec.acknowledgment += 1), 2);
    assert_eq!(join(|spec| spec.window += 1), 2);
    assert_eq!(join(|spec| spec.options = vec![1; 4]), 2);
    assert_eq!(join(|spec| spec.ttl += 1), 2);
    assert_eq!(join(|spec| spec.tos += 1), 2);
    assert_eq!(join(|spec| spec.ports.0 += 1), 2);
}

#[test]
fn a_datagram_without_a_checksum_goes_alone() {
    let mut packets: Vec<_> =
        Spec::udp(&pattern(2000, 1)).cut(1000).iter().map(Spec::build).collect();
    packets[1][26..28].fill(0);
    assert_eq!(coalesce_all(&packets, false).len(), 2);
}

#[test]
fn a_fragment_follows_everything_before_it() {
    let stream: Vec<_> = Spec::tcp(&pattern(2000, 1)).cut(1000).iter().map(Spec::build).collect();
    let mut fragment = Spec { dont_fragment: false, ..Spec::udp(&pattern(100, 1)) }.build();
    fragment[6] |= 0x20;
    let packets = vec![stream[0].clone(), fragment.clone(), stream[1].clone()];
    let writes = coalesce_all(&packets, true);
    assert_eq!(writes.len(), 3);
    assert_eq!(writes[1][10..], fragment);
}

#[test]
fn a_virtio_header_that_does_not_fit_is_refused() {
    let stream = Spec::tcp(&pattern(3000, 1));
    let (good, packet) = (stream.vnet(Some(1000)), stream.build_partial());
    assert_eq!(Segments::new(&good, &packet).unwrap().count(), 3);
    for bad in [
        VnetHeader { gso_size: 0, ..good },
        VnetHeader { header_len: 3041, ..good },
        VnetHeader { csum_start: 24, ..good },
        VnetHeader { csum_offset: 6, ..good },
        VnetHeader { gso: Some(GsoType::Tcp6), ..good },
        VnetHeader { gso: Some(GsoType::UdpL4), ..good },
        VnetHeader { gso: None, csum_start: 3039, ..good },
        VnetHeader { gso: None, csum_start: u16::MAX, csum_offset: u16::MAX, ..good },
        VnetHeader { gso: None, csum_start: 4, ..good },
    ] {
        let refused = Segments::new(&bad, &packet).err();
        assert_eq!(refused, Some(DropReason::InsideOffloadBad), "{bad:?}");
    }
    let refused = Segments::new(&good, &packet[..3039]).err();
    assert_eq!(refused, Some(DropReason::InsideNotIp));
    let padded = [&packet[..], &[0]].concat();
    assert_eq!(Segments::new(&good, &padded).err(), Some(DropReason::InsideOffloadBad));
}

#[test]
fn a_tiny_segment_size_makes_more_packets_than_a_run_and_each_can_be_written_by_its_number() {
    let stream = Spec::tcp(&pattern(65_000, 1));
    let packet = stream.build_partial();
    let segments = Segments::new(&stream.vnet(Some(8)), &packet).unwrap();
    assert_eq!(segments.count(), 8125);
    let mut out = [0; 48];
    assert_eq!(segments.write(8124, &mut out), 48);
    assert_eq!(out[40..], packet[packet.len() - 8..]);
}
