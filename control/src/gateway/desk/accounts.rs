//! Accounts on the control thread: what they have, what they used, whose volume is used up.
//!
//! What accounts used is read from the pages that the cores write it into, at any time and without
//! asking them. What they have is asked of all cores and put together.

use std::collections::BTreeMap;

use ringway_dataplane::command::{
    ACCOUNTS_PER_PAGE_MAX, AccountPage, AccountStatus, Command, HomeStatus,
};
use ringway_link::usage::{Usage, UsageReader};
use ringway_proto::{AccountId, CoreId};
use tokio::sync::mpsc;
use tracing::info;

use super::{Desk, DeskError, Inner};
use crate::plane::{Operation, VolumeLeft};

/// Slots that are given room at once.
const SLOTS_TOGETHER: u32 = 1_024;

/// An account, as all cores together have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// Which.
    pub id: AccountId,
    /// Peers that use it or an account below.
    pub peers: u32,
    /// Bytes that may pass at once, to exit and to client; `None` without a limit.
    pub tokens: [Option<u64>; 2],
    /// Inner bytes left of its volume; `None` without one. While traffic goes on, what is on its
    /// way between cores is missing.
    pub volume_left: Option<u64>,
    /// Whether its volume is used up.
    pub exhausted: bool,
    /// Packets that it let not pass for its rates, to exit and to client.
    pub dropped_rate: [u64; 2],
    /// Packets that it let not pass because its volume is used up.
    pub dropped_volume: u64,
}

/// The volume of an account is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhaustion {
    /// Which account.
    pub account: AccountId,
    /// Number of the volume, as it was configured.
    pub number: u64,
}

impl Desk {
    /// Asks all cores about all accounts, in the order of their numbers.
    ///
    /// # Errors
    /// [`DeskError::Stopping`].
    pub async fn read_accounts(&self) -> Result<Vec<AccountState>, DeskError> {
        let mut all = BTreeMap::new();
        for core in 0..self.cores() {
            let mut cursor = Some(0);
            while cursor.is_some() {
                let accounts = Vec::with_capacity(ACCOUNTS_PER_PAGE_MAX);
                let page = Box::new(AccountPage { cursor, accounts });
                let spent = self.ask(CoreId(core), Command::ReadAccounts(page)).await?;
                let Command::ReadAccounts(page) = spent else {
                    unreachable!("a core gives back what it was asked")
                };
                page.accounts.iter().for_each(|status| add(&mut all, status));
                cursor = page.cursor;
            }
        }
        Ok(all.into_values().collect())
    }

    /// What an account used, on all cores together, as long as its slot has had its tag. `None` if
    /// it has no tag, or no core has counted for it.
    #[must_use]
    pub fn usage(&self, account: AccountId) -> Option<Usage> {
        let inner = self.inner.borrow();
        let owner = inner.plane.account(account)?.owner;
        let counted = inner.lines.iter().filter_map(|line| line.usage.read(account.0));
        counted.filter(|usage| usage.owner == owner).reduce(|all, one| all.plus(&one))
    }

    /// Eyes on what accounts used on each core, in the order of the cores.
    #[must_use]
    pub fn usage_readers(&self) -> Vec<UsageReader> {
        self.inner.borrow().lines.iter().map(|line| line.usage.clone()).collect()
    }

    /// From now on it is heard here which volumes are used up, and nowhere else. What nobody
    /// listens to is only logged.
    pub fn hear_exhaustion(&self) -> mpsc::UnboundedReceiver<Exhaustion> {
        let (tell, heard) = mpsc::unbounded_channel();
        self.inner.borrow_mut().exhaustion = Some(tell);
        heard
    }

    /// What is left of all volumes. Exact while the cores are paused, but for what had found no
    /// parcel by then: that is missing.
    ///
    /// # Errors
    /// [`DeskError::Stopping`].
    pub async fn volumes_left(&self) -> Result<Vec<VolumeLeft>, DeskError> {
        let has_volumes =
            self.with_plane(|plane| plane.accounts().any(|(_, account)| account.volume.is_some()));
        if !has_volumes {
            return Ok(Vec::new());
        }
        let left = |state: &AccountState| {
            let AccountState { id: account, volume_left, exhausted, .. } = *state;
            Some(VolumeLeft { account, bytes: volume_left?, exhausted })
        };
        Ok(self.read_accounts().await?.iter().filter_map(left).collect())
    }

    /// Goes on with what another process left of volumes. To be called before the cores carry
    /// packets.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn resume_volumes(&self, volumes: &[VolumeLeft]) -> Result<(), DeskError> {
        let ticket = self.inner.borrow_mut().plane.resume_volumes(volumes);
        self.pump();
        self.finished(ticket).await
    }
}

impl Inner {
    /// Gives what accounts will use room in the pages, before a core counts there.
    pub(super) fn reserve_usage(&mut self, operations: &[Operation]) -> Result<(), DeskError> {
        let put = |operation: &Operation| {
            if let Operation::PutAccount(id, _) = operation { Some(id.0) } else { None }
        };
        let Some(last) = operations.iter().filter_map(put).max() else { return Ok(()) };
        if last < self.usage_slots {
            return Ok(());
        }
        let slots = last.saturating_add(1).next_multiple_of(SLOTS_TOGETHER);
        for line in &self.lines {
            line.usage.reserve(slots).map_err(DeskError::Usage)?;
        }
        self.usage_slots = slots;
        Ok(())
    }

