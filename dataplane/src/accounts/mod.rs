//! Accounts: what limits and meters peers on whatever cores they live.
//!
//! A peer uses at most one account, and what it sends and gets counts for that account, for the
//! account above it, and so on, up to [`CHAIN_MAX`]. Each account has a *home*, a core chosen by
//! its number, that holds its token buckets and its volume ([`home`]). Every core has a *branch* of
//! it ([`branch`]): credit that it borrowed from the home in portions and spends packet by packet,
//! so a packet touches nothing that another core touches. Credit is asked for by messages in the
//! parcels that cross between cores anyway, before it runs out; what is not used goes back.
//!
//! **Bounds.** What all cores let pass is never more than what the home issued, and that is never
//! more than rate and burst. In a shorter time than from the beginning, cores may besides spend
//! what they hold: each a quarter of the burst at the most for each direction, of which an idle one
//! keeps an eighth of the burst or a super-packet. A volume is exact: no byte more passes, and
//! unless a packet did not fit, no byte less. A message waits here until a parcel has room for it.
//!
//! **Cost.** A packet of a peer without an account takes one branch. With one, it takes a walk up
//! the chain that looks and one that charges, each a cache line per account. Memory: a branch on
//! every core, a home on one.
//!
//! What each account used is written into the core's usage page as it happens.

pub(crate) mod branch;
pub(crate) mod change;
pub(crate) mod commands;
pub(crate) mod credit;
pub(crate) mod home;
mod table;

use std::time::Duration;

use ringway_link::usage::UsageWriter;
use ringway_proto::limits::HOUSEKEEPING_PERIOD;
use ringway_proto::{AccountId, CoreId, DropReason, Instant, Now};

use self::branch::{Branch, NOBODY};
use self::credit::{Amounts, Credit, Grant, Kind};
use self::home::{Cores, Home};
use self::table::Table;
use crate::counters::Counters;
use crate::crossing::Crossing;

/// Accounts that a gateway may have: one for each of 100,000 sessions, and users and groups.
pub const ACCOUNTS_MAX: u32 = 1 << 18;

/// Accounts that one packet counts for: session, user, group, gateway.
pub const CHAIN_MAX: usize = 4;

/// What a hundred thousand accounts take on each core is 26 MB, and as much once for their homes.
const _: () = assert!(size_of::<Branch>() <= 256 && size_of::<Home>() <= 256);

/// Messages that wait for a parcel: in a turn there are about as many as accounts run low in it.
const OUTBOX_MAX: usize = 1_024;

/// Branches and homes that housekeeping looks at in one turn: 20 us and some.
const LOOKS_PER_TURN_MAX: usize = 256;

/// When those that wait at a home are served if nobody asks; then after twice that, and so on up to
/// the second.
const SERVE_AGAIN: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(80)];

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Way {
    /// From a client.
    ToExit = 0,
    /// To a client.
    ToClient = 1,
}

impl Way {
    const fn reason(self) -> DropReason {
        match self {
            Self::ToExit => DropReason::RateExceededToExit,
            Self::ToClient => DropReason::RateExceededToClient,
        }
    }
}

/// All accounts, as one core has them.
pub(crate) struct Accounts {
    core: u16,
    cores: u16,
    branches: Table<Branch>,
    /// Of the accounts whose home is here, by their number among these.
    homes: Table<Home>,
    usage: UsageWriter,
    outbox: Vec<(u16, Credit)>,
    /// The last question.
    sequence: u32,
    /// Where the look at branches that hold too much is, and when the next one begins.
    looking: Option<u32>,
    look_at: Instant,
    serve_at: Instant,
    serve_after: Duration,
    /// Accounts whose volume was used up, of which control has not heard.
    pub(crate) exhausted: Vec<(AccountId, u32)>,
}

/// The branches beside a home, and the way to others.
struct Outlet<'a> {
    own: u16,
    account: u32,
    branches: &'a mut Table<Branch>,
    outbox: &'a mut Vec<(u16, Credit)>,
}

