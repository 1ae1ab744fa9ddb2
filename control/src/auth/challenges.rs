//! Sign-ins that are half done: what the gate keeps while a client fetches its next factor.
//!
//! The client gets a ticket, 128 random bits that mean nothing elsewhere; everything else stays
//! here. A ticket works once, for the source and the user that it was given to, and for a bounded
//! time. There is a bounded number of them, in all and per source: what is full refuses newcomers,
//! because whoever holds a ticket has proved something and newcomers have not. A gateway that takes
//! a session over does not take these: the client starts anew. Pure: time and randomness are
//! arguments.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;

use super::flow::Flow;
use super::reason::Reason;
use super::source::{Prefix, Source};
use crate::store::records::Timestamp;

/// What a client brings back to go on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub [u8; 16]);

/// How many sign-ins may be half done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChallengeSettings {
    /// In all. Default 4096: about 4 MB.
    pub total_max: usize,
    /// For one source. Default 16; processes of this host share the total.
    pub per_source_max: usize,
    /// Seconds from the first factor to the last, 10 to 3600. Default 300: to find a phone, or to
    /// sign in at a web page.
    pub seconds: u32,
}

impl Default for ChallengeSettings {
    fn default() -> Self {
        Self { total_max: 4096, per_source_max: 16, seconds: 300 }
    }
}

/// The sign-ins that are half done.
#[derive(Debug)]
pub struct Challenges {
    settings: ChallengeSettings,
    held: BTreeMap<Ticket, Held>,
    /// In the order of being put; ends come nearly in that order, and `take` looks at them anyway.
    order: VecDeque<(Timestamp, Ticket)>,
    per_source: BTreeMap<Prefix, usize>,
}

#[derive(Debug)]
struct Held {
    source: Prefix,
    flow: Flow,
    until: Timestamp,
}

impl Challenges {
    /// None yet.
    #[must_use]
    pub const fn new(settings: ChallengeSettings) -> Self {
        Self {
            settings,
            held: BTreeMap::new(),
            order: VecDeque::new(),
            per_source: BTreeMap::new(),
        }
    }

    /// Keeps `flow` for whoever brings `ticket`.
    ///
    /// # Errors
    ///
    /// [`Reason::ChallengesFull`]; [`Reason::ChallengeUnknown`] if its time is over.
    pub fn put(
        &mut self,
        ticket: Ticket,
        source: Source,
        flow: Flow,
        now: Timestamp,
    ) -> Result<(), Reason> {
        self.forget(now);
        let until = flow.began_at.plus_ms(i64::from(self.settings.seconds) * 1000);
        if until <= now {
            return Err(Reason::ChallengeUnknown);
        }
        let source = source.prefix();
        let own = self.per_source.get(&source).copied().unwrap_or(0);
        let is_full = own >= self.settings.per_source_max && source != Prefix::Local;
        if is_full || self.held.len() >= self.settings.total_max {
            return Err(Reason::ChallengesFull);
        }
        self.per_source.insert(source, own + 1);
        self.held.insert(ticket, Held { source, flow, until });
        self.order.push_back((until, ticket));
        Ok(())
    }

