//! Whether a core that ran out of work looks on for a while before it sleeps.
//!
//! To be woken costs 25 to 36 us, which a lone request pays twice on its way through; to look on
//! costs the whole core. So `auto` looks on only while all of this holds:
//!
//! - Packets keep coming within [`NEAR`] of the one before. That is learned for each direction by
//!   itself, because the answer of a server nearby comes soon and the next question of a client may
//!   not. Gaps slept through teach as well as those looked through: trying costs nothing.
//! - They come alone. Where packets come in numbers a sleep gathers batches, which are cheaper,
//!   and nobody waits for a single one.
//! - The allowance lasts. Looking on in vain, and time taken from other threads (seen as a jump of
//!   the clock between two looks, and then in the kernel's count of preemptions), are charged to
//!   it; it fills by a share of time.
//!
//! Only packets that a session carried count: who has no key keeps a core awake only by sending to
//! the inner address of a client that has. Time is an argument; this file must not know what is
//! looked at.

use std::time::Duration;

use ringway_proto::Instant;

use crate::counters::Counters;

/// How long a core looks for work before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpinMode {
    /// As the last arrivals suggest, and not at all where they suggest nothing.
    Auto,
    /// Always so long, and never for zero.
    Fixed(Duration),
}

/// A gap that is worth looking through, and the longest look. Between a question and its answer
/// there are a wake-up or two at the other end (25 to 36 us each) and its work; a stock client
/// beside its program asks again after some 130 us.
pub const NEAR: Duration = Duration::from_micros(250);

/// Packets that may come together and still be alone: a question or an answer of some kilobytes, or
/// those of a few clients.
const ALONE_PACKETS_MAX: u64 = 4;

/// Near gaps after which a direction is looked on for: at first, and after it was given up many
/// times. Bulk transfers have short runs of single packets.
const TRUST_MIN: u32 = 32;
const TRUST_MAX: u32 = 256;

/// Near gaps after which earlier misses are forgotten.
const TRUST_FULL: u32 = 512;

/// Near gaps that a far one outweighs: at least 8 of 9 have to be near, and a hiccup of the machine
/// does not undo what was learned.
const FAR_COST: u32 = 8;

/// Far gaps in a row after which a direction is given up.
const FAR_MAX: u32 = 3;

/// The allowance grows by one nanosecond in so many: about 3 % of a core at most is spent in vain.
const ALLOWANCE_SHARE: u64 = 32;

/// Most that the allowance holds: sixteen looks in vain.
const ALLOWANCE_MAX_NS: i64 = 4_000_000;

/// Most that one interruption is charged: of a thread that wants the CPU always there are many.
const INTERRUPTION_MAX_NS: u64 = 4_000_000;

/// Longest time between two looks after which nobody asks who had the CPU; a look takes less than a
/// microsecond, an interrupt some.
const LOOK_MAX_NS: u64 = 40_000;

/// Remembers how packets came, and decides.
#[derive(Clone, Debug)]
pub struct Spin {
    mode: SpinMode,
    /// After packets to an exit, and after packets to a client.
    habits: [Habit; 2],
    /// Which of these the present gap is of.
    last: usize,
    /// Packets carried so far, each way.
    carried: [u64; 2],
    /// When work was last done; of `Auto`, when packets were last carried.
    worked_at: Instant,
    /// When the present look began, if one is going on.
    looking_since: Option<Instant>,
    turned_at: Instant,
    /// As of the last jump of the clock in a look.
    preemptions: Option<u64>,
    allowance_ns: i64,
    filled_at: Instant,
}

impl Spin {
    /// Begins without experience.
    #[must_use]
    pub fn new(mode: SpinMode, now: Instant) -> Self {
        Self {
            mode,
            habits: [Habit::default(); 2],
            last: 0,
            carried: [0; 2],
            worked_at: Instant::ZERO,
            looking_since: None,
            turned_at: now,
            preemptions: None,
            allowance_ns: ALLOWANCE_MAX_NS,
            filled_at: now,
        }
    }

