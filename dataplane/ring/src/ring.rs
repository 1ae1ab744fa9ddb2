//! The submission and completion queues of one core.
//!
//! Entries are never lost: what finds the submission queue full waits in memory, in order, and goes
//! first. One call submits, waits and runs deferred work; it is left out when there is nothing to
//! submit, nothing deferred and no wait. This file must not know what the operations are.

#![allow(unsafe_code, reason = "this file hands entries to the kernel")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;

use io_uring::register::Restriction;
use io_uring::types::{BufRingEntry, SubmitArgs, Timespec};
use io_uring::{Builder, EnterFlags, IoUring, cqueue, squeue};

use crate::driver::Wait;
use crate::error::RingError;
use crate::stats::DriverStats;

/// Descriptors registered with the ring: the two data sockets, the TUN, the wake-up counter, the
/// two sockets for initiations.
pub(crate) const FILE_IPV4: u32 = 0;
pub(crate) const FILE_IPV6: u32 = 1;
pub(crate) const FILE_TUN: u32 = 2;
pub(crate) const FILE_WAKE: u32 = 3;
pub(crate) const FILE_INITIATIONS_IPV4: u32 = 4;
pub(crate) const FILE_INITIATIONS_IPV6: u32 = 5;
pub(crate) const FILES: u32 = 6;

/// What is registered while running: `IORING_REGISTER_FILES_UPDATE` (sockets and TUN are replaced)
/// and `IORING_UNREGISTER_PBUF_RING` (the end).
pub(crate) const REGISTERS: [u8; 2] = [6, 23];

/// How task work of completions is run, best first. All make the kernel say in the queue flags when
/// a call is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingMode {
    /// Deferred until the owner asks (6.1): no interruptions, batches.
    Deferred,
    /// At the owner's next transition into the kernel (5.19).
    Cooperative,
    /// Whenever it arises; and nothing else of newer kernels is asked for, no registered
    /// descriptors.
    Plain,
}

pub(crate) struct Ring {
    uring: IoUring,
    mode: RingMode,
    fixed_files: bool,
    /// A ring is made disabled, because it can be restricted only then.
    enabled: bool,
    enter_flags: EnterFlags,
    backlog: VecDeque<squeue::Entry>,
    in_flight: usize,
}

impl Ring {
    /// Makes a ring on the calling thread, the only one that may use it, with the `best` mode or
    /// what the kernel has below it.
    ///
    /// # Errors
    /// [`RingError`]: why there is none, and what helps.
    pub(crate) fn new(best: RingMode, entries: u32, completions: u32) -> Result<Self, RingError> {
        let completions = completions.max(4 * entries).next_power_of_two();
        let mut refusal = None;
        let ladder = [RingMode::Deferred, RingMode::Cooperative, RingMode::Plain];
        for mode in ladder.into_iter().skip_while(|mode| *mode != best) {
            match Self::with_mode(mode, entries, completions) {
                Ok(ring) => return Ok(ring),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = Some(error),
                Err(error) => return Err(RingError::setup(error)),
            }
        }
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        Err(RingError::setup(refusal.unwrap_or_else(invalid)))
    }

