//! The running process: gives the gateway away, or goes on as if nothing had happened.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "any other message is unexpected, also one that is new"
)]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use ringway_dataplane::state::Pending;
use ringway_proto::CoreId;
use ringway_proto::crypto::PublicKey;
use ringway_proto::wireguard::export::RESUME_LEAP;
use ringway_ring::clock;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixStream;
use tokio::sync::MutexGuard;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::message::{Given, Item, Message, Offer};
use super::wire::{DESCRIPTORS_MAX, Wire, WireError};
use super::{Endpoints, Legacy, own_capabilities, own_name};
use crate::gateway::desk::DeskError;
use crate::gateway::start::Started;
use crate::manager;
use crate::plane::{Operation, Peer, Plane, Secret};
use crate::ready::Ready;

/// How long the other process may think about the offer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take to start its workers and to learn the peers: a hundred thousand of them
/// take seconds. Traffic goes on meanwhile.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long it may take for each step while nobody carries packets.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of a killed process is waited for.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// Steps of configuration in one message.
const STEPS_PER_MESSAGE: usize = 1000;

/// Steps about a peer before its prefixes, at most.
const STEPS_PER_PEER: usize = 4;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other process is the gateway now.
    HandedOver,
    /// Nothing has changed, and why.
    Stays(String),
}

/// Why the gateway stays.
#[derive(Debug, thiserror::Error)]
enum Stays {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("The cores cannot be paused: {0}")]
    Desk(#[from] DeskError),
    #[error("Cannot hand descriptors over: {0}")]
    Descriptors(#[from] io::Error),
    #[error("The other process has {0} of {1} sessions")]
    Incomplete(u64, u64),
}

/// Talks to a process that wants to take over, to the end.
pub async fn hand_over(stream: UnixStream, started: &Started, legacy: &Legacy) -> Outcome {
    let rival = match Rival::of(&stream) {
        Ok(rival) => rival,
        Err(why) => return Outcome::Stays(why),
    };
    let mut wire = match Wire::open(stream, false, &own_name()).await {
        Ok((wire, hello)) => {
            info!("Upgrade: {} asks to take over", hello.program);
            wire
        }
        Err(error) => return Outcome::Stays(error.to_string()),
    };
    // Until it is clear who goes on, nobody changes the configuration.
    let mut held = None;
    let mut progress = Progress::Running;
    let given = give(&mut wire, started, legacy, &mut held, &mut progress).await;
    let why = match given {
        Ok(()) => return Outcome::HandedOver,
        Err(why) => why.to_string(),
    };
    // It may have gone.
    let _ = wire.send(&Message::Refuse { why: why.clone() }).await;
    if progress == Progress::Committed {
        rival.kill().await;
    }
    let ahead = if progress == Progress::Committed { RESUME_LEAP } else { 0 };
    if progress != Progress::Running
        && let Err(error) = started.desk.resume_cores(ahead).await
    {
        error!("Cannot go on after an upgrade that failed: {error}");
    }
    Outcome::Stays(why)
}

/// How far it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Running,
    Paused,
    Committed,
}

async fn give<'a>(
    wire: &mut Wire,
    started: &'a Started,
    legacy: &Legacy,
    held: &mut Option<MutexGuard<'a, ()>>,
    progress: &mut Progress,
) -> Result<(), Stays> {
    let desk = &started.desk;
    wire.send(&Message::Offer(Box::new(offer(started, legacy)))).await?;
    expect(wire.receive(ANSWER_TIMEOUT).await?, &Message::Accept)?;
    *held = Some(desk.hold().await);
    give_descriptors(wire, started, legacy).await?;
    let told = |plane: &Plane| steps(plane.private(), plane.peers(), &legacy.endpoints);
    for steps in desk.with_plane(told) {
        wire.send(&Message::Steps(steps)).await?;
    }
    wire.send(&Message::StepsEnd).await?;
    expect(wire.receive(PREPARE_TIMEOUT).await?, &Message::Prepared)?;

    let paused_ns = clock::boot_ns();
    *progress = Progress::Paused;
    let pending = desk.pause_cores().await?;
    let given = give_sessions(wire, started, pending, paused_ns).await?;
    wire.send(&Message::PagesEnd(given)).await?;
    match wire.receive(STEP_TIMEOUT).await? {
        Message::Ready { peers, .. } if peers == given.peers => {}
        Message::Ready { peers, .. } => return Err(Stays::Incomplete(peers, given.peers)),
        other => return Err(other.unexpected("that it is ready").into()),
    }
    // Before it is said: once it may have been heard, our counters are not ours any more.
    *progress = Progress::Committed;
    wire.send(&Message::Commit).await?;
    expect(wire.receive(STEP_TIMEOUT).await?, &Message::Running)?;
    Ok(())
}

