//! Numbered datagrams over the sessions of a fleet, and what came back of them.

use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::{Duration, Instant as Clock};

use anyhow::{Result, anyhow, ensure};
use ringway_proto::limits::{RUN_MAX, UDP_PAYLOAD_MAX};
use ringway_proto::wireguard::Plain;

use super::far::{self, Mark};
use super::{Fleet, NAP_MAX};
use crate::inner;
use crate::order::{OrderCheck, OrderReport};
use crate::rr::RoundTrips;

/// Room around the plaintext: 16 bytes of header, 16 of tag.
pub(super) const HEADER_BYTES: usize = 16;
pub(super) const OVERHEAD_BYTES: usize = 32;

/// Inner source port of every flow.
pub(super) const PORT: u16 = 7_000;

/// How long answers may take after the last datagram.
const SETTLE: Duration = Duration::from_millis(300);

/// Round trips that are remembered; later ones replace nothing.
const TRIPS_MAX: usize = 4_000_000;

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Over which sessions, in turn.
    pub clients: Range<u32>,
    /// To where inside.
    pub to: SocketAddrV4,
    /// Bytes of the inner packet, IP header included; at least 52.
    pub size: usize,
    /// Datagrams of one session in a row; from 2 on they leave merged.
    pub batch: usize,
    /// Datagrams per second of all together; `None` for as many as possible.
    pub per_s: Option<u64>,
    /// Whether the far end is to send each of them back.
    pub echo: bool,
    /// For how long.
    pub period: Duration,
}

/// What became of a [`Load`], as far as the fleet can tell.
#[derive(Clone, Debug)]
pub struct Driven {
    /// Datagrams sent.
    pub sent: u64,
    /// What came back, or what the far end sent by itself: all flows together.
    pub back: OrderReport,
    /// Round trips, if anything came back that was sent here.
    pub trips: Option<RoundTrips>,
    /// How long sending took.
    pub wall: Duration,
}

/// One client's numbered datagrams.
#[derive(Debug, Default)]
pub(super) struct Flow {
    next: u64,
    back: OrderCheck,
    last: Option<Clock>,
}

/// A packet that is sent over and over with another mark.
struct Template {
    packet: Vec<u8>,
    at: usize,
    checksum: u16,
}

impl Fleet {
    /// Sends `load` and judges what comes back, also a little while after. Sessions are not begun:
    /// a client without one sends nothing until it has shaken hands.
    ///
    /// # Errors
    /// When the kernel refuses to send, or a client has no session.
    pub fn drive(&mut self, load: &Load) -> Result<Driven> {
        ensure!(load.clients.end <= self.roster.count, "There are no clients {:?}", load.clients);
        self.flows = (0..self.clients.len()).map(|_| Flow::default()).collect();
        self.trips.clear();
        let stride = load.size.next_multiple_of(16) + OVERHEAD_BYTES;
        let batch = load.batch.clamp(1, RUN_MAX.min(UDP_PAYLOAD_MAX / stride));
        let mut templates = self.templates(load)?;
        let mut train = vec![0; stride * batch];
        let (start, mut sent, mut turn) = (Clock::now(), 0_u64, 0);
        while start.elapsed() < load.period {
            let owed = load.per_s.map_or(u64::MAX, |per_s| due(per_s, start.elapsed()) - sent);
            let mut left = owed.min(1_024);
            while left > 0 {
                let count = batch.min(usize::try_from(left)?);
                let template = &mut templates[turn];
                let number = load.clients.start + turn as u32;
                let train = &mut train[..stride * count];
                self.send_run(number, template, load.echo, train, stride)?;
                (sent, left) = (sent + count as u64, left - count as u64);
                turn = (turn + 1) % templates.len();
            }
            // A whole batch, so that what is paced leaves merged too.
            let due = |per_s| until(per_s, sent + batch as u64 - 1);
            let next = load
                .per_s
                .map_or(Duration::ZERO, |per_s| due(per_s).saturating_sub(start.elapsed()));
            self.turn(next.min(NAP_MAX))?;
        }
        let wall = start.elapsed();
        self.settle()?;
        let mut back = OrderReport::default();
        self.flows.iter().for_each(|flow| back.add(&flow.back.report()));
        Ok(Driven { sent, back, trips: RoundTrips::of(std::mem::take(&mut self.trips)), wall })
    }

    /// As [`Fleet::drive`], but sends nothing: judges what the far end sends by itself.
    ///
    /// # Errors
    /// When the kernel refuses to receive.
    pub fn listen(&mut self, period: Duration) -> Result<OrderReport> {
        self.flows = (0..self.clients.len()).map(|_| Flow::default()).collect();
        self.trips.clear();
        self.hold(period)?;
        self.settle()?;
        let mut back = OrderReport::default();
        self.flows.iter().for_each(|flow| back.add(&flow.back.report()));
        Ok(back)
    }

    /// When the last datagram of the latest [`Fleet::drive`] or [`Fleet::listen`] came to a client.
    #[must_use]
    pub fn last_arrival(&self, number: u32) -> Option<Clock> {
        self.flows.get(number as usize)?.last
    }

    /// Gives clients a persistent keepalive, in seconds; 0 turns it off.
    ///
    /// # Errors
    /// When the kernel refuses to send.
    pub fn keep_alive(&mut self, clients: Range<u32>, seconds: u16) -> Result<()> {
        for number in clients {
            self.clients[number as usize].set_keepalive(seconds, &self.world);
            self.clients[number as usize].transmit(&mut self.world, &mut self.wire);
            self.arm(number);
        }
        self.wire.flush()
    }

