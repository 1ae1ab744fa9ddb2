//! The running process: gives the gateway away, or goes on as if nothing had happened.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "any other message is unexpected, also one that is new"
)]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::time::Duration;

use ringway_dataplane::state::Pending;
use ringway_proto::CoreId;
use ringway_proto::crypto::PublicKey;
use ringway_proto::wireguard::export::RESUME_LEAP;
use ringway_ring::clock;
use tokio::net::UnixStream;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::info;

use super::message::{Given, Item, Message, Offer};
use super::rival::Rival;
use super::wire::{DESCRIPTORS_MAX, Wire, WireError};
use super::{Endpoints, Legacy, own_capabilities, own_name};
use crate::gateway::desk::{Desk, DeskError};
use crate::gateway::start::Started;
use crate::manager;
use crate::plane::{Account, Operation, Peer, Plane, Secret};

/// How long the other process may think about the offer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take to start its workers and to learn the peers: a hundred thousand of them
/// take seconds. Traffic goes on meanwhile.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long nobody carries packets at most, from the pause until it says that it runs.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// How much of that is kept for its beginning. If this much is not left it is not told to begin:
/// what fails before that costs nothing.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long our own cores may take to go on.
const RESUME_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a process that is no gateway may take to clean up and to tell its operator why.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long it is tried to tell it why.
const REFUSE_TIMEOUT: Duration = Duration::from_millis(100);

/// Steps of configuration in one message.
const STEPS_PER_MESSAGE: usize = 1000;

/// Volumes of accounts in one message.
const VOLUMES_PER_MESSAGE: usize = 1000;

/// Steps about a peer before its prefixes, at most.
const STEPS_PER_PEER: usize = 5;

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The other process is the gateway now.
    HandedOver(Rival),
    /// Nothing has changed, and why.
    Stays(String),
    /// The gateway was to end before the other process was told to begin: nothing has changed.
    Ends,
    /// The cores cannot go on, and why. There is no gateway any more.
    Lost(String),
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
    #[error("Taking over took longer than clients would wait")]
    TooLong,
    #[error("{0}")]
    Records(String),
    #[error("The gateway is stopping")]
    Ends,
}

/// Talks to a process that wants to take over, to the end. Nothing begins before `hold` is done,
/// or if it fails. As long as that process was not told to begin, it is given up as soon as the
/// gateway `ends`, which is not asked again afterwards.
pub async fn hand_over(
    stream: UnixStream,
    started: &Started,
    legacy: &Legacy,
    hold: impl Future<Output = Result<(), String>>,
    ends: impl Future<Output = ()>,
) -> Outcome {
    let rival = match Rival::of(&stream) {
        Ok(rival) => rival,
        Err(why) => return Outcome::Stays(why),
    };
    let mut ends = pin!(ends);
    let name = own_name();
    let opened = tokio::select! {
        () = &mut ends => return Outcome::Ends,
        opened = Wire::open(stream, false, &name) => opened,
    };
    let mut wire = match opened {
        Ok((wire, hello)) => {
            info!("Upgrade: {} asks to take over", hello.program);
            wire
        }
        Err(error) => return Outcome::Stays(error.to_string()),
    };
    // Until it is clear who goes on, nobody changes the configuration.
    let mut held = None;
    let mut progress = Progress::Running;
    let giving = async {
        hold.await.map_err(Stays::Records)?;
        give(&mut wire, started, legacy, &mut held, &mut progress).await
    };
    let given = tokio::select! {
        biased;
        () = ends => Err(Stays::Ends),
        given = giving => given,
    };
    let given = match given {
        Ok(until) => commit(&mut wire, until, &mut progress).await,
        Err(why) => Err(why),
    };
    match given {
        Ok(()) => {
            // Before changes are let in again: they would be forgotten with this process.
            started.desk.stop();
            Outcome::HandedOver(rival)
        }
        Err(why) => {
            // Before the cores carry again, and once more when the other process has let go.
            started.restore_offloads();
            let outcome = go_on(&mut wire, &started.desk, &rival, progress, why).await;
            started.restore_offloads();
            if progress == Progress::Committed {
                started.steer();
            }
            outcome
        }
    }
}

/// How far it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Running,
    /// The other process has our descriptors, and ours carry packets.
    Given,
    Paused,
    Committed,
}

/// Everything until the other process could begin. Returns until when it has to have begun.
async fn give<'a>(
    wire: &mut Wire,
    started: &'a Started,
    legacy: &Legacy,
    held: &mut Option<MutexGuard<'a, ()>>,
    progress: &mut Progress,
) -> Result<Instant, Stays> {
    let desk = &started.desk;
    // Before anything is said of the configuration.
    *held = Some(desk.hold().await);
    wire.send(&Message::Offer(Box::new(offer(started, legacy)))).await?;
    expect(wire.receive(ANSWER_TIMEOUT).await?, &Message::Accept)?;
    *progress = Progress::Given;
    give_descriptors(wire, started, legacy).await?;
    let told = |plane: &Plane| {
        let peers = steps(plane.private(), plane.peers(), &legacy.endpoints);
        account_steps(plane).into_iter().chain(peers).collect::<Vec<_>>()
    };
    for steps in desk.with_plane(told) {
        wire.send(&Message::Steps(steps)).await?;
    }
    wire.send(&Message::StepsEnd).await?;
    expect(wire.receive(PREPARE_TIMEOUT).await?, &Message::Prepared)?;
    let until = Instant::now() + PAUSE_LIMIT;
    let paused = pause(wire, desk, progress);
    timeout_at(until - BEGIN_TIMEOUT, paused).await.map_err(|_| Stays::TooLong)??;
    Ok(until)
}