fn expect(said: Message, wanted: &Message) -> Result<(), WireError> {
    if said == *wanted { Ok(()) } else { Err(said.unexpected(wanted.name())) }
}

fn offer(started: &Started, legacy: &Legacy) -> Offer {
    let (port, mark) = started.desk.port_and_mark();
    Offer {
        part: legacy.part,
        interface: started.interface.clone(),
        cores: started.desk.cores(),
        index_secret: started.index_secret,
        port,
        mark,
        clock_ns: clock::boot_ns(),
        capabilities: own_capabilities(),
        manager: manager::current().clone(),
        config: legacy.config.clone(),
        state_dir: legacy.state_dir.clone(),
        settings: legacy.settings.clone(),
    }
}

async fn give_descriptors(
    wire: &mut Wire,
    started: &Started,
    legacy: &Legacy,
) -> Result<(), Stays> {
    let all = descriptors(started, legacy)?;
    for some in all.chunks(DESCRIPTORS_MAX) {
        let items = some.iter().map(|(item, _)| *item).collect();
        let descriptors: Vec<_> = some.iter().map(|(_, fd)| fd.as_fd()).collect();
        wire.send_with(&Message::Descriptors(items), &descriptors).await?;
    }
    // An empty list ends them.
    Ok(wire.send(&Message::Descriptors(Vec::new())).await?)
}

/// Second descriptors of everything that the other process goes on with.
fn descriptors(started: &Started, legacy: &Legacy) -> io::Result<Vec<(Item, OwnedFd)>> {
    let mut all = Vec::new();
    for (core, queue) in (0..).zip(&started.queues) {
        all.push((Item::Tun(core), queue.try_clone()?));
    }
    started.desk.with_ports(|ports| -> io::Result<()> {
        for (core, sockets) in (0..).zip(ports.held()) {
            let banks = [(false, sockets.descriptors()), (true, sockets.initiations())];
            for (initiations, bank) in banks {
                for (v4, fd) in [true, false].into_iter().zip(bank) {
                    let item = Item::Udp { core, v4, initiations };
                    if let Some(fd) = fd {
                        all.push((item, fd.try_clone_to_owned()?));
                    }
                }
            }
        }
        Ok(())
    })?;
    all.push((Item::Stats, started.stats.second()?));
    if let Some(uapi) = &started.uapi {
        all.push((Item::Uapi, uapi.second()?));
    }
    all.push((Item::Upgrade, started.upgrade.second()?));
    if let Some(journal) = &legacy.journal {
        all.push((Item::Journal, journal.try_clone()?));
    }
    Ok(all)
}

/// The configuration as steps, in pieces. A peer with many prefixes is in several.
fn steps<'a>(
    private: Option<&ringway_proto::crypto::PrivateKey>,
    peers: impl Iterator<Item = (&'a PublicKey, &'a Peer)>,
    endpoints: &Endpoints,
) -> Vec<Vec<Operation>> {
    // Memory that grows leaves copies of keys behind.
    let begun = |first: Option<Operation>| {
        let mut piece = Vec::with_capacity(STEPS_PER_MESSAGE + STEPS_PER_PEER);
        piece.extend(first);
        piece
    };
    let mut pieces = Vec::new();
    let key = private.map(|private| Operation::PrivateKey(Secret::new(private.to_bytes())));
    let mut piece = begun(key);
    for (public, peer) in peers {
        piece.push(Operation::Peer(*public));
        if peer.preshared.is_set() {
            piece.push(Operation::Preshared(peer.preshared.clone()));
        }
        if peer.keepalive_s > 0 {
            piece.push(Operation::Keepalive(peer.keepalive_s));
        }
        piece.extend(endpoints.get(public).copied().map(Operation::Endpoint));
        for net in &peer.allowed_ips {
            if piece.len() >= STEPS_PER_MESSAGE {
                let next = begun(Some(Operation::Peer(*public)));
                pieces.push(std::mem::replace(&mut piece, next));
            }
            piece.push(Operation::AllowedIp(*net));
        }
        if piece.len() >= STEPS_PER_MESSAGE {
            pieces.push(std::mem::replace(&mut piece, begun(None)));
        }
    }
    pieces.push(piece);
    pieces
}

