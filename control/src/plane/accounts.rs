//! Accounts as they were configured, and how the cores are told.
//!
//! Every core gets every account, so all of them refuse the same: what they would refuse is not
//! remembered here, and told all the same, so that whoever asked for it hears why. A volume is told
//! once; saying the same account again gives nothing twice. How much is left is the cores'
//! business.
//!
//! It must not know why an account has the limits that it has.

use std::collections::BTreeMap;

use ringway_dataplane::accounts::{ACCOUNTS_MAX, CHAIN_MAX};
use ringway_dataplane::command::{AccountChange, Command, Exhausted, Volume, VolumeChange};
use ringway_flow::qos::Rate;
use ringway_proto::AccountId;
use ringway_proto::crypto::PublicKey;

use super::{Answer, Edit, Plane, update};

/// An account, as it is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Tag of its slot in the usage pages: whoever reads them knows by it whose they are. 0 if
    /// nothing is counted.
    pub owner: u64,
    /// The account above.
    pub parent: Option<AccountId>,
    /// Limits to exit and to client.
    pub rates: [Option<Rate>; 2],
    /// Bytes that may be used.
    pub volume: Option<AccountVolume>,
}

/// A volume, as it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountVolume {
    /// Another number begins another volume; the same one goes on, whatever else is said of it.
    pub number: u64,
    /// Inner bytes, both directions together.
    pub bytes: u64,
    /// What happens when they are used up.
    pub then: Exhausted,
}

/// What is left of a volume, to go on with in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeLeft {
    /// Whose.
    pub account: AccountId,
    /// Inner bytes.
    pub bytes: u64,
    /// Whether it is used up, and was said to be.
    pub exhausted: bool,
}

#[derive(Debug)]
struct Known {
    account: Account,
    /// Under which the cores know its volume.
    number: u32,
    exhausted: bool,
    children: u32,
    /// Peers that draw on it themselves.
    peers: u32,
    /// Accounts on the longest way down, at most: while there are children it does not shrink.
    height: u8,
}

/// All accounts.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    all: BTreeMap<AccountId, Known>,
    /// Of the last volume that was begun.
    last_number: u32,
}

impl Accounts {
    /// Remembers an account, if the cores will take it. Returns what to tell them.
    fn put(&mut self, id: AccountId, account: Account) -> AccountChange {
        let same = |known: &&Known| {
            let volume = |account: &Account| account.volume.map(|volume| volume.number);
            volume(&known.account) == volume(&account)
        };
        let volume = match (account.volume, self.all.get(&id).filter(same)) {
            (_, Some(_)) => VolumeChange::Keep,
            (None, None) => VolumeChange::Unlimited,
            (Some(AccountVolume { bytes, then, .. }), None) => {
                self.last_number += 1;
                VolumeChange::Begin(Volume { number: self.last_number, bytes, then })
            }
        };
        let Account { owner, parent, rates, .. } = account;
        let change = AccountChange { id, owner, parent, rates, volume };
        if self.may_be(id, parent) {
            self.remember(id, account, volume);
        }
        change
    }

    fn remember(&mut self, id: AccountId, account: Account, volume: VolumeChange) {
        let before = self.all.get(&id).and_then(|known| known.account.parent);
        for (parent, by) in [(before, -1), (account.parent, 1)] {
            if let Some(known) = parent.and_then(|parent| self.all.get_mut(&parent)) {
                known.children = known.children.saturating_add_signed(by);
                if known.children == 0 {
                    known.height = 0;
                }
            }
        }
        let mut height = self.all.get(&id).map_or(0, |known| known.height);
        let mut above = account.parent;
        while let Some(known) = above.and_then(|above| self.all.get_mut(&above)) {
            known.height = known.height.max(height.saturating_add(1));
            (height, above) = (known.height, known.account.parent);
        }
        let fresh =
            Known { account, number: 0, exhausted: false, children: 0, peers: 0, height: 0 };
        let known = self.all.entry(id).or_insert(fresh);
        if volume == VolumeChange::Keep {
            // What the cores were told of the volume holds.
            let kept = known.account.volume;
            known.account = Account { volume: kept, ..account };
            return;
        }
        known.account = account;
        known.exhausted = false;
        if let VolumeChange::Begin(volume) = volume {
            known.number = volume.number;
        }
    }

    /// Whether an account may be below that one: as the cores judge it.
    fn may_be(&self, id: AccountId, parent: Option<AccountId>) -> bool {
        if id.0 >= ACCOUNTS_MAX {
            return false;
        }
        let known = self.all.get(&id);
        if known.is_some_and(|known| known.account.parent == parent) {
            return true;
        }
        if parent == Some(id) {
            return false;
        }
        let below = known.map_or(0, |known| usize::from(known.height));
        let mut above = parent;
        for _ in below + 1..CHAIN_MAX {
            let Some(next) = above else { return true };
            if next == id {
                return false;
            }
            let Some(known) = self.all.get(&next) else { return false };
            above = known.account.parent;
        }
        above.is_none()
    }