    fn with_mode(mode: RingMode, entries: u32, completions: u32) -> io::Result<Self> {
        let mut builder: Builder = IoUring::builder();
        builder.setup_cqsize(completions).setup_r_disabled();
        match mode {
            RingMode::Deferred => builder
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_coop_taskrun()
                .setup_taskrun_flag()
                .setup_submit_all(),
            RingMode::Cooperative => {
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all()
            }
            RingMode::Plain => &mut builder,
        };
        let uring = builder.build(entries)?;
        let fixed_files =
            mode != RingMode::Plain && uring.submitter().register_files_sparse(FILES).is_ok();
        let mut enter_flags = EnterFlags::EXT_ARG | EnterFlags::GETEVENTS;
        if uring.params().is_feature_no_iowait() {
            // Waiting for packets is not waiting for a disk; load figures should not say so.
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        let backlog = VecDeque::with_capacity(completions as usize);
        Ok(Self { uring, mode, fixed_files, enabled: false, enter_flags, backlog, in_flight: 0 })
    }

    pub(crate) const fn mode(&self) -> RingMode {
        self.mode
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// Lets the ring do only `operations` from now on, with registered descriptors if it has them,
    /// and register nothing but [`REGISTERS`]; for good. Only before the first submission.
    ///
    /// # Errors
    /// What the kernel says; nothing is restricted then. Kernels before 5.10 know no restrictions.
    pub(crate) fn restrict(&mut self, operations: &[u8]) -> io::Result<()> {
        let fixed =
            if self.fixed_files { squeue::Flags::FIXED_FILE } else { squeue::Flags::empty() };
        let mut list: Vec<_> = operations.iter().map(|code| Restriction::sqe_op(*code)).collect();
        list.extend(REGISTERS.map(Restriction::register_op));
        list.push(Restriction::sqe_flags_allowed(squeue::Flags::BUFFER_SELECT.bits()));
        list.push(Restriction::sqe_flags_required(fixed.bits()));
        self.uring.submitter().register_restrictions(&mut list)?;
        self.enable()
    }

    fn enable(&mut self) -> io::Result<()> {
        if !self.enabled {
            self.uring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        Ok(())
    }

    /// Points a registered descriptor at `fd`, or at nothing.
    pub(crate) fn set_file(&self, slot: u32, fd: Option<RawFd>) -> io::Result<()> {
        if self.fixed_files {
            self.uring.submitter().register_files_update(slot, &[fd.unwrap_or(-1)])?;
        }
        Ok(())
    }

    /// What to put into an entry for a descriptor: its number, and the flags that say which kind of
    /// number it is.
    pub(crate) const fn target(
        &self,
        slot: u32,
        fd: RawFd,
    ) -> (io_uring::types::Fd, squeue::Flags) {
        if self.fixed_files {
            (io_uring::types::Fd(slot as RawFd), squeue::Flags::FIXED_FILE)
        } else {
            (io_uring::types::Fd(fd), squeue::Flags::empty())
        }
    }

    /// Queues an entry. It is submitted at the next [`Ring::enter`], or earlier if the queue is
    /// full.
    ///
    /// # Safety
    /// Whatever the entry points to must stay valid and in place until its terminal completion.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry, stats: &mut DriverStats) {
        self.in_flight += 1;
        if self.backlog.is_empty() {
            // SAFETY: the caller's promise is passed on.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            stats.enters += 1;
            if self.submit().is_ok() {
                // SAFETY: as above.
                if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                    return;
                }
            }
        }
        stats.submissions_delayed += 1;
        self.backlog.push_back(entry);
    }

    /// Submits what is queued without waiting and without running deferred work.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        let pending = self.uring.submission().len();
        if pending == 0 {
            return Ok(());
        }
        self.enable()?;
        self.uring.submitter().submit().map(drop)
    }

