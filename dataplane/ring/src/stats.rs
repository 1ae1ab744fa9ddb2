//! What the driver counted: plain integers of one core, published by whoever owns the core.

use std::io;
use std::net::IpAddr;

use crate::driver::Local;

/// Buckets of a batch histogram: 1, 2, up to 4, 8, 16, 32, 64, 128, and more.
pub const BATCH_BUCKETS: usize = 9;

/// How many things went together, in powers of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchHistogram {
    /// Counts; bucket `n` holds sizes above 2^(n-1) and up to 2^n, the last one everything larger.
    pub buckets: [u64; BATCH_BUCKETS],
    /// Sum of all sizes.
    pub sum: u64,
}

impl BatchHistogram {
    /// Upper bound of each bucket but the last.
    pub const BOUNDS: [usize; BATCH_BUCKETS - 1] = [1, 2, 4, 8, 16, 32, 64, 128];

    /// Counts one batch. An empty one is not a batch.
    #[inline]
    pub fn record(&mut self, size: usize) {
        if size == 0 {
            return;
        }
        let bucket = (usize::BITS - (size - 1).leading_zeros()) as usize;
        self.buckets[bucket.min(BATCH_BUCKETS - 1)] += 1;
        self.sum += size as u64;
    }

    /// Number of batches.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Operations the kernel refused, by what an operator would do about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Too long for the path (EMSGSIZE).
    pub too_long: u64,
    /// No way there (ENETUNREACH, EHOSTUNREACH, ENETDOWN, EADDRNOTAVAIL, ...).
    pub unreachable: u64,
    /// Not allowed, usually by a firewall rule (EPERM, EACCES).
    pub forbidden: u64,
    /// Queue or memory full (EAGAIN, ENOBUFS, ENOMEM).
    pub full: u64,
    /// The interface is down or gone (EIO, EBADFD, ENODEV, ENXIO).
    pub down: u64,
    /// Not accepted as it was (EINVAL).
    pub invalid: u64,
    /// Anything else.
    pub other: u64,
}

impl Refused {
    /// Counts one refusal by its error number (positive).
    pub(crate) fn count(&mut self, errno: i32) {
        let counter = match errno {
            libc::EMSGSIZE => &mut self.too_long,
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::EADDRNOTAVAIL
            | libc::ECONNREFUSED
            | libc::EDESTADDRREQ
            | libc::EAFNOSUPPORT => &mut self.unreachable,
            libc::EPERM | libc::EACCES => &mut self.forbidden,
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => &mut self.full,
            libc::EIO | libc::EBADFD | libc::EBADF | libc::ENODEV | libc::ENXIO => &mut self.down,
            libc::EINVAL => &mut self.invalid,
            _ => &mut self.other,
        };
        *counter += 1;
    }

    pub(crate) fn count_error(&mut self, error: &io::Error) {
        self.count(error.raw_os_error().unwrap_or(0));
    }

    /// All refusals together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.too_long
            + self.unreachable
            + self.forbidden
            + self.full
            + self.down
            + self.invalid
            + self.other
    }
}

