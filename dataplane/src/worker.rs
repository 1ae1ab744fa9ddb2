//! The thread around a shard: pinned, with memory on its node, and the only place on a core that
//! reads a clock.
//!
//! The thread makes its own ring and arenas (a ring belongs to the thread that made it, and first
//! touch decides the node of memory), reports whether that worked, and then turns until it is told
//! to stop or its ring breaks.

use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread::JoinHandle;

use ringway_alloc::heap::{HeapPolicy, ShardHeap};
use ringway_alloc::{Arena, forget};
use ringway_flow::Policy;
use ringway_link::page::{PageReader, PageWriter};
use ringway_link::spsc;
use ringway_link::usage::UsageWriter;
use ringway_link::wake::{self, Sleeper, Waker};
use ringway_numa::Region;
use ringway_numa::region::{Pages, RegionOptions};
use ringway_proto::crypto::Random;
use ringway_proto::limits::HOUSEKEEPING_PERIOD;
use ringway_proto::{CoreId, Instant, Now};
use ringway_ring::{
    BUFFER_BYTES, Backend, DriverConfig, DriverKind, EpollDriver, Features, PoolSizes, Pools,
    Sandbox, TunQueue, UdpSockets, UringDriver, Wait, ZeroCopyMode, clock, sandbox,
};

use crate::command::{Envelope, Report};
use crate::crossing::{Crossing, LINE_SLOTS, MeshPort, STRAY_BUFFERS};
use crate::index_table::IndexLayout;
use crate::page;
pub use crate::page::{WORDS as PAGE_WORDS, layout as page_layout};
use crate::shard::{Shard, ShardConfig};
use crate::spin::Spin;
pub use crate::spin::SpinMode;

/// Commands that may wait between control and a core: a thousand edits a second are seen within a
/// turn.
const COMMANDS_WAITING_MAX: usize = 1024;

/// What a worker is started with. The sockets, the TUN queue and all memory become its own.
pub struct WorkerConfig {
    /// Which core of the node it is.
    pub core: CoreId,
    /// How many workers there are.
    pub cores: u16,
    /// Masks the owner in receiver indices; the same on all cores, new at every start.
    pub index_secret: u32,
    /// CPU to be bound to, if any.
    pub cpu: Option<u32>,
    /// Node its memory should be on, if the machine has several.
    pub node: Option<u32>,
    /// Its queue of the TUN.
    pub tun: TunQueue,
    /// Its UDP sockets, if the gateway listens already.
    pub sockets: Option<Box<UdpSockets>>,
    /// Whether it begins frozen: sockets and TUN are still another process's, whose state it will
    /// be given.
    pub frozen: bool,
    /// Rules for inner packets.
    pub policy: Box<Policy>,
    /// When a session gets a heap of its own.
    pub heaps: HeapPolicy,
    /// Core's ends of the channels to control.
    pub link: WorkerLink,
    /// Where it writes what accounts used.
    pub usage: UsageWriter,
    /// Core's ends of the rings between cores, made by [`mesh`].
    pub mesh: MeshPort,
    /// How long to go on looking for work before sleeping.
    pub spin: SpinMode,
    /// How many buffers it gets.
    pub pools: PoolSizes,
    /// Kind of pages that they lie in.
    pub pages: Pages,
    /// What the kernel can do.
    pub features: Features,
    /// Which driver moves its packets.
    pub driver: DriverKind,
    /// Whether sends may be zero copy.
    pub zero_copy: ZeroCopyMode,
    /// Whether it gives up what it does not need once it is set up.
    pub sandbox: bool,
}

/// Control's ends of the channels to one core.
pub struct ControlLink {
    /// To be pushed, then woken.
    pub commands: spsc::Sender<Envelope>,
    /// To be read when `reports_ready` says so.
    pub reports: spsc::Receiver<Report>,
    /// Wakes the core after a push.
    pub wake: Waker,
    /// Readable when reports wait.
    pub reports_ready: Sleeper,
    /// The core's counters.
    pub page: PageReader,
}

/// A core's ends of the channels to control.
pub struct WorkerLink {
    commands: spsc::Receiver<Envelope>,
    reports: spsc::Sender<Report>,
    sleeper: Sleeper,
    wake_control: Waker,
    page: PageWriter,
}

/// Makes the channels between control and one core. `page` has [`page::WORDS`] words.
///
/// # Errors
/// When no event descriptor can be made: the descriptor limit is reached.
pub fn link(page: PageWriter) -> io::Result<(ControlLink, WorkerLink)> {
    let (command_sender, command_receiver) = spsc::channel(COMMANDS_WAITING_MAX);
    let (report_sender, report_receiver) = spsc::channel(COMMANDS_WAITING_MAX);
    let (wake, sleeper) = wake::pair()?;
    let (wake_control, reports_ready) = wake::pair()?;
    let control = ControlLink {
        commands: command_sender,
        reports: report_receiver,
        wake,
        reports_ready,
        page: page.reader(),
    };
    let worker = WorkerLink {
        commands: command_receiver,
        reports: report_sender,
        sleeper,
        wake_control,
        page,
    };
    Ok((control, worker))
}

