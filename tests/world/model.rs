//! What may have arrived: the reference that a simulated run is compared with.
//!
//! Every inner packet carries a number, and its contents follow from the number, so that whatever
//! comes out anywhere can be compared with what went in: the right bytes, at the right place, from
//! the right sender, once. The model must not know how the packets travelled.

use std::net::IpAddr;

use ringway_proto::Instant;
use ringway_proto::ip::{Packet, Udp, checksum, protocol};
use ringway_proto::offload::{Segments, VnetHeader};

use crate::client::Seeded;
use crate::packets::udp;

/// Least payload: magic number and number of the packet.
pub const PAYLOAD_MIN: usize = 8;

const MAGIC: [u8; 4] = *b"ring";

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a client to the TUN.
    ToExit,
    /// From the TUN to a client.
    ToClient,
}

/// An inner packet that was handed to one end.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Which way it goes.
    pub way: Way,
    /// Number of the client that sends or receives it.
    pub client: usize,
    /// When it was handed over.
    pub at: Instant,
    /// Inner addresses.
    pub path: (IpAddr, IpAddr),
    /// Bytes of its payload.
    pub payload: usize,
    /// It may never arrive: its sender has no right to its source.
    pub forbidden: bool,
    /// It came out where it should.
    pub delivered: bool,
}

/// All packets of a run.
#[derive(Debug, Default)]
pub struct Model {
    records: Vec<Record>,
    /// Per client, way and family: the number of the last packet that was delivered.
    last: Vec<[Option<u32>; 4]>,
    /// Packets of one flow have to arrive in the order in which they were sent.
    pub in_order: bool,
    /// Per client: how many of its packets may have been overtaken.
    overtaken_max: Vec<usize>,
}

impl Model {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new(clients: usize, in_order: bool) -> Self {
        Self {
            records: Vec::new(),
            last: vec![[None; 4]; clients],
            in_order,
            overtaken_max: vec![0; clients],
        }
    }

    /// A new packet. `path` is source and destination inside.
    pub fn packet(
        &mut self,
        way: Way,
        client: usize,
        path: (IpAddr, IpAddr),
        payload: usize,
        at: Instant,
    ) -> Vec<u8> {
        let number = self.records.len() as u32;
        let payload = payload.max(PAYLOAD_MIN);
        let record = Record { way, client, at, path, payload, forbidden: false, delivered: false };
        self.records.push(record);
        udp(path.0, path.1, &contents(number, payload))
    }

    /// The packet made last may never arrive.
    pub fn forbid_last(&mut self) {
        if let Some(last) = self.records.last_mut() {
            last.forbidden = true;
        }
    }

    /// So many packets of a client may arrive too late: they went another way than the rest.
    pub fn may_be_overtaken(&mut self, client: usize, count: usize) {
        self.overtaken_max[client] += count;
    }

    /// All packets so far.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Takes what was written to the TUN: a packet or a super-packet of clients, or an ICMP error.
    ///
    /// # Panics
    /// If it may not be there.
    pub fn written(&mut self, bytes: &[u8]) {
        let (header, packet) = VnetHeader::parse(bytes).expect("a virtio header");
        let segments = Segments::new(&header, packet).expect("a packet that the kernel accepts");
        if matches!(segments.packet().protocol(), protocol::ICMP | protocol::ICMPV6) {
            self.error(packet);
            return;
        }
        let mut room = vec![0; 65_536];
        for at in 0..segments.count() {
            let len = segments.write(at, &mut room);
            self.arrived(Way::ToExit, None, &room[..len]);
        }
    }

    /// Takes what came out at a client.
    ///
    /// # Panics
    /// If it may not be there.
    pub fn received(&mut self, client: usize, packet: &[u8]) {
        self.arrived(Way::ToClient, Some(client), packet);
    }

    /// How many of the packets that `which` selects were sent and arrived.
    #[must_use]
    pub fn count(&self, which: impl Fn(&Record) -> bool) -> (usize, usize) {
        let chosen = || self.records.iter().filter(|record| which(record));
        (chosen().count(), chosen().filter(|record| record.delivered).count())
    }

    fn arrived(&mut self, way: Way, at: Option<usize>, packet: &[u8]) {
        let number = number_of(packet);
        let record = self.records.get_mut(number as usize).expect("a packet that was sent");
        assert_eq!(record.way, way, "packet {number} came back");
        assert!(at.is_none_or(|client| client == record.client), "packet {number} at a stranger");
        assert!(!record.forbidden, "packet {number} has a foreign source: {record:?}");
        assert!(!record.delivered, "packet {number} arrived twice");
        let expected = udp(record.path.0, record.path.1, &contents(number, record.payload));
        assert_eq!(unnumbered(packet), expected, "packet {number} was changed");
        let family = usize::from(record.path.0.is_ipv6()) + 2 * usize::from(way == Way::ToClient);
        let last = &mut self.last[record.client][family];
        record.delivered = true;
        let excused = &mut self.overtaken_max[record.client];
        if self.in_order && last.is_some_and(|last| last > number) {
            assert!(*excused > 0, "packet {number} arrived after {last:?}");
            *excused -= 1;
            return;
        }
        *last = Some(number);
    }

    /// An ICMP error has to be about a packet that was sent to a client and is still missing.
    fn error(&self, packet: &[u8]) {
        let view = Packet::parse(packet).expect("an error is a packet");
        let quoted = &packet[view.transport_offset() + 8..];
        let from = quoted.windows(MAGIC.len()).position(|window| window == MAGIC);
        let number = from.map(|at| be32(&quoted[at + MAGIC.len()..])).expect("it quotes ours");
        let record = &self.records[number as usize];
        assert_eq!(record.way, Way::ToClient);
        assert!(!record.delivered, "an error about packet {number}, which was delivered");
        assert_eq!(view.destination(), record.path.0, "an error goes to who sent the packet");
    }
}