impl Cores for Outlet<'_> {
    fn own(&self) -> u16 {
        self.own
    }

    fn can_take(&self, core: u16) -> bool {
        // Two: who asks may be answered after another was asked.
        core == self.own || self.outbox.len() + 2 <= OUTBOX_MAX
    }

    fn grant(&mut self, core: u16, number: u32, grant: Grant) {
        if core == self.own {
            if let Some(branch) = self.branches.get_mut(self.account) {
                branch.take(&grant, number);
                self.branches.mark(self.account);
            }
            return;
        }
        let (account, from) = (self.account, self.own);
        self.outbox.push((core, Credit { account, from, number, kind: Kind::Grant(grant) }));
    }

    fn recall(&mut self, core: u16, number: u32) -> Option<(Amounts, u64)> {
        if core == self.own {
            return Some(self.branches.get_mut(self.account)?.give_back_volume());
        }
        let (account, from) = (self.account, self.own);
        if self.can_take(core) {
            self.outbox.push((core, Credit { account, from, number, kind: Kind::Recall }));
        }
        None
    }
}

impl Accounts {
    /// None yet. What they will use is written to `usage`.
    pub(crate) fn new(core: CoreId, cores: u16, usage: UsageWriter, now: Instant) -> Self {
        Self {
            core: core.0,
            cores: cores.max(1),
            branches: Table::new(),
            homes: Table::new(),
            usage,
            outbox: Vec::new(),
            sequence: 0,
            looking: None,
            look_at: now,
            serve_at: now,
            serve_after: SERVE_AGAIN[0],
            exhausted: Vec::new(),
        }
    }

    /// Whether a packet of `len` inner bytes may pass. Not inlined: most packets of most gateways
    /// are in no account, and should not be in its way.
    #[inline(never)]
    pub(crate) fn admit(
        &mut self,
        account: AccountId,
        way: Way,
        len: usize,
        now: Now,
    ) -> Result<(), DropReason> {
        let mut at = account.0;
        for _ in 0..CHAIN_MAX {
            let Some(branch) = self.branches.get(at) else { break };
            let parent = branch.parent;
            if !branch.has_room(way as usize, len as u64) {
                self.make_room(at, way, len as u64, now.mono)?;
            }
            at = parent;
        }
        Ok(())
    }

    /// A packet that was admitted has passed.
    #[inline(never)]
    pub(crate) fn charge(&mut self, account: AccountId, way: Way, len: usize, now: Now) {
        let mut at = account.0;
        for _ in 0..CHAIN_MAX {
            let Some(branch) = self.branches.get_mut(at) else { break };
            let is_low = branch.charge(way as usize, len as u64);
            let parent = branch.parent;
            if branch.is_counted() {
                self.usage.count(at, way as usize, len as u64);
            }
            if is_low {
                self.ask(at, None, now.mono);
            }
            at = parent;
        }
    }

    /// The cold part of [`Accounts::admit`]: something is missing.
    #[cold]
    fn make_room(
        &mut self,
        account: u32,
        way: Way,
        len: u64,
        now: Instant,
    ) -> Result<(), DropReason> {
        if let Some(branch) = self.branches.get_mut(account) {
            branch.note_short();
        }
        // Twice: what is learnt first may be that other rates hold.
        for _ in 0..2 {
            self.ask(account, Some((way as usize, len)), now);
            let Some(branch) = self.branches.get(account) else { return Ok(()) };
            if branch.has_room(way as usize, len) {
                return Ok(());
            }
        }
        let Some(branch) = self.branches.get_mut(account) else { return Ok(()) };
        if branch.is_closed() {
            branch.dropped_volume += 1;
            return Err(DropReason::QuotaExceeded);
        }
        branch.dropped_rate[way as usize] += 1;
        Err(way.reason())
    }

