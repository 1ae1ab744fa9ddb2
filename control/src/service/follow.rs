//! From the store to the projection: everything at start, then what changes.
//!
//! There is one way a change gets here, whoever made it: the store's list of changes. A bell says
//! that there may be some; without it they are looked for every second, as another gateway of the
//! fleet may have made them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringway_proto::allowed_ips::IpNet;
use tokio::sync::OwnedMutexGuard;
use tracing::{info, warn};

use super::{Service, store_failed};
use crate::access::chain::{Subject, tag};
use crate::access::{Client, Moment, Number, Person, Projection, Rules as InForce};
use crate::directory::effective::{Candidates, Effective};
use crate::directory::quota;
use crate::store::query::{AccessRow, Page};
use crate::store::records::{
    DeviceId, Group, GroupId, Lease, Period, Policy, PolicyId, Rate, UserId,
};
use crate::store::{Db, StoreError};

/// How often changes are looked for that nobody rang for.
const PERIOD: Duration = Duration::from_secs(1);

/// How long to wait after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How long it may take to read everything: 100,000 users take seconds, on a busy machine more.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Rows that are read at once.
const ROWS: u32 = 1_000;

/// The policy that holds where there is no other. The store always has one.
const DEFAULT_POLICY: &str = "default";

/// Policies and groups, and how far changes are known.
#[derive(Debug, Default)]
pub(super) struct Rules {
    policies: BTreeMap<PolicyId, Policy>,
    groups: BTreeMap<GroupId, Group>,
    default: Option<PolicyId>,
    revision: u64,
    /// What was forgiven of the use of whom, in the period that began with which day.
    forgiven: BTreeMap<UserId, (i32, u64)>,
}

/// Everything of the store that matters here.
struct Everything {
    revision: u64,
    policies: Vec<Policy>,
    groups: Vec<Group>,
    rows: Vec<AccessRow>,
    /// What users used since the first day of each period, less what was forgiven.
    used: BTreeMap<Period, BTreeMap<UserId, Used>>,
}

/// What a user used in a period, and how much more it was before a reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    bytes: u64,
    forgiven: u64,
}

