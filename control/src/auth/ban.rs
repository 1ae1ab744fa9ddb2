//! Who failed too often: a score per source and per user, and how long somebody is kept out.
//!
//! A failure adds points, time takes them away, one per [`POINT_MS`]. Because every score falls at
//! the same speed, it is kept as the moment at which it will be zero, and whoever is nearest to
//! zero is forgotten first when the table is full: an attacker with many addresses cannot make us
//! forget those that failed most. A source counts alone and with its neighbourhood (see
//! [`Source`]), so that many hosts of one site cannot share the work. Whoever is kept out again
//! within a day is kept out twice as long. Root of this host is never kept out, nor is the
//! gateway's own user: it may be the administrator who lifts a ban. Loopback addresses have no
//! score, as a proxy may stand there for everybody: behind one, only users are locked out.
//!
//! Pure: time is an argument, and what must be remembered beyond a restart is returned.

use std::collections::{BTreeMap, BTreeSet};

use super::reason::{Reason, Weight};
use super::source::{Prefix, Source};
use crate::store::records::{Ban, Timestamp};

/// Milliseconds in which a point fades: 30 s. A guess (10 points) is forgotten in 5 minutes, so
/// that who mistypes now and then is never kept out.
pub const POINT_MS: i64 = 30_000;
/// Points of a mistake that happens to honest people: an expired token, a factor left out.
const MISTAKE: u32 = 2;
/// Points of a guess at a secret.
const GUESS: u32 = 10;
/// Points of what no honest client sends: two of these weigh as five guesses.
const ATTACK: u32 = 25;
/// For so long a former ban makes the next one longer.
const OFFENCE_MS: i64 = 86_400_000;
/// A success takes a guess off its source's score at most this often: who owns one account must not
/// wash off guesses at others with it.
const WASH_MS: i64 = 60_000;

/// What it takes to be kept out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanSettings {
    /// Points at which a source is kept out, 10 to 100,000. Default 80: eight wrong passwords at
    /// once.
    pub source_points: u32,
    /// Points at which a neighbourhood (/24, /56) is. Default 400: five hosts that went all the
    /// way.
    pub site_points: u32,
    /// Points at which a user is locked out, wherever the guesses come from. Default 100.
    pub user_points: u32,
    /// Seconds of the first ban of a source. Default 300; doubles each time.
    pub source_first_s: u32,
    /// Seconds of the longest. Default 86,400.
    pub source_longest_s: u32,
    /// Seconds of the first lockout of a user. Default 60; doubles each time.
    pub user_first_s: u32,
    /// Seconds of the longest. Default 900: whoever knows a name can have it locked out, so this
    /// must not last; at ten guesses each 15 minutes a password is not found.
    pub user_longest_s: u32,
    /// Attempts per second of one source, 1 to 1000. Default 10.
    pub source_rate: u32,
    /// Attempts of one source at once before the rate counts. Default 20.
    pub source_burst: u32,
    /// Sources remembered, with their neighbourhoods. Default 65,536: about 10 MB.
    pub sources_max: usize,
    /// User names remembered. Default 65,536: about 12 MB.
    pub users_max: usize,
}

impl Default for BanSettings {
    fn default() -> Self {
        Self {
            source_points: 80,
            site_points: 400,
            user_points: 100,
            source_first_s: 300,
            source_longest_s: 86_400,
            user_first_s: 60,
            user_longest_s: 900,
            source_rate: 10,
            source_burst: 20,
            sources_max: 1 << 16,
            users_max: 1 << 16,
        }
    }
}

/// Why a source may not try now, and when it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptOut {
    /// [`Reason::SourceBanned`] or [`Reason::SourceTooFast`].
    pub reason: Reason,
    /// From when on it may.
    pub until: Timestamp,
}

/// The scores of all.
#[derive(Debug)]
pub struct Bans {
    settings: BanSettings,
    sources: Table<Prefix>,
    users: Table<String>,
}

impl Bans {
    /// Nobody has a score.
    #[must_use]
    pub const fn new(settings: BanSettings) -> Self {
        let sources = Table::new(settings.sources_max);
        let users = Table::new(settings.users_max);
        Self { settings, sources, users }
    }