    /// Goes on with what `ticket` stands for. It works once, whatever comes of it.
    ///
    /// # Errors
    ///
    /// [`Reason::ChallengeUnknown`] or [`Reason::ChallengeForeign`].
    pub fn take(
        &mut self,
        ticket: Ticket,
        source: Source,
        user: Option<&str>,
        now: Timestamp,
    ) -> Result<Flow, Reason> {
        let held = self.remove(ticket).ok_or(Reason::ChallengeUnknown)?;
        if held.until <= now {
            return Err(Reason::ChallengeUnknown);
        }
        // It may not be known yet who comes.
        let name = held.flow.name();
        let is_same_user = name.is_empty() || user.is_none_or(|user| user == name);
        if held.source != source.prefix() || !is_same_user {
            return Err(Reason::ChallengeForeign);
        }
        Ok(held.flow)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Held> {
        let held = self.held.remove(&ticket)?;
        if let Some(own) = self.per_source.get_mut(&held.source) {
            *own -= 1;
            if *own == 0 {
                self.per_source.remove(&held.source);
            }
        }
        Some(held)
    }

    /// Forgets what is over. What was taken leaves a mark in the order; when there are twice as
    /// many marks as tickets may be, the order is made anew.
    fn forget(&mut self, now: Timestamp) {
        while let Some((_, ticket)) = self.order.pop_front_if(|(until, _)| *until <= now) {
            let is_over = self.held.get(&ticket).is_some_and(|held| held.until <= now);
            if is_over {
                self.remove(ticket);
            }
        }
        if self.order.len() >= self.settings.total_max * 2 {
            let live = self.held.iter().map(|(ticket, held)| (held.until, *ticket));
            let mut live: Vec<(Timestamp, Ticket)> = live.collect();
            live.sort_unstable();
            self.order = live.into();
        }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

impl FromStr for Ticket {
    type Err = Reason;

    fn from_str(text: &str) -> Result<Self, Reason> {
        let is_plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = is_plain.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        bits.map(|bits| Self(bits.to_be_bytes())).ok_or(Reason::ChallengeUnknown)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::store::records::Factor;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const SETTINGS: ChallengeSettings =
        ChallengeSettings { total_max: 20, per_source_max: 4, seconds: 300 };

    fn flow(now: Timestamp) -> Flow {
        Flow::new("ann".to_owned(), vec![Factor::Totp], now).unwrap()
    }

    fn source(number: u32) -> Source {
        Source::Address(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    fn ticket(number: u8) -> Ticket {
        Ticket([number; 16])
    }

    #[test]
    fn a_ticket_works_once_in_time_for_its_source_and_user() {
        let mut challenges = Challenges::new(SETTINGS);
        let put = |challenges: &mut Challenges| {
            challenges.put(ticket(1), source(1), flow(NOW), NOW).unwrap();
        };
        let mut take = |source_number, user, after| {
            put(&mut challenges);
            let now = NOW.plus_ms(after);
            let taken = challenges.take(ticket(1), source(source_number), user, now);
            let again = challenges.take(ticket(1), source(1), None, NOW);
            assert_eq!(again.map(|_| ()).unwrap_err(), Reason::ChallengeUnknown);
            taken.map(|_| ())
        };
        assert_eq!(take(1, None, 0), Ok(()));
        assert_eq!(take(1, Some("ann"), 299_999), Ok(()));
        assert_eq!(take(1, Some("bob"), 0), Err(Reason::ChallengeForeign));
        assert_eq!(take(2, None, 0), Err(Reason::ChallengeForeign));
        assert_eq!(take(1, None, 300_000), Err(Reason::ChallengeUnknown));
        let unknown = challenges.take(ticket(2), source(1), None, NOW);
        assert_eq!(unknown.map(|_| ()).unwrap_err(), Reason::ChallengeUnknown);
    }

    #[test]
    fn asking_again_and_again_does_not_make_it_last_longer() {
        let mut challenges = Challenges::new(SETTINGS);
        let mut flow = flow(NOW);
        for number in 0..30 {
            let now = NOW.plus_ms(i64::from(number) * 10_000);
            challenges.put(ticket(number), source(1), flow, now).unwrap();
            flow = challenges.take(ticket(number), source(1), None, now).unwrap();
        }
        let late = challenges.put(ticket(99), source(1), flow, NOW.plus_ms(300_000));
        assert_eq!(late, Err(Reason::ChallengeUnknown));
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let mut challenges = Challenges::new(SETTINGS);
        let put = |challenges: &mut Challenges, number, from| {
            challenges.put(ticket(number), source(from), flow(NOW), NOW)
        };
        let own = (0..10).filter(|number| put(&mut challenges, *number, 1).is_ok()).count();
        assert_eq!(own, 4);
        assert!(put(&mut challenges, 100, 2).is_ok());
        for number in 101..200 {
            let _ = put(&mut challenges, number, u32::from(number));
        }
        assert_eq!(challenges.len(), 20);
        let later = NOW.plus_ms(300_000);
        assert!(challenges.put(ticket(250), source(1), flow(later), later).is_ok());
        assert_eq!(challenges.len(), 1);
    }

    #[test]
    fn a_ticket_is_read_as_it_was_written() {
        let shown = ticket(0x0a).to_string();
        assert_eq!(shown.parse(), Ok(ticket(0x0a)));
        for wrong in ["", "0a", "+a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a", &format!("{shown}0"), "é"] {
            assert_eq!(wrong.parse::<Ticket>(), Err(Reason::ChallengeUnknown));
        }
    }

    proptest! {
        #[test]
        fn numbers_stay_within_bounds_and_agree(
            steps in prop::collection::vec(
                (any::<u8>(), 0_u32..8, any::<bool>(), 0_i64..40_000),
                0..200,
            ),
        ) {
            let mut challenges = Challenges::new(SETTINGS);
            let mut now = NOW;
            for (number, from, is_put, pause) in steps {
                now = now.plus_ms(pause);
                if is_put && !challenges.held.contains_key(&ticket(number)) {
                    let _ = challenges.put(ticket(number), source(from), flow(now), now);
                } else {
                    let _ = challenges.take(ticket(number), source(from), None, now);
                }
                prop_assert!(challenges.len() <= SETTINGS.total_max);
                prop_assert!(challenges.order.len() <= SETTINGS.total_max * 2);
                let sum: usize = challenges.per_source.values().sum();
                prop_assert_eq!(sum, challenges.len());
                prop_assert!(challenges.per_source.values().all(|own| *own <= 4));
            }
        }
    }
}
