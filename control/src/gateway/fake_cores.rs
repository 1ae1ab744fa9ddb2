//! Cores for tests of the control thread: they keep peers and answer, and move no packets.
//!
//! Each is a task on the same thread. What they were told can be looked at, and they can be made
//! deaf.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ringway_dataplane::command::{
    AccountChange, Command, Envelope, PeerChange, PeerPage, PeerStatus, Refusal, Report,
    SessionState,
};
use ringway_dataplane::worker::PAGE_WORDS;
use ringway_flow::Policy;
use ringway_link::page::PageWriter;
use ringway_link::spsc::{Receiver, Sender, channel};
use ringway_link::usage::UsageWriter;
use ringway_link::wake::{self, Sleeper, Waker};
use ringway_proto::crypto::PublicKey;
use ringway_proto::{AccountId, CoreId};
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
    /// Peers that have a session.
    pub(crate) live: RefCell<BTreeSet<PublicKey>>,
    /// What each peer is charged to.
    pub(crate) accounts: RefCell<BTreeMap<PublicKey, AccountId>>,
    /// Limits that they know.
    pub(crate) limits: RefCell<BTreeMap<AccountId, AccountChange>>,
    /// Where they count, by core.
    pub(crate) usage: RefCell<Vec<UsageWriter>>,
    /// Their threads' lives: dropped when they end.
    pub(crate) alive: RefCell<Vec<oneshot::Sender<()>>>,
    /// Whether they take nothing for the time being.
    pub(crate) deaf: Cell<bool>,
}

/// A desk with `cores` of them. Must be called inside a `LocalSet`.
pub(crate) fn desk(cores: u16) -> (Rc<Desk>, Rc<Told>) {
    desk_over((0..cores).map(|_| UsageWriter::in_memory(4096).unwrap()).collect())
}

/// As [`desk`], after a process that was killed: the cores know nobody, and its pages are there.
pub(crate) fn desk_over(pages: Vec<UsageWriter>) -> (Rc<Desk>, Rc<Told>) {
    let told = Rc::new(Told::default());
    let cores = u16::try_from(pages.len()).unwrap();
    told.peers_max.set(usize::MAX);
    let mut lines = Vec::new();
    let mut reports = Vec::new();
    for (core, usage) in (0..cores).zip(pages) {
        // Small, so that tests of a few dozen commands find it full.
        let (commands, from_control) = channel(8);
        let (to_control, from_core) = channel(8);
        let (wake, sleeper) = wake::pair().unwrap();
        let (wake_control, reports_ready) = wake::pair().unwrap();
        let page = PageWriter::new(PAGE_WORDS);
        let counted = usage.reader();
        told.usage.borrow_mut().push(usage);
        lines.push(CoreLine { commands, wake, page: page.reader(), usage: counted });
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
                    self.bind(&change);
                }
                Command::PutPeer(change)
            }
            Command::RemovePeer(public) => {
                peers.remove(&(self.core, public));
                self.told.accounts.borrow_mut().remove(&public);
                Command::RemovePeer(public)
            }
            Command::RemoveAllPeers => {
                peers.retain(|(core, _), _| *core != self.core);
                Command::RemoveAllPeers
            }
            Command::ReadPeers(mut page) => {
                let own = peers.keys().filter(|(core, _)| *core == self.core);
                read(own.map(|(_, public)| *public), &self.told.live.borrow(), &mut page);
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
            // There are none.
            Command::ReadAccounts(mut page) => {
                page.cursor = None;
                Command::ReadAccounts(page)
            }
            // Their sessions never end: each page is one from where it was asked for.
            Command::PutAccount(change) => self.put_account(change),
            Command::RemoveAccount(account) => {
                self.told.limits.borrow_mut().remove(&account);
                Command::RemoveAccount(account)
            }
            command @ (Command::SetIdentity(_)
            | Command::PutRoutes(_)
            | Command::ExportPeers(_)
            | Command::ImportPeers(_)
            | Command::Stop) => command,
        };
        (outcome, spent)
    }

    fn bind(&self, change: &PeerChange) {
        let mut accounts = self.told.accounts.borrow_mut();
        match change.account {
            Some(Some(account)) => drop(accounts.insert(change.public, account)),
            Some(None) => drop(accounts.remove(&change.public)),
            None => {}
        }
    }

    fn put_account(&self, change: Box<AccountChange>) -> Command {
        let mut usage = self.told.usage.borrow_mut();
        usage[usize::from(self.core)].set_owner(change.id.0, change.owner);
        self.told.limits.borrow_mut().insert(change.id, *change);
        Command::PutAccount(change)
    }
}

fn read(peers: impl Iterator<Item = PublicKey>, live: &BTreeSet<PublicKey>, page: &mut PeerPage) {
    let from = page.cursor.take().unwrap_or(0) as usize;
    for (at, public) in peers.enumerate().skip(from) {
        if page.peers.len() == page.peers.capacity() {
            page.cursor = Some(at as u32);
            return;
        }
        let live = live.contains(&public);
        page.peers.push(PeerStatus {
            live,
            state: if live { SessionState::Online } else { SessionState::Disconnected },
            endpoint: Some(std::net::SocketAddr::from(([192, 0, 2, 9], 4711))),
            rx_bytes: 1,
            tx_bytes: 2,
            path_mtu: 1420,
            ..PeerStatus::unknown(public)
        });
    }
}