    /// Whether `source` may try now. Counts the attempt.
    ///
    /// # Errors
    ///
    /// Why not, and until when.
    pub fn admit(&mut self, source: Source, now: Timestamp) -> Result<(), KeptOut> {
        let host = source.prefix();
        if host == Prefix::Local || source.is_shared() {
            return Ok(());
        }
        let banned = |prefix| self.sources.get(&prefix).map_or(0, |entry| entry.banned_until);
        let until = banned(host).max(banned(host.site()));
        if until > now.0 {
            return Err(KeptOut { reason: Reason::SourceBanned, until: Timestamp(until) });
        }
        let step_ms = 1000 / i64::from(self.settings.source_rate.clamp(1, 1000));
        let credit_ms = step_ms * i64::from(self.settings.source_burst.max(1) - 1);
        let mut until = None;
        self.sources.change(host, now, |entry| {
            if entry.paced_until - now.0 > credit_ms {
                until = Some(Timestamp(entry.paced_until - credit_ms));
            } else {
                entry.paced_until = entry.paced_until.max(now.0) + step_ms;
            }
        });
        until.map_or(Ok(()), |until| Err(KeptOut { reason: Reason::SourceTooFast, until }))
    }

    /// Whether `user` is locked out for whoever comes from `source`.
    #[must_use]
    pub fn is_locked_out(&self, user: &str, source: Source, now: Timestamp) -> bool {
        let is_local = source.prefix() == Prefix::Local;
        !is_local && self.users.get(user).is_some_and(|entry| entry.banned_until > now.0)
    }

    /// Counts a failure. Returns who is kept out from now on because of it.
    pub fn failed(
        &mut self,
        source: Source,
        user: Option<&str>,
        reason: Reason,
        now: Timestamp,
    ) -> Vec<Ban> {
        let points = match reason.weight() {
            Weight::None | Weight::Trouble => return Vec::new(),
            Weight::Mistake => MISTAKE,
            Weight::Guess => GUESS,
            Weight::Attack => ATTACK,
        };
        let host = source.prefix();
        if host == Prefix::Local {
            return Vec::new();
        }
        let settings = self.settings;
        let mut bans = Vec::new();
        let mut ban = |subject: String, until: Option<(i64, u32)>| {
            if let Some((until, score)) = until {
                let reason = reason.code().to_owned();
                bans.push(Ban { subject, until: Timestamp(until), score, reason });
            }
        };
        let scores = [(host, settings.source_points), (host.site(), settings.site_points)];
        // A user of this host has no neighbours.
        let alone = if host == host.site() { 1 } else { 2 };
        let counted = if source.is_shared() { 0 } else { alone };
        for (prefix, limit) in scores.into_iter().take(counted) {
            let terms = (limit, settings.source_first_s, settings.source_longest_s);
            let until = self.sources.change(prefix, now, |entry| entry.fail(points, terms, now));
            ban(prefix.to_string(), until);
        }
        // What is nobody's guess says nothing about a user.
        if let Some(user) = user.filter(|_| points >= GUESS) {
            let terms = (settings.user_points, settings.user_first_s, settings.user_longest_s);
            let until =
                self.users.change(user.to_owned(), now, |entry| entry.fail(points, terms, now));
            ban(format!("user:{user}"), until);
        }
        bans
    }

    /// Counts a success: the user's score is gone, the source's falls a little.
    pub fn succeeded(&mut self, source: Source, user: &str, now: Timestamp) {
        let host = source.prefix();
        if host == Prefix::Local {
            return;
        }
        self.users.remove(user);
        for prefix in [host, host.site()] {
            if self.sources.get(&prefix).is_none() {
                continue;
            }
            self.sources.change(prefix, now, |entry| {
                if now.0.saturating_sub(entry.washed_at) >= WASH_MS {
                    entry.empty_at -= i64::from(GUESS) * POINT_MS;
                    entry.washed_at = now.0;
                }
            });
        }
    }

    /// Who is kept out now.
    #[must_use]
    pub fn list(&self, now: Timestamp) -> Vec<Ban> {
        let sources =
            self.sources.entries.iter().map(|(prefix, entry)| (prefix.to_string(), entry));
        let users = self.users.entries.iter().map(|(user, entry)| (format!("user:{user}"), entry));
        let bans = sources.chain(users).filter(|(_, entry)| entry.banned_until > now.0);
        bans.map(|(subject, entry)| Ban {
            subject,
            until: Timestamp(entry.banned_until),
            score: entry.score(now),
            reason: "kept_out".to_owned(),
        })
        .collect()
    }

    /// All scores, for tests that compare them.
    #[cfg(test)]
    pub(super) fn shown(&self) -> String {
        format!("{:?} {:?}", self.sources.entries, self.users.entries)
    }

    /// How many are kept out now.
    #[must_use]
    pub fn count(&self, now: Timestamp) -> usize {
        let is_out = |entry: &&Entry| entry.banned_until > now.0;
        self.sources.entries.values().filter(is_out).count()
            + self.users.entries.values().filter(is_out).count()
    }

