//! Pools: made, changed, listed, removed, and compared with the configuration.
//!
//! A pool lies inside what the interface reaches and has no address in common with another one. It
//! is not made smaller below what is leased: whoever asks learns who is in the way.

use ringway_proto::allowed_ips::IpNet;

use super::actor::Actor;
use super::book::{Plan, Sheet};
use super::find::{self, DEFAULT, changed, expect_version, whole};
use super::input::{Checks, NewPool, PoolPatch};
use super::policies::must_stay;
use super::refusal::Refusal;
use super::surroundings::{Surroundings, holds, overlap};
use super::work::Work;
use super::{Action, Change, Directory};
use crate::store::records::{Lease, Pool, PoolId};
use crate::store::{Db, Page, Rows};

/// How many of those who are in the way are named.
const NAMED: usize = 5;

impl Directory {
    /// Makes a pool.
    ///
    /// # Errors
    /// A wrong input, a prefix that overlaps another or is outside the interface's.
    pub async fn create_pool(&self, actor: &Actor, form: NewPool) -> Result<Pool, Refusal> {
        let pool = form.check(PoolId::fresh(), self.now())?;
        self.change(actor, move |work| {
            fits(work.db, &pool, work.here)?;
            work.db.insert_pool(&pool)?;
            work.did(Action::PoolCreated, &pool.name, whole(&pool))?;
            work.note(Change::Pool(pool.id));
            Ok(pool.clone())
        })
        .await
    }

    /// Changes a pool. With `expected`, only if that is still its version.
    ///
    /// # Errors
    /// A wrong input, a prefix that does not fit, devices whose addresses would be outside, a stale
    /// version.
    pub async fn patch_pool(
        &self,
        actor: &Actor,
        word: &str,
        expected: Option<u64>,
        patch: PoolPatch,
    ) -> Result<Pool, Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let before = find::pool(work.db, &word)?;
            expect_version("pool", before.version, expected)?;
            let after = patch.check(&before)?;
            if before.name == DEFAULT && after.name != DEFAULT {
                return Err(Refusal::Conflict(must_stay("pool", "renamed")));
            }
            write_pool(work, &before, &after)
        })
        .await
    }

    /// Removes a pool from which nothing is leased.
    ///
    /// # Errors
    /// No such pool, the one called `default`, devices with addresses of it, policies that name it,
    /// a stale version.
    pub async fn remove_pool(
        &self,
        actor: &Actor,
        word: &str,
        expected: Option<u64>,
    ) -> Result<(), Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let pool = find::pool(work.db, &word)?;
            expect_version("pool", pool.version, expected)?;
            if pool.name == DEFAULT {
                return Err(Refusal::Conflict(must_stay("pool", "removed")));
            }
            work.db.remove_pool(pool.id)?;
            work.forget_pool(pool.id);
            work.did(Action::PoolRemoved, &pool.name, whole(&pool))?;
            work.note(Change::Pool(pool.id));
            Ok(())
        })
        .await
    }

    /// A pool by name or identifier, and how many more clients find an address in it.
    ///
    /// # Errors
    /// No such pool.
    pub async fn pool(&self, word: &str) -> Result<(Pool, u64), Refusal> {
        let (word, here) = (word.to_owned(), self.surroundings());
        self.look(move |db| {
            let pool = find::pool(db, &word)?;
            let free = Sheet::new(Plan::new(&pool, &here), &db.leased(pool.id)?).free();
            Ok((pool, free))
        })
        .await
    }

    /// Pools by name.
    ///
    /// # Errors
    /// A page that makes no sense.
    pub async fn pools(&self, page: Page) -> Result<Rows<Pool>, Refusal> {
        self.look(move |db| Ok(db.pools(&page)?)).await
    }

    /// Leases of a pool.
    ///
    /// # Errors
    /// No such pool, or a page that makes no sense.
    pub async fn leases(&self, word: &str, page: Page) -> Result<Rows<Lease>, Refusal> {
        let word = word.to_owned();
        self.look(move |db| {
            let pool = find::pool(db, &word)?;
            Ok(db.leases(pool.id, &page)?)
        })
        .await
    }

    /// Makes the pool `default` say what `[interface] pools` says now, at start and after a reload.
    /// Without pools in the configuration nothing happens.
    ///
    /// # Errors
    /// Devices whose addresses would be outside, or another pool in the way. Nothing is changed
    /// then.
    pub async fn take_configured_pools(&self) -> Result<(), Refusal> {
        let (fresh, now) = (PoolId::fresh(), self.now());
        self.change(&Actor::gateway(), move |work| {
            let Some(wished) = configured(work.here, fresh, now) else { return Ok(()) };
            let Some(before) = work.db.pool_by_name(DEFAULT)? else {
                fits(work.db, &wished, work.here)?;
                work.db.insert_pool(&wished)?;
                work.did(Action::PoolCreated, DEFAULT, whole(&wished))?;
                work.note(Change::Pool(wished.id));
                return Ok(());
            };
            let mut after = before.clone();
            let moved = (&after.net4, &after.net6) != (&wished.net4, &wished.net6);
            (after.net4, after.net6) = (wished.net4, wished.net6);
            if moved && !range_fits(&after) {
                after.range4 = None;
            }
            write_pool(work, &before, &after)?;
            Ok(())
        })
        .await
    }

    /// Judges whether pools and leases fit to what a configuration would say, before it is taken:
    /// each line of the answer is something that does not.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn check_surroundings(&self, here: Surroundings) -> Result<Vec<String>, Refusal> {
        self.look(move |db| {
            let mut wrong = Vec::new();
            for pool in all_pools(db)? {
                if pool.name == DEFAULT {
                    // It will follow the configuration.
                    let wished = configured(&here, pool.id, pool.created_at).unwrap_or(pool);
                    wrong.extend(in_the_way(db, &wished, &here)?);
                    continue;
                }
                wrong.extend(nets(&pool).filter(|(_, net)| !here.reaches(*net)).map(|(_, net)| {
                    format!("The pool \"{}\" is {net}, outside [interface] addresses", pool.name)
                }));
                wrong.extend(in_the_way(db, &pool, &here)?);
            }
            Ok(wrong)
        })
        .await
    }
}