/// Stops carrying packets and gives the sessions away.
async fn pause(wire: &mut Wire, desk: &Desk, progress: &mut Progress) -> Result<(), Stays> {
    let paused_ns = clock::boot_ns();
    *progress = Progress::Paused;
    let pending = desk.pause_cores().await?;
    let given = give_sessions(wire, desk, pending, paused_ns).await?;
    // Every core stands still by now.
    let volumes = desk.volumes_left().await?;
    for some in volumes.chunks(VOLUMES_PER_MESSAGE) {
        wire.send(&Message::Volumes(some.to_vec())).await?;
    }
    wire.send(&Message::PagesEnd(given)).await?;
    match wire.receive(PAUSE_LIMIT).await? {
        Message::Ready { peers, .. } if peers == given.peers => Ok(()),
        Message::Ready { peers, .. } => Err(Stays::Incomplete(peers, given.peers)),
        other => Err(other.unexpected("that it is ready").into()),
    }
}

/// Lets the other process begin.
async fn commit(wire: &mut Wire, until: Instant, progress: &mut Progress) -> Result<(), Stays> {
    // Before it is said: once it may have been heard, our counters are not ours any more.
    *progress = Progress::Committed;
    let begun = async {
        wire.send(&Message::Commit).await?;
        expect(wire.receive(PAUSE_LIMIT).await?, &Message::Running)
    };
    Ok(timeout_at(until, begun).await.map_err(|_| Stays::TooLong)??)
}

/// Carries packets again as soon as may be, then sees to it that the other process goes.
async fn go_on(
    wire: &mut Wire,
    desk: &Desk,
    rival: &Rival,
    progress: Progress,
    why: Stays,
) -> Outcome {
    if progress == Progress::Committed {
        // It may have begun, and there must not be two.
        rival.kill().await;
    }
    if progress >= Progress::Paused {
        let ahead = if progress == Progress::Committed { RESUME_LEAP } else { 0 };
        let lost = match timeout(RESUME_TIMEOUT, desk.resume_cores(ahead)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("they do not answer".to_owned()),
        };
        if let Some(lost) = lost {
            rival.kill().await;
            return match why {
                // Why it ends says more.
                Stays::Ends => Outcome::Ends,
                why => Outcome::Lost(format!("{why}; then the cores could not go on: {lost}")),
            };
        }
    }
    if progress < Progress::Committed {
        // It may have gone, or stand still with a socket full of what we said.
        let refusal = Message::Refuse { why: why.to_string() };
        let _ = timeout(REFUSE_TIMEOUT, wire.send(&refusal)).await;
    }
    if progress >= Progress::Given {
        rival.see_off(LEAVE_TIMEOUT).await;
    }
    match why {
        Stays::Ends => Outcome::Ends,
        why => Outcome::Stays(why.to_string()),
    }
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
        piece.extend(peer.account.map(|account| Operation::Account(Some(account))));
        piece.extend(endpoints.get(public).copied().map(Operation::Endpoint));
        for net in peer.allowed_ips.iter() {
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

/// The accounts as steps, in pieces: those that others are below first.
fn account_steps(plane: &Plane) -> Vec<Vec<Operation>> {
    let mut all: Vec<_> =
        plane.accounts().map(|(id, account)| (plane.depth(id), id, account)).collect();
    all.sort_by_key(|(depth, id, _)| (*depth, *id));
    let put =
        |(_, id, account): &(usize, _, &Account)| Operation::PutAccount(*id, Box::new(**account));
    all.chunks(STEPS_PER_MESSAGE).map(|some| some.iter().map(put).collect()).collect()
}

async fn give_sessions(
    wire: &mut Wire,
    desk: &Desk,
    pending: Pending,
    paused_ns: u64,
) -> Result<Given, Stays> {
    let mut given = Given {
        handshakes_lost: pending.handshakes + pending.initiations,
        packets_lost: pending.staged,
        paused_ns,
        ..Given::default()
    };
    for core in 0..desk.cores() {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = desk.export_page(CoreId(core), from).await?;
            cursor = page.cursor;
            given.peers += u64::from(page.peers);
            given.sessions += u64::from(page.sessions);
            wire.send(&Message::Page { core, bytes: page.bytes }).await?;
        }
    }
    Ok(given)
}

#[cfg(test)]
#[path = "old_tests.rs"]
mod tests;