    /// Asks the home for credit, unless it was asked a moment ago.
    #[cold]
    fn ask(&mut self, account: u32, waiting: Option<(usize, u64)>, now: Instant) {
        let home = self.home_of(account);
        let at_home = home == self.core;
        let Some(branch) = self.branches.get_mut(account) else { return };
        if branch.is_closed() || !branch.may_ask(waiting.is_some(), now, at_home) {
            return;
        }
        if !at_home && self.outbox.len() >= OUTBOX_MAX {
            return;
        }
        let sequence = match branch.asked {
            0 => {
                self.sequence = self.sequence.wrapping_add(1).max(1);
                self.sequence
            }
            asked => asked,
        };
        let ask = branch.ask(sequence, waiting, now);
        let (from, number) = (self.core, branch.number);
        let credit = Credit { account, from, number, kind: Kind::Ask(ask) };
        self.branches.mark(account);
        if at_home {
            self.receive(credit, now);
        } else {
            self.outbox.push((home, credit));
        }
    }

    /// Takes a message of another core, or of this one to itself.
    pub(crate) fn receive(&mut self, credit: Credit, now: Instant) {
        let Credit { account, from, number, kind } = credit;
        match kind {
            Kind::Ask(ask) => {
                if let Some(home) = self.homes.get_mut(account / u32::from(self.cores)) {
                    home.ask(from, number, &ask);
                    self.serve(account, now);
                    self.serve_after = SERVE_AGAIN[0];
                }
            }
            Kind::GiveBack { amounts, spent } => {
                if let Some(home) = self.homes.get_mut(account / u32::from(self.cores)) {
                    home.take_back(from, number, amounts, spent, now);
                    if home.is_awaited() {
                        self.serve(account, now);
                    }
                }
            }
            Kind::Grant(grant) => {
                if let Some(branch) = self.branches.get_mut(account) {
                    branch.take(&grant, number);
                    self.branches.mark(account);
                }
            }
            Kind::Recall => self.return_volume(account, from, number),
        }
    }

    /// The home of an account wants its volume back.
    fn return_volume(&mut self, account: u32, home: u16, number: u32) {
        // Without room the home asks again.
        let Some(branch) = self.branches.get_mut(account) else { return };
        if branch.number != number || self.outbox.len() >= OUTBOX_MAX {
            return;
        }
        let (amounts, spent) = branch.give_back_volume();
        let kind = Kind::GiveBack { amounts, spent };
        self.outbox.push((home, Credit { account, from: self.core, number, kind }));
    }

    /// Lets the home of an account serve those that wait.
    fn serve(&mut self, account: u32, now: Instant) {
        let number = account / u32::from(self.cores);
        let Some(home) = self.homes.get_mut(number) else { return };
        let mut outlet = Outlet {
            own: self.core,
            account,
            branches: &mut self.branches,
            outbox: &mut self.outbox,
        };
        let exhausted = home.serve(now, &mut outlet);
        let (awaited, volume) = (home.is_awaited(), home.number);
        if exhausted && self.exhausted.len() < self.exhausted.capacity() {
            self.exhausted.push((AccountId(account), volume));
        }
        if awaited {
            self.homes.mark(number);
        } else {
            self.homes.unmark(number);
        }
    }

    const fn home_of(&self, account: u32) -> u16 {
        // Smaller than the number of cores, which has 16 bits.
        (account % self.cores as u32) as u16
    }

    /// Hands over what waits to be said.
    #[inline]
    pub(crate) fn depart(&mut self, crossing: &mut Crossing, counters: &mut Counters) {
        if !self.outbox.is_empty() {
            self.hand_over(crossing, counters);
        }
    }

    fn hand_over(&mut self, crossing: &mut Crossing, counters: &mut Counters) {
        let mut sent = 0;
        for (core, credit) in &self.outbox {
            if crossing.credit(CoreId(*core), *credit, counters).is_err() {
                break;
            }
            sent += 1;
        }
        self.outbox.drain(..sent);
    }

