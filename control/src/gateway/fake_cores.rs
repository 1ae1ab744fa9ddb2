//! Cores for tests of the control thread: they keep peers and answer, and move no packets.
//!
//! Each is a task on the same thread. What they were told can be looked at, and they can be made
//! deaf.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringway_dataplane::command::{Command, Envelope, PeerPage, PeerStatus, Refusal, Report};
use ringway_dataplane::worker::PAGE_WORDS;
use ringway_flow::Policy;
use ringway_link::page::PageWriter;
use ringway_link::spsc::{Receiver, Sender, channel};
use ringway_link::wake::{self, Sleeper, Waker};
use ringway_proto::CoreId;
use ringway_proto::crypto::PublicKey;
use ringway_ring::UdpOptions;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::desk::{CoreLine, Desk};
use super::ports::Ports;
use super::tun_map::TunMap;
use crate::ready::Ready;
use crate::stats::snapshot::About;

/// What the cores were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Keepalives by core and peer.
    pub(crate) peers: RefCell<BTreeMap<(u16, PublicKey), u16>>,
    pub(crate) sockets: Cell<bool>,
    pub(crate) sockets_replaced: Cell<u32>,
    pub(crate) inner_mtu: Cell<u16>,
    pub(crate) peers_max: Cell<usize>,
    pub(crate) stopped: Cell<u32>,
    /// Whether they carry nothing, and how many counters were left out when they went on.
    pub(crate) paused: Cell<bool>,
    pub(crate) counters_ahead: Cell<u64>,
    /// Their threads' lives: dropped when they end.
    pub(crate) alive: RefCell<Vec<oneshot::Sender<()>>>,
    /// Whether they take nothing for the time being.
    pub(crate) deaf: Cell<bool>,
}

/// A desk with `cores` of them. Must be called inside a `LocalSet`.
pub(crate) fn desk(cores: u16) -> (Rc<Desk>, Rc<Told>) {
    let told = Rc::new(Told::default());
    told.peers_max.set(usize::MAX);
    let mut lines = Vec::new();
    let mut reports = Vec::new();
    for core in 0..cores {
        // Small, so that tests of a few dozen commands find it full.
        let (commands, from_control) = channel(8);
        let (to_control, from_core) = channel(8);
        let (wake, sleeper) = wake::pair().unwrap();
        let (wake_control, reports_ready) = wake::pair().unwrap();
        let page = PageWriter::new(PAGE_WORDS);
        lines.push(CoreLine { commands, wake, page: page.reader() });
        reports.push((CoreId(core), from_core, Ready::new(reports_ready).unwrap()));
        let core = Core { core, from_control, to_control, wake_control, told: Rc::clone(&told) };
        spawn_local(core.run(Ready::new(sleeper).unwrap()));
    }
    let ports = Ports::new(UdpOptions::default(), cores, None);
    let about = About { interface: "test0".into(), version: "0", ..About::default() };
    let desk = Desk::new(lines, ports, TunMap::absent("a test".into()), Policy::default(), about);
    for (core, from_core, ready) in reports {
        let (alive, over) = oneshot::channel();
        told.alive.borrow_mut().push(alive);
        spawn_local(Rc::clone(&desk).serve_reports(core, from_core, ready, over));
    }
    (desk, told)
}

/// Runs a test on a control thread.
pub(crate) fn on_control_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bounded = async { tokio::time::timeout(Duration::from_secs(30), test).await.unwrap() };
    tokio::task::LocalSet::new().block_on(&runtime, bounded)
}

struct Core {
    core: u16,
    from_control: Receiver<Envelope>,
    to_control: Sender<Report>,
    wake_control: Waker,
    told: Rc<Told>,
}

impl Core {
    async fn run(mut self, ready: Ready<Sleeper>) {
        loop {
            while !self.told.deaf.get()
                && self.to_control.free() > 0
                && let Some(envelope) = self.from_control.pop()
            {
                let Envelope { sequence, command } = envelope;
                let stop = matches!(command, Command::Stop);
                let (outcome, spent) = self.apply(command);
                self.to_control.push(Report::Done { sequence, outcome, spent }).unwrap();
                self.wake_control.wake_always();
                if stop {
                    self.told.stopped.set(self.told.stopped.get() + 1);
                    return;
                }
            }
            // A deaf core looks again whenever the others get a turn.
            tokio::task::yield_now().await;
            ready.get().prepare();
            if self.from_control.is_empty() {
                ready.readable(|sleeper| _ = sleeper.drain()).await.unwrap();
            }
            ready.get().awake();
        }
    }

    fn apply(&self, command: Command) -> (Result<(), Refusal>, Command) {
        let mut peers = self.told.peers.borrow_mut();
        let mut outcome = Ok(());
        let spent = match command {
            Command::PutPeer(change) => {
                let key = (self.core, change.public);
                if !peers.contains_key(&key) && peers.len() >= self.told.peers_max.get() {
                    outcome = Err(Refusal::TooManyPeers);
                } else {
                    let keepalive_s = peers.entry(key).or_default();
                    *keepalive_s = change.keepalive_s.unwrap_or(*keepalive_s);
                }
                Command::PutPeer(change)
            }
            Command::RemovePeer(public) => {
                peers.remove(&(self.core, public));
                Command::RemovePeer(public)
            }
            Command::RemoveAllPeers => {
                peers.retain(|(core, _), _| *core != self.core);
                Command::RemoveAllPeers
            }
            Command::ReadPeers(mut page) => {
                let own = peers.keys().filter(|(core, _)| *core == self.core);
                read(own.map(|(_, public)| *public), &mut page);
                Command::ReadPeers(page)
            }
            Command::ReplaceSockets(sockets) => {
                self.told.sockets.set(sockets.is_some());
                self.told.sockets_replaced.set(self.told.sockets_replaced.get() + 1);
                Command::ReplaceSockets(sockets)
            }
            Command::SetPolicy(policy) => {
                self.told.inner_mtu.set(policy.inner_mtu);
                Command::SetPolicy(policy)
            }
            Command::Pause(pending) => {
                self.told.paused.set(true);
                Command::Pause(pending)
            }
            Command::Resume { counters_ahead } => {
                self.told.paused.set(false);
                self.told.counters_ahead.set(counters_ahead);
                Command::Resume { counters_ahead }
            }
            // Their sessions never end: each page is one from where it was asked for.
            command @ (Command::SetIdentity(_)
            | Command::PutRoutes(_)
            | Command::ExportPeers(_)
            | Command::ImportPeers(_)
            | Command::Stop) => command,
        };
        (outcome, spent)
    }
}

fn read(peers: impl Iterator<Item = PublicKey>, page: &mut PeerPage) {
    let from = page.cursor.take().unwrap_or(0) as usize;
    for (at, public) in peers.enumerate().skip(from) {
        if page.peers.len() == page.peers.capacity() {
            page.cursor = Some(at as u32);
            return;
        }
        page.peers.push(PeerStatus {
            public,
            endpoint: Some(std::net::SocketAddr::from(([192, 0, 2, 9], 4711))),
            last_handshake: None,
            rx_bytes: 1,
            tx_bytes: 2,
            live: false,
            path_mtu: 1420,
            heap_bytes: 0,
        });
    }
}
