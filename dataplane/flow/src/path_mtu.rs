//! How large an inner packet the path to one peer carries.
//!
//! The path starts at the ceiling that the operator set. Two things bring it down:
//!
//! - A router's report that a datagram was too big ([`PathMtu::outer_too_big`]; no driver reads
//!   such reports yet). It is believed at once: it can be forged, but then costs only speed, and
//!   only for a while.
//! - A black hole: large segments of a TCP flow are sent again and again ([`PathMtu::sent`] watches
//!   one flow at a time). Then ICMP echo requests of several sizes ask the client itself, and the
//!   largest size that is answered is the new one. A client that lives but answers none is believed
//!   to have a path one step narrower.
//!
//! After ten minutes larger sizes are tried again, by probes first, so that data does not pay for
//! it. Below 1280 bytes IPv6 does not work as hosts expect, so for IPv6 the size stays there until
//! probes have shown that the path carries less.
//!
//! A path may also swallow whole trains: datagrams that leave us in one piece and are cut further
//! on (GSO), while single ones pass. TCP then goes back again and again and gets on by one segment
//! at a time. When it does, one echo request alone and several of the same size in one train ask
//! the client; if only the lone one is ever answered, [`PathMtu::poll_trains_lost`] says so.
//!
//! A state machine without clock, packets or sockets: the caller carries out
//! [`PathMtu::poll_probe`], calls again at [`PathMtu::poll_timeout`], and says in the log what
//! [`PathMtu::poll_change`] says.

use std::time::Duration;

use ringway_proto::Instant;
use ringway_proto::ip::{Fragment, Icmp, Packet, Tcp, Version, protocol, read_u32};

/// The least size: what every IPv4 host must accept (RFC 791), and far below any path that we know.
pub const MTU_MIN: u16 = 576;

/// The least MTU of an IPv6 link (RFC 8200 section 5).
pub const IPV6_MTU_MIN: u16 = 1280;

/// Identifier of our echo requests, so that their answers need not reach the TUN.
pub const ECHO_IDENTIFIER: u16 = 0x5257;

/// Sizes worth asking for, besides ceiling and present size: common MTUs less common overheads.
const SIZES: [u16; 10] = [MTU_MIN, 768, 1024, 1200, IPV6_MTU_MIN, 1380, 1420, 1500, 4000, 8000];

/// Times that the same large segment is sent again before we ask the path. By then TCP has waited
/// 1.4 s.
const REPEATS_MAX: u8 = 3;

/// Rounds of echo requests; a size is too large when it was lost in all of them.
const ROUNDS: u8 = 3;

/// Time for the answers of one round: longer than any usable round trip.
const ROUND: Duration = Duration::from_secs(1);

/// Segments of the watched flow that were sent again of late, and more of them than new ones,
/// before we ask whether trains arrive. More than that of a path that only loses.
const AGAIN_MAX: u8 = 6;

/// Segments that are remembered for that; older ones count half.
const LATELY: u8 = 32;

/// Echo requests in one train that ask whether trains arrive.
const TRAIN_PROBES: usize = 4;

/// A search that found nothing wrong is not repeated for this long.
const QUIET: Duration = Duration::from_secs(60);

/// When larger sizes are tried again (RFC 8201 section 4), and how far that is put off where nobody
/// answers.
const RAISE_AFTER: Duration = Duration::from_secs(600);
const RAISE_AFTER_MAX: Duration = Duration::from_secs(9600);

/// A watched flow that is silent for this long makes room for another.
const FLOW_IDLE: Duration = Duration::from_secs(5);

/// An echo request that should be sent to the client now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Bytes of the whole inner packet.
    pub bytes: u16,
    /// Sequence number; the identifier is [`ECHO_IDENTIFIER`].
    pub sequence: u16,
    /// It must not share a train with anything.
    pub alone: bool,
}

/// Why the size changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A router said so.
    Reported,
    /// Larger packets were lost, this size was answered.
    Probed,
    /// Larger packets are lost and the client answers no probes: a step down, without proof.
    Guessed,
    /// The time for another try came.
    Raised,
    /// The path or the ceiling is another one.
    Reset,
}

/// A change of size, for log and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Size before, in bytes.
    pub from: u16,
    /// Size from now on.
    pub to: u16,
    /// Why.
    pub cause: Cause,
}

/// What is known about one peer's path.
#[derive(Clone, Debug)]
pub struct PathMtu {
    ceiling: u16,
    current: u16,
    /// Probes have shown that the path carries less than [`IPV6_MTU_MIN`].
    narrow: bool,
    watch: Watch,
    search: Option<Search>,
    heard_at: Instant,
    quiet_until: Instant,
    /// As `quiet_until`, of searches for lost trains.
    trains_quiet_until: Instant,
    trains_lost: bool,
    raise_at: Option<Instant>,
    raise_after: Duration,
    next_sequence: u16,
    change: Option<Change>,
}

