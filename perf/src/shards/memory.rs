//! Idle sessions by the hundred thousand: how long they take to load and to connect, what each of
//! them costs, whether the gateway's own ledger agrees with the kernel, and whether everything is
//! given back.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::honest::SEED;
use super::{Outcome, Settings, Spent, float, must};
use crate::cpu::resident_bytes_of;
use crate::fleet::{Fleet, Grounds, Roster, Shaken};
use crate::report::Figure;
use crate::stats::Page;

/// Budget of an idle session, all in: 100,000 of them in 1.07 GB.
const SESSION_BYTES_MAX: f64 = 10_700.0;

/// Budget of a peer that is configured and not there, all in: what kernel WireGuard takes for one.
const PEER_BYTES_MAX: f64 = 1_750.0;

/// How far the ledger may be from the kernel's figure, as a share of it.
const LEDGER_GAP_MAX: f64 = 0.05;

/// What may stay behind after everything was given back, as a share of what was held: what the
/// tables of the second round reuse.
const LEFT_MAX: f64 = 0.05;

/// Handshakes under way at a time: below what makes the gateway ask for cookies.
const AT_ONCE: u32 = 192;

/// Clients that come before the base line: with three datagrams each they go through the receive
/// buffers (some hundreds) more than once.
const FEW: u32 = 512;

