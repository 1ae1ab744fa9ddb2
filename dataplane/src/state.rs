//! A shard's sessions as records, and the pause in which they are written: so that the workers of
//! another process can go on with them.
//!
//! *Pausing* ends receiving; what was received before is carried and sent, also between cores, so
//! control pauses all cores before it asks the first one for records. Timers and handshakes stand
//! still. The first page *freezes* the core: from then on nothing is opened or sealed, and what a
//! page says stays true. *Resuming* undoes both.
//!
//! A worker of the next process starts frozen. Its peers come from control like any others; a page
//! then gives each of them its tunnel, its endpoint and what its path has taught.
//!
//! A record of a peer, after its length: version, endpoint, path, when it was seen, then the
//! tunnel's own record
//! (`wireguard::export`). A page is taken whole or refused: bytes of anybody never panic.

use std::fmt;
use std::io;
use std::time::Duration;

use ringway_flow::Learnt;
use ringway_proto::limits::TURN_UNITS_MAX;
use ringway_proto::record::{Reader, RecordError, Writer};
use ringway_proto::wireguard::TunnelState;
use ringway_proto::wireguard::export::{LEASE, STATE_BYTES_MAX};
use ringway_proto::{Instant, Now, Stamp};
use ringway_ring::{Driver, Local, Wait};
use zeroize::Zeroizing;

use crate::command::Refusal;
use crate::fairness::units_of;
use crate::handshake::PeerIndices;
use crate::peers::{Endpoint, Peer};
use crate::shard::Shard;

/// Version of a peer's record. Another one is refused.
pub const PEER_VERSION: u16 = 2;

/// The version before said nothing of when a peer was seen, and is read.
const PEER_VERSION_BEFORE: u16 = 1;

/// Bytes of a peer's record at most.
pub const PEER_BYTES_MAX: usize = 4 // length
    + 2 // version
    + (1 + 2 + 4 + 17) + (1 + 17 + 4) // endpoint: remote, local
    + 1 + 2 + 1 + 8 + 8 // path
    + 3 * 4 // when it was seen
    + STATE_BYTES_MAX;

/// Bytes of a page's head: when it was written.
const HEAD_BYTES: usize = 8;

/// Bytes of a page that holds a few hundred peers; a core writes or reads it in well below a
/// millisecond.
pub const PAGE_BYTES: usize = 64 << 10;

const _: () = assert!(PAGE_BYTES >= HEAD_BYTES + PEER_BYTES_MAX);

/// Turns in which a core takes what others handed over before they were paused: each takes up to
/// 32 parcels, of the 128 that a core has.
const FREEZE_TURNS_MAX: u32 = 1024;

/// Whether a core carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// It does.
    Running,
    /// It takes nothing new from the world and starts nothing by itself.
    Paused,
    /// It does nothing but take commands.
    Frozen,
}

/// What a pause has cost so far. It is lost if another process goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Handshake messages that wait to be worked on.
    pub handshakes: u64,
    /// Handshakes of ours that wait for their answer.
    pub initiations: u64,
    /// Packets that wait for a handshake.
    pub staged: u64,
}

/// The records of some peers. The memory comes from control, and erases itself.
#[derive(Default)]
pub struct StatePage {
    /// Where to go on; 0 at first. Set by the shard when it writes; `None` when there is no more.
    pub cursor: Option<u32>,
    /// Head and records.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Peers in it: those of whom more is known than their configuration. Set by the shard.
    pub peers: u32,
    /// How many of them can send now. Set by the shard.
    pub sessions: u32,
}

impl StatePage {
    /// A page to be filled from the peer at `cursor` on.
    #[must_use]
    pub fn to_fill(cursor: u32) -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(PAGE_BYTES));
        Self { cursor: Some(cursor), bytes, peers: 0, sessions: 0 }
    }

    /// A page that was filled elsewhere.
    #[must_use]
    pub fn filled(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { cursor: None, bytes, peers: 0, sessions: 0 }
    }
}

impl fmt::Debug for StatePage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatePage({} peers, {} bytes)", self.peers, self.bytes.len())
    }
}

impl<D: Driver> Shard<D> {
    /// Ends receiving, carries what has been received, and counts what waits.
    pub(crate) fn pause(&mut self, now: Now) -> Result<Pending, Refusal> {
        if self.stand != Stand::Running {
            return Err(Refusal::Pause);
        }
        self.driver.set_receiving(false).map_err(|_| Refusal::Pause)?;
        self.stand = Stand::Paused;
        self.carry_all(now).map_err(|_| Refusal::Pause)?;
        let mut pending =
            Pending { handshakes: self.handshakes.len() as u64, ..Pending::default() };
        let mut cursor = 0;
        while let Some((id, peer)) = self.peers.next_from(cursor) {
            cursor = id.slot + 1;
            pending.staged += peer.staged.len() as u64;
            pending.initiations += u64::from(peer.tunnel.awaits_response());
        }
        Ok(pending)
    }