    pub(super) fn tell_exhausted(&mut self, account: AccountId, number: u64) {
        info!("The volume of account {} is used up", account.0);
        let told = Exhaustion { account, number };
        if self.exhaustion.as_ref().is_some_and(|tell| tell.send(told).is_err()) {
            self.exhaustion = None;
        }
    }
}

fn add(all: &mut BTreeMap<AccountId, AccountState>, status: &AccountStatus) {
    let state = all.entry(status.id).or_insert(AccountState {
        id: status.id,
        peers: 0,
        tokens: [None; 2],
        volume_left: None,
        exhausted: false,
        dropped_rate: [0; 2],
        dropped_volume: 0,
    });
    state.peers += status.peers;
    state.dropped_volume += status.dropped_volume;
    for way in 0..2 {
        state.dropped_rate[way] += status.dropped_rate[way];
        join(&mut state.tokens[way], status.held[way]);
    }
    join(&mut state.volume_left, Some(status.held_volume).filter(|held| *held > 0));
    if let Some(HomeStatus { tokens, volume, exhausted, .. }) = status.home {
        state.tokens.iter_mut().zip(tokens).for_each(|(all, one)| join(all, one));
        join(&mut state.volume_left, volume);
        state.exhausted = exhausted;
    }
}

fn join(all: &mut Option<u64>, one: Option<u64>) {
    if let Some(one) = one {
        *all = Some(all.unwrap_or(0).saturating_add(one));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use ringway_dataplane::command::{Exhausted, Report};

    use super::*;
    use crate::gateway::fake_cores::{desk, on_control_thread};
    use crate::plane::{Account, AccountVolume};

    fn put(id: u32, owner: u64) -> Operation {
        let volume = Some(AccountVolume { number: 40, bytes: 1_000, then: Exhausted::Drop });
        let account = Account { owner, volume, ..Account::default() };
        Operation::PutAccount(AccountId(id), Box::new(account))
    }

    #[test]
    fn what_is_used_is_the_sum_of_all_cores_that_counted_for_this_owner() {
        on_control_thread(async {
            let (desk, told) = desk(3);
            desk.configure(vec![put(5, 77)]).await.unwrap();
            assert_eq!(desk.usage(AccountId(5)), Some(Usage { owner: 77, ..Usage::default() }));
            for (core, owner) in [(0, 77), (1, 77), (2, 78)] {
                let counts = &mut told.usage.borrow_mut()[core];
                counts.set_owner(5, owner);
                counts.count(5, core & 1, 1_000);
            }
            let used = Usage { owner: 77, bytes: [1_000; 2], packets: [1; 2] };
            assert_eq!(desk.usage(AccountId(5)), Some(used));
            assert_eq!(desk.usage(AccountId(6)), None);
        });
    }

    #[test]
    fn whoever_listens_hears_of_each_volume_once() {
        on_control_thread(async {
            let (desk, _told) = desk(2);
            desk.configure(vec![put(2, 1), put(3, 1)]).await.unwrap();
            let mut heard = desk.hear_exhaustion();
            for (core, volume) in [(0, 1), (0, 1), (1, 2), (1, 9)] {
                let account = AccountId(if core == 0 { 2 } else { 3 });
                desk.take_report(CoreId(core), Report::AccountExhausted { account, volume });
            }
            let told = |account| Exhaustion { account: AccountId(account), number: 40 };
            assert_eq!(heard.recv().await, Some(told(2)));
            assert_eq!(heard.recv().await, Some(told(3)));
            assert!(heard.try_recv().is_err());
            // Nobody listens any more.
            drop(heard);
            desk.configure(vec![put(4, 1)]).await.unwrap();
            let account = AccountId(4);
            desk.take_report(CoreId(0), Report::AccountExhausted { account, volume: 3 });
            assert!(desk.with_plane(|plane| plane.is_exhausted(account)));
        });
    }

    #[test]
    fn the_parts_that_cores_hold_add_up() {
        let part = |core: u64, home| AccountStatus {
            id: AccountId(1),
            peers: 1,
            held: [Some(10 + core), None],
            held_volume: 100 + core,
            dropped_rate: [core, 1],
            dropped_volume: 2,
            home,
        };
        let home = HomeStatus {
            tokens: [Some(1_000), None],
            volume_number: 3,
            volume: Some(5_000),
            exhausted: true,
        };
        let mut all = BTreeMap::new();
        [part(1, None), part(2, Some(home)), part(3, None)]
            .iter()
            .for_each(|one| add(&mut all, one));
        assert_eq!(
            all.into_values().collect::<Vec<_>>(),
            [AccountState {
                id: AccountId(1),
                peers: 3,
                tokens: [Some(1_036), None],
                volume_left: Some(5_306),
                exhausted: true,
                dropped_rate: [6, 3],
                dropped_volume: 6,
            }]
        );
    }
}