/// Refuses a configuration whose pools hold fewer clients than it promises. `range4` is the range
/// of the pool `default`, if it has one.
///
/// # Errors
/// [`Refusal::PoolFull`] with both numbers and what to do.
pub fn keeps_promise(pool: &Pool, here: &Surroundings) -> Result<(), Refusal> {
    let holds = Sheet::new(Plan::new(pool, here), &[]).free();
    let promised = u64::from(here.peers_max).saturating_sub(here.peers.len() as u64);
    if holds >= promised {
        return Ok(());
    }
    Err(Refusal::PoolFull(format!(
        "the pool \"{}\" holds {holds} clients and peers_max promises {promised} beside the peers \
         of the file: write a larger pool in [interface], or peers_max = {} in [limits]",
        pool.name,
        holds + here.peers.len() as u64
    )))
}

/// The pool `default` as the configuration says it.
fn configured(
    here: &Surroundings,
    id: PoolId,
    now: crate::store::records::Timestamp,
) -> Option<Pool> {
    (here.pool4.is_some() || here.pool6.is_some()).then(|| Pool {
        id,
        name: DEFAULT.to_owned(),
        net4: here.pool4.map(|net| net.to_string()),
        net6: here.pool6.map(|net| net.to_string()),
        range4: None,
        random: false,
        created_at: now,
        version: 1,
    })
}