/// Makes the rings between all cores, in their order. `wakers` are the cores' own
/// ([`ControlLink::wake`]): other cores wake a core as control does.
///
/// # Panics
/// If there are more than 65,535 cores.
#[must_use]
pub fn mesh(wakers: &[Waker]) -> Vec<MeshPort> {
    let cores = u16::try_from(wakers.len()).expect("a core's number has 16 bits");
    let mut ports = ringway_link::mesh::ports(cores, LINE_SLOTS);
    ports.iter_mut().for_each(|port| port.set_wakers(wakers));
    ports
}

/// A running worker.
pub struct WorkerHandle {
    thread: JoinHandle<io::Result<()>>,
    sandbox: Option<Sandbox>,
}

impl WorkerHandle {
    /// How its sandbox stands; `None` if it was told to have none.
    #[must_use]
    pub const fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }

    /// Waits until the worker has ended. Send [`Command::Stop`](crate::Command::Stop) first.
    ///
    /// # Errors
    /// Why it ended, if it was not asked to.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("The worker panicked")))
    }
}

/// Starts a worker and waits until its loop runs.
///
/// # Errors
/// Why it could not start: the ring, the memory, or the pinning.
pub fn spawn(config: WorkerConfig) -> io::Result<WorkerHandle> {
    let (ready, started) = mpsc::sync_channel(1);
    // One loop per driver: what the choice costs is paid here, not per packet.
    let work = match config.driver {
        DriverKind::Uring => work::<UringDriver>,
        DriverKind::Epoll => work::<EpollDriver>,
    };
    let thread = std::thread::Builder::new()
        .name(format!("ringway-{}", config.core.0))
        .spawn(move || work(config, &ready))?;
    match started.recv() {
        Ok(Ok(sandbox)) => Ok(WorkerHandle { thread, sandbox }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("The worker ended before it ran")),
    }
}