/// One look at the gateway's memory.
#[derive(Clone, Copy, Debug)]
struct Look {
    resident: f64,
    ledger: f64,
    /// Of the resident bytes, packet memory: what was ever touched of it.
    packets: f64,
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Outcome>> {
    let clients = settings.size.pick(2_000, 100_000);
    let grounds = settings.grounds()?;
    let mut fleet = grounds.strangers(Roster { per_source: 32, ..Roster::new(SEED, clients) })?;
    // Everything that is made on first use is there before the base line, receive buffers too: they
    // are used in turn, so it takes some datagrams until all have been touched.
    let mut few = grounds.fleet(Roster { first: 5 << 20, ..Roster::new(SEED, FEW) })?;
    few.shake(0..FEW, 64, Duration::from_secs(10))?;
    grounds.dismiss(&few)?;
    let mut base = look(&grounds)?;
    if settings.size == super::Size::Small {
        // Among few sessions the packet memory that their first bursts touch would weigh more than
        // they do.
        round(settings, &grounds, &mut fleet, base, "warm")?;
        base = look(&grounds)?;
    }
    let (first, held) = round(settings, &grounds, &mut fleet, base, "first")?;
    let (second, again) = round(settings, &grounds, &mut fleet, base, "again")?;
    let mut outcomes = vec![first, second];
    // Among few sessions a few packet buffers that are touched for the first time would weigh more
    // than they do; the ledger does not count those.
    let grown = match settings.size {
        super::Size::Small => again.ledger - held.ledger,
        super::Size::Full => again.resident - held.resident,
    };
    let growth = grown / f64::from(clients);
    outcomes[1].invariants.push(must(
        growth <= SESSION_BYTES_MAX * LEFT_MAX,
        format!("a second round holds no more than the first ({growth:.0} bytes per session)"),
    ));
    outcomes.push(placement(settings, &grounds)?);
    Ok(outcomes)
}

/// What one round took and held.
struct Round {
    clients: f64,
    load_s: f64,
    shaken: Shaken,
    handshake_us: f64,
    configured: Look,
    live: Look,
    page: Page,
    idle_core: f64,
    show_s: f64,
    keeping: Keeping,
    remove_s: f64,
    left: Look,
}

/// Loads, connects, holds, removes. Returns the memory while all were live.
fn round(
    settings: &Settings,
    grounds: &Grounds,
    fleet: &mut Fleet,
    base: Look,
    which: &str,
) -> Result<(Outcome, Look)> {
    let clients = fleet.roster().count;
    let load_s = timed(|| grounds.admit(fleet))?;
    let configured = look(grounds)?;

    let spent = Spent::since_now(grounds.pid());
    let shaken = fleet.shake(0..clients, AT_ONCE, Duration::from_secs(120))?;
    let handshake_us = spent.seconds() * 1e6 / f64::from(shaken.completed.max(1));
    fleet.hold(Duration::from_secs(1))?;
    let live = look(grounds)?;
    let page = grounds.stats.read()?;
    let idle = Spent::since_now(grounds.pid());
    let idle_s = settings.size.pick(1, 5);
    fleet.hold(Duration::from_secs(idle_s))?;
    let idle_core = idle.seconds() / float(idle_s);
    let show_s = timed(|| grounds.uapi.get().map(drop))?;
    let keeping = keep_alive(grounds, fleet, settings.size.pick(1, 10))?;

    let remove_s = timed(|| grounds.dismiss(fleet))?;
    fleet.forget();
    let left = look(grounds)?;
    let clients = f64::from(clients);
    let round = Round {
        clients,
        load_s,
        shaken,
        handshake_us,
        configured,
        live,
        page,
        idle_core,
        show_s,
        keeping,
        remove_s,
        left,
    };
    Ok((round.outcome(settings, base, which), live))
}

impl Round {
    fn outcome(&self, settings: &Settings, base: Look, which: &str) -> Outcome {
        let (clients, live) = (self.clients, self.live);
        let each = |look: Look| (look.resident - base.resident) / clients;
        let held = live.resident - base.resident;
        // Packet memory is mapped at the start, and counted there; a burst of handshakes touches
        // more of it for the first time.
        let touched = live.packets - base.packets;
        let gap = ((live.ledger - base.ledger) + touched - held).abs() / held;
        let behind = (self.left.resident - base.resident) / held;
        let sessions = float(self.page.total("sessions"));
        let session_bytes = float(self.page.total("session_bytes"));
        let figures = vec![
            Figure::lower("load s", self.load_s),
            Figure::told("sessions", sessions),
            Figure::higher("handshakes per s", self.shaken.per_second()),
            Figure::lower("gateway µs each", self.handshake_us),
            Figure::told("base RSS MB", base.resident / 1e6),
            Figure::told("RSS MB", live.resident / 1e6),
            Figure::lower("bytes per peer", each(self.configured)),
            Figure::lower("bytes per session", each(live)),
            Figure::told("ledger bytes each", (live.ledger - base.ledger) / clients),
            Figure::told("session_bytes each", session_bytes / clients),
            Figure::told("packet MB touched", touched / 1e6),
            Figure::lower("ledger gap %", gap * 100.0),
            Figure::told("idle core %", self.idle_core * 100.0),
            Figure::told("kept alive per s", self.keeping.per_s),
            Figure::told("core % for it", self.keeping.core * 100.0),
            Figure::lower("show s", self.show_s),
            Figure::lower("remove s", self.remove_s),
            Figure::lower("left behind %", behind * 100.0),
        ];
        let (failed, missing) = (self.shaken.failed, clients - sessions);
        // Tables that grow by half or double weigh more among few.
        let small = settings.size == super::Size::Small;
        let invariants = vec![
            must(failed == 0, format!("{which}: all connect ({failed} do not)")),
            must(missing <= 0.0, format!("{which}: all are live ({missing} are not)")),
            must(
                each(live) <= SESSION_BYTES_MAX,
                format!("{which}: {:.0} bytes per session (at most 10,700)", each(live)),
            ),
            must(
                small || each(self.configured) <= PEER_BYTES_MAX,
                format!("{which}: {:.0} bytes per peer (at most 1,750)", each(self.configured)),
            ),
            must(
                small || gap <= LEDGER_GAP_MAX,
                format!("{which}: the ledger is {:.1} % from the kernel's figure", gap * 100.0),
            ),
            must(
                small || behind <= LEFT_MAX,
                format!("{which}: {:.1} % stays behind when all are gone", behind * 100.0),
            ),
        ];
        let variant = settings.variant(&format!("{clients} sessions, {which}"));
        Outcome { variant, figures, invariants }
    }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Keepalives of all sessions.
struct Keeping {
    per_s: f64,
    core: f64,
}

/// Every session keeps itself alive, all in step at first, which is the worst that timers can do.
fn keep_alive(grounds: &Grounds, fleet: &mut Fleet, seconds: u16) -> Result<Keeping> {
    let all = 0..fleet.roster().count;
    let before = grounds.stats.settled()?.total("keepalives_received");
    let spent = Spent::since_now(grounds.pid());
    let start = Instant::now();
    fleet.keep_alive(all.clone(), seconds)?;
    fleet.hold(Duration::from_secs(u64::from(seconds)) * 3 / 2)?;
    let (cpu_s, wall_s) = (spent.seconds(), start.elapsed().as_secs_f64());
    fleet.keep_alive(all, 0)?;
    let received = grounds.stats.settled()?.total("keepalives_received") - before;
    Ok(Keeping { per_s: float(received) / wall_s, core: cpu_s / wall_s })
}

/// Whether packet memory is where the flags want it, by the kernel's own account.
fn placement(settings: &Settings, grounds: &Grounds) -> Result<Outcome> {
    let pages = NodePages::of(grounds.pid())?;
    let off_node = grounds.stats.read()?.total("arenas_off_node");
    let figures = vec![
        Figure::told("MB on node 0", pages.bytes_on_first / 1e6),
        Figure::told("MB elsewhere", pages.bytes_elsewhere / 1e6),
        Figure::told("bound mappings", float(pages.bound)),
        Figure::lower("arenas off node", float(off_node)),
    ];
    let nodes = std::fs::read_dir("/sys/devices/system/node")
        .map(|entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            names.filter(|name| name.to_string_lossy().starts_with("node")).count()
        })
        .unwrap_or(1);
    let agrees = nodes > 1 || pages.bytes_elsewhere == 0.0;
    let invariants = vec![
        must(off_node == 0, format!("every arena is on the node of its core ({off_node} not)")),
        must(agrees, "the kernel's account of nodes agrees"),
    ];
    Ok(Outcome { variant: settings.variant("placement"), figures, invariants })
}

/// `/proc/PID/numa_maps`, summed.
struct NodePages {
    bytes_on_first: f64,
    bytes_elsewhere: f64,
    /// Mappings with a policy of their own: packet memory, and nothing else.
    bound: u64,
    bytes_bound: f64,
}

impl NodePages {
    fn of(pid: u32) -> Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/numa_maps"))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut pages =
            Self { bytes_on_first: 0.0, bytes_elsewhere: 0.0, bound: 0, bytes_bound: 0.0 };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let size = words.iter().find_map(|word| word.strip_prefix("kernelpagesize_kB="));
            let policy = words.get(1).copied().unwrap_or("default");
            let is_bound = policy != "default";
            pages.bound += u64::from(is_bound);
            let page_bytes = size.and_then(|kb| kb.parse().ok()).unwrap_or(4.0) * 1024.0;
            for word in &words {
                let Some((node, count)) = word.split_once('=') else { continue };
                let Some(node) = node.strip_prefix('N').and_then(|n| n.parse::<u32>().ok()) else {
                    continue;
                };
                let bytes = count.parse().unwrap_or(0.0) * page_bytes;
                pages.bytes_bound += if is_bound { bytes } else { 0.0 };
                match node {
                    0 => pages.bytes_on_first += bytes,
                    _ => pages.bytes_elsewhere += bytes,
                }
            }
        }
        pages
    }
}

fn look(grounds: &Grounds) -> Result<Look> {
    // What the allocator gives back, it gives back within a moment.
    std::thread::sleep(Duration::from_millis(500));
    let page = grounds.stats.settled()?;
    let packets = NodePages::of(grounds.pid())?.bytes_bound;
    Ok(Look { resident: float(resident_bytes_of(grounds.pid())), ledger: ledger(&page), packets })
}

/// What the gateway itself says it holds. Packet memory is mapped beforehand and does not grow with
/// sessions.
fn ledger(page: &Page) -> f64 {
    float(page.about("heap_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_all_sizes_are_summed_by_node() {
        let text = "7f00 bind:0 anon=3 dirty=3 N0=2 N1=1 kernelpagesize_kB=4\n\
                    7f80 default file=/x mapped=1 N0=1 kernelpagesize_kB=2048\n";
        let pages = NodePages::parse(text);
        assert!((pages.bytes_on_first - (8_192.0 + 2_097_152.0)).abs() < 0.5);
        assert!((pages.bytes_elsewhere - 4_096.0).abs() < 0.5);
        assert_eq!(pages.bound, 1);
        assert!((pages.bytes_bound - 12_288.0).abs() < 0.5);
    }
}