fn write_pool(work: &mut Work<'_, '_>, before: &Pool, after: &Pool) -> Result<Pool, Refusal> {
    if after == before {
        return Ok(after.clone());
    }
    fits(work.db, after, work.here)?;
    if let Some(blocked) = in_the_way(work.db, after, work.here)? {
        return Err(Refusal::InUse(blocked));
    }
    let stored = work.db.update_pool(after)?;
    work.forget_pool(stored.id);
    work.did(Action::PoolChanged, &stored.name, changed(before, &stored))?;
    work.note(Change::Pool(stored.id));
    Ok(stored)
}

/// Refuses a pool that overlaps another, is not reached through the interface, or is all taken.
fn fits(db: &mut Db<'_>, pool: &Pool, here: &Surroundings) -> Result<(), Refusal> {
    let mut checks = Checks::default();
    let others = all_pools(db)?;
    for (pointer, net) in nets(pool) {
        if !here.reaches(net) {
            let prefixes: Vec<String> = here.addresses.iter().map(ToString::to_string).collect();
            let prefixes = prefixes.join(", ");
            let message = format!("{net} is not inside the interface's prefixes ({prefixes})");
            checks.wrong(pointer, message);
        }
        for other in others.iter().filter(|other| other.id != pool.id) {
            if let Some((_, theirs)) = nets(other).find(|(_, theirs)| overlap(net, *theirs)) {
                let message = format!("{net} overlaps {theirs} of the pool \"{}\"", other.name);
                checks.wrong(pointer, message);
            }
        }
        for peer in &here.peers {
            if let Some(theirs) = peer.nets.iter().find(|theirs| holds(**theirs, net)) {
                let name = peer.name.escape_debug();
                let message = format!("All of {net} belongs to the peer \"{name}\" ({theirs})");
                checks.wrong(pointer, message);
            }
        }
    }
    checks.finish()
}

/// Who has an address of the pool that `pool`, as it would be, does not lease; a line if there are
/// some.
fn in_the_way(
    db: &mut Db<'_>,
    pool: &Pool,
    here: &Surroundings,
) -> Result<Option<String>, Refusal> {
    let plan = Plan::new(pool, here);
    let mut page = Page::first();
    let (mut names, mut count) = (Vec::new(), 0_usize);
    loop {
        let rows = db.leases(pool.id, &page)?;
        for lease in rows.items.iter().filter(|lease| !plan.may_have(lease)) {
            count += 1;
            if names.len() < NAMED {
                names.push(holder(db, lease)?);
            }
        }
        let Some(next) = rows.next else { break };
        page.after = Some(next);
    }
    let more = count.saturating_sub(names.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Ok((count > 0).then(|| {
        format!(
            "The pool \"{}\" would no longer hold the addresses of {}{more}: remove these devices \
             first, or keep their addresses inside",
            pool.name,
            names.join(", ")
        )
    }))
}

fn holder(db: &mut Db<'_>, lease: &Lease) -> Result<String, Refusal> {
    let device = db.device(lease.device)?;
    let user = db.user(device.user)?;
    let four = lease.address4.map(|address| address.to_string());
    let addresses: Vec<String> =
        four.into_iter().chain(lease.address6.map(|address| address.to_string())).collect();
    Ok(format!("{}/{} ({})", user.name, device.name, addresses.join(", ")))
}

fn all_pools(db: &mut Db<'_>) -> Result<Vec<Pool>, Refusal> {
    let (mut all, mut page) = (Vec::new(), Page::first());
    loop {
        let rows = db.pools(&page)?;
        all.extend(rows.items);
        let Some(next) = rows.next else { return Ok(all) };
        page.after = Some(next);
    }
}

fn nets(pool: &Pool) -> impl Iterator<Item = (&'static str, IpNet)> {
    let read = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
    let four = read(&pool.net4).map(|net| ("/net4", net));
    four.into_iter().chain(read(&pool.net6).map(|net| ("/net6", net)))
}

fn range_fits(pool: &Pool) -> bool {
    let Some((first, last)) = pool.range4 else { return true };
    nets(pool).any(|(_, net)| net.contains(first) && net.contains(last))
}
