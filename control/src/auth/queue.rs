//! A fair, bounded queue: who waits for a thread, in which order.
//!
//! Four priorities, the higher ones first. Within a priority each source has a queue of its own and
//! they are served in turn, so that ten thousand attempts of one source do not stand in front of
//! the first attempt of another. Each source may have so many waiting and no more, and all of a
//! priority together so many; when that is reached, a newcomer takes the place of the newest
//! attempt of the source that has most waiting. Pure: this module must not know threads or time.

use std::collections::{BTreeMap, VecDeque};

use super::reason::Reason;
use super::source::Prefix;

/// What is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Administrators and the API: who mends things must get in.
    Administration,
    /// Sessions that live and must prove themselves again.
    Renewal,
    /// New sign-ins.
    Login,
    /// What nobody waits for.
    Background,
}

impl Priority {
    /// All of them, first served first.
    pub const ALL: [Self; 4] = [Self::Administration, Self::Renewal, Self::Login, Self::Background];

    /// Its name in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Administration => "administration",
            Self::Renewal => "renewal",
            Self::Login => "login",
            Self::Background => "background",
        }
    }

    /// Whether it may use the threads that are kept free of new sign-ins.
    #[must_use]
    pub const fn is_urgent(self) -> bool {
        matches!(self, Self::Administration | Self::Renewal)
    }
}

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Attempts per priority.
    pub total: usize,
    /// Attempts of one source per priority.
    pub per_source: usize,
}

/// The queue.
#[derive(Debug)]
pub struct FairQueue<T> {
    bounds: Bounds,
    classes: [Class<T>; 4],
}

#[derive(Debug)]
struct Class<T> {
    waiting: BTreeMap<Prefix, VecDeque<T>>,
    /// Sources with something waiting, next one first. Each once.
    turns: VecDeque<Prefix>,
    len: usize,
}

impl<T> FairQueue<T> {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let class = |_| Class { waiting: BTreeMap::new(), turns: VecDeque::new(), len: 0 };
        Self { bounds, classes: Priority::ALL.map(class) }
    }

    /// Puts `item` in line. Gives back what had to make room for it.
    ///
    /// # Errors
    ///
    /// The item, and why there is no place for it.
    pub fn push(
        &mut self,
        priority: Priority,
        source: Prefix,
        item: T,
    ) -> Result<Option<T>, (T, Reason)> {
        let Bounds { total, per_source } = self.bounds;
        let class = self.class(priority);
        let own = class.waiting.get(&source).map_or(0, VecDeque::len);
        // This host is one source, and its programs sign in for many users.
        let per_source = if source == Prefix::Local { total } else { per_source };
        if own >= per_source {
            return Err((item, Reason::SourceQueueFull));
        }
        let mut displaced = None;
        if class.len >= total {
            let longest = class.waiting.iter().max_by_key(|(_, queue)| queue.len());
            let Some((&longest, _)) = longest.filter(|(_, queue)| queue.len() > own + 1) else {
                return Err((item, Reason::QueueFull));
            };
            displaced = class.waiting.get_mut(&longest).and_then(VecDeque::pop_back);
            class.len -= usize::from(displaced.is_some());
        }
        class.push(source, item);
        Ok(displaced)
    }

    /// Takes the next one of the priorities that `may` allows.
    pub fn pop(&mut self, may: impl Fn(Priority) -> bool) -> Option<T> {
        let classes = Priority::ALL.into_iter().zip(&mut self.classes);
        classes.filter(|(priority, _)| may(*priority)).find_map(|(_, class)| class.pop())
    }

    /// Takes out all that `is_kept` does not want.
    pub fn retain(&mut self, is_kept: impl Fn(&T) -> bool) {
        for class in &mut self.classes {
            class.waiting.retain(|_, queue| {
                queue.retain(&is_kept);
                !queue.is_empty()
            });
            let Class { waiting, turns, len } = class;
            turns.retain(|source| waiting.contains_key(source));
            *len = waiting.values().map(VecDeque::len).sum();
        }
    }

    /// How many wait, by priority.
    #[must_use]
    pub fn lengths(&self) -> [usize; 4] {
        self.classes.each_ref().map(|class| class.len)
    }

    fn class(&mut self, priority: Priority) -> &mut Class<T> {
        let [administration, renewal, login, background] = &mut self.classes;
        match priority {
            Priority::Administration => administration,
            Priority::Renewal => renewal,
            Priority::Login => login,
            Priority::Background => background,
        }
    }
}