    /// Gives back what is not used, and serves those that wait at homes. Bounded per turn.
    #[inline]
    pub(crate) fn keep_house(&mut self, now: Instant) {
        if self.homes.has_marked() && now >= self.serve_at {
            self.serve_waiting(now);
        }
        if self.looking.is_some() || self.branches.has_marked() && now >= self.look_at {
            self.look(now);
        }
    }

    fn serve_waiting(&mut self, now: Instant) {
        self.serve_at = now + self.serve_after;
        self.serve_after = (2 * self.serve_after).min(SERVE_AGAIN[1]);
        let mut number = 0;
        for _ in 0..LOOKS_PER_TURN_MAX {
            let Some(marked) = self.homes.next_marked(number) else { return };
            self.serve(marked * u32::from(self.cores) + u32::from(self.core), now);
            number = marked + 1;
        }
    }

    fn look(&mut self, now: Instant) {
        let mut cursor = self.looking.take().unwrap_or(0);
        for _ in 0..LOOKS_PER_TURN_MAX {
            let marked = self.branches.next_marked(cursor);
            let Some(account) = marked.filter(|_| self.outbox.len() < OUTBOX_MAX) else {
                self.look_at = now + HOUSEKEEPING_PERIOD;
                return;
            };
            cursor = account + 1;
            let home = self.home_of(account);
            let Some(branch) = self.branches.get_mut(account) else { continue };
            let (amounts, spent) = branch.look();
            let (number, loaded, asked) = (branch.number, branch.is_loaded(), branch.asked != 0);
            if asked {
                // The home may not have known the account yet, and nothing may have come since.
                self.ask(account, None, now);
            } else if !loaded {
                self.branches.unmark(account);
            }
            if amounts == [0; 3] {
                continue;
            }
            let kind = Kind::GiveBack { amounts, spent };
            let credit = Credit { account, from: self.core, number, kind };
            if home == self.core {
                self.receive(credit, now);
            } else {
                self.outbox.push((home, credit));
            }
        }
        self.looking = Some(cursor);
    }

    /// How long the loop may sleep; `None` if nothing is to be done.
    pub(crate) fn sleep(&self, now: Instant) -> Option<Duration> {
        if self.looking.is_some() {
            return Some(Duration::ZERO);
        }
        let look = self.branches.has_marked().then(|| self.look_at.since(now));
        let serve = self.homes.has_marked().then(|| self.serve_at.since(now));
        let send = (!self.outbox.is_empty()).then_some(branch::ASK_AGAIN);
        [look, serve, send].into_iter().flatten().min()
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.branches.len()
    }

    /// Bytes of branches and homes.
    pub(crate) fn bytes(&self) -> usize {
        let leases = self.homes.len() * usize::from(self.cores) * home::LEASE_BYTES;
        self.branches.bytes() + self.homes.bytes() + leases
    }

    /// A peer of this core uses an account no more.
    pub(crate) fn unbind(&mut self, account: AccountId) {
        let mut at = account.0;
        for _ in 0..CHAIN_MAX {
            let Some(branch) = self.branches.get_mut(at) else { return };
            branch.peers = branch.peers.saturating_sub(1);
            at = branch.parent;
        }
    }

    /// A peer of this core uses an account from now on.
    pub(crate) fn bind(&mut self, account: AccountId, now: Instant) {
        let mut at = account.0;
        for _ in 0..CHAIN_MAX {
            let Some(branch) = self.branches.get_mut(at) else { return };
            branch.peers += 1;
            let (parent, is_low) = (branch.parent, branch.is_low());
            if is_low {
                // So that its first packet finds something.
                self.ask(at, None, now);
            }
            at = parent;
        }
    }

    /// Whether there is such an account.
    pub(crate) fn knows(&self, account: AccountId) -> bool {
        account.0 != NOBODY && self.branches.get(account.0).is_some()
    }
}

#[cfg(test)]
mod tests;
