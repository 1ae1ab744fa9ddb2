//! From the store to the projection: everything at start, then what changes.
//!
//! There is one way a change gets here, whoever made it: the store's list of changes. A bell says
//! that there may be some; without it they are looked for every second, as another gateway of the
//! fleet may have made them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ringway_proto::allowed_ips::IpNet;
use tracing::{info, warn};

use super::{Service, store_failed};
use crate::access::chain::{Subject, tag};
use crate::access::projection::quota::bounds;
use crate::access::{Client, Moment, Number, Person, Rules as InForce};
use crate::directory::effective::{Candidates, Effective};
use crate::store::records::{DeviceId, Group, GroupId, Lease, Period, Policy, PolicyId, UserId};
use crate::store::StoreError;
use crate::store::query::{AccessRow, Page};

/// How often changes are looked for that nobody rang for.
const PERIOD: Duration = Duration::from_secs(1);

/// How long to wait after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Rows that are read at once.
const ROWS: u32 = 1_000;

const DAY_MS: i64 = 86_400_000;

/// The policy that holds where there is no other. The store always has one.
const DEFAULT_POLICY: &str = "default";

/// Policies and groups, and how far changes are known.
#[derive(Debug, Default)]
pub(super) struct Rules {
    policies: BTreeMap<PolicyId, Policy>,
    groups: BTreeMap<GroupId, Group>,
    default: Option<PolicyId>,
    revision: u64,
}

/// Everything of the store that matters here.
struct Everything {
    revision: u64,
    policies: Vec<Policy>,
    groups: Vec<Group>,
    rows: Vec<AccessRow>,
    /// What users used since the first day of each period.
    used: BTreeMap<Period, BTreeMap<UserId, u64>>,
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
        let day = self.day_of_each_period();
        let everything = self.store.read(move |db| everything(db, &day)).await?;
        let now = self.now();
        if !self.loaded.get() {
            let tags = |row: &AccessRow| (tag(row.device.id.0), (row.user.id, row.device.id));
            let devices: BTreeMap<u64, (UserId, DeviceId)> =
                everything.rows.iter().map(tags).collect();
            self.recover_usage(&devices, now).await?;
            self.adopt(&everything.rows);
        }
        let first = !self.loaded.replace(true);
        self.put_everything(everything, now);
        if first {
            self.remove_unknown_peers().await;
        }
        self.steps.notify_one();
        Ok(())
    }

    fn put_everything(&self, everything: Everything, now: Moment) {
        let Everything { revision, policies, groups, rows, used } = everything;
        let mut rules = self.rules.borrow_mut();
        let mut projection = self.projection.borrow_mut();
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
        for (id, rows) in people {
            let Some(person) = rules.person(&rows) else { continue };
            let stored = person.rules.quota.map(|quota| {
                let of_period = used.get(&quota.period).and_then(|used| used.get(&id));
                let day = first_day(quota.period, now);
                of_period.copied().unwrap_or(0) + self.measure.borrow().pending_of(id, day)
            });
            // What is known of somebody who is there already is newer.
            let stored = stored.filter(|_| {
                projection.person(id).is_none_or(|before| before.rules.quota != person.rules.quota)
            });
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
        let unknown: Vec<DeviceId> = {
            let projection = self.projection.borrow();
            devices
                .into_iter()
                .filter(|device| match projection.owner_of(*device) {
                    Some(owner) => !users.insert(owner) && false,
                    None => true,
                })
                .collect()
        };
        if users.is_empty() && unknown.is_empty() {
            return Ok(());
        }
        let found = self.store.read(move |db| {
            let mut users = users.clone();
            for device in &unknown {
                users.extend(db.access_of_device(*device)?.map(|row| row.user.id));
            }
            let rows = |id: UserId| Ok((id, db.access_of_user(id)?));
            users.into_iter().map(rows).collect::<Result<Vec<_>, StoreError>>()
        });
        for (id, rows) in found.await? {
            self.put_user(id, &rows).await?;
        }
        self.steps.notify_one();
        // Whoever lost access is told without waiting for the next tick.
        self.take_notes(self.now());
        Ok(())
    }

    async fn put_user(&self, id: UserId, rows: &[AccessRow]) -> Result<(), StoreError> {
        let person = self.rules.borrow().person(rows);
        let Some(person) = person else {
            self.projection.borrow_mut().remove_person(id, self.now());
            return Ok(());
        };
        let quota = person.rules.quota;
        let changed = self.with_projection(|projection| {
            projection.person(id).is_none_or(|before| before.rules.quota != quota)
        });
        let used = match quota.filter(|_| changed) {
            Some(quota) => Some(self.used_since(id, first_day(quota.period, self.now())).await?),
            None => None,
        };
        self.projection.borrow_mut().put_person(person, used, self.now());
        Ok(())
    }

    /// What a user used since a day, also what the store does not know of yet.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn used_since(&self, id: UserId, day: i32) -> Result<u64, StoreError> {
        let pending = self.measure.borrow().pending_of(id, day);
        let stored = self.store.read(move |db| db.usage_sum(id, day)).await?;
        // What was entered between the two is in both, or in none: it is small, and follows.
        Ok(stored + pending)
    }

    fn day_of_each_period(&self) -> Vec<(Period, i32)> {
        let now = self.now();
        Period::ALL.iter().map(|period| (*period, first_day(*period, now))).collect()
    }

    /// Accounts of a process before this one keep their numbers: the cores count under them.
    fn adopt(&self, rows: &[AccessRow]) {
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
                    (Some(group), None) => numbers.push((above, Subject::Group(group))),
                    (None, _) => numbers.push((above, Subject::Gateway)),
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

/// The first day of the period that lies at this moment.
pub(super) fn first_day(period: Period, now: Moment) -> i32 {
    let (first, _) = bounds(period, now.wall);
    i32::try_from(first.0.div_euclid(DAY_MS)).unwrap_or(0)
}

fn everything(
    db: &mut crate::store::Db<'_>,
    days: &[(Period, i32)],
) -> Result<Everything, StoreError> {
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
    let used =
        days.iter().map(|(period, day)| Ok((*period, db.usage_sums(*day)?.into_iter().collect())));
    let used = used.collect::<Result<BTreeMap<_, _>, StoreError>>()?;
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
