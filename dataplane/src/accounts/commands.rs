//! Accounts come, change, go and are looked at: what control's commands do here.
//!
//! Each is applied whole or refused whole. Control keeps accounts the same on all cores: it sends a
//! change to every core, and removes no account that is used anywhere; that a core refuses to is
//! only the last guard.

use ringway_proto::limits::{WALK_UNITS_ACCOUNT, WALK_UNITS_VISIT};
use ringway_proto::{AccountId, Instant};

use super::branch::NOBODY;
use super::change::{AccountChange, AccountPage, AccountStatus};
use super::{ACCOUNTS_MAX, Accounts, Branch, CHAIN_MAX, Home, OUTBOX_MAX};
use crate::command::{Command, Refusal};

/// Accounts in one answer to control.
pub const ACCOUNTS_PER_PAGE_MAX: usize = 256;

impl Accounts {
    /// What a command about accounts costs, in the units of walks.
    pub(crate) const fn units_of(command: &Command) -> u32 {
        if matches!(command, Command::ReadAccounts(_)) {
            ACCOUNTS_PER_PAGE_MAX as u32 * WALK_UNITS_VISIT
        } else {
            WALK_UNITS_ACCOUNT
        }
    }

    /// Does what a command about accounts says, and gives it back. Others are not for this.
    pub(crate) fn obey(
        &mut self,
        mut command: Command,
        now: Instant,
    ) -> (Result<(), Refusal>, Command) {
        let outcome = if let Command::PutAccount(change) = &command {
            self.put(change, now)
        } else if let Command::RemoveAccount(account) = command {
            self.remove(account)
        } else {
            if let Command::ReadAccounts(page) = &mut command {
                self.read(page, now);
            }
            Ok(())
        };
        (outcome, command)
    }

    /// Makes an account, or changes one.
    pub(crate) fn put(&mut self, change: &AccountChange, now: Instant) -> Result<(), Refusal> {
        let id = change.id.0;
        let parent = self.checked_parent(change)?;
        // Nothing is allocated when it is needed.
        if self.outbox.capacity() == 0 {
            self.outbox.reserve_exact(OUTBOX_MAX);
        }
        if self.branches.get(id).is_none() {
            self.branches.insert(id, Branch::new(change));
        }
        self.adopt(id, parent);
        if let Some(branch) = self.branches.get_mut(id) {
            branch.change(change);
        }
        self.usage.set_owner(id, change.owner);
        if self.home_of(id) == self.core {
            self.put_home(id, change, now);
        }
        let in_use = |branch: &Branch| branch.peers > 0 && branch.is_low();
        if self.branches.get(id).is_some_and(in_use) {
            self.ask(id, None, now);
        }
        Ok(())
    }

    fn put_home(&mut self, id: u32, change: &AccountChange, now: Instant) {
        let number = id / u32::from(self.cores);
        match self.homes.get_mut(number) {
            Some(home) => home.change(change, now),
            None => self.homes.insert(number, Home::new(change, self.cores, now)),
        }
        // Room to say of each once that it is used up.
        self.exhausted.retain(|(account, _)| account.0 != id);
        let missing = self.homes.len() - self.exhausted.len().min(self.homes.len());
        self.exhausted.reserve(missing);
        self.serve(id, now);
    }

    /// The parent that a change names, if the account may have it.
    fn checked_parent(&self, change: &AccountChange) -> Result<u32, Refusal> {
        let id = change.id.0;
        if id >= ACCOUNTS_MAX {
            return Err(Refusal::TooManyAccounts);
        }
        let parent = change.parent.map_or(NOBODY, |parent| parent.0);
        let known = self.branches.get(id);
        if known.is_some_and(|branch| branch.parent == parent) {
            return Ok(parent);
        }
        if parent == id {
            return Err(Refusal::AccountChain);
        }
        // What is below comes along: chains have no loops and stay short all the same.
        let below = known.map_or(0, |branch| usize::from(branch.height));
        let mut above = parent;
        for _ in below + 1..CHAIN_MAX {
            if above == NOBODY {
                return Ok(parent);
            }
            if above == id {
                return Err(Refusal::AccountChain);
            }
            above = self.branches.get(above).ok_or(Refusal::UnknownAccount)?.parent;
        }
        if above == NOBODY { Ok(parent) } else { Err(Refusal::AccountChain) }
    }

    /// Hangs an account below another one, with the peers and the accounts that it has.
    fn adopt(&mut self, id: u32, parent: u32) {
        let Some(branch) = self.branches.get_mut(id) else { return };
        let before = std::mem::replace(&mut branch.parent, parent);
        let (peers, mut height) = (branch.peers, branch.height);
        if before == parent {
            return;
        }
        let below = |branches: &mut Self, from: u32, join: bool| {
            if let Some(parent) = branches.branches.get_mut(from) {
                parent.children = parent.children.wrapping_add_signed(if join { 1 } else { -1 });
                if parent.children == 0 {
                    parent.height = 0;
                }
            }
            let mut at = from;
            while let Some(above) = branches.branches.get_mut(at) {
                above.peers = match join {
                    true => above.peers + peers,
                    false => above.peers.saturating_sub(peers),
                };
                at = above.parent;
            }
        };
        below(self, before, false);
        below(self, parent, true);
        let mut at = parent;
        while let Some(above) = self.branches.get_mut(at) {
            above.height = above.height.max(height.saturating_add(1));
            (height, at) = (above.height, above.parent);
        }
    }

    /// Removes an account that nobody uses. What it used stays in the usage page until its slot
    /// gets another owner.
    pub(crate) fn remove(&mut self, account: AccountId) -> Result<(), Refusal> {
        let branch = self.branches.get(account.0).ok_or(Refusal::UnknownAccount)?;
        if branch.peers > 0 || branch.children > 0 {
            return Err(Refusal::AccountInUse);
        }
        self.adopt(account.0, NOBODY);
        self.branches.remove(account.0);
        if self.home_of(account.0) == self.core {
            self.homes.remove(account.0 / u32::from(self.cores));
            self.exhausted.retain(|(exhausted, _)| *exhausted != account);
        }
        Ok(())
    }

    /// Fills the page from its cursor on.
    pub(crate) fn read(&self, page: &mut AccountPage, now: Instant) {
        page.accounts.clear();
        let mut cursor = page.cursor.take().unwrap_or(0);
        while let Some((id, branch)) = self.branches.next_from(cursor) {
            if page.accounts.len() == page.accounts.capacity().min(ACCOUNTS_PER_PAGE_MAX) {
                page.cursor = Some(cursor);
                return;
            }
            cursor = id + 1;
            let (held, held_volume) = branch.held();
            let is_home = self.home_of(id) == self.core;
            let home = self.homes.get(id / u32::from(self.cores)).filter(|_| is_home);
            page.accounts.push(AccountStatus {
                id: AccountId(id),
                peers: branch.peers,
                held,
                held_volume,
                dropped_rate: branch.dropped_rate,
                dropped_volume: branch.dropped_volume,
                home: home.map(|home| home.status(now)),
            });
        }
    }
}