    /// A peer draws on the account from now on, or (`by` is -1) no more.
    pub(super) fn count_peer(&mut self, id: Option<AccountId>, by: i32) {
        if let Some(known) = id.and_then(|id| self.all.get_mut(&id)) {
            known.peers = known.peers.saturating_add_signed(by);
        }
    }

    fn forget(&mut self, id: AccountId) {
        let Some(known) = self.all.remove(&id) else { return };
        if let Some(parent) = known.account.parent.and_then(|parent| self.all.get_mut(&parent)) {
            parent.children = parent.children.saturating_sub(1);
            if parent.children == 0 {
                parent.height = 0;
            }
        }
    }
}

impl Plane {
    /// All accounts, in the order of their numbers.
    pub fn accounts(&self) -> impl ExactSizeIterator<Item = (AccountId, &Account)> {
        self.accounts.all.iter().map(|(id, known)| (*id, &known.account))
    }

    /// An account, as configured.
    #[must_use]
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.all.get(&id).map(|known| &known.account)
    }

    /// How many accounts are above an account.
    #[must_use]
    pub fn depth(&self, id: AccountId) -> usize {
        let parent = |id: &AccountId| self.account(*id)?.parent;
        std::iter::successors(parent(&id), parent).take(CHAIN_MAX).count()
    }

    /// Whether the volume of an account is used up, as far as its home has said.
    #[must_use]
    pub fn is_exhausted(&self, id: AccountId) -> bool {
        self.accounts.all.get(&id).is_some_and(|known| known.exhausted)
    }

    /// Goes on with what another process left of volumes. Those that are not known are passed over.
    pub fn resume_volumes(&mut self, volumes: &[VolumeLeft]) -> super::Ticket {
        let first = self.lines.next_sequence();
        for VolumeLeft { account: id, bytes, exhausted } in volumes {
            let Some(known) = self.accounts.all.get_mut(id) else { continue };
            let Some(AccountVolume { then, .. }) = known.account.volume else { continue };
            self.accounts.last_number += 1;
            let number = self.accounts.last_number;
            (known.number, known.exhausted) = (number, *exhausted);
            let volume = Volume { number, bytes: if *exhausted { 0 } else { *bytes }, then };
            let volume = VolumeChange::Begin(volume);
            let Account { owner, parent, rates, .. } = known.account;
            let change = AccountChange { id: *id, owner, parent, rates, volume };
            for core in self.lines.cores() {
                self.lines.push(core, Command::PutAccount(Box::new(change)));
            }
        }
        self.lines.ticket_from(first)
    }

    pub(super) fn put_account(&mut self, id: AccountId, account: Account) {
        let change = self.accounts.put(id, account);
        for core in self.lines.cores() {
            self.lines.push(core, Command::PutAccount(Box::new(change)));
        }
    }

    /// Removes an account that nothing uses. One that is in use stays: the core that has one of its
    /// peers is asked, so that its refusal is heard.
    pub(super) fn remove_account(&mut self, id: AccountId) {
        let known = self.accounts.all.get(&id);
        let in_use = known.is_some_and(|known| known.children > 0);
        // Looked for only if there is one: a hundred thousand accounts may go at once.
        let used = known.is_some_and(|known| known.peers > 0);
        let user = used.then(|| self.peers.values().find(|peer| peer.account == Some(id)));
        if let Some(user) = user.flatten() {
            self.lines.push(user.owner, Command::RemoveAccount(id));
            return;
        }
        if !in_use {
            self.accounts.forget(id);
        }
        for core in self.lines.cores() {
            self.lines.push(core, Command::RemoveAccount(id));
        }
    }

    /// Lets an account limit and meter the peer. One that there is not is told to the core alone,
    /// which refuses it and nothing else. A peer that these steps made goes again, because without
    /// the account nothing would limit or meter it; one that was there keeps the account it had.
    pub(super) fn bind(&mut self, edit: &mut Edit, public: PublicKey, id: Option<AccountId>) {
        if id.is_some_and(|id| !self.accounts.all.contains_key(&id)) {
            let owner = edit.owner;
            if edit.created {
                self.remove(edit);
            } else {
                self.flush(edit);
            }
            let mut change = update(public);
            change.account = Some(id);
            self.lines.push(owner, Command::PutPeer(Box::new(change)));
            return;
        }
        if let Some(peer) = self.peers.get_mut(&public) {
            let before = std::mem::replace(&mut peer.account, id);
            self.accounts.count_peer(before, -1);
            self.accounts.count_peer(id, 1);
        }
        edit.change.account = Some(id);
    }

    /// A home said that a volume is used up.
    pub(super) fn exhausted(&mut self, account: AccountId, number: u32) -> Answer {
        let known = self.accounts.all.get_mut(&account);
        let Some(known) = known.filter(|known| known.number == number) else {
            return Answer::Noted;
        };
        let before = std::mem::replace(&mut known.exhausted, true);
        match known.account.volume {
            Some(volume) if !before => Answer::Exhausted { account, number: volume.number },
            Some(_) | None => Answer::Noted,
        }
    }
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