impl<T> Class<T> {
    fn push(&mut self, source: Prefix, item: T) {
        let queue = self.waiting.entry(source).or_default();
        if queue.is_empty() {
            self.turns.push_back(source);
        }
        queue.push_back(item);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<T> {
        let source = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&source)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        self.len -= usize::from(item.is_some());
        item
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::super::source::Source;
    use super::*;

    const BOUNDS: Bounds = Bounds { total: 40, per_source: 10 };

    fn source(number: u32) -> Prefix {
        Source::Address(IpAddr::V4(Ipv4Addr::from_bits(number))).prefix()
    }

    #[test]
    fn ten_thousand_attempts_of_one_source_are_one_place_in_front_of_another() {
        let mut queue = FairQueue::new(BOUNDS);
        let flood = (0..10_000).map(|_| queue.push(Priority::Login, source(1), 1));
        assert_eq!(flood.filter(Result::is_ok).count(), 10);
        queue.push(Priority::Login, source(2), 2).unwrap();
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop(|_| true)).collect();
        assert_eq!(order.iter().position(|who| *who == 2), Some(1));
        assert_eq!(order.len(), 11);
    }

    #[test]
    fn a_full_queue_takes_the_place_of_whoever_has_most() {
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..40 {
            queue.push(Priority::Login, source(number / 10), number).unwrap();
        }
        assert!(matches!(queue.push(Priority::Login, source(9), 99), Ok(Some(_))));
        assert_eq!(queue.lengths(), [0, 0, 40, 0]);
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..40 {
            queue.push(Priority::Login, source(number), number).unwrap();
        }
        let refused = queue.push(Priority::Login, source(99), 99);
        assert_eq!(refused, Err((99, Reason::QueueFull)));
    }

    #[test]
    fn a_crowd_of_new_sign_ins_does_not_stand_before_an_administrator() {
        let mut queue = FairQueue::new(BOUNDS);
        for number in 0..40 {
            queue.push(Priority::Login, source(number), "login").unwrap();
        }
        queue.push(Priority::Renewal, source(1), "renewal").unwrap();
        queue.push(Priority::Administration, source(1), "administration").unwrap();
        assert_eq!(queue.pop(|_| true), Some("administration"));
        assert_eq!(queue.pop(|_| true), Some("renewal"));
        assert_eq!(queue.pop(Priority::is_urgent), None);
        assert_eq!(queue.pop(|_| true), Some("login"));
    }

    proptest! {
        /// Between two services of one source, every other source that waits is served once.
        #[test]
        fn sources_are_served_in_turn(pushes in prop::collection::vec(0_u32..6, 1..60)) {
            let mut queue = FairQueue::new(Bounds { total: 1000, per_source: 1000 });
            for (at, who) in pushes.iter().enumerate() {
                queue.push(Priority::Login, source(*who), (*who, at)).unwrap();
            }
            let order: Vec<(u32, usize)> = std::iter::from_fn(|| queue.pop(|_| true)).collect();
            prop_assert_eq!(order.len(), pushes.len());
            for who in 0..6 {
                let own: Vec<usize> = order.iter().filter(|o| o.0 == who).map(|o| o.1).collect();
                prop_assert!(own.is_sorted());
                let last = order.iter().rposition(|o| o.0 == who).unwrap_or(0);
                for other in (0..6).filter(|other| *other != who) {
                    let before = order.iter().take(last).filter(|o| o.0 == other).count();
                    prop_assert!(before <= own.len(), "{other} before {who}: {before}");
                }
            }
        }

        #[test]
        fn the_length_is_what_can_be_taken(
            steps in prop::collection::vec((0_usize..4, 0_u32..8, any::<bool>()), 0..200),
        ) {
            let mut queue = FairQueue::new(Bounds { total: 12, per_source: 4 });
            let mut expected = 0_usize;
            for (priority, who, is_push) in steps {
                if is_push {
                    let pushed = queue.push(Priority::ALL[priority], source(who), who);
                    expected += usize::from(matches!(pushed, Ok(None)));
                } else {
                    expected -= usize::from(queue.pop(|_| true).is_some());
                }
                prop_assert!(queue.lengths().iter().all(|len| *len <= 12));
                prop_assert_eq!(queue.lengths().iter().sum::<usize>(), expected);
            }
            queue.retain(|who| who % 2 == 0);
            let left: Vec<u32> = std::iter::from_fn(|| queue.pop(|_| true)).collect();
            prop_assert!(left.iter().all(|who| who % 2 == 0));
        }
    }
}