/// What has been learnt about a path: all of it that another process needs. Times are counted from
/// the moment of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// The size, in bytes.
    pub mtu: u16,
    /// Probes have shown that the path carries less than [`IPV6_MTU_MIN`].
    pub narrow: bool,
    /// How long until larger sizes are tried again.
    pub raise_in: Duration,
    /// How long the next such wait is.
    pub raise_after: Duration,
}

/// One TCP flow, watched for repetitions.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    ports: u32,
    /// Sequence number after the last new byte.
    highest: u32,
    repeated: u32,
    repeats: u8,
    /// New segments of late, and segments that were sent again.
    new: u8,
    again: u8,
    seen_at: Instant,
}

impl Watch {
    /// Remembers that a segment was new, or was not.
    const fn note(&mut self, new: bool) {
        if new {
            self.new += 1;
        } else {
            self.again += 1;
        }
        if self.new + self.again >= LATELY {
            self.new /= 2;
            self.again /= 2;
        }
    }

    /// Whether the flow goes back more than it gets on.
    const fn is_stuck(&self) -> bool {
        self.again >= AGAIN_MAX && self.again > self.new
    }
}

/// Rounds of echo requests under way.
#[derive(Clone, Copy, Debug)]
struct Search {
    purpose: Purpose,
    round: u8,
    /// Index of the size to ask for next in this round.
    next: u8,
    /// One bit for each index.
    answered: u16,
    /// Sequence number of the first request; round and index are added.
    base: u16,
    started_at: Instant,
    round_ends: Instant,
}

/// Why sizes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A report made the path too narrow for IPv6: is that so?
    Confirm,
    /// Large segments do not arrive: which sizes do?
    BlackHole,
    /// Time has passed: does the path carry more by now?
    Raise,
    /// A flow is stuck though its segments are not too large: do trains arrive?
    Trains,
}

/// Requests of one round have sequence numbers this far apart from those of the next.
const INDEX_SPACE: u16 = 16;

const _: () = assert!(SIZES.len() + 2 <= INDEX_SPACE as usize);
const _: () = assert!(TRAIN_PROBES < INDEX_SPACE as usize);

impl PathMtu {
    /// A path of which nothing is known: `ceiling` bytes.
    #[must_use]
    pub fn new(ceiling: u16) -> Self {
        let ceiling = ceiling.max(MTU_MIN);
        Self {
            ceiling,
            current: ceiling,
            narrow: false,
            watch: Watch::default(),
            search: None,
            heard_at: Instant::ZERO,
            quiet_until: Instant::ZERO,
            trains_quiet_until: Instant::ZERO,
            trains_lost: false,
            raise_at: None,
            raise_after: RAISE_AFTER,
            next_sequence: 0,
            change: None,
        }
    }

    /// The largest inner packet of `version` that the path carries, as far as is known.
    #[inline]
    #[must_use]
    pub fn mtu(&self, version: Version) -> u16 {
        match version {
            Version::V6 if !self.narrow => self.current.max(IPV6_MTU_MIN.min(self.ceiling)),
            Version::V4 | Version::V6 => self.current,
        }
    }

    /// The path has changed (the peer roamed), or the operator set another ceiling: nothing is
    /// known any more.
    pub fn reset(&mut self, ceiling: u16) {
        let sequence = self.next_sequence;
        let (from, change) = (self.current, self.change);
        *self = Self { next_sequence: sequence, change, ..Self::new(ceiling) };
        if self.current != from {
            self.note(from, Cause::Reset);
        }
    }

    /// What has been learnt; `None` if the path carries the ceiling, as far as is known. A search
    /// under way is not in it: it begins again when it is needed.
    #[must_use]
    pub fn learnt(&self, now: Instant) -> Option<Learnt> {
        let raise_at = self.raise_at?;
        Some(Learnt {
            mtu: self.current,
            narrow: self.narrow,
            raise_in: raise_at.since(now),
            raise_after: self.raise_after,
        })
    }

    /// Goes on with what another process had learnt at `at`. Sizes that cannot be are brought
    /// within bounds, waits are cut to the longest.
    pub fn resume(&mut self, learnt: Learnt, at: Instant) {
        self.current = learnt.mtu.clamp(MTU_MIN, self.ceiling);
        self.narrow = learnt.narrow && self.current < IPV6_MTU_MIN;
        self.raise_after = learnt.raise_after.clamp(RAISE_AFTER, RAISE_AFTER_MAX);
        let raise_at = at + learnt.raise_in.min(RAISE_AFTER_MAX);
        self.raise_at = (self.current < self.ceiling).then_some(raise_at);
    }