/// A packet without its IPv4 identification, which merging and cutting may change where nothing may
/// be fragmented.
fn unnumbered(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        assert_eq!(checksum::sum(&packet[..20]).finish(), 0, "the header's checksum holds");
        packet[4..6].fill(0);
        packet[10..12].fill(0);
        let sum = checksum::sum(&packet[..20]).finish();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The payload that belongs to a number.
fn contents(number: u32, len: usize) -> Vec<u8> {
    let mut payload = MAGIC.to_vec();
    payload.extend(number.to_be_bytes());
    let mut filler = Seeded(u64::from(number));
    while payload.len() < len {
        payload.extend(filler.draw().to_le_bytes());
    }
    payload.truncate(len);
    payload
}

fn number_of(packet: &[u8]) -> u32 {
    let view = Packet::parse(packet).expect("what comes out is a packet");
    let transport = view.transport_of(packet).expect("it is whole");
    let udp = Udp::parse(transport).expect("it is UDP");
    let payload = &transport[Udp::HEADER..];
    assert!(payload.starts_with(&MAGIC), "a packet that nobody sent: {udp:?}");
    be32(&payload[MAGIC.len()..])
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(u32::MAX, |word| u32::from_be_bytes(*word))
}

/// Packets of one flow as one super-packet with its virtio header, as a TUN hands it over.
/// All but the last have payloads of the same length.
///
/// # Panics
/// If they are no UDP packets.
#[must_use]
pub fn merged(packets: &[Vec<u8>]) -> Vec<u8> {
    let first = &packets[0];
    let view = Packet::parse(first).expect("a packet");
    let start = view.transport_offset();
    let mut bytes = first.clone();
    for packet in &packets[1..] {
        bytes.extend_from_slice(&packet[start + Udp::HEADER..]);
    }
    let transport_len = (bytes.len() - start) as u16;
    let ip_len = if view.source().is_ipv6() { transport_len } else { bytes.len() as u16 };
    let len_at = if view.source().is_ipv6() { 4 } else { 2 };
    bytes[len_at..len_at + 2].copy_from_slice(&ip_len.to_be_bytes());
    if view.source().is_ipv4() {
        bytes[10..12].fill(0);
        let sum = checksum::sum(&bytes[..start]).finish();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes[start + 4..start + 6].copy_from_slice(&transport_len.to_be_bytes());
    // The kernel leaves the sum of the pseudo-header in the checksum field, not complemented.
    let pseudo = checksum::pseudo_of(&bytes, protocol::UDP, u32::from(transport_len));
    let seed = !pseudo.finish();
    bytes[start + 6..start + 8].copy_from_slice(&seed.to_be_bytes());
    let header = VnetHeader {
        needs_csum: true,
        gso: Some(ringway_proto::offload::GsoType::UdpL4),
        ecn: false,
        header_len: (start + Udp::HEADER) as u16,
        gso_size: (first.len() - start - Udp::HEADER) as u16,
        csum_start: start as u16,
        csum_offset: 6,
    };
    let mut whole = header.to_bytes().to_vec();
    whole.extend(bytes);
    whole
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const BEYOND: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// A model of two clients, and three packets for the first.
    fn model() -> (Model, Vec<Vec<u8>>) {
        let mut model = Model::new(2, true);
        let packet = |_| model.packet(Way::ToClient, 0, (BEYOND, INSIDE), 100, Instant::ZERO);
        let packets = (0..3).map(packet).collect();
        (model, packets)
    }

    fn objects(model: &mut Model, client: usize, packet: &[u8]) -> bool {
        catch_unwind(AssertUnwindSafe(|| model.received(client, packet))).is_err()
    }

    #[test]
    fn packets_may_arrive_once_in_order_and_with_gaps() {
        let (mut model, packets) = model();
        model.received(0, &packets[0]);
        model.received(0, &packets[2]);
        assert_eq!(model.count(|_| true), (3, 2));
    }

    #[test]
    fn what_may_not_be_is_objected_to() {
        let (mut model, packets) = model();
        assert!(objects(&mut model, 1, &packets[0]), "a stranger");
        let mut changed = packets[0].clone();
        *changed.last_mut().expect("bytes") ^= 1;
        assert!(objects(&mut model, 0, &changed), "other contents");
        model.received(0, &packets[1]);
        assert!(objects(&mut model, 0, &packets[1]), "twice");
        assert!(objects(&mut model, 0, &packets[0]), "too late");
        let invented = udp(BEYOND, INSIDE, &contents(99, 100));
        assert!(objects(&mut model, 0, &invented), "never sent");
        let forbidden = model.packet(Way::ToClient, 0, (BEYOND, INSIDE), 9, Instant::ZERO);
        model.forbid_last();
        assert!(objects(&mut model, 0, &forbidden), "forbidden");
        assert!(objects(&mut model, 0, &udp(BEYOND, INSIDE, b"something else")), "not ours");
    }

    #[test]
    fn a_super_packet_stands_for_its_packets() {
        let mut model = Model::new(1, true);
        let mut packet = |len| model.packet(Way::ToExit, 0, (INSIDE, BEYOND), len, Instant::ZERO);
        let packets = [packet(300), packet(300), packet(40)];
        model.written(&merged(&packets));
        assert_eq!(model.count(|_| true), (3, 3));
    }
}