    /// Carries everything that was received, nobody's share considered.
    fn carry_all(&mut self, now: Now) -> io::Result<()> {
        while self.serve_one(now).is_some() {
            self.depart(now)?;
        }
        self.fairness.relax();
        // At most what the receive buffers held. Initiations are handed out some per turn.
        loop {
            let Some(received) = self.driver.next() else { return Ok(()) };
            let mut carried = units_of(&received);
            self.carry_one(received, now);
            while carried < TURN_UNITS_MAX {
                let Some(received) = self.driver.next() else { break };
                carried += units_of(&received);
                self.carry_one(received, now);
            }
            self.depart(now)?;
        }
    }

    /// What was carried leaves, and gives back the buffers that the next needs.
    fn depart(&mut self, now: Now) -> io::Result<()> {
        self.open_waiting(now);
        self.commit(now);
        self.driver.turn(Wait::No)
    }

    /// Carries packets again. Somebody else may have used `leap` counters of every key.
    pub(crate) fn resume(&mut self, leap: u64) -> Result<(), Refusal> {
        if leap > 0 {
            let mut cursor = 0;
            while let Some((id, _)) = self.peers.next_from(cursor) {
                cursor = id.slot + 1;
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.tunnel.leap(leap);
                }
            }
        }
        self.driver.set_receiving(true).map_err(|_| Refusal::Pause)?;
        self.stand = Stand::Running;
        Ok(())
    }

    /// Stands still from the beginning: for a worker whose driver does not receive yet.
    pub const fn begin_frozen(&mut self) {
        self.stand = Stand::Frozen;
    }

    /// Takes what other cores found before they were paused too, and stands still from then on.
    fn freeze(&mut self, now: Now) -> Result<(), Refusal> {
        for _ in 0..FREEZE_TURNS_MAX {
            while self.take_crossings(now) {}
            self.depart(now).map_err(|_| Refusal::Pause)?;
            if self.crossing.is_empty() {
                self.stand = Stand::Frozen;
                return Ok(());
            }
        }
        Err(Refusal::Pause)
    }

    /// Fills the page from its cursor on.
    pub(crate) fn export_peers(&mut self, page: &mut StatePage, now: Now) -> Result<(), Refusal> {
        match self.stand {
            Stand::Running => return Err(Refusal::Pause),
            Stand::Paused => self.freeze(now)?,
            Stand::Frozen => {}
        }
        page.bytes.clear();
        page.bytes.reserve_exact(HEAD_BYTES + PEER_BYTES_MAX);
        (page.peers, page.sessions) = (0, 0);
        Writer::new(&mut page.bytes).u64(now.mono.as_nanos());
        let mut cursor = page.cursor.take().unwrap_or(0);
        while let Some((id, peer)) = self.peers.next_from(cursor) {
            if page.bytes.capacity() - page.bytes.len() < PEER_BYTES_MAX {
                page.cursor = Some(cursor);
                return Ok(());
            }
            cursor = id.slot + 1;
            let state = PeerState::of(peer, now);
            if state.is_blank() {
                continue;
            }
            state.write(&mut page.bytes);
            page.peers += 1;
            page.sessions += u32::from(peer.live);
        }
        Ok(())
    }

    /// Gives the peers in the page their state. All of them are known.
    pub(crate) fn import_peers(&mut self, page: &mut StatePage, now: Now) -> Result<(), Refusal> {
        if self.stand != Stand::Frozen {
            return Err(Refusal::Pause);
        }
        let (at, states) = parse_page(&page.bytes).map_err(|_| Refusal::State)?;
        (page.peers, page.sessions) = (0, 0);
        for state in &states {
            let live = self.import(state, at, now)?;
            page.peers += 1;
            page.sessions += u32::from(live);
        }
        Ok(())
    }

    fn import(&mut self, state: &PeerState, at: Instant, now: Now) -> Result<bool, Refusal> {
        let id = self.peers.by_key(&state.tunnel.peer()).ok_or(Refusal::UnknownPeer)?;
        let peer = self.peers.get_mut(id).ok_or(Refusal::UnknownPeer)?;
        let mut indices =
            PeerIndices { table: &mut self.indices, peer: id, random: &mut *self.index_random };
        peer.tunnel.clear(&mut indices);
        peer.tunnel.import(&state.tunnel, at, LEASE).map_err(|_| Refusal::State)?;
        let [live_since, heard, spoke] = state.seen;
        peer.tunnel.resume_seen([heard, spoke]);
        if !peer.tunnel.indices().all(|index| self.indices.adopt(index, id)) {
            return Err(Refusal::State);
        }
        peer.count_blocks();
        peer.endpoint = state.endpoint;
        if let Some(learnt) = state.path {
            peer.path.resume(learnt, at);
        }
        let deadlines =
            [peer.tunnel.poll_timeout().map(|(deadline, _why)| deadline), peer.path.poll_timeout()];
        deadlines.into_iter().flatten().for_each(|deadline| self.timers.arm(id, deadline));
        self.note_liveness(id, now);
        let peer = self.peers.get_mut(id).ok_or(Refusal::UnknownPeer)?;
        if live_since != Stamp::NONE {
            peer.live_since = live_since;
        }
        Ok(peer.live)
    }
}