    /// Lets `subject` in again and forgets its score. False if it was not kept out.
    pub fn lift(&mut self, subject: &str) -> bool {
        if let Some(user) = subject.strip_prefix("user:") {
            return self.users.remove(user);
        }
        Prefix::parse(subject).is_some_and(|prefix| self.sources.remove(&prefix))
    }

    /// Takes over what was remembered beyond a restart.
    pub fn load(&mut self, bans: &[Ban], now: Timestamp) {
        for ban in bans.iter().filter(|ban| ban.until > now) {
            let restore = |entry: &mut Entry| {
                entry.banned_until = entry.banned_until.max(ban.until.0);
                entry.offences = entry.offences.max(1);
            };
            if let Some(user) = ban.subject.strip_prefix("user:") {
                self.users.change(user.to_owned(), now, restore);
            } else if let Some(prefix) = Prefix::parse(&ban.subject) {
                self.sources.change(prefix, now, restore);
            }
        }
    }
}

/// The score of one.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// When the score is zero.
    empty_at: i64,
    banned_until: i64,
    /// Bans within a day of each other.
    offences: u32,
    /// When the attempts so far are within the rate again.
    paced_until: i64,
    washed_at: i64,
}

impl Entry {
    /// Adds points. If that is one too many: until when it is out, and with which score.
    fn fail(&mut self, points: u32, terms: (u32, u32, u32), now: Timestamp) -> Option<(i64, u32)> {
        let (limit, first_s, longest_s) = terms;
        self.empty_at = self.empty_at.max(now.0) + i64::from(points) * POINT_MS;
        let score = self.score(now);
        if score < limit || self.banned_until > now.0 {
            return None;
        }
        if now.0.saturating_sub(self.banned_until) > OFFENCE_MS {
            self.offences = 0;
        }
        let doubled = u64::from(first_s) << self.offences.min(24);
        let seconds = doubled.min(u64::from(longest_s.max(first_s)));
        self.offences += 1;
        self.banned_until = now.0 + seconds as i64 * 1000;
        // It was paid for; after the ban it begins anew.
        self.empty_at = now.0;
        Some((self.banned_until, score))
    }

    fn score(&self, now: Timestamp) -> u32 {
        // Up to a point of fading between two failures of the same burst does not count.
        let ms = self.empty_at.saturating_sub(now.0).max(0);
        u32::try_from((ms + POINT_MS - 1) / POINT_MS).unwrap_or(u32::MAX)
    }

    /// Until when it matters.
    fn matters_until(&self) -> i64 {
        let offence = if self.offences > 0 { OFFENCE_MS } else { 0 };
        // A wash that is forgotten could be had again at once.
        let washed = if self.washed_at > 0 { self.washed_at.saturating_add(WASH_MS) } else { 0 };
        let banned = self.banned_until.saturating_add(offence);
        self.empty_at.max(banned).max(self.paced_until).max(washed)
    }
}

/// Entries by key, at most so many; what matters for the shortest time goes first.
#[derive(Debug)]
struct Table<K> {
    entries: BTreeMap<K, Entry>,
    order: BTreeSet<(i64, K)>,
    max: usize,
}

impl<K: Ord + Clone> Table<K> {
    const fn new(max: usize) -> Self {
        Self { entries: BTreeMap::new(), order: BTreeSet::new(), max }
    }

    fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Entry>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.entries.get(key)
    }

    fn change<R>(&mut self, key: K, now: Timestamp, change: impl FnOnce(&mut Entry) -> R) -> R {
        let mut entry = self.entries.get(&key).copied().unwrap_or_default();
        self.order.remove(&(entry.matters_until(), key.clone()));
        let result = change(&mut entry);
        self.order.insert((entry.matters_until(), key.clone()));
        self.entries.insert(key, entry);
        self.forget(now);
        result
    }

    fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        let Some((key, entry)) = self.entries.remove_entry(key) else { return false };
        self.order.remove(&(entry.matters_until(), key));
        true
    }

    /// Forgets what matters no more (two at a time, which is faster than entries are made), and
    /// what matters least while there are too many.
    fn forget(&mut self, now: Timestamp) {
        for _ in 0..2 {
            let Some((until, _)) = self.order.first() else { return };
            if *until > now.0 && self.entries.len() <= self.max {
                return;
            }
            if let Some((_, key)) = self.order.pop_first() {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
#[path = "ban_tests.rs"]
mod tests;