    /// A router reported that a datagram of more than `outer_mtu` bytes (IP header included) did
    /// not fit.
    pub fn outer_too_big(&mut self, outer_mtu: u16, outer: Version, now: Instant) {
        let overhead = match outer {
            Version::V4 => 20 + 8 + 32,
            Version::V6 => 40 + 8 + 32,
        };
        let fits = outer_mtu.saturating_sub(overhead).max(MTU_MIN);
        if fits >= self.current {
            return;
        }
        self.set(fits, false, Cause::Reported, now);
        if fits < IPV6_MTU_MIN {
            // For IPv6 that takes proof.
            self.start_search(Purpose::Confirm, now);
        }
    }

    /// Looks at what is about to be sent: a packet or TCP super-packet, and the bytes of the
    /// longest packet it stands for. Cheap for what is small or not TCP.
    #[inline]
    pub fn sent(&mut self, packet: &[u8], view: &Packet, len_max: usize, now: Instant) {
        if len_max > usize::from(MTU_MIN)
            && view.protocol() == protocol::TCP
            && view.fragment() == Fragment::Whole
        {
            self.watch_segment(packet, view, now);
        }
    }

    /// Something authentic came from the peer.
    #[inline]
    pub fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Whether answers to probes are awaited; only then [`PathMtu::take_answer`] needs to see what
    /// the peer sends.
    #[inline]
    #[must_use]
    pub const fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// Whether it is trains that are asked about.
    #[cfg(test)]
    fn asks_about_trains(&self) -> bool {
        self.search.is_some_and(|search| search.purpose == Purpose::Trains)
    }

    /// Takes an answer to a probe. `true` means that it was ours, and need not go on to the TUN.
    pub fn take_answer(&mut self, packet: &[u8], view: &Packet, now: Instant) -> bool {
        let reply = match view.protocol() {
            protocol::ICMP => Icmp::V4_ECHO_REPLY,
            protocol::ICMPV6 => Icmp::V6_ECHO_REPLY,
            _ => return false,
        };
        // A client whose own MTU is smaller answers in fragments: the first one tells.
        let Some(Ok(icmp)) = view.transport_of(packet).map(Icmp::parse) else { return false };
        if icmp.kind() != reply || icmp.identifier() != ECHO_IDENTIFIER {
            return false;
        }
        let Some(search) = &mut self.search else { return false };
        let number = icmp.sequence().wrapping_sub(search.base);
        if number / INDEX_SPACE > u16::from(search.round) {
            return false; // Not asked yet.
        }
        let index = number % INDEX_SPACE;
        search.answered |= 1 << index;
        let purpose = search.purpose;
        if self.sizes(purpose).count() == usize::from(index) + 1 {
            self.finish_search(now); // The largest: there is nothing left to learn.
        }
        true
    }

    /// The next echo request to send, if one is due.
    pub fn poll_probe(&mut self) -> Option<Probe> {
        let Search { purpose, answered, next, .. } = self.search?;
        let unanswered = |&(index, _): &(usize, u16)| answered & (1 << index) == 0;
        let (index, bytes) =
            self.sizes(purpose).enumerate().skip(usize::from(next)).find(unanswered)?;
        let search = self.search.as_mut()?;
        search.next = index as u8 + 1;
        let number = u16::from(search.round) * INDEX_SPACE + index as u16;
        let alone = purpose == Purpose::Trains && index == 0;
        Some(Probe { bytes, sequence: search.base.wrapping_add(number), alone })
    }