/// One peer, as it was.
#[derive(Debug)]
struct PeerState {
    endpoint: Option<Endpoint>,
    path: Option<Learnt>,
    /// Since when its session lives or does not, when it was heard, and when it was spoken to.
    seen: [Stamp; 3],
    tunnel: TunnelState,
}

impl PeerState {
    fn of(peer: &Peer, now: Now) -> Self {
        let path = peer.path.learnt(now.mono);
        let [heard, spoke] = peer.tunnel.seen();
        let seen = [peer.live_since, heard, spoke];
        Self { endpoint: peer.endpoint, path, seen, tunnel: peer.tunnel.export(now) }
    }

    /// Whether all that is known of the peer is its configuration.
    fn is_blank(&self) -> bool {
        self.endpoint.is_none() && self.path.is_none() && self.tunnel.is_blank()
    }

    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut writer = Writer::new(out);
        writer.u32(0); // the length, when it is known
        writer.u16(PEER_VERSION);
        writer.u8(self.endpoint.is_some().into());
        if let Some(Endpoint { remote, local }) = self.endpoint {
            writer.socket(remote);
            writer.u8(local.is_some().into());
            if let Some(Local { address, interface }) = local {
                writer.address(address);
                writer.u32(interface);
            }
        }
        writer.u8(self.path.is_some().into());
        if let Some(Learnt { mtu, narrow, raise_in, raise_after }) = self.path {
            writer.u16(mtu);
            writer.u8(narrow.into());
            writer.span(Some(raise_in));
            writer.span(Some(raise_after));
        }
        self.seen.into_iter().for_each(|stamp| writer.u32(stamp.bits()));
        self.tunnel.write(out);
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        let found = reader.u16()?;
        if found != PEER_VERSION && found != PEER_VERSION_BEFORE {
            return Err(RecordError::Version { found, known: PEER_VERSION });
        }
        let endpoint =
            if reader.flag("endpoint")? { Some(read_endpoint(&mut reader)?) } else { None };
        let path = if reader.flag("path")? { Some(read_path(&mut reader)?) } else { None };
        let mut seen = [Stamp::NONE; 3];
        if found == PEER_VERSION {
            for stamp in &mut seen {
                *stamp = Stamp::from_bits(reader.u32()?);
            }
        }
        let tunnel = TunnelState::parse(reader.rest())?;
        Ok(Self { endpoint, path, seen, tunnel })
    }
}

fn read_endpoint(reader: &mut Reader<'_>) -> Result<Endpoint, RecordError> {
    let remote = reader.socket()?;
    let local = if reader.flag("local address")? {
        Some(Local { address: reader.address()?, interface: reader.u32()? })
    } else {
        None
    };
    Ok(Endpoint { remote, local })
}

fn read_path(reader: &mut Reader<'_>) -> Result<Learnt, RecordError> {
    let span = |reader: &mut Reader<'_>| -> Result<Duration, RecordError> {
        reader.span()?.ok_or(RecordError::Impossible { field: "path" })
    };
    Ok(Learnt {
        mtu: reader.u16()?,
        narrow: reader.flag("narrow path")?,
        raise_in: span(reader)?,
        raise_after: span(reader)?,
    })
}

/// When a page was written, and what is in it.
fn parse_page(bytes: &[u8]) -> Result<(Instant, Vec<PeerState>), RecordError> {
    let mut reader = Reader::new(bytes);
    let at = Instant::from_nanos(reader.u64()?);
    let mut records = Vec::new();
    while !reader.is_empty() {
        let len = reader.u32()? as usize;
        records.push(reader.bytes(len)?);
    }
    // With room for all from the beginning: memory that grows leaves copies of keys behind.
    let mut states = Vec::with_capacity(records.len());
    for record in records {
        states.push(PeerState::parse(record)?);
    }
    Ok((at, states))
}

/// Reads a page and says how many peers are in it; nothing is used.
///
/// # Errors
/// Why it would be refused.
pub fn check_page(bytes: &[u8]) -> Result<usize, RecordError> {
    parse_page(bytes).map(|(_, states)| states.len())
}
