//! Addresses for devices: given once, kept until the device is removed.
//!
//! The book proposes, the store decides: an address that somebody has is refused by its unique
//! index, noted in the book, and the next one tried. Before a pool is called full it is read anew,
//! as another gateway may have given something back.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{MutexGuard, PoisonError};

use ringway_proto::crypto::Random as _;

use super::book::{Book, Pair, Plan, Sheet};
use super::effective::Effective;
use super::find::{self, DEFAULT};
use super::refusal::Refusal;
use super::work::Work;
use crate::keys::SystemRandom;
use crate::store::StoreError;
use crate::store::records::{DeviceId, Lease, Pool, PoolId};

/// Addresses that are tried before somebody else is held to be faster. Collisions come only from
/// other gateways, and each one teaches the book.
const TRIES_MAX: u32 = 64;

/// Addresses that an administrator chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// IPv4.
    pub(super) address4: Option<Ipv4Addr>,
    /// IPv6.
    pub(super) address6: Option<Ipv6Addr>,
}

impl Work<'_, '_> {
    /// Gives a new device its addresses, of the pool that holds for its user.
    pub(super) fn lease(
        &mut self,
        device: DeviceId,
        effective: &Effective,
        chosen: Chosen,
    ) -> Result<Lease, Refusal> {
        let pool = match effective.pool {
            Some(id) => self.db.pool(id)?,
            None => find::pool(self.db, DEFAULT).map_err(|_| no_pool())?,
        };
        if chosen != Chosen::default() {
            self.may_choose(&pool, chosen)?;
        }
        let mut is_fresh = self.open_sheet(pool.id, false)?;
        for _ in 0..TRIES_MAX {
            let pair = match self.propose(&pool, chosen) {
                Ok(pair) => pair,
                Err(_) if !is_fresh => {
                    is_fresh = self.open_sheet(pool.id, true)?;
                    continue;
                }
                Err(net) => return Err(full(&pool, &net)),
            };
            let lease = Lease {
                device,
                pool: pool.id,
                address4: pair.0,
                address6: pair.1,
                is_static: chosen != Chosen::default(),
                created_at: self.now,
            };
            match self.db.attempt(|db| db.insert_lease(&lease)) {
                Ok(()) => {
                    self.take(pool.id, pair);
                    return Ok(lease);
                }
                Err(StoreError::Conflict { field, .. }) => {
                    self.learn(pool.id, pair, chosen, field)?;
                }
                Err(other) => return Err(other.into()),
            }
        }
        Err(Refusal::PoolFull(format!(
            "others took every address that was tried of the pool \"{}\": try again",
            pool.name
        )))
    }

    /// Gives a device's addresses back, because it goes.
    pub(super) fn release(&mut self, device: DeviceId) -> Result<(), Refusal> {
        let Some(lease) = self.db.lease_of(device)? else { return Ok(()) };
        self.db.remove_lease(device)?;
        if let Some(sheet) = self.book().sheet(lease.pool) {
            sheet.release((lease.address4, lease.address6));
        }
        Ok(())
    }

    /// Reads a pool anew when it is next asked for.
    pub(super) fn forget_pool(&mut self, pool: PoolId) {
        self.book().forget(pool);
    }

    /// Makes sure that the book has the pool; returns whether it was read just now.
    fn open_sheet(&mut self, pool: PoolId, anew: bool) -> Result<bool, Refusal> {
        if !anew && self.book().sheet(pool).is_some() {
            return Ok(false);
        }
        let record = self.db.pool(pool)?;
        let leased = self.db.leased(pool)?;
        self.book().put(pool, Sheet::new(Plan::new(&record, self.here), &leased));
        Ok(true)
    }

    /// Addresses to try; the error is the prefix that is full.
    fn propose(&self, pool: &Pool, chosen: Chosen) -> Result<Pair, String> {
        let mut draw = |below: u32| {
            let mut bytes = [0; 8];
            SystemRandom.fill(&mut bytes);
            // The bias of the remainder of 64 bits by at most a million is below 2^-44.
            u32::try_from(u64::from_le_bytes(bytes) % u64::from(below.max(1))).unwrap_or(0)
        };
        let mut book = self.book();
        let Some(sheet) = book.sheet(pool.id) else { return Err(pool.name.clone()) };
        let draw: Option<&mut dyn FnMut(u32) -> u32> =
            if pool.random { Some(&mut draw) } else { None };
        // What was chosen need not be free in the book.
        let needs4 = pool.net4.is_some() && chosen.address4.is_none();
        let needs6 = pool.net6.is_some() && chosen.address6.is_none();
        let free = sheet.next_of(needs4, needs6, draw)?;
        Ok((chosen.address4.or(free.0), chosen.address6.or(free.1)))
    }

    /// Refuses an address that is not this pool's to give.
    fn may_choose(&self, pool: &Pool, chosen: Chosen) -> Result<(), Refusal> {
        let plan = Plan::new(pool, self.here);
        let wish = |address4, address6| Lease {
            device: DeviceId::fresh(),
            pool: pool.id,
            address4,
            address6,
            is_static: true,
            created_at: self.now,
        };
        for (pointer, wish) in
            [("/address4", wish(chosen.address4, None)), ("/address6", wish(None, chosen.address6))]
        {
            if !plan.may_have(&wish) {
                return Err(Refusal::field(
                    pointer,
                    format!(
                        "This address cannot be leased from the pool \"{}\": it is outside, or the \
                         network's, the gateway's, or a peer's of the configuration",
                        pool.name
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Notes that somebody has an address after all. One that was chosen is refused.
    fn learn(
        &mut self,
        pool: PoolId,
        pair: Pair,
        chosen: Chosen,
        field: &str,
    ) -> Result<(), Refusal> {
        let refuse = |pointer: &str, address: String| {
            let message = format!("Another device has the address {address}: choose another");
            Err(Refusal::Taken { pointer: pointer.to_owned(), message })
        };
        let pair = match (field, chosen) {
            ("address4", Chosen { address4: Some(four), .. }) => {
                return refuse("/address4", four.to_string());
            }
            ("address6", Chosen { address6: Some(six), .. }) => {
                return refuse("/address6", six.to_string());
            }
            ("address4", _) => (pair.0, None),
            ("address6", _) => (None, pair.1),
            _ => pair,
        };
        if let Some(sheet) = self.book().sheet(pool) {
            sheet.take(pair);
        }
        Ok(())
    }

    fn take(&mut self, pool: PoolId, pair: Pair) {
        self.taken.push((pool, pair));
        if let Some(sheet) = self.book().sheet(pool) {
            sheet.take(pair);
        }
    }

    /// Notes that nothing came of what was taken: the change is undone.
    pub(super) fn untake(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        let mut book = self.book();
        for (pool, pair) in taken {
            if let Some(sheet) = book.sheet(pool) {
                sheet.release(pair);
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every write to the book leaves it usable, so a poisoned lock is as good as any.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(pool: &Pool, net: &str) -> Refusal {
    Refusal::PoolFull(format!(
        "{net} of the pool \"{}\" has no free address: remove devices that nobody uses, make the \
         pool larger, or give the user's policy another pool",
        pool.name
    ))
}

fn no_pool() -> Refusal {
    Refusal::PoolFull(
        "there is no pool \"default\": write pools in [interface], or give the user's policy a pool"
            .to_owned(),
    )
}
