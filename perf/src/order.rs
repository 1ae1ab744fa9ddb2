//! Packet-order checker and gap meter: numbered datagrams, and what became of them.
//!
//! The sender puts a running number into each datagram; the checker is told the numbers as they
//! arrive. It reports loss, duplicates, late packets with their largest displacement, and the
//! longest silence. Lossless reordering by a gateway, which TCP hides, shows here.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Bytes of the number at the head of a datagram.
pub const NUMBER_BYTES: usize = 8;

/// Writes the number of a datagram into its head.
pub fn write_number(datagram: &mut [u8], number: u64) {
    if let Some(head) = datagram.first_chunk_mut::<NUMBER_BYTES>() {
        *head = number.to_be_bytes();
    }
}

/// Reads the number of a datagram; `None` when it is too short.
#[must_use]
pub fn read_number(datagram: &[u8]) -> Option<u64> {
    datagram.first_chunk().map(|head| u64::from_be_bytes(*head))
}

/// What arrived, judged as it arrives. Memory grows with the number of gaps, not of packets.
#[derive(Clone, Debug, Default)]
pub struct OrderCheck {
    /// Every number below this has arrived or is in `missing`.
    next: u64,
    missing: BTreeSet<u64>,
    report: OrderReport,
    last_arrival: Option<Duration>,
}

/// The verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderReport {
    /// Different numbers that arrived.
    pub arrived: u64,
    /// Numbers below the highest one that never came.
    pub missing: u64,
    /// Numbers that came again.
    pub duplicates: u64,
    /// Numbers that came after a higher one.
    pub late: u64,
    /// How far behind the highest number the latest late one was.
    pub displacement_max: u64,
    /// The longest silence between two arrivals.
    pub gap_max: Duration,
}

impl OrderCheck {
    /// Takes note of an arrival; `at` is any monotonic time.
    pub fn see(&mut self, number: u64, at: Duration) {
        if let Some(last) = self.last_arrival {
            self.report.gap_max = self.report.gap_max.max(at.saturating_sub(last));
        }
        self.last_arrival = Some(at);
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            self.report.arrived += 1;
        } else if self.missing.remove(&number) {
            self.report.arrived += 1;
            self.report.late += 1;
            let displacement = self.next - number - 1;
            self.report.displacement_max = self.report.displacement_max.max(displacement);
        } else {
            self.report.duplicates += 1;
        }
    }

    /// The verdict so far.
    #[must_use]
    pub fn report(&self) -> OrderReport {
        OrderReport { missing: self.missing.len() as u64, ..self.report }
    }
}

impl OrderReport {
    /// Adds the verdict on another flow: counts are summed, of the rest the largest is kept.
    pub fn add(&mut self, other: &Self) {
        self.arrived += other.arrived;
        self.missing += other.missing;
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.displacement_max = self.displacement_max.max(other.displacement_max);
        self.gap_max = self.gap_max.max(other.gap_max);
    }
}

impl fmt::Display for OrderReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} arrived, {} missing, {} duplicates, {} late (by at most {}), longest gap {:.1} ms",
            self.arrived,
            self.missing,
            self.duplicates,
            self.late,
            self.displacement_max,
            self.gap_max.as_secs_f64() * 1e3
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(numbers: &[u64]) -> OrderReport {
        let mut check = OrderCheck::default();
        for (number, millis) in numbers.iter().zip(0..) {
            check.see(*number, Duration::from_millis(millis));
        }
        check.report()
    }

    #[test]
    fn a_straight_run_has_nothing_to_report() {
        let report = judged(&[0, 1, 2, 3]);
        let gap_max = Duration::from_millis(1);
        assert_eq!(report, OrderReport { arrived: 4, gap_max, ..OrderReport::default() });
    }

    #[test]
    fn late_missing_and_repeated_numbers_are_told_apart() {
        let report = judged(&[0, 1, 5, 2, 3, 5, 2]);
        assert_eq!((report.arrived, report.missing), (5, 1));
        assert_eq!((report.late, report.displacement_max, report.duplicates), (2, 3, 2));
    }

    #[test]
    fn the_longest_silence_is_kept() {
        let mut check = OrderCheck::default();
        for (number, millis) in [(0, 0), (1, 5), (2, 105), (3, 110)] {
            check.see(number, Duration::from_millis(millis));
        }
        assert_eq!(check.report().gap_max, Duration::from_millis(100));
    }

    #[test]
    fn a_number_survives_the_datagram() {
        let mut datagram = [0; 20];
        write_number(&mut datagram, 77);
        assert_eq!(read_number(&datagram), Some(77));
        assert_eq!(read_number(&datagram[..7]), None);
    }
}
