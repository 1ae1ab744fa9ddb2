//! Lists of CPUs or nodes as the kernel and the operator write them: `0-3,8,10-12`.
//!
//! The order of the operator is kept, because the first worker goes to the first CPU of the list.
//! This module must not know what the numbers stand for.

use std::fmt;
use std::str::FromStr;

/// Numbers from this on are refused: no kernel has as many CPUs, and a typing error must not make a
/// list of a billion entries.
const NUMBERS_MAX: u32 = 8192;

/// Numbers in the order they were written, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(Vec<u32>);

/// Why a text is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A part is neither a number nor a range.
    #[error("{0:?} is no number and no range; write a list such as 0-3,8,10-12")]
    Malformed(String),
    /// A range ends before it begins.
    #[error("Range {0:?} ends before it begins")]
    Reversed(String),
    /// A number that cannot be meant.
    #[error("{0} is beyond {max}", max = NUMBERS_MAX - 1)]
    Beyond(u32),
    /// The same number twice.
    #[error("{0} is listed twice")]
    Twice(u32),
}

impl CpuList {
    /// The numbers, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// Whether `number` is in the list.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        self.0.contains(&number)
    }

    /// Whether nothing is in the list.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// A mask as the kernel writes it: `00000001,000000ff`, most significant word first.
    ///
    /// # Errors
    /// If a word is not hexadecimal or there are too many.
    pub fn from_mask(mask: &str) -> Result<Self, ListError> {
        let words: Vec<_> = mask.trim().split(',').collect();
        if words.len() > NUMBERS_MAX as usize / 32 {
            return Err(ListError::Beyond(NUMBERS_MAX));
        }
        let mut list = Vec::new();
        for (word, first) in words.iter().rev().zip((0..).step_by(32)) {
            let bits = u32::from_str_radix(word, 16)
                .map_err(|_| ListError::Malformed((*word).to_owned()))?;
            list.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| first + bit));
        }
        Ok(Self(list))
    }
}

impl FromIterator<u32> for CpuList {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut list = Self::default();
        for number in numbers {
            if !list.contains(number) {
                list.0.push(number);
            }
        }
        list
    }
}

impl FromStr for CpuList {
    type Err = ListError;

    /// Parses a list. An empty text is an empty list, as in the kernel's files.
    fn from_str(text: &str) -> Result<Self, ListError> {
        let mut list = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(list);
        }
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first, part)?, number(last, part)?);
            if last < first {
                return Err(ListError::Reversed(part.trim().to_owned()));
            }
            for number in first..=last {
                if list.contains(number) {
                    return Err(ListError::Twice(number));
                }
                list.0.push(number);
            }
        }
        Ok(list)
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a.checked_add(1) == Some(*b));
        for (number, run) in runs.enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [only] => write!(f, "{comma}{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

fn number(digits: &str, part: &str) -> Result<u32, ListError> {
    let digits = digits.trim();
    // `parse` would accept a sign.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ListError::Malformed(part.trim().to_owned()));
    }
    let number = digits.parse().unwrap_or(u32::MAX);
    if number < NUMBERS_MAX { Ok(number) } else { Err(ListError::Beyond(number)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Vec<u32>, ListError> {
        text.parse::<CpuList>().map(|list| list.0)
    }

    #[test]
    fn ranges_and_numbers_are_read_in_the_order_of_the_operator() {
        assert_eq!(parse("0-3,8,10-12"), Ok(vec![0, 1, 2, 3, 8, 10, 11, 12]));
        assert_eq!(parse("4, 0-1\n"), Ok(vec![4, 0, 1]));
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("7-7"), Ok(vec![7]));
    }

    #[test]
    fn a_wrong_list_is_refused_with_the_part_that_is_wrong() {
        for part in ["x", "", "1-", "-1", "1-2-3", "+1", "1 2", "0x3"] {
            assert_eq!(parse(&format!("0,{part}")), Err(ListError::Malformed(part.to_owned())));
        }
        assert_eq!(parse("3-1"), Err(ListError::Reversed("3-1".to_owned())));
        assert_eq!(parse("0-4,2"), Err(ListError::Twice(2)));
        assert_eq!(parse("0-4000000000"), Err(ListError::Beyond(4_000_000_000)));
        assert_eq!(parse("99999999999"), Err(ListError::Beyond(u32::MAX)));
    }

    #[test]
    fn masks_of_the_kernel_are_read_from_the_right() {
        let list = |mask| CpuList::from_mask(mask).map(|list| list.to_string());
        assert_eq!(list("00000000,00000000").as_deref(), Ok(""));
        assert_eq!(list("f\n").as_deref(), Ok("0-3"));
        assert_eq!(list("00000001,80000003").as_deref(), Ok("0-1,31-32"));
        assert!(list("zz").is_err());
        assert!(list(&"0,".repeat(400)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            numbers in proptest::collection::vec(0..NUMBERS_MAX, 0..50),
        ) {
            let list: CpuList = numbers.into_iter().collect();
            prop_assert_eq!(list.to_string().parse(), Ok(list));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9,\\- x]{0,40}") {
            let _ = text.parse::<CpuList>();
            let _ = CpuList::from_mask(&text);
        }
    }
}