fn work<B: Backend>(
    config: WorkerConfig,
    ready: &mpsc::SyncSender<io::Result<Option<Sandbox>>>,
) -> io::Result<()> {
    let (shard, link, sandbox) = match start::<B>(config) {
        Ok(started) => started,
        Err(error) => {
            // The starter is waiting for this; if it has gone there is nobody to tell.
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let _ = ready.send(Ok(sandbox));
    drive(shard, link)
}

/// The part of the link that the loop keeps; the rest went into the shard.
struct LoopLink {
    spin: Spin,
    sleeper: Sleeper,
    wake_control: Waker,
    page: PageWriter,
}

type Started<B> = (Shard<B>, LoopLink, Option<Sandbox>);

fn start<B: Backend>(config: WorkerConfig) -> io::Result<Started<B>> {
    if let Some(cpu) = config.cpu {
        ringway_numa::pin::pin_to(cpu).map_err(io::Error::other)?;
    }
    let WorkerLink { commands, reports, sleeper, wake_control, page } = config.link;
    let wakers: Vec<Waker> = config.mesh.wakers().chain([&wake_control]).cloned().collect();
    let options =
        RegionOptions { node: config.node, pages: config.pages, ..RegionOptions::default() };
    let (pools, mut off_node) = pools(config.pools, &options)?;
    let strays =
        if config.cores > 1 { Some(arena(STRAY_BUFFERS, &options, &mut off_node)?) } else { None };
    let mut driver = B::make(DriverConfig {
        pools,
        features: config.features,
        zero_copy: config.zero_copy,
        waker: Some(sleeper.as_fd().try_clone_to_owned()?),
    })
    .map_err(io::Error::other)?;
    if config.frozen {
        driver.set_receiving(false)?;
    }
    let listening = config.sockets.is_some();
    driver.set_tun(Some(config.tun))?;
    driver.set_sockets(config.sockets.map(|boxed| *boxed))?;
    let shard = ShardConfig {
        core: config.core,
        layout: IndexLayout::new(config.cores, config.index_secret),
        policy: config.policy,
        heap: ShardHeap::new(config.heaps),
        random: Box::new(KernelRandom),
        index_random: Box::new(KernelRandom),
        commands,
        reports,
        crossing: Crossing::new(config.mesh, strays),
        usage: config.usage,
    };
    let now = read_clock();
    let spin = Spin::new(config.spin, now.mono);
    let mut shard = Shard::new(shard, driver, now);
    shard.counters_mut().arenas_off_node = off_node;
    shard.start_listening(listening);
    if config.frozen {
        shard.begin_frozen();
    }
    let sandbox = config.sandbox.then(|| {
        let wakers: Vec<_> = wakers.iter().map(AsFd::as_fd).collect();
        sandbox::enter(shard.driver_mut(), &wakers)
    });
    shard.counters_mut().sandbox_gaps = match &sandbox {
        Some(sandbox) => sandbox.gaps().count() as u64,
        None => Sandbox::PARTS,
    };
    Ok((shard, LoopLink { spin, sleeper, wake_control, page }, sandbox))
}

/// Maps the arenas, on a node if one was chosen, and says how many of them the kernel put
/// elsewhere. That costs speed, not correctness, so it is counted and not refused.
fn pools(sizes: PoolSizes, options: &RegionOptions) -> io::Result<(Pools, u64)> {
    let mut off_node = 0;
    let mut arena = |count| arena(count, options, &mut off_node);
    let pools = Pools {
        outside: arena(sizes.outside)?,
        initiations: arena(sizes.initiations)?,
        inside: arena(sizes.inside)?,
        trains: arena(sizes.trains)?,
        tun_writes: sizes.tun_writes,
    };
    Ok((pools, off_node))
}

fn arena(count: u32, options: &RegionOptions, off_node: &mut u64) -> io::Result<Arena> {
    let region = Region::with_options(count as usize * BUFFER_BYTES, options)?;
    *off_node += u64::from(options.node.is_some() && region.node() != options.node);
    Ok(Arena::new(region, count, BUFFER_BYTES))
}

/// Turns until told to stop.
fn drive<B: Backend>(mut shard: Shard<B>, mut link: LoopLink) -> io::Result<()> {
    let mut words = vec![0; page::WORDS];
    let mut sources_lost = 0;
    let mut revival = Revival::default();
    loop {
        let now = read_clock();
        let turn = shard.turn(now);
        if turn.reported {
            link.wake_control.wake();
        }
        if turn.worked || !link.spin.is_looking() {
            let worked = clock::boot_ns() - now.mono.as_nanos();
            shard.counters_mut().turn_ns.record(worked);
        }
        let counters = shard.counters_mut();
        let looks_on = link.spin.goes_on(now.mono, turn.worked, clock::preemptions, counters);
        if turn.publish || turn.stop {
            let stats = *shard.driver_mut().stats();
            page::publish(shard.counters_mut(), &stats, &mut words);
            link.page.publish(&words);
            if forget::is_on() {
                shard.forget();
                forget::scrub_stack();
            }
            if let Some(address) = stats.source_lost_last
                && std::mem::replace(&mut sources_lost, stats.source_lost) != stats.source_lost
            {
                shard.forget_source(address);
            }
        }
        if turn.stop {
            break;
        }
        let mut wait = if looks_on { Wait::No } else { turn.wait };
        if wait != Wait::No {
            link.sleeper.prepare();
            // What was pushed before `prepare` sent no wake-up.
            if shard.has_commands() || shard.has_arrivals() {
                wait = Wait::No;
            }
        }
        if shard.driver_mut().health().outside.is_some() {
            if revival.is_due(now.mono) {
                shard.counters_mut().receives_revived += 1;
                shard.driver_mut().revive();
            }
            wait = revival.pace(wait, now.mono);
        }
        let turned = shard.driver_mut().turn(wait);
        link.sleeper.awake();
        if let Err(error) = turned {
            shard.end(Some(error));
            link.wake_control.wake_always();
            return Ok(());
        }
    }
    let ended = shard.driver_mut().shutdown();
    shard.end(None);
    link.wake_control.wake_always();
    ended
}

/// When sockets that failed for good are received from again: at once, but while that fails too,
/// not at every turn, which would have nothing to wait for.
#[derive(Debug, Default)]
struct Revival {
    next: Instant,
}

impl Revival {
    /// Whether to try now. Says so once in a [`HOUSEKEEPING_PERIOD`].
    fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + HOUSEKEEPING_PERIOD;
        }
        due
    }

    /// No longer than until the next attempt.
    fn pace(&self, wait: Wait, now: Instant) -> Wait {
        let left = self.next.since(now);
        match wait {
            Wait::No => Wait::No,
            Wait::AtMost(time) => Wait::AtMost(time.min(left)),
            Wait::Forever => Wait::AtMost(left),
        }
    }
}

fn read_clock() -> Now {
    Now { mono: Instant::from_nanos(clock::boot_ns()), wall: clock::wall() }
}

/// Randomness of the kernel.
struct KernelRandom;

impl Random for KernelRandom {
    fn fill(&mut self, out: &mut [u8]) {
        clock::random(out);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn broken_receives_are_revived_at_once_and_then_ten_times_a_second() {
        let mut revival = Revival::default();
        let at = |ms: u64| Instant::from_nanos(50_000_000_000 + ms * 1_000_000);
        // They break again in every turn, and a turn takes a millisecond.
        let tried: Vec<_> = (0..1_000).filter(|ms| revival.is_due(at(*ms))).collect();
        assert_eq!(tried, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
        let left = Wait::AtMost(Duration::from_millis(40));
        assert_eq!(revival.pace(Wait::Forever, at(960)), left);
        assert_eq!(revival.pace(Wait::AtMost(Duration::from_secs(1)), at(960)), left);
        assert_eq!(revival.pace(Wait::No, at(960)), Wait::No);
    }
}
