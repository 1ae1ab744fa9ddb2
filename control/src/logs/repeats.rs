//! Lines that are said again and again, said a few times only.
//!
//! Each place in the program, and each reason there, may say so many lines in a while; what is more
//! is counted, and the count is said when the while is over. A caller outside can make the program
//! say the same thing for ever, and must not fill the disk with it. Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

/// Who repeats itself: a place in the program, and the reason that it gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The place: its file and line.
    pub place: (&'static str, u32),
    /// The reason, if the line has one.
    pub reason: Option<String>,
}

/// How much may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Lines of one key in one period; 0 for no limit.
    pub lines: u32,
    /// How long it is.
    pub period: Duration,
}

impl Default for Allowance {
    /// Twenty lines a minute: a person sees that it goes on, and a day of a flood is 3 MB.
    fn default() -> Self {
        Self { lines: 20, period: Duration::from_secs(60) }
    }
}

/// Keys that are told apart. Places are as many as the program has; reasons come from closed lists,
/// and what exceeds this shares the key of its place.
const KEYS_MAX: usize = 1024;

/// What was said lately.
#[derive(Debug, Default)]
pub struct Repeats {
    allowance: Allowance,
    said: BTreeMap<Key, Said>,
    left_out: u64,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    /// When the period began, since any moment that stays the same.
    since: Duration,
    lines: u32,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is said, after saying that so many like it were left out.
    Say {
        /// How many.
        left_out: u64,
    },
    /// It is counted.
    LeaveOut,
}

impl Repeats {
    /// Nothing was said yet.
    #[must_use]
    pub const fn new(allowance: Allowance) -> Self {
        Self { allowance, said: BTreeMap::new(), left_out: 0 }
    }

    /// Decides about a line at `now`.
    pub fn judge(&mut self, mut key: Key, now: Duration) -> Verdict {
        let Allowance { lines, period } = self.allowance;
        if lines == 0 {
            return Verdict::Say { left_out: 0 };
        }
        if self.said.len() >= KEYS_MAX && !self.said.contains_key(&key) {
            key.reason = None;
        }
        let fresh = Said { since: now, lines: 0, left_out: 0 };
        let said = self.said.entry(key).or_insert(fresh);
        let mut left_out = 0;
        if now.saturating_sub(said.since) >= period {
            left_out = said.left_out;
            *said = fresh;
        }
        if said.lines >= lines {
            said.left_out += 1;
            self.left_out += 1;
            return Verdict::LeaveOut;
        }
        said.lines += 1;
        Verdict::Say { left_out }
    }

    /// Takes the keys whose period is over and that left something out, with the count. Called now
    /// and then, so that the count is said also if nothing like it comes any more.
    pub fn take_over(&mut self, now: Duration) -> Vec<(Key, u64)> {
        let period = self.allowance.period;
        let mut over = Vec::new();
        self.said.retain(|key, said| {
            let lives = now.saturating_sub(said.since) < period;
            if !lives && said.left_out > 0 {
                over.push((key.clone(), said.left_out));
            }
            lives
        });
        over
    }

    /// Takes every count, whatever its period: the end is near.
    pub fn take_all(&mut self) -> Vec<(Key, u64)> {
        let said = std::mem::take(&mut self.said);
        let counted = said.into_iter().filter(|(_, said)| said.left_out > 0);
        counted.map(|(key, said)| (key, said.left_out)).collect()
    }

    /// Lines that were left out so far.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn key(line: u32, reason: &str) -> Key {
        Key { place: ("a.rs", line), reason: Some(reason.to_owned()) }
    }

    fn repeats(lines: u32) -> Repeats {
        Repeats::new(Allowance { lines, period: 60 * S })
    }

    #[test]
    fn the_first_few_are_said_and_the_rest_is_counted_and_told() {
        for allowed in [1, 3, 20] {
            let mut repeats = repeats(allowed);
            for _ in 0..allowed {
                assert_eq!(repeats.judge(key(1, "a"), S), Verdict::Say { left_out: 0 });
            }
            for _ in 0..5 {
                assert_eq!(repeats.judge(key(1, "a"), 60 * S), Verdict::LeaveOut);
            }
            assert_eq!(repeats.judge(key(1, "a"), 61 * S), Verdict::Say { left_out: 5 });
            assert_eq!(repeats.left_out(), 5);
        }
    }

    #[test]
    fn other_places_and_other_reasons_are_not_silenced() {
        let mut repeats = repeats(1);
        assert_eq!(repeats.judge(key(1, "a"), S), Verdict::Say { left_out: 0 });
        assert_eq!(repeats.judge(key(1, "a"), S), Verdict::LeaveOut);
        assert_eq!(repeats.judge(key(1, "b"), S), Verdict::Say { left_out: 0 });
        assert_eq!(repeats.judge(key(2, "a"), S), Verdict::Say { left_out: 0 });
    }

    #[test]
    fn a_count_is_told_also_if_nothing_follows() {
        let mut repeats = repeats(1);
        for _ in 0..4 {
            repeats.judge(key(1, "a"), S);
        }
        repeats.judge(key(2, "b"), S);
        assert!(repeats.take_over(60 * S).is_empty());
        assert_eq!(repeats.take_over(61 * S), [(key(1, "a"), 3)]);
        assert!(repeats.take_over(100 * S).is_empty(), "a count is told once");
        for _ in 0..3 {
            repeats.judge(key(1, "a"), 200 * S);
        }
        assert_eq!(repeats.take_all(), [(key(1, "a"), 2)]);
    }

    #[test]
    fn made_up_reasons_take_no_memory_without_bound() {
        let mut repeats = repeats(1);
        for number in 0..10 * KEYS_MAX {
            repeats.judge(key(1, &number.to_string()), S);
        }
        assert!(repeats.said.len() <= KEYS_MAX + 1);
        assert!(repeats.left_out() > 0);
    }

    #[test]
    fn no_limit_means_that_all_is_said() {
        let mut repeats = repeats(0);
        assert!((0..1000).all(|_| repeats.judge(key(1, "a"), S) != Verdict::LeaveOut));
    }
}