    /// When [`PathMtu::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.search {
            Some(search) => Some(search.round_ends),
            None => self.raise_at,
        }
    }

    /// Goes on with what is due at `now`; probes and changes may be ready afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.search {
            Some(search) if now < search.round_ends => {}
            Some(search) if search.round + 1 < ROUNDS => {
                search.round += 1;
                search.next = 0;
                search.round_ends = now + ROUND;
            }
            Some(_) => self.finish_search(now),
            None if self.raise_at.is_some_and(|at| at <= now) => {
                self.start_search(Purpose::Raise, now)
            }
            None => {}
        }
    }

    /// What has changed since the last call.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// Whether it was found since the last call that single datagrams arrive and trains do not.
    pub fn poll_trains_lost(&mut self) -> bool {
        std::mem::take(&mut self.trains_lost)
    }

    fn watch_segment(&mut self, packet: &[u8], view: &Packet, now: Instant) {
        let Some(Ok(tcp)) = view.transport_of(packet).map(Tcp::parse) else { return };
        let ports = read_u32(packet, view.transport_offset());
        let watch = &mut self.watch;
        let end = tcp.sequence().wrapping_add(tcp.payload().len() as u32);
        if watch.ports != ports {
            if now.since(watch.seen_at) >= FLOW_IDLE {
                *watch = Watch { ports, highest: end, seen_at: now, ..Watch::default() };
            }
            return;
        }
        watch.seen_at = now;
        let new = tcp.sequence().wrapping_sub(watch.highest) as i32 >= 0;
        watch.note(new);
        if new {
            // Something new: what was repeated must have arrived.
            watch.highest = end;
            watch.repeats = 0;
        } else if watch.repeats > 0 && watch.repeated == tcp.sequence() {
            watch.repeats += 1;
        } else {
            watch.repeated = tcp.sequence();
            watch.repeats = 1;
        }
        if watch.repeats >= REPEATS_MAX && self.search.is_none() && now >= self.quiet_until {
            self.start_search(Purpose::BlackHole, now);
        } else if watch.is_stuck() && self.search.is_none() && now >= self.trains_quiet_until {
            self.start_search(Purpose::Trains, now);
        }
    }

    fn start_search(&mut self, purpose: Purpose, now: Instant) {
        let base = self.next_sequence;
        self.next_sequence = base.wrapping_add(INDEX_SPACE * u16::from(ROUNDS));
        self.watch = Watch { repeats: 0, new: 0, again: 0, ..self.watch };
        self.search = Some(Search {
            purpose,
            round: 0,
            next: 0,
            answered: 0,
            base,
            started_at: now,
            round_ends: now + ROUND,
        });
    }

    fn finish_search(&mut self, now: Instant) {
        let Some(search) = self.search.take() else { return };
        self.watch = Watch { repeats: 0, new: 0, again: 0, ..self.watch };
        if search.purpose == Purpose::Trains {
            let (single, trains) = (search.answered & 1 != 0, search.answered >> 1 != 0);
            self.trains_lost = single && !trains;
            self.trains_quiet_until = now + QUIET;
            return;
        }
        let answered = self
            .sizes(search.purpose)
            .enumerate()
            .filter(|(at, _)| search.answered & (1 << at) != 0);
        let largest = answered.map(|(_, size)| size).last();
        match (largest, search.purpose) {
            (Some(size), purpose) => {
                let raise = purpose == Purpose::Raise;
                let unchanged = purpose == Purpose::BlackHole && size == self.current;
                self.raise_after = RAISE_AFTER;
                self.set(size, true, if raise { Cause::Raised } else { Cause::Probed }, now);
                self.quiet_until = now + if size < self.ceiling { Duration::ZERO } else { QUIET };
                if unchanged && now >= self.trains_quiet_until {
                    self.start_search(Purpose::Trains, now);
                }
            }
            (None, Purpose::Raise) => {
                // Nobody answers probes. Data will show, but less and less often.
                self.raise_after = (self.raise_after * 2).min(RAISE_AFTER_MAX);
                self.set(self.ceiling, false, Cause::Raised, now);
            }
            (None, Purpose::BlackHole) if self.heard_at > search.started_at => {
                let step = SIZES.iter().rev().find(|size| **size < self.current);
                self.set(step.copied().unwrap_or(MTU_MIN), false, Cause::Guessed, now);
            }
            // Nothing came at all: the path is down, which says nothing about sizes.
            (None, Purpose::BlackHole) => self.quiet_until = now + QUIET,
            (None, Purpose::Confirm | Purpose::Trains) => {}
        }
    }

    /// The sizes that a search asks for, ascending; for trains the same size each time.
    fn sizes(&self, purpose: Purpose) -> impl Iterator<Item = u16> + use<> {
        let (least, most) = match purpose {
            Purpose::Raise => (self.current, self.ceiling),
            Purpose::Trains => (self.current, self.current),
            Purpose::Confirm | Purpose::BlackHole => (0, self.current),
        };
        let repeated = if purpose == Purpose::Trains { TRAIN_PROBES } else { 0 };
        let before = (purpose == Purpose::Raise).then_some(least);
        let between = SIZES.into_iter().filter(move |size| *size > least && *size < most);
        let last = (before != Some(most)).then_some(most);
        let sizes = before.into_iter().chain(between).chain(last);
        sizes.chain(std::iter::repeat_n(most, repeated))
    }

    fn set(&mut self, size: u16, proven: bool, cause: Cause, now: Instant) {
        let from = self.current;
        self.current = size;
        self.narrow = size < IPV6_MTU_MIN && (proven || (self.narrow && size <= from));
        self.raise_at = (size < self.ceiling).then(|| now + self.raise_after);
        if size != from {
            self.note(from, cause);
        }
    }

    fn note(&mut self, from: u16, cause: Cause) {
        // Changes between two calls of `poll_change` become one.
        let from = self.change.map_or(from, |change| change.from);
        self.change = Some(Change { from, to: self.current, cause });
    }
}

#[cfg(test)]
mod tests;