/// Everything the driver counted since it was made. Gauges are named as such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverStats {
    /// Calls into the kernel to submit or wait.
    pub enters: u64,
    /// Completions taken.
    pub completions: u64,
    /// Completions that found the completion queue full; the kernel kept them and handed them over
    /// later.
    pub overflows: u64,
    /// Entries that found the submission queue full and waited in memory for room.
    pub submissions_delayed: u64,
    /// Submissions ahead of the turn, because the shard needed what the operations held.
    pub submitted_early: u64,
    /// Most entries seen waiting for submission at once.
    pub submissions_high_water: u64,
    /// Most completions collected in one turn.
    pub completions_high_water: u64,

    /// Receive completions of the UDP sockets: super-buffers or single datagrams.
    pub outside_buffers: u64,
    /// Datagrams in them.
    pub outside_datagrams: u64,
    /// Bytes in them.
    pub outside_bytes: u64,
    /// Datagrams per receive completion.
    pub outside_batch: BatchHistogram,
    /// Datagrams given up on: empty, cut by the kernel, or from no address we can read.
    pub outside_malformed: u64,
    /// Datagrams that the data sockets dropped because their buffers were full, as far as the
    /// datagrams after them told. Those that were merged on the way count once.
    pub outside_dropped: u64,
    /// Of the datagrams, those that came by the bank of initiations.
    pub initiations_datagrams: u64,
    /// Datagrams that the sockets of that bank dropped because their buffers were full, counted in
    /// the same way.
    pub initiations_dropped: u64,
    /// Packets or super-packets read from the TUN.
    pub inside_packets: u64,
    /// Bytes of them, virtio header included.
    pub inside_bytes: u64,
    /// Reads too short for a virtio header.
    pub inside_malformed: u64,
    /// Times the kernel found no receive buffer for a datagram; it stays in the socket until one is
    /// back.
    pub outside_no_buffer: u64,
    /// Times the kernel found no receive buffer for an initiation.
    pub initiations_no_buffer: u64,
    /// Times the kernel found no buffer for a packet of the TUN.
    pub inside_no_buffer: u64,
    /// Times a receive had to be started anew.
    pub rearmed: u64,

    /// Trains handed to the kernel.
    pub trains: u64,
    /// Datagrams in them.
    pub train_datagrams: u64,
    /// Bytes in them.
    pub train_bytes: u64,
    /// Datagrams per train.
    pub train_batch: BatchHistogram,
    /// Trains the kernel refused, in whole or in part.
    pub train_refused: Refused,
    /// Times segmentation by the kernel was given up on a path: it was refused, or trains were
    /// lost.
    pub segmentation_demoted: u64,
    /// Gauge: paths on which it is given up now.
    pub paths_demoted: u64,
    /// Trains sent as single datagrams because of that.
    pub trains_unsegmented: u64,
    /// Trains sent again without their source address, because it is no longer ours.
    pub source_lost: u64,
    /// The source address of the last of these.
    pub source_lost_last: Option<IpAddr>,
    /// Trains for which there was no socket of that family.
    pub trains_without_socket: u64,

    /// Trains sent with the zero-copy operation.
    pub zero_copy_sent: u64,
    /// Of these, trains that the kernel copied all the same.
    pub zero_copy_copied: u64,
    /// Paths on which zero copy was given up.
    pub zero_copy_demoted: u64,

    /// Writes to the TUN.
    pub tun_writes: u64,
    /// Bytes of them, virtio header included.
    pub tun_write_bytes: u64,
    /// Pieces per write.
    pub tun_batch: BatchHistogram,
    /// Writes the TUN refused.
    pub tun_refused: Refused,
    /// Writes committed while there was no TUN.
    pub tun_writes_without_tun: u64,

    /// Times another thread woke this core.
    pub wakes: u64,

    /// Gauge: receive buffers of datagrams that are free or lent to the kernel.
    pub outside_buffers_free: u64,
    /// Most receive buffers of datagrams in use at once.
    pub outside_buffers_high_water: u64,
    /// Gauge: receive buffers of initiations that are free or lent to the kernel.
    pub initiations_buffers_free: u64,
    /// Most receive buffers of initiations in use at once.
    pub initiations_buffers_high_water: u64,
    /// Gauge: receive buffers of TUN packets that are free or lent to the kernel.
    pub inside_buffers_free: u64,
    /// Most receive buffers of TUN packets in use at once.
    pub inside_buffers_high_water: u64,
    /// Gauge: transmit buffers that are free.
    pub train_buffers_free: u64,
    /// Most transmit buffers in use at once.
    pub train_buffers_high_water: u64,
    /// Reservations of a transmit buffer that failed because all were in flight.
    pub train_buffers_exhausted: u64,
    /// Reservations of a TUN write that failed because all were in flight.
    pub tun_writes_exhausted: u64,
}

impl DriverStats {
    /// A train was sent again without the source address that it should have had.
    pub(crate) fn lost_source(&mut self, from: Option<Local>) {
        self.source_lost += 1;
        self.source_lost_last = from.map(|from| from.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_falls_into_the_bucket_that_bounds_it() {
        let mut histogram = BatchHistogram::default();
        for (size, bucket) in
            [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (46, 6), (64, 6), (65, 7), (128, 7), (129, 8)]
        {
            let before = histogram.buckets[bucket];
            histogram.record(size);
            assert_eq!(histogram.buckets[bucket], before + 1, "{size}");
        }
        histogram.record(0);
        histogram.record(1_000_000);
        assert_eq!(histogram.count(), 11);
        assert_eq!(histogram.buckets[8], 2);
    }

    #[test]
    fn every_refusal_has_a_class() {
        let mut refused = Refused::default();
        for errno in 1..130 {
            refused.count(errno);
        }
        assert_eq!(refused.total(), 129);
        assert_eq!(refused.too_long, 1);
        assert_eq!(refused.forbidden, 2);
    }
}