    /// Whether a look goes on, so that a turn without work was nothing but a look.
    #[must_use]
    pub const fn is_looking(&self) -> bool {
        self.looking_since.is_some()
    }

    /// Told of every turn that began at `now`, with what was carried so far and whether there was
    /// anything to do: whether to look on instead of sleeping.
    ///
    /// `preemptions` is asked after a jump of the clock: how often this thread has had to leave the
    /// CPU to another one so far; `None` if the kernel does not say, and then every jump counts as
    /// one.
    pub fn goes_on(
        &mut self,
        now: Instant,
        worked: bool,
        preemptions: impl FnOnce() -> Option<u64>,
        counters: &mut Counters,
    ) -> bool {
        if self.mode == SpinMode::Fixed(Duration::ZERO) {
            return false;
        }
        let carried = [counters.to_exit_packets, counters.to_client_packets];
        let packets = [carried[0] - self.carried[0], carried[1] - self.carried[1]];
        self.carried = carried;
        let arrived = match self.mode {
            SpinMode::Auto => packets != [0; 2],
            SpinMode::Fixed(_) => worked,
        };
        if self.is_looking() {
            self.notice_interruption(now, preemptions, counters);
        }
        self.turned_at = now;
        if arrived {
            self.arrived(now, packets, counters);
        }
        let goes_on = now.since(self.worked_at) < self.limit() && self.may_look(now);
        match (goes_on, self.looking_since) {
            (true, None) => self.looking_since = Some(now),
            (false, Some(since)) => self.end_look(since, now, counters),
            (true, Some(_)) | (false, None) => {}
        }
        goes_on
    }

    const fn limit(&self) -> Duration {
        match self.mode {
            SpinMode::Auto => NEAR,
            SpinMode::Fixed(limit) => limit,
        }
    }

    fn may_look(&mut self, now: Instant) -> bool {
        if self.mode != SpinMode::Auto || self.is_looking() {
            return true;
        }
        if !self.habits[self.last].ready {
            return false;
        }
        let grown = nanos(now.since(self.filled_at)) / ALLOWANCE_SHARE;
        self.filled_at = now;
        let grown = i64::try_from(grown).unwrap_or(i64::MAX);
        self.allowance_ns = self.allowance_ns.saturating_add(grown).min(ALLOWANCE_MAX_NS);
        self.allowance_ns >= nanos(NEAR) as i64
    }

    /// Packets came: what that says about the gap before them.
    fn arrived(&mut self, now: Instant, packets: [u64; 2], counters: &mut Counters) {
        if let Some(since) = self.looking_since.take() {
            counters.spins_hit += 1;
            counters.spin_ns += nanos(now.since(since));
        }
        if packets[0] + packets[1] > ALONE_PACKETS_MAX {
            self.habits.iter_mut().for_each(Habit::crowd);
        } else {
            let near = now.since(self.worked_at) <= NEAR;
            self.habits[self.last].gap(near);
        }
        self.last = usize::from(packets[1] > 0);
        self.worked_at = now;
    }

    /// Nothing came. A jump of the clock in the last look is judged by itself.
    fn end_look(&mut self, since: Instant, now: Instant, counters: &mut Counters) {
        let spent = nanos(now.since(since));
        self.looking_since = None;
        counters.spins_missed += 1;
        counters.spin_ns += spent;
        self.charge(spent.min(nanos(self.limit())));
    }

    /// Time passed between two looks. If another thread had the CPU, that is what looking on cost
    /// it; what interrupts and the host of a virtual machine took they take in any case.
    fn notice_interruption(
        &mut self,
        now: Instant,
        preemptions: impl FnOnce() -> Option<u64>,
        counters: &mut Counters,
    ) {
        let passed = nanos(now.since(self.turned_at));
        if passed <= LOOK_MAX_NS {
            return;
        }
        // Preemptions since the last jump in a look, not since this one's beginning: to ask at each
        // would be a call per packet. A jump may so be charged for an earlier one, once.
        let before = std::mem::replace(&mut self.preemptions, preemptions());
        if self.preemptions.is_none() || self.preemptions != before {
            counters.spins_interrupted += 1;
            self.charge(passed.min(INTERRUPTION_MAX_NS));
        }
    }

