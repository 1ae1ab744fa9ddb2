//! Trains on their way to the kernel.
//!
//! One slot per transmit buffer holds the train and everything the kernel reads while it is in
//! flight: vector and message. A train the kernel will not segment is sent again as single
//! datagrams, from the same buffer and at once (`cut` remembers such paths). This file must not
//! know what is in the trains.

#![allow(unsafe_code, reason = "this file hands addresses of its slots to the kernel")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, RawFd};

use io_uring::{cqueue, opcode, squeue};

use crate::cut::Cutter;
use crate::driver::{Local, Train};
use crate::message::{self, Message, is_lost_source};
use crate::op::{Op, Slots, Token, give_up};
use crate::ring::Ring;
use crate::stats::DriverStats;
use crate::sys;
use crate::zerocopy::ZeroCopyMode;

/// Datagrams of one train that one call can send singly.
const SINGLES_MAX: usize = 128;

/// Refers to registered memory (`IORING_RECVSEND_FIXED_BUF`); the only such memory has number 0,
/// which is what an entry says when nothing is said.
const FIXED_BUFFER: u16 = 1 << 2;

/// Asks for a report whether a zero-copy send copied (`IORING_SEND_ZC_REPORT_USAGE`).
const REPORT_USAGE: u16 = 1 << 3;

/// In a notification's result: the kernel copied (`IORING_NOTIF_USAGE_ZC_COPIED`).
const COPIED: u32 = 1 << 31;

/// What happens to the bytes of a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The kernel copies them.
    Copied,
    /// It takes the pages, looked up for each send.
    ZeroCopy,
    /// It takes pages that were registered before.
    ZeroCopyRegistered,
}

/// A train in flight. The kernel holds addresses of `header`, `vector` and `message`; slots never
/// move.
#[derive(Debug)]
struct TrainSlot {
    train: Option<Train>,
    way: Way,
    header: libc::msghdr,
    vector: libc::iovec,
    message: Message,
}

impl TrainSlot {
    fn new() -> Self {
        Self {
            train: None,
            way: Way::Copied,
            header: sys::empty_message(),
            vector: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            message: Message::new(),
        }
    }

    /// Describes `train` to the kernel.
    fn fill(&mut self, train: Train) -> *const libc::msghdr {
        let segment = (train.len > train.segment_bytes).then_some(train.segment_bytes);
        self.message.describe(&train, segment, train.from);
        let base: *const u8 = train.buf.as_ptr();
        self.vector = libc::iovec { iov_base: base.cast_mut().cast(), iov_len: train.len };
        self.header = self.message.header(&raw mut self.vector);
        self.train = Some(train);
        &raw const self.header
    }
}

/// Where trains leave: descriptors of both families, if there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exits<'a>(pub(crate) [Option<BorrowedFd<'a>>; 2]);

impl<'a> Exits<'a> {
    fn of(self, to: &SocketAddr) -> Option<(u32, BorrowedFd<'a>)> {
        let slot = usize::from(to.is_ipv6());
        self.0[slot].map(|fd| (slot as u32, fd))
    }
}

/// Whether zero-copy sends may refer to registered memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registered {
    No,
    /// It is registered; whether the kernel takes it in a send is not known.
    Untried,
    Works,
}

/// All trains of one core.
#[derive(Debug)]
pub(crate) struct Outbound {
    slots: Slots<TrainSlot>,
    singles: Singles,
    cutter: Cutter,
    zero_copy: ZeroCopyMode,
    registered: Registered,
    /// Sends whose result is not known; a zero-copy send leaves it before its notification.
    unanswered: usize,
}

impl Outbound {
    /// For `count` buffers, whose memory is `registered` with the ring or not.
    pub(crate) fn new(
        count: u32,
        zero_copy: ZeroCopyMode,
        registered: bool,
        segments_max: usize,
    ) -> Self {
        Self {
            slots: Slots::new(Op::Send, count, TrainSlot::new),
            singles: Singles::new(),
            cutter: Cutter::new(segments_max),
            zero_copy,
            registered: if registered { Registered::Untried } else { Registered::No },
            unanswered: 0,
        }
    }