async fn give_sessions(
    wire: &mut Wire,
    started: &Started,
    pending: Pending,
    paused_ns: u64,
) -> Result<Given, Stays> {
    let mut given = Given {
        handshakes_lost: pending.handshakes + pending.initiations,
        packets_lost: pending.staged,
        paused_ns,
        ..Given::default()
    };
    for core in 0..started.desk.cores() {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = started.desk.export_page(CoreId(core), from).await?;
            cursor = page.cursor;
            given.peers += u64::from(page.peers);
            given.sessions += u64::from(page.sessions);
            wire.send(&Message::Page { core, bytes: page.bytes }).await?;
        }
    }
    Ok(given)
}

/// The process at the other end.
struct Rival {
    pid: i32,
    /// Stays its own when its number is used again.
    handle: OwnedFd,
}

impl Rival {
    /// Only a process of our own user, or of root.
    fn of(stream: &UnixStream) -> Result<Self, String> {
        let peer = stream.peer_cred().map_err(|error| format!("Who asks is unknown: {error}"))?;
        if peer.uid() != rustix::process::geteuid().as_raw() && peer.uid() != 0 {
            return Err(format!("User {} may not take the gateway over", peer.uid()));
        }
        let pid = peer.pid().and_then(Pid::from_raw);
        // A process of another PID namespace has no number here.
        let pid = pid.ok_or("The process that asks cannot be seen from here")?;
        let handle = pidfd_open(pid, PidfdFlags::NONBLOCK)
            .map_err(|error| format!("The process that asks cannot be held on to: {error}"))?;
        Ok(Self { pid: pid.as_raw_nonzero().get(), handle })
    }

    /// Ends it, so that there is one gateway: it was told to begin and did not say that it did.
    async fn kill(self) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
        let gone = async {
            let ended = Ready::new(self.handle)?;
            ended.readable(|_| ()).await
        };
        if !matches!(timeout(KILL_TIMEOUT, gone).await, Ok(Ok(()))) {
            warn!("Process {} cannot be seen to have ended", self.pid);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use ringway_proto::crypto::PresharedKey;

    use super::*;

    #[test]
    fn a_peer_with_many_prefixes_is_told_in_pieces_that_name_it() {
        let net = |n: u32| format!("10.{}.{}.0/24", n >> 8, n & 255).parse().unwrap();
        let nets: BTreeSet<_> = (0..2500).map(net).collect();
        let peer = |allowed_ips| Peer {
            preshared: PresharedKey::default(),
            keepalive_s: 25,
            allowed_ips,
            owner: CoreId(0),
        };
        let peers = [
            (PublicKey([1; 32]), peer(BTreeSet::new())),
            (PublicKey([2; 32]), peer(nets.clone())),
            (PublicKey([3; 32]), peer(BTreeSet::new())),
        ];
        let peers = peers.iter().map(|(public, peer)| (public, peer));
        let endpoint = (PublicKey([2; 32]), "192.0.2.7:9".parse().unwrap());
        let pieces = steps(None, peers, &Endpoints::from([endpoint]));
        let told = pieces.iter().flatten().filter(|step| **step == Operation::Endpoint(endpoint.1));
        assert_eq!(told.count(), 1);
        assert!(pieces.iter().all(|piece| piece.len() <= STEPS_PER_MESSAGE + STEPS_PER_PEER));
        assert!(pieces.iter().all(|piece| matches!(piece[0], Operation::Peer(_))));
        let given: BTreeSet<_> = pieces
            .iter()
            .flatten()
            .filter_map(|step| match step {
                Operation::AllowedIp(net) => Some(*net),
                _ => None,
            })
            .collect();
        assert_eq!(given, nets);
    }
}