    fn charge(&mut self, spent_ns: u64) {
        let spent = i64::try_from(spent_ns).unwrap_or(i64::MAX);
        self.allowance_ns = self.allowance_ns.saturating_sub(spent);
    }
}

/// What the gaps of one direction were like.
#[derive(Clone, Copy, Debug)]
struct Habit {
    /// Near gaps, less what far ones outweigh.
    trust: u32,
    /// Far gaps in a row.
    far: u32,
    /// Trust that it takes to be looked on for.
    needed: u32,
    ready: bool,
}

impl Default for Habit {
    fn default() -> Self {
        Self { trust: 0, far: 0, needed: TRUST_MIN, ready: false }
    }
}

impl Habit {
    fn gap(&mut self, near: bool) {
        if near {
            self.far = 0;
            self.trust = (self.trust + 1).min(TRUST_FULL);
            self.ready |= self.trust >= self.needed;
            if self.trust == TRUST_FULL {
                self.needed = TRUST_MIN;
            }
        } else {
            self.trust = self.trust.saturating_sub(FAR_COST);
            self.far = self.far.saturating_add(1);
            if self.far >= FAR_MAX {
                self.give_up();
            }
        }
    }

    /// Packets came in numbers.
    fn crowd(&mut self) {
        self.far = 0;
        self.trust = 0;
        self.give_up();
    }