impl Service {
    pub(super) async fn follow_store(self: Rc<Self>) {
        while let Err(failure) = self.load().await {
            store_failed("Users and devices are not known yet", &failure);
            tokio::time::sleep(PAUSE).await;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = self.changed.notified() => {}
            }
            if let Err(failure) = self.follow_changes().await {
                store_failed("Changes of the store are not known yet", &failure);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Takes everything in, in the place of whatever was known.
    async fn load(&self) -> Result<(), StoreError> {
        let _still = self.stand_still().await?;
        let day = self.day_of_each_period();
        let everything =
            self.store.read_within(LOAD_TIMEOUT, move |db| everything(db, &day)).await?;
        let now = self.now();
        if !self.loaded.get() {
            let tags = |row: &AccessRow| (tag(row.device.id.0), (row.user.id, row.device.id));
            let devices: BTreeMap<u64, (UserId, DeviceId)> =
                everything.rows.iter().map(tags).collect();
            let (sessions, moved) = self.recover_usage(&devices, now).await?;
            self.adopt(&everything);
            self.recover_sessions(sessions, moved, &everything.rows, now);
        }
        let first = !self.loaded.replace(true);
        self.count_everybody(now);
        self.put_everything(everything, now);
        if first {
            self.remove_unknown_peers().await;
        }
        self.steps.notify_one();
        Ok(())
    }

    fn put_everything(&self, everything: Everything, now: Moment) {
        let Everything { revision, policies, groups, rows, used } = everything;
        let mut projection = self.projection.borrow_mut();
        let mut rules = self.rules.borrow_mut();
        let gone: Vec<GroupId> = {
            let there: BTreeSet<GroupId> = groups.iter().map(|group| group.id).collect();
            rules.groups.keys().filter(|id| !there.contains(id)).copied().collect()
        };
        let default = policies.iter().find(|policy| policy.name == DEFAULT_POLICY);
        *rules = Rules {
            default: default.map(|policy| policy.id),
            policies: policies.into_iter().map(|policy| (policy.id, policy)).collect(),
            groups: groups.into_iter().map(|group| (group.id, group)).collect(),
            revision,
            forgiven: std::mem::take(&mut rules.forgiven),
        };
        projection.set_gateway_rate(self.settings.get().rate);
        for group in rules.groups.values() {
            projection.put_group(group.id, group.rate);
        }
        let mut people: BTreeMap<UserId, Vec<AccessRow>> = BTreeMap::new();
        for row in rows {
            people.entry(row.user.id).or_default().push(row);
        }
        let lost: Vec<UserId> = projection
            .people()
            .map(|person| person.id)
            .filter(|id| !people.contains_key(id))
            .collect();
        lost.into_iter().for_each(|id| projection.remove_person(id, now));
        let count = people.len();
        drop(rules);
        for (id, rows) in people {
            let Some(person) = self.rules.borrow().person(&rows) else { continue };
            let stored = person.rules.quota.map(|quota| {
                let of_period = used.get(&quota.period).and_then(|used| used.get(&id));
                (first_day(quota.period, now), of_period.copied().unwrap_or_default())
            });
            let stored =
                stored.and_then(|(day, used)| self.news_of(&projection, &person, day, used));
            projection.put_person(person, stored, now);
        }
        gone.into_iter().for_each(|id| projection.remove_group(id));
        info!("{count} user(s) with devices are known, as of revision {revision}");
    }

    /// Takes in what has changed.
    async fn follow_changes(&self) -> Result<(), StoreError> {
        loop {
            let revision = self.rules.borrow().revision;
            let changes = self.store.read(move |db| db.changes_since(revision, ROWS)).await?;
            let Some(last) = changes.items.last() else {
                return if changes.lost { self.load().await } else { Ok(()) };
            };
            let last = last.revision;
            let everybody = changes.lost
                || changes.items.iter().any(|change| matches!(&*change.kind, "group" | "policy"));
            if everybody {
                self.load().await?;
                continue;
            }
            let mut users = BTreeSet::new();
            let mut devices = Vec::new();
            for change in &changes.items {
                match &*change.kind {
                    "user" => users.extend(change.id.parse::<UserId>()),
                    "device" | "lease" => devices.extend(change.id.parse::<DeviceId>()),
                    _ => {}
                }
            }
            self.put_changed(users, devices).await?;
            self.rules.borrow_mut().revision = last;
        }
    }

    async fn put_changed(
        &self,
        mut users: BTreeSet<UserId>,
        devices: Vec<DeviceId>,
    ) -> Result<(), StoreError> {
        let mut unknown = Vec::new();
        for device in devices {
            match self.with_projection(|known| known.owner_of(device)) {
                Some(owner) => drop(users.insert(owner)),
                None => unknown.push(device),
            }
        }
        if users.is_empty() && unknown.is_empty() {
            return Ok(());
        }
        let (mut news, now) = (BTreeSet::new(), self.now());
        let found = self.store.read(move |db| {
            let mut users = users.clone();
            for device in &unknown {
                users.extend(db.access_of_device(*device)?.map(|row| row.user.id));
            }
            Found::of_all(db, &users, now)
        });
        for found in found.await? {
            if self.is_news(&found) {
                news.insert(found.id);
            } else {
                self.put_user(&found);
            }
        }
        if !news.is_empty() {
            let _still = self.stand_still().await?;
            let theirs = news.clone();
            let found = self.store.read(move |db| Found::of_all(db, &theirs, now)).await?;
            // Only now: what passes from here on is what the cores may exceed a new quota by.
            self.count_users(&news, self.now());
            found.iter().for_each(|found| self.put_user(found));
        }
        self.steps.notify_one();
        // Whoever lost access is told without waiting for the next tick.
        self.take_notes(self.now());
        Ok(())
    }

    /// Keeps what was counted from being on its way to the store: what is there is neither in the
    /// store's sum nor in what waits here, and would be given twice.
    async fn stand_still(&self) -> Result<OwnedMutexGuard<()>, StoreError> {
        let still = Arc::clone(&self.flushing).lock_owned().await;
        if self.settle_unsure().await {
            return Ok(still);
        }
        let why = "it is not known whether it kept what devices used".to_owned();
        Err(StoreError::Unavailable { why })
    }

    /// Whether the store knows better what a user has used.
    fn is_news(&self, found: &Found) -> bool {
        let rules = self.rules.borrow();
        let Some(quota) = rules.person(&found.rows).and_then(|person| person.rules.quota) else {
            return false;
        };
        let used = found.used.get(&quota.period).copied().unwrap_or_default();
        let day = first_day(quota.period, self.now());
        let projection = self.projection.borrow();
        let known = projection.person(found.id);
        !known.is_some_and(|known| known.rules.quota == Some(quota))
            || rules.forgiven.get(&found.id) != Some(&(day, used.forgiven))
    }

    fn put_user(&self, found: &Found) {
        let now = self.now();
        let person = self.rules.borrow().person(&found.rows);
        let mut projection = self.projection.borrow_mut();
        let Some(person) = person else { return projection.remove_person(found.id, now) };
        let stored = person.rules.quota.and_then(|quota| {
            let used = found.used.get(&quota.period).copied().unwrap_or_default();
            self.news_of(&projection, &person, first_day(quota.period, now), used)
        });
        projection.put_person(person, stored, now);
    }

    /// What a user used of its quota, if the store knows better than the projection: when it is new
    /// there, has another quota, or when what it used was forgiven.
    fn news_of(
        &self,
        projection: &Projection,
        person: &Person,
        day: i32,
        used: Used,
    ) -> Option<u64> {
        let mut rules = self.rules.borrow_mut();
        let before = rules.forgiven.insert(person.id, (day, used.forgiven));
        let known = projection.person(person.id);
        let same = known.is_some_and(|known| known.rules.quota == person.rules.quota)
            && before == Some((day, used.forgiven));
        (!same).then(|| used.bytes + self.measure.borrow().pending_of(person.id, day))
    }

    fn day_of_each_period(&self) -> Vec<(Period, i32)> {
        let now = self.now();
        Period::ALL.iter().map(|period| (*period, first_day(*period, now))).collect()
    }

    /// Accounts of a process before this one keep their numbers: the cores count under them.
    fn adopt(&self, everything: &Everything) {
        let Everything { rows, groups, .. } = everything;
        let limited: BTreeSet<GroupId> = groups
            .iter()
            .filter(|group| group.rate != Rate::default())
            .map(|group| group.id)
            .collect();
        let mut numbers: Vec<(Number, Subject)> = Vec::new();
        let mut last_volume = 0;
        self.desk.with_plane(|plane| {
            let parent = |number: Number| {
                let account = plane.account(ringway_proto::AccountId(number))?;
                account.parent.map(|parent| parent.0)
            };
            for row in rows {
                let Some(account) =
                    plane.peer(&row.device.public_key).and_then(|peer| peer.account)
                else {
                    continue;
                };
                numbers.push((account.0, Subject::Device(row.device.id)));
                let Some(user) = parent(account.0) else { continue };
                numbers.push((user, Subject::User(row.user.id)));
                let Some(above) = parent(user) else { continue };
                match (row.user.group, parent(above)) {
                    (Some(group), Some(gateway)) => {
                        numbers.push((above, Subject::Group(group)));
                        numbers.push((gateway, Subject::Gateway));
                    }
                    // A group without a limit has no account: its users are the gateway's.
                    (Some(group), None) if limited.contains(&group) => {
                        numbers.push((above, Subject::Group(group)));
                    }
                    (Some(_), None) | (None, _) => numbers.push((above, Subject::Gateway)),
                }
            }
            let volumes = plane.accounts().filter_map(|(_, account)| account.volume);
            last_volume = volumes.map(|volume| volume.number).max().unwrap_or(0);
        });
        numbers.sort_unstable();
        numbers.dedup();
        let mut projection = self.projection.borrow_mut();
        for (number, subject) in numbers {
            if !projection.adopt(subject, number) {
                warn!("Account {number} is two of the records: its counters begin anew");
            }
        }
        self.volumes.borrow_mut().begin_above(last_volume);
    }

    /// Peers and accounts of a process before this one that the store knows nothing of are removed.
    async fn remove_unknown_peers(&self) {
        use crate::plane::Operation;
        let mut steps = Vec::new();
        {
            let projection = self.projection.borrow();
            self.desk.with_plane(|plane| {
                let peers = plane
                    .peers()
                    .filter(|(public, peer)| peer.account.is_some() && !projection.is_peer(public));
                for (public, _) in peers {
                    steps.extend([
                        Operation::Peer(*public),
                        Operation::UpdateOnly,
                        Operation::Remove,
                    ]);
                }
                let mut unknown: Vec<_> = plane
                    .accounts()
                    .map(|(id, _)| id)
                    .filter(|id| !projection.knows(id.0))
                    .map(|id| (plane.depth(id), id))
                    .collect();
                // The deepest first: an account that others are below cannot go.
                unknown.sort_unstable_by_key(|(depth, id)| (std::cmp::Reverse(*depth), *id));
                steps.extend(unknown.into_iter().map(|(_, id)| Operation::RemoveAccount(id)));
            });
        }
        if let Err(failure) = self.desk.configure(steps).await {
            warn!("Peers of the process before could not all be removed: {failure}");
        }
    }
}

/// What the store has of one user.
struct Found {
    id: UserId,
    rows: Vec<AccessRow>,
    used: BTreeMap<Period, Used>,
}

impl Found {
    fn of_all(
        db: &mut Db<'_>,
        users: &BTreeSet<UserId>,
        now: Moment,
    ) -> Result<Vec<Self>, StoreError> {
        users.iter().map(|id| Self::of(db, *id, now)).collect()
    }

    fn of(db: &mut Db<'_>, id: UserId, now: Moment) -> Result<Self, StoreError> {
        let rows = db.access_of_user(id)?;
        let used = Period::ALL.iter().map(|period| {
            let day = first_day(*period, now);
            let sum = db.usage_sum(id, day)?;
            Ok((*period, Used::of(db, id, day, sum)?))
        });
        let used = used.collect::<Result<_, StoreError>>()?;
        Ok(Self { id, rows, used })
    }
}

impl Used {
    fn of(db: &mut Db<'_>, id: UserId, day: i32, sum: u64) -> Result<Self, StoreError> {
        let forgiven = quota::forgiven(db, id, day)?;
        Ok(Self { bytes: sum.saturating_sub(forgiven), forgiven })
    }
}

impl Rules {
    /// A user as the projection wants it, from the rows of its devices. None if there are none.
    fn person(&self, rows: &[AccessRow]) -> Option<Person> {
        let first = rows.first()?;
        let user = &first.user;
        let policy = |id: Option<PolicyId>| id.and_then(|id| self.policies.get(&id));
        let candidates = Candidates {
            own: policy(user.policy),
            group: policy(first.group_policy),
            default: policy(self.default)?,
        };
        let group = user.group.and_then(|id| self.groups.get(&id));
        let effective = Effective::resolve(user, group, &candidates);
        Some(Person {
            id: user.id,
            name: user.name.clone(),
            group: user.group,
            state: user.state,
            expires_at: user.expires_at,
            rules: InForce {
                session_rate: effective.session_rate,
                user_rate: effective.user_rate,
                quota: effective.quota,
                idle_timeout_s: effective.idle_timeout_s,
                sessions_max: effective.sessions_max,
                excess: effective.excess,
            },
            clients: rows.iter().map(client).collect(),
        })
    }
}

fn client(row: &AccessRow) -> Client {
    let device = &row.device;
    Client {
        id: device.id,
        name: device.name.clone(),
        public: device.public_key,
        preshared: row.secrets.preshared.clone(),
        addresses: row.lease.as_ref().map(addresses).unwrap_or_default(),
        enabled: device.enabled,
        access_from: device.access_from,
        access_until: device.access_until,
    }
}

fn addresses(lease: &Lease) -> Vec<IpNet> {
    let v4 = lease.address4.map(|address| IpNet::host(address.into()));
    let v6 = lease.address6.map(|address| IpNet::host(address.into()));
    v4.into_iter().chain(v6).collect()
}

/// The first day of the period that this moment is in.
fn first_day(period: Period, now: Moment) -> i32 {
    quota::period(period, now.wall).0
}

fn everything(db: &mut Db<'_>, days: &[(Period, i32)]) -> Result<Everything, StoreError> {
    // The revision first: what changes meanwhile is read again, and nothing is missed.
    let revision = db.revision()?;
    let policies = all(|page| db.policies(page))?;
    let groups = all(|page| db.groups(page))?;
    let mut rows: Vec<AccessRow> = Vec::new();
    loop {
        let more = db.load_access(rows.last().map(|row| row.device.id), ROWS)?;
        let is_last = more.len() < ROWS as usize;
        rows.extend(more);
        if is_last {
            break;
        }
    }
    let mut used: BTreeMap<Period, BTreeMap<UserId, Used>> = BTreeMap::new();
    for (period, day) in days {
        let of_period = used.entry(*period).or_default();
        for (id, sum) in db.usage_sums(*day)? {
            of_period.insert(id, Used::of(db, id, *day, sum)?);
        }
    }
    Ok(Everything { revision, policies, groups, rows, used })
}

/// All pages of a list.
fn all<T>(
    mut page: impl FnMut(&Page) -> Result<crate::store::query::Rows<T>, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let rows = page(&Page { after, limit: ROWS })?;
        items.extend(rows.items);
        match rows.next {
            Some(next) => after = Some(next),
            None => return Ok(items),
        }
    }
}