    /// Takes what is still on its way.
    fn settle(&mut self) -> Result<()> {
        let mut quiet = Clock::now();
        while quiet.elapsed() < SETTLE {
            if self.receive()? > 0 {
                quiet = Clock::now();
            }
            self.fire();
            self.wire.flush()?;
            self.wire.wait(NAP_MAX)?;
        }
        Ok(())
    }

    /// An inner packet from the gateway for a client.
    pub(super) fn judge(&mut self, number: u32, packet: &[u8]) {
        let (Some(flow), Some(mark)) = (
            self.flows.get_mut(number as usize),
            packet.get(far::HEADERS_BYTES..).and_then(Mark::read),
        ) else {
            return;
        };
        let now = self.world.nanos();
        flow.last = Some(Clock::now());
        flow.back.see(mark.number, Duration::from_nanos(now));
        if mark.sent_ns != 0 && self.trips.len() < TRIPS_MAX {
            self.trips.push(Duration::from_nanos(now.saturating_sub(mark.sent_ns)));
        }
    }

    fn templates(&self, load: &Load) -> Result<Vec<Template>> {
        let make = |number| {
            let from = SocketAddrV4::new(self.roster.inner(number), PORT);
            Template::new(from, load.to, load.size)
        };
        load.clients.clone().map(make).collect()
    }

    /// Seals one run of numbered packets of one client into `train` and sends it.
    fn send_run(
        &mut self,
        number: u32,
        template: &mut Template,
        echo: bool,
        train: &mut [u8],
        stride: usize,
    ) -> Result<()> {
        let sent_ns = self.world.nanos();
        let flow = &mut self.flows[number as usize];
        for datagram in train.chunks_exact_mut(stride) {
            let mark = Mark { number: flow.next, flow: number, echo, sent_ns };
            flow.next += 1;
            template.write(&mark, &mut datagram[HEADER_BYTES..stride - HEADER_BYTES]);
        }
        let mut slots = train.chunks_exact_mut(stride);
        let count = slots.len();
        let mut run: [Plain<'_>; RUN_MAX] =
            std::array::from_fn(|_| Plain { bytes: slots.next().unwrap_or_default() });
        let client = &mut self.clients[number as usize];
        client
            .seal(&mut run[..count], &self.world)
            .map_err(|reason| anyhow!("Client {number} cannot send: {reason:?}"))?;
        let from = client.from();
        if count == 1 {
            self.wire.push(from, train, 0);
        } else {
            self.wire.train(from, train, stride)?;
        }
        // What sending asks for, a new handshake for example.
        client.transmit(&mut self.world, &mut self.wire);
        self.arm(number);
        Ok(())
    }
}

impl Template {
    fn new(from: SocketAddrV4, to: SocketAddrV4, size: usize) -> Result<Self> {
        let at = far::HEADERS_BYTES;
        ensure!(size >= at + Mark::BYTES, "{size} bytes have no room for a number");
        let packet = inner::udp_packet(from.into(), to.into(), size, true)?;
        let checksum = u16::from_be_bytes([packet[at - 2], packet[at - 1]]);
        Ok(Self { packet, at, checksum })
    }

    /// Writes the packet with this mark, its checksum brought up to date (RFC 1624), and zeros
    /// behind it.
    fn write(&self, mark: &Mark, out: &mut [u8]) {
        let (packet, padding) = out.split_at_mut(self.packet.len());
        packet.copy_from_slice(&self.packet);
        padding.fill(0);
        let bytes = mark.bytes();
        packet[self.at..self.at + bytes.len()].copy_from_slice(&bytes);
        let words =
            bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum = u32::from(!self.checksum) + words.sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = match !(((folded & 0xffff) + (folded >> 16)) as u16) {
            0 => u16::MAX,
            other => other,
        };
        packet[self.at - 2..self.at].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// How many datagrams should have left by now; always one more than the clock says.
fn due(per_s: u64, elapsed: Duration) -> u64 {
    (elapsed.as_nanos() * u128::from(per_s) / 1_000_000_000) as u64 + 1
}

/// When datagram `number` is due.
fn until(per_s: u64, number: u64) -> Duration {
    Duration::from_nanos((u128::from(number) * 1_000_000_000 / u128::from(per_s.max(1))) as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use ringway_proto::ip::{Packet, checksum, protocol};

    #[test]
    fn a_marked_packet_has_a_right_checksum() {
        let (from, to) = ("10.0.1.7:7000".parse().unwrap(), "10.91.2.2:9010".parse().unwrap());
        let template = Template::new(from, to, 101).unwrap();
        for number in [0, 1, 0xffff, 0x1_0000, u64::MAX - 3] {
            let mark = Mark { number, flow: 99_999, echo: true, sent_ns: 0xfedc_ba98_7654_3210 };
            let mut out = vec![7; 112];
            template.write(&mark, &mut out);
            let transport = Packet::parse(&out).unwrap().transport_of(&out).unwrap().to_vec();
            let pseudo = checksum::pseudo_of(&out, protocol::UDP, transport.len() as u32);
            assert_eq!((pseudo + checksum::sum(&transport)).finish(), 0, "number {number}");
            assert_eq!(Mark::read(&out[far::HEADERS_BYTES..]), Some(mark));
        }
    }

    #[test]
    fn a_rate_is_kept_from_the_first_datagram_on() {
        assert_eq!(due(1_000, Duration::ZERO), 1);
        assert_eq!(due(1_000, Duration::from_millis(10)), 11);
        assert_eq!(until(1_000, 11), Duration::from_millis(11));
    }
}