    /// Trusts it again only after twice as many near gaps.
    fn give_up(&mut self) {
        if std::mem::replace(&mut self.ready, false) {
            self.trust = 0;
            self.needed = (2 * self.needed).min(TRUST_MAX);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core whose turns take half a microsecond while it is awake.
    struct Core {
        spin: Spin,
        counters: Counters,
        now_ns: u64,
        awake_ns: u64,
        preemptions: Option<u64>,
    }

    const TURN_NS: u64 = 500;
    const TO_EXIT: [u64; 2] = [1, 0];
    const TO_CLIENT: [u64; 2] = [0, 1];

    impl Core {
        fn new(mode: SpinMode) -> Self {
            let now_ns = 5_000_000_000;
            let spin = Spin::new(mode, Instant::from_nanos(now_ns));
            Self { spin, counters: Counters::default(), now_ns, awake_ns: 0, preemptions: Some(0) }
        }

        /// Packets come `gap_us` after the ones before; whether the core was looking then.
        fn packets(&mut self, gap_us: u64, packets: [u64; 2]) -> bool {
            let looking = self.pass(gap_us * 1_000);
            self.counters.to_exit_packets += packets[0];
            self.counters.to_client_packets += packets[1];
            self.turn(true);
            looking
        }

        /// Time without packets; whether the core looks on at its end.
        fn pass(&mut self, ns: u64) -> bool {
            let end = self.now_ns + ns;
            while self.spin.is_looking() && self.now_ns + TURN_NS < end {
                self.now_ns += TURN_NS;
                self.awake_ns += TURN_NS;
                self.turn(false);
            }
            self.now_ns = end;
            self.spin.is_looking()
        }

        fn turn(&mut self, worked: bool) -> bool {
            let now = Instant::from_nanos(self.now_ns);
            self.spin.goes_on(now, worked, || self.preemptions, &mut self.counters)
        }

        /// How many of `count` round trips, both ways, found the core looking.
        fn round_trips(&mut self, count: u32, server_us: u64, client_us: u64) -> [u32; 2] {
            let mut found = [0; 2];
            for _ in 0..count {
                found[0] += u32::from(self.packets(client_us, TO_EXIT));
                found[1] += u32::from(self.packets(server_us, TO_CLIENT));
            }
            found
        }

        /// Share of time spent looking, in thousandths.
        fn looked_permille(&self) -> u64 {
            self.awake_ns * 1_000 / (self.now_ns - 5_000_000_000)
        }
    }

    #[test]
    fn a_lone_conversation_is_looked_on_for_after_a_few_round_trips() {
        let mut core = Core::new(SpinMode::Auto);
        let found = core.round_trips(1_000, 50, 130);
        assert!(found[0] >= 960 && found[1] >= 960, "{found:?}");
        assert_eq!(core.counters.spins_hit, u64::from(found[0] + found[1]));
        assert_eq!(core.counters.spins_missed, 0);
    }

    #[test]
    fn a_silent_core_sleeps_after_one_look() {
        let mut core = Core::new(SpinMode::Auto);
        core.round_trips(100, 50, 130);
        core.awake_ns = 0;
        assert!(!core.pass(10_000_000_000));
        assert!(core.awake_ns <= 250_000, "{} ns", core.awake_ns);
        assert_eq!(core.counters.spins_missed, 1);
        assert_eq!(core.counters.spin_ns % TURN_NS, 0);
    }

    #[test]
    fn a_near_server_is_looked_on_for_though_its_clients_are_far() {
        let mut core = Core::new(SpinMode::Auto);
        let found = core.round_trips(1_000, 60, 20_000);
        assert_eq!(found[0], 0);
        assert!(found[1] >= 960, "{found:?}");
        assert!(core.looked_permille() <= 4, "{}", core.looked_permille());
    }

    #[test]
    fn packets_that_come_in_numbers_are_slept_for() {
        let mut core = Core::new(SpinMode::Auto);
        for _ in 0..1_000 {
            assert!(!core.packets(30, [20, 0]));
            for _ in 0..8 {
                assert!(!core.packets(20, TO_CLIENT));
            }
        }
        assert_eq!(core.awake_ns, 0);
    }

    #[test]
    fn a_direction_is_trusted_less_each_time_it_disappoints() {
        let mut core = Core::new(SpinMode::Auto);
        let mut found = Vec::new();
        for _ in 0..6 {
            found.push((0..100).filter(|_| core.packets(50, TO_EXIT)).count());
            core.packets(30, [20, 0]);
        }
        assert_eq!(found, [67, 36, 0, 0, 0, 0]);
        // And again when it has kept its word for long.
        let found = (0..2_000).filter(|_| core.packets(50, TO_EXIT)).count();
        assert!(found > 1_800, "{found}");
        core.packets(30, [20, 0]);
        assert_eq!((0..100).filter(|_| core.packets(50, TO_EXIT)).count(), 36);
    }

    #[test]
    fn what_is_looked_for_in_vain_is_a_small_share_of_time_whatever_comes() {
        // Near often enough to be trusted, far as often as that allows.
        let mut core = Core::new(SpinMode::Auto);
        for _ in 0..2_000 {
            for _ in 0..40 {
                core.packets(10, TO_EXIT);
            }
            core.packets(260, TO_EXIT);
            core.packets(260, TO_EXIT);
        }
        let passed = core.now_ns - 5_000_000_000;
        let vain = core.counters.spins_missed * 250_000;
        assert!(vain > 0);
        assert!(vain <= passed / 30 + 4_000_000, "{vain} ns of {passed}");
    }

    #[test]
    fn a_core_that_others_need_is_left_to_them() {
        let mut core = Core::new(SpinMode::Auto);
        core.round_trips(100, 50, 130);
        // Another thread takes its slice of 4 ms out of each look.
        let (mut looks, begin) = (0, core.now_ns);
        for _ in 0..1_000 {
            looks += u64::from(core.packets(50, TO_EXIT));
            if core.spin.is_looking() {
                core.now_ns += 4_000_000;
                core.preemptions = core.preemptions.map(|count| count + 1);
                core.turn(false);
            }
            core.packets(50, TO_CLIENT);
        }
        assert!(core.counters.spins_interrupted >= 1);
        assert!(
            core.counters.spins_interrupted * 4_000_000 <= (core.now_ns - begin) / 10 + 8_000_000
        );
        assert!(looks < 50, "{looks}");
    }

    #[test]
    fn what_the_host_takes_is_nobodys_loss() {
        let mut core = Core::new(SpinMode::Auto);
        core.round_trips(100, 50, 130);
        // The first jump of a core's life is charged: what was before it is not known.
        core.now_ns += 150_000;
        core.turn(false);
        let [hits, interrupted] = [core.counters.spins_hit, core.counters.spins_interrupted];
        for _ in 0..1_000 {
            core.packets(50, TO_EXIT);
            core.now_ns += 150_000;
            core.turn(false);
            core.packets(50, TO_CLIENT);
        }
        assert_eq!(core.counters.spins_interrupted, interrupted);
        assert_eq!(core.counters.spins_hit - hits, 2_000);
    }

    #[test]
    fn a_long_absence_of_the_host_costs_no_more_than_a_look_in_vain() {
        let mut core = Core::new(SpinMode::Auto);
        core.round_trips(100, 50, 130);
        core.now_ns += 150_000;
        core.turn(false);
        core.counters.spins_interrupted = 0;
        core.counters.spins_missed = 0;
        let mut looks = 0;
        for _ in 0..100 {
            core.packets(50, TO_EXIT);
            core.now_ns += 4_000_000;
            core.turn(false);
            looks += u32::from(core.packets(50, TO_CLIENT));
            core.round_trips(100, 50, 130);
        }
        assert_eq!(core.counters.spins_interrupted, 0);
        assert_eq!(core.counters.spins_missed, 100);
        assert!(core.spin.allowance_ns > 0 && looks == 0, "{looks}");
    }

    #[test]
    fn a_kernel_that_does_not_count_preemptions_is_assumed_to_preempt() {
        let mut core = Core::new(SpinMode::Auto);
        core.preemptions = None;
        core.round_trips(100, 50, 130);
        for _ in 0..100 {
            core.packets(50, TO_EXIT);
            core.now_ns += 150_000;
            core.turn(false);
            core.packets(50, TO_CLIENT);
        }
        assert!(core.counters.spins_interrupted >= 8);
        assert!(core.counters.spins_hit < 200 + 100, "{:?}", core.counters.spins_hit);
    }

    #[test]
    fn short_interruptions_change_nothing() {
        let mut core = Core::new(SpinMode::Auto);
        core.round_trips(100, 50, 130);
        let hits = core.counters.spins_hit;
        for _ in 0..1_000 {
            core.packets(50, TO_EXIT);
            core.now_ns += 20_000;
            core.turn(false);
            core.packets(50, TO_CLIENT);
        }
        assert_eq!(core.counters.spins_interrupted, 0);
        assert_eq!(core.counters.spins_hit - hits, 2_000);
    }

    #[test]
    fn work_that_carries_nothing_keeps_no_core_awake() {
        let mut core = Core::new(SpinMode::Auto);
        for _ in 0..1_000 {
            assert!(!core.pass(20_000));
            assert!(!core.turn(true));
        }
        assert_eq!(core.awake_ns, 0);
    }

    #[test]
    fn a_fixed_time_is_kept_after_any_work_and_zero_is_never() {
        let mut core = Core::new(SpinMode::Fixed(Duration::from_micros(20)));
        assert!(core.turn(true));
        assert!(core.pass(19_000));
        assert!(!core.pass(2_000));
        assert_eq!((core.counters.spins_hit, core.counters.spins_missed), (0, 1));
        assert_eq!(core.counters.spin_ns, 20_000);
        let mut core = Core::new(SpinMode::Fixed(Duration::ZERO));
        assert!(!core.turn(true));
    }
}