    pub(crate) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Queues a train, or sends it at once if its path is known to need that.
    pub(crate) fn send(
        &mut self,
        train: Train,
        exits: Exits<'_>,
        ring: &mut Ring,
        stats: &mut DriverStats,
    ) {
        assert!(train.segment_bytes > 0);
        assert!(train.len <= train.buf.len());
        let datagrams = message::datagrams(&train);
        if datagrams == 0 {
            return;
        }
        let Some((file, fd)) = exits.of(&train.to) else {
            stats.trains_without_socket += 1;
            return;
        };
        message::count(&train, datagrams, stats);
        if datagrams > 1 && !self.cutter.may_cut(&train, datagrams) {
            // What was committed before leaves before.
            stats.enters += 1;
            let _ = ring.submit();
            self.send_apart(fd, &train, stats);
            return;
        }
        let way = self.choose_way(&train);
        // One slot per transmit buffer, and each train owns one of those.
        let Some((token, slot)) = self.slots.take() else {
            unreachable!("more trains in flight than transmit buffers")
        };
        slot.way = way;
        let header = slot.fill(train);
        self.unanswered += 1;
        stats.zero_copy_sent += u64::from(way != Way::Copied);
        let entry = entry(token, ring.target(file, raw(fd)), header, way);
        // SAFETY: header, vector and message are in the slot, which does not move and is
        // reused only after the terminal completion; the buffer is owned by the train in that slot.
        unsafe { ring.push(entry, stats) };
    }

    /// Takes a completion of a send. Frees the slot if it is the terminal one.
    pub(crate) fn completed(
        &mut self,
        token: Token,
        completion: &cqueue::Entry,
        exits: Exits<'_>,
        stats: &mut DriverStats,
    ) {
        let (result, flags) = (completion.result(), completion.flags());
        if cqueue::notif(flags) {
            self.notified(token, result as u32 & COPIED != 0, stats);
        } else {
            self.unanswered -= 1;
            if result < 0 {
                self.refused(token, -result, exits, stats);
            } else if self.registered == Registered::Untried
                && self.slots.content(token).way == Way::ZeroCopyRegistered
            {
                self.registered = Registered::Works;
            }
        }
        if !cqueue::more(flags) {
            self.slots.content(token).train = None;
            self.slots.release(token);
        }
    }

    /// Gives the slots up for good, because the kernel may still read them.
    pub(crate) fn leak(&mut self) {
        let empty = Slots::new(Op::Send, 0, TrainSlot::new);
        give_up(std::mem::replace(&mut self.slots, empty));
    }

    /// Wipes where trains went that have left.
    pub(crate) fn forget(&mut self) {
        self.slots.renew_idle(TrainSlot::new);
        self.singles.message = Message::new();
        self.cutter.forget();
    }

    /// As [`Driver::forget_path`](crate::driver::Driver::forget_path).
    pub(crate) fn forget_path(&mut self, to: IpAddr) {
        self.cutter.forget_path(to);
    }

    /// Trains to `to` are lost without being refused.
    pub(crate) fn suspect(&mut self, to: IpAddr, stats: &mut DriverStats) {
        self.cutter.suspect(to, stats);
    }

    /// Paths on which trains go as single datagrams now.
    pub(crate) fn paths_demoted(&self) -> usize {
        self.cutter.demoted()
    }

    fn choose_way(&mut self, train: &Train) -> Way {
        let mode = self.zero_copy;
        if mode == ZeroCopyMode::Off {
            return Way::Copied;
        }
        if !self.cutter.zero_copy(train.to.ip()).choose(mode, train.len) {
            return Way::Copied;
        }
        match self.registered {
            Registered::No => Way::ZeroCopy,
            Registered::Untried | Registered::Works => Way::ZeroCopyRegistered,
        }
    }

    fn notified(&mut self, token: Token, copied: bool, stats: &mut DriverStats) {
        let Some(train) = &self.slots.content(token).train else { return };
        let to = train.to.ip();
        stats.zero_copy_copied += u64::from(copied);
        if self.cutter.zero_copy(to).notified(copied) {
            stats.zero_copy_demoted += 1;
        }
    }

    /// A send failed: what can be saved is sent another way, the rest is counted.
    fn refused(&mut self, token: Token, errno: i32, exits: Exits<'_>, stats: &mut DriverStats) {
        let slot = self.slots.content(token);
        let way = slot.way;
        let Some(train) = slot.train.take() else { return };
        let fd = exits.of(&train.to).map(|(_, fd)| fd);
        match fd {
            Some(fd) if errno != libc::ECANCELED => {
                self.retry(fd, &train, errno, way, stats);
            }
            Some(_) | None => stats.train_refused.full += 1,
        }
        // Back into the slot: a zero-copy send may still be read until its notification.
        self.slots.content(token).train = Some(train);
    }

