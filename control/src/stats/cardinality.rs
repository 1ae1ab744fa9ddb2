//! The guard of series per session and per user: so many and no more, the largest first.
//!
//! A reader of metrics keeps every series that it ever saw, so who connects must not decide how
//! many there are. What has no series of its own is summed as [`OTHER`], and how many that are is
//! told. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::exposition::bounded;
use super::service::{Live, LiveSession, SESSIONS_MAX};

/// The label of all others together; no user can be called so.
pub const OTHER: &str = "(other)";

/// Sessions and users, the largest apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Sessions with series of their own, the largest first.
    pub sessions: Vec<LiveSession>,
    /// All other sessions together.
    pub sessions_rest: Rest,
    /// Users with series of their own, the largest first.
    pub users: Vec<(String, Moved)>,
    /// All other users together.
    pub users_rest: Rest,
}

/// Bytes from and to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From.
    pub received: u64,
    /// To.
    pub sent: u64,
}

/// What has no series of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// How many.
    pub count: u64,
    /// What they moved.
    pub moved: Moved,
}

impl Moved {
    const fn plus(self, more: Self) -> Self {
        Self {
            received: self.received.saturating_add(more.received),
            sent: self.sent.saturating_add(more.sent),
        }
    }

    const fn bytes(self) -> u64 {
        self.received.saturating_add(self.sent)
    }
}

/// Chooses who is seen apart.
#[must_use]
pub fn choose(live: &Live) -> Chosen {
    let most = live.sessions_max.min(SESSIONS_MAX);
    if most == 0 {
        return Chosen::default();
    }
    let moved = |session: &&LiveSession| Moved { received: session.received, sent: session.sent };
    let mut users: BTreeMap<&str, Moved> = BTreeMap::new();
    for session in &live.sessions {
        let sum = users.entry(&session.user).or_default();
        *sum = sum.plus(moved(&session));
    }
    let mut sessions: Vec<&LiveSession> = live.sessions.iter().collect();
    let sessions_rest = split(&mut sessions, most, moved, |a, b| a.id.cmp(&b.id));
    let mut users: Vec<(&str, Moved)> = users.into_iter().collect();
    let users_rest = split(&mut users, most, |user| user.1, |a, b| a.0.cmp(b.0));
    Chosen {
        sessions: sessions.into_iter().map(shown).collect(),
        sessions_rest,
        users: merged(users),
        users_rest,
    }
}

/// Leaves the `most` largest, in order (those of one size by `tie`), and sums the rest.
fn split<T>(
    all: &mut Vec<T>,
    most: usize,
    moved: impl Fn(&T) -> Moved,
    tie: impl Fn(&T, &T) -> Ordering,
) -> Rest {
    let order = |a: &T, b: &T| moved(b).bytes().cmp(&moved(a).bytes()).then_with(|| tie(a, b));
    let mut rest = Rest::default();
    if all.len() > most {
        // Not all are sorted: what is left out needs no order.
        all.select_nth_unstable_by(most, order);
        for left_out in all.drain(most..) {
            rest.count += 1;
            rest.moved = rest.moved.plus(moved(&left_out));
        }
    }
    all.sort_unstable_by(order);
    rest
}

/// Names that are the same once they are cut share a series.
fn merged(users: Vec<(&str, Moved)>) -> Vec<(String, Moved)> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut merged: Vec<(String, Moved)> = Vec::new();
    for (name, moved) in users {
        let name = label(name);
        match seen.get(&name) {
            Some(at) => merged[*at].1 = merged[*at].1.plus(moved),
            None => {
                seen.insert(name.clone(), merged.len());
                merged.push((name, moved));
            }
        }
    }
    merged
}

fn shown(session: &LiveSession) -> LiveSession {
    LiveSession {
        id: label(&session.id),
        user: label(&session.user),
        device: label(&session.device),
        ..*session
    }
}

/// Somebody's text as a label that is not taken for the rest.
fn label(text: &str) -> String {
    let label = bounded(text);
    if label == OTHER { format!("_{label}") } else { label }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session(number: usize, user: &str, received: u64, sent: u64) -> LiveSession {
        LiveSession {
            id: format!("s{number}"),
            user: user.to_owned(),
            device: "phone".to_owned(),
            received,
            sent,
        }
    }

    #[test]
    fn nobody_is_seen_apart_unless_asked_for() {
        let live = Live { sessions_max: 0, sessions: vec![session(1, "a", 1, 1)] };
        assert_eq!(choose(&live), Chosen::default());
    }

    #[test]
    fn the_largest_are_seen_apart_and_the_rest_is_summed() {
        let sessions = (0..10).map(|n| session(n, ["a", "b", "c"][n % 3], n as u64, 1)).collect();
        let chosen = choose(&Live { sessions_max: 2, sessions });
        let ids: Vec<_> = chosen.sessions.iter().map(|session| session.id.as_str()).collect();
        assert_eq!(ids, ["s9", "s8"]);
        let rest = Rest { count: 8, moved: Moved { received: 28, sent: 8 } };
        assert_eq!(chosen.sessions_rest, rest);
        // a has 0+3+6+9, b 1+4+7, c 2+5+8.
        let users: Vec<_> = chosen.users.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(users, ["a", "c"]);
        assert_eq!(chosen.users_rest.moved.received, 12);
    }

    #[test]
    fn a_user_called_like_the_rest_is_not_taken_for_it() {
        let live = Live { sessions_max: 1, sessions: vec![session(1, OTHER, 1, 1)] };
        assert_eq!(choose(&live).users[0].0, "_(other)");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_more_are_shown_than_may_be(
            moved in proptest::collection::vec((0..4_u8, 0..1000_u64, 0..1000_u64), 0..200),
            sessions_max in 1..50_usize,
        ) {
            let sessions: Vec<_> = moved.iter().enumerate()
                .map(|(n, (user, received, sent))| session(n, &user.to_string(), *received, *sent))
                .collect();
            let chosen = choose(&Live { sessions_max, sessions: sessions.clone() });
            let most = chosen.sessions.len().max(chosen.users.len());
            prop_assert!(most <= sessions_max);
            let sum = |shown: u64, rest: Rest| shown + rest.moved.received;
            let all: u64 = sessions.iter().map(|session| session.received).sum();
            let shown = chosen.sessions.iter().map(|session| session.received).sum();
            prop_assert_eq!(sum(shown, chosen.sessions_rest), all);
            let shown = chosen.users.iter().map(|(_, moved)| moved.received).sum();
            prop_assert_eq!(sum(shown, chosen.users_rest), all);
            let count = chosen.sessions.len() as u64 + chosen.sessions_rest.count;
            prop_assert_eq!(count, sessions.len() as u64);
            prop_assert!(chosen.sessions.is_sorted_by_key(|s| u64::MAX - s.received - s.sent));
        }
    }
}
