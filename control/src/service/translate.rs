//! From what should be to the words of the plane.

use std::collections::BTreeMap;

use ringway_dataplane::command::Exhausted as Then;
use ringway_flow::qos::Rate;
use ringway_proto::AccountId;

use crate::access::projection::PeerPlan;
use crate::access::{AccountPlan, Exhausted, Number, Step, Volume};
use crate::plane::{Account, AccountVolume, Operation};

/// The volumes that were told, because saying an account again says its volume too.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    told: BTreeMap<Number, AccountVolume>,
    last_number: u64,
}

impl Volumes {
    /// Numbers above those that another process gave.
    pub(super) fn begin_above(&mut self, number: u64) {
        self.last_number = self.last_number.max(number);
    }

    /// Whether this is the volume that was told last of the account.
    pub(super) fn is_current(&self, account: Number, volume: u64) -> bool {
        self.told.get(&account).is_some_and(|told| told.number == volume)
    }

    /// The steps in the words of the plane.
    pub(super) fn operations(&mut self, steps: Vec<Step>) -> Vec<Operation> {
        let mut operations = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::PutAccount(plan) => {
                    let account = self.account(&plan);
                    operations
                        .push(Operation::PutAccount(AccountId(plan.number), Box::new(account)));
                }
                Step::RemoveAccount(number) => {
                    self.told.remove(&number);
                    operations.push(Operation::RemoveAccount(AccountId(number)));
                }
                Step::PutPeer(plan) => operations.extend(put_peer(plan)),
                Step::RemovePeer(public) => operations.extend([
                    Operation::Peer(public),
                    Operation::UpdateOnly,
                    Operation::Remove,
                ]),
            }
        }
        operations
    }

    fn account(&mut self, plan: &AccountPlan) -> Account {
        let then = match plan.exhausted {
            Exhausted::Drop => Then::Drop,
            Exhausted::Throttle(bytes_per_second) => {
                Then::Throttle([Rate::of(bytes_per_second); 2])
            }
            Exhausted::Pass => Then::Report,
        };
        match plan.volume {
            Volume::Keep => {}
            Volume::Endless => {
                self.told.remove(&plan.number);
            }
            Volume::Left(bytes) => {
                self.last_number += 1;
                let volume = AccountVolume { number: self.last_number, bytes, then };
                self.told.insert(plan.number, volume);
            }
        }
        let rate = |bytes_per_second: Option<u64>| {
            let rate = Rate::of(bytes_per_second?);
            Some(Rate { burst: plan.burst.unwrap_or(rate.burst), ..rate })
        };
        Account {
            owner: plan.tag,
            parent: plan.parent.map(AccountId),
            rates: [rate(plan.up), rate(plan.down)],
            volume: self.told.get(&plan.number).copied(),
        }
    }
}

fn put_peer(plan: PeerPlan) -> Vec<Operation> {
    let mut steps = vec![
        Operation::Peer(plan.public),
        Operation::Preshared(plan.preshared),
        Operation::Account(Some(AccountId(plan.account))),
        Operation::ReplaceAllowedIps,
    ];
    steps.extend(plan.addresses.into_iter().map(Operation::AllowedIp));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records;

    fn plan(volume: Volume) -> AccountPlan {
        let rate = records::Rate { up_bps: Some(8_000_000), ..records::Rate::default() };
        AccountPlan { volume, exhausted: Exhausted::Drop, ..AccountPlan::of(3, Some(1), rate, 9) }
    }

    fn account(volumes: &mut Volumes, volume: Volume) -> Account {
        match volumes.operations(vec![Step::PutAccount(plan(volume))]).pop() {
            Some(Operation::PutAccount(AccountId(3), account)) => *account,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_account_that_is_said_again_keeps_its_volume_and_another_volume_is_another_number() {
        let mut volumes = Volumes::default();
        volumes.begin_above(40);
        let first = account(&mut volumes, Volume::Left(1000));
        assert_eq!(first.volume.map(|volume| (volume.number, volume.bytes)), Some((41, 1000)));
        assert_eq!(account(&mut volumes, Volume::Keep), first);
        let second = account(&mut volumes, Volume::Left(1000));
        assert_eq!(second.volume.map(|volume| volume.number), Some(42));
        assert_eq!(account(&mut volumes, Volume::Endless).volume, None);
        assert_eq!(account(&mut volumes, Volume::Keep).volume, None);
        assert_eq!(first.rates[0], Some(Rate::of(1_000_000)));
        assert_eq!((first.rates[1], first.owner, first.parent), (None, 9, Some(AccountId(1))));
    }
}