    fn retry(
        &mut self,
        fd: BorrowedFd<'_>,
        train: &Train,
        errno: i32,
        way: Way,
        stats: &mut DriverStats,
    ) {
        let to = train.to.ip();
        // Kernels before 6.15 take no registered memory here, and say so with one of these.
        let unsupported = matches!(errno, libc::EINVAL | libc::EOPNOTSUPP | libc::EFAULT);
        let untried = self.registered != Registered::Works;
        if way == Way::ZeroCopyRegistered && untried && unsupported {
            self.registered = Registered::No;
            self.send_apart(fd, train, stats);
            return;
        }
        let no_memory = matches!(errno, libc::ENOBUFS | libc::ENOMEM | libc::EOPNOTSUPP);
        if way != Way::Copied && no_memory {
            if self.cutter.zero_copy(to).refuse() {
                stats.zero_copy_demoted += 1;
            }
            self.send_apart(fd, train, stats);
            return;
        }
        if train.from.is_some() && is_lost_source(errno) {
            let part = Part { bytes: train.len, segmented: message::datagrams(train) > 1 };
            if self.singles.send(fd, train, part, None).is_ok() {
                stats.lost_source(train.from);
                return;
            }
        }
        if self.cutter.refused(train, errno, stats) {
            self.send_apart(fd, train, stats);
            return;
        }
        stats.train_refused.count(errno);
    }

    /// Sends a train as several messages, now: single datagrams, or as many together as the kernel
    /// segments.
    fn send_apart(&mut self, fd: BorrowedFd<'_>, train: &Train, stats: &mut DriverStats) {
        let together = self.cutter.together(train);
        stats.trains_unsegmented += u64::from(together == 1);
        let part = Part { bytes: together * train.segment_bytes, segmented: together > 1 };
        match self.singles.send(fd, train, part, train.from) {
            Ok(()) => {}
            Err(error)
                if train.from.is_some() && error.raw_os_error().is_some_and(is_lost_source) =>
            {
                match self.singles.send(fd, train, part, None) {
                    Ok(()) => stats.lost_source(train.from),
                    Err(error) => stats.train_refused.count_error(&error),
                }
            }
            Err(error) => stats.train_refused.count_error(&error),
        }
    }
}

fn entry(
    token: Token,
    (target, kind): (io_uring::types::Fd, squeue::Flags),
    header: *const libc::msghdr,
    way: Way,
) -> squeue::Entry {
    let zero_copy = |flags| opcode::SendMsgZc::new(target, header).ioprio(flags).build();
    let entry = match way {
        Way::Copied => opcode::SendMsg::new(target, header).build(),
        Way::ZeroCopy => zero_copy(REPORT_USAGE),
        Way::ZeroCopyRegistered => zero_copy(REPORT_USAGE | FIXED_BUFFER),
    };
    entry.flags(kind).user_data(token.encode())
}

fn raw(fd: BorrowedFd<'_>) -> RawFd {
    std::os::fd::AsRawFd::as_raw_fd(&fd)
}

/// How a train is cut into messages.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Bytes of each message but the last.
    bytes: usize,
    /// Whether the kernel cuts each message further.
    segmented: bool,
}

/// Memory for sending a train as many messages in one call.
#[derive(Debug)]
struct Singles {
    messages: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    message: Message,
}

impl Singles {
    fn new() -> Self {
        let message = libc::mmsghdr { msg_hdr: sys::empty_message(), msg_len: 0 };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            messages: vec![message; SINGLES_MAX].into_boxed_slice(),
            vectors: vec![vector; SINGLES_MAX].into_boxed_slice(),
            message: Message::new(),
        }
    }

    /// Sends all of `train`, in order, without waiting.
    ///
    /// # Errors
    /// The first refusal; what comes after the refused message is not sent.
    fn send(
        &mut self,
        fd: BorrowedFd<'_>,
        train: &Train,
        part: Part,
        from: Option<Local>,
    ) -> io::Result<()> {
        let segment = part.segmented.then_some(train.segment_bytes);
        self.message.describe(train, segment, from);
        for run in train.buf[..train.len].chunks(part.bytes * SINGLES_MAX) {
            let mut count = 0;
            for bytes in run.chunks(part.bytes) {
                let vector = &mut self.vectors[count];
                vector.iov_base = bytes.as_ptr().cast_mut().cast();
                vector.iov_len = bytes.len();
                self.messages[count].msg_hdr = self.message.header(vector);
                count += 1;
            }
            let mut done = 0;
            while done < count {
                // SAFETY: vectors and message are fields of `self`, the bytes are the train's; all
                // outlive the call.
                done += unsafe { sys::send_many(fd, &mut self.messages[done..count]) }?;
            }
        }
        Ok(())
    }
}