    /// Submits everything, runs deferred work, and waits as told unless completions are there
    /// already.
    ///
    /// # Errors
    /// Only what makes the ring unusable.
    pub(crate) fn enter(&mut self, wait: Wait, stats: &mut DriverStats) -> io::Result<()> {
        self.drain_backlog();
        let (pending, needs_call, overflown) = {
            let queue = self.uring.submission();
            let overflown = queue.cq_overflow();
            (queue.len(), queue.taskrun() || overflown, overflown)
        };
        stats.submissions_high_water = stats.submissions_high_water.max(pending as u64);
        stats.overflows += u64::from(overflown);
        let want = u32::from(wait != Wait::No && self.uring.completion().is_empty());
        if pending == 0 && !needs_call && want == 0 && self.backlog.is_empty() {
            return Ok(());
        }
        self.enable()?;
        stats.enters += 1;
        let timeout = match wait {
            Wait::AtMost(limit) if want == 1 => Some(Timespec::from(limit)),
            Wait::No | Wait::AtMost(_) | Wait::Forever => None,
        };
        match self.call(pending as u32, want, timeout.as_ref()) {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Nothing came in time, a signal came, or the kernel wants completions taken (or
                // memory) first: entries that were not consumed are still in the queue.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// The next completion.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<cqueue::Entry> {
        let completion = self.uring.completion().next()?;
        self.in_flight -= usize::from(!cqueue::more(completion.flags()));
        Some(completion)
    }

    /// Operations whose terminal completion has not been taken.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Registers memory to send from, with the number 0.
    ///
    /// # Safety
    /// The memory must stay mapped as long as the ring.
    pub(crate) unsafe fn register_memory(&self, base: NonNull<u8>, len: usize) -> io::Result<()> {
        let vector = libc::iovec { iov_base: base.as_ptr().cast(), iov_len: len };
        // SAFETY: the caller's promise is passed on.
        unsafe { self.uring.submitter().register_buffers(&[vector]) }
    }

    pub(crate) fn register_buffers(
        &self,
        entries: NonNull<BufRingEntry>,
        count: u16,
        group: u16,
    ) -> io::Result<()> {
        let address = entries.as_ptr() as u64;
        // SAFETY: `Provided` made the memory for `count` entries and keeps it until it unregisters
        // the group.
        unsafe { self.uring.submitter().register_buf_ring_with_flags(address, count, group, 0) }
    }

    pub(crate) fn unregister_buffers(&self, group: u16) -> io::Result<()> {
        self.uring.submitter().unregister_buf_ring(group)
    }

    fn drain_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: `push` took the promise for this entry, and it was not submitted yet.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    fn call(&self, pending: u32, want: u32, timeout: Option<&Timespec>) -> io::Result<()> {
        let mut arguments = SubmitArgs::new();
        if let Some(timeout) = timeout {
            arguments = arguments.timespec(timeout);
        }
        let submitter = self.uring.submitter();
        // SAFETY: with EXT_ARG the argument is a `SubmitArgs`, which borrows what it points to for
        // this call.
        unsafe { submitter.enter(pending, want, self.enter_flags.bits(), Some(&arguments)) }
            .map(drop)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use io_uring::opcode;

    fn push(ring: &mut Ring, number: u64, stats: &mut DriverStats) {
        let entry = opcode::Nop::new().build().user_data(number);
        // SAFETY: the entry points to nothing.
        unsafe { ring.push(entry, stats) };
    }

    #[test]
    fn entries_and_completions_beyond_the_queues_are_neither_lost_nor_reordered() {
        let mut stats = DriverStats::default();
        let mut ring = Ring::new(RingMode::Deferred, 4, 16).unwrap();
        for number in 0..1000 {
            push(&mut ring, number, &mut stats);
        }
        assert_eq!(ring.in_flight(), 1000);
        let mut seen = 0;
        for _ in 0..1000 {
            ring.enter(Wait::No, &mut stats).unwrap();
            while let Some(completion) = ring.pop() {
                assert_eq!(completion.user_data(), seen);
                seen += 1;
            }
        }
        assert_eq!((seen, ring.in_flight()), (1000, 0));
        assert!(stats.overflows > 0, "{stats:?}");
    }

    #[test]
    fn a_wait_for_nothing_ends_in_time_and_a_completion_ends_it_early() {
        let mut stats = DriverStats::default();
        let mut ring = Ring::new(RingMode::Deferred, 4, 16).unwrap();
        ring.enter(Wait::AtMost(std::time::Duration::from_millis(1)), &mut stats).unwrap();
        assert!(ring.pop().is_none());
        push(&mut ring, 7, &mut stats);
        ring.enter(Wait::Forever, &mut stats).unwrap();
        assert_eq!(ring.pop().unwrap().user_data(), 7);
    }
}
