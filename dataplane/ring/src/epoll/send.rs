//! Trains on their way out: as many messages as possible in one call, per family in the order of
//! commits.
//!
//! A train waits in its queue until the kernel has taken all of it. A full socket keeps the queue
//! as it is until the kernel reports room; since every train owns a transmit buffer, queues are
//! bounded by the pool. A refused train is tried without its source address, then as single
//! datagrams, and given up when neither helps. This file must not know what is in the trains.

#![allow(unsafe_code, reason = "this file hands addresses of trains to the kernel")]

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ringway_alloc::forget;

use crate::cut::Cutter;
use crate::driver::{Local, Train};
use crate::message::{self, Message, is_lost_source};
use crate::stats::DriverStats;
use crate::sys;

/// Messages of one call: all trains of a usual turn, or one train datagram by datagram.
const MESSAGES_MAX: usize = 128;

/// Whether a train goes with its source address.
#[derive(Clone, Copy, Debug)]
enum SourceUse {
    /// As it was committed.
    Given,
    /// Tried without this one.
    LeftOut(Local),
    /// Leaving it out did not help, or has already been counted.
    Settled,
}

/// A train the kernel has not taken all of.
#[derive(Debug)]
struct Waiting {
    train: Train,
    /// Bytes the kernel has taken.
    taken: usize,
    /// Whether we cut it.
    apart: bool,
    source: SourceUse,
}

/// The trains of one family.
#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// The socket was full; nothing is tried until the kernel reports room.
    blocked: bool,
}

/// All trains of one core.
pub(super) struct Outbound {
    queues: [Queue; 2],
    cutter: Cutter,
    messages: Box<[Message]>,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
}

impl Outbound {
    /// For `count` transmit buffers and a kernel that cuts a train into `segments_max` datagrams.
    pub(super) fn new(count: usize, segments_max: usize) -> Self {
        let header = libc::mmsghdr { msg_hdr: sys::empty_message(), msg_len: 0 };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let queue = || Queue { waiting: VecDeque::with_capacity(count), blocked: false };
        Self {
            queues: [queue(), queue()],
            cutter: Cutter::new(segments_max),
            messages: (0..MESSAGES_MAX).map(|_| Message::new()).collect(),
            headers: vec![header; MESSAGES_MAX].into_boxed_slice(),
            vectors: vec![vector; MESSAGES_MAX].into_boxed_slice(),
        }
    }

    /// Queues a train.
    pub(super) fn push(&mut self, train: Train, stats: &mut DriverStats) {
        assert!(train.segment_bytes > 0);
        assert!(train.len <= train.buf.len());
        let datagrams = message::datagrams(&train);
        if datagrams == 0 {
            return;
        }
        message::count(&train, datagrams, stats);
        let apart = datagrams > 1 && !self.cutter.may_cut(&train, datagrams);
        if apart {
            stats.trains_unsegmented += u64::from(self.cutter.together(&train) == 1);
        }
        let queue = &mut self.queues[family(&train)];
        queue.waiting.push_back(Waiting { train, taken: 0, apart, source: SourceUse::Given });
    }

    /// Wipes where trains went that have left.
    pub(super) fn forget(&mut self) {
        self.queues.iter_mut().for_each(|queue| forget::wipe_queue(&mut queue.waiting));
        // Those of trains that wait are described anew when they are tried again.
        self.messages.fill_with(Message::new);
        self.cutter.forget();
    }

    /// As [`Driver::forget_path`](crate::driver::Driver::forget_path).
    pub(super) fn forget_path(&mut self, to: IpAddr) {
        self.cutter.forget_path(to);
    }

    /// Trains to `to` are lost without being refused.
    pub(super) fn suspect(&mut self, to: IpAddr, stats: &mut DriverStats) {
        self.cutter.suspect(to, stats);
    }

    /// Paths on which trains go as single datagrams now.
    pub(super) fn paths_demoted(&self) -> usize {
        self.cutter.demoted()
    }

    /// Hands everything to the kernel that it takes without waiting.
    pub(super) fn flush(&mut self, sockets: [Option<BorrowedFd<'_>>; 2], stats: &mut DriverStats) {
        for (family, socket) in sockets.into_iter().enumerate() {
            let Some(socket) = socket else { continue };
            while !self.queues[family].blocked && !self.queues[family].waiting.is_empty() {
                let count = self.gather(family, stats);
                stats.enters += 1;
                // SAFETY: the first `count` headers describe messages and vectors, which stay where
                // they are, and bytes of trains in the queue; all outlive the call.
                match unsafe { sys::send_many(socket, &mut self.headers[..count]) } {
                    Ok(sent) => self.sent(family, sent, stats),
                    Err(error) => self.refused(family, &error, stats),
                }
            }
        }
    }

    /// The kernel has room in the socket of `family` again.
    pub(super) const fn unblock(&mut self, family: usize) {
        self.queues[family].blocked = false;
    }

    /// Whether trains of `family` wait for room in the socket.
    pub(super) const fn is_blocked(&self, family: usize) -> bool {
        self.queues[family].blocked
    }

    /// Gives up what waits; how many trains that were.
    pub(super) fn give_up(&mut self) -> usize {
        self.queues.iter_mut().fold(0, |lost, queue| {
            queue.blocked = false;
            let waiting = queue.waiting.len();
            queue.waiting.clear();
            lost + waiting
        })
    }

    /// Describes as much of a queue as one call takes, from its front; how many messages.
    fn gather(&mut self, family: usize, stats: &mut DriverStats) -> usize {
        let mut count = 0;
        for waiting in &mut self.queues[family].waiting {
            if count == MESSAGES_MAX {
                break;
            }
            let train = &waiting.train;
            let several = train.len > train.segment_bytes;
            // Another train of the same turn may have taught us.
            if several && !waiting.apart && self.cutter.is_demoted(train) {
                waiting.apart = true;
                stats.trains_unsegmented += 1;
            }
            let part_bytes = match waiting.apart {
                true => self.cutter.together(train) * train.segment_bytes,
                false => train.len,
            };
            let segment = (part_bytes > train.segment_bytes).then_some(train.segment_bytes);
            // All parts of a train say the same.
            let message = &mut self.messages[count];
            message.describe(train, segment, train.from);
            for part in train.buf[waiting.taken..train.len].chunks(part_bytes) {
                if count == MESSAGES_MAX {
                    break;
                }
                let vector = &mut self.vectors[count];
                vector.iov_base = part.as_ptr().cast_mut().cast();
                vector.iov_len = part.len();
                self.headers[count].msg_hdr = message.header(vector);
                count += 1;
            }
        }
        count
    }

    /// The kernel took the first `messages` of those gathered.
    fn sent(&mut self, family: usize, messages: usize, stats: &mut DriverStats) {
        let queue = &mut self.queues[family].waiting;
        for vector in &self.vectors[..messages] {
            let Some(front) = queue.front_mut() else {
                unreachable!("more was taken than was waiting")
            };
            if let SourceUse::LeftOut(from) = front.source {
                stats.lost_source(Some(from));
                front.source = SourceUse::Settled;
            }
            front.taken += vector.iov_len;
            if front.taken == front.train.len {
                queue.pop_front();
                stats.completions += 1;
            }
        }
    }

    /// The kernel did not take what is in front of a queue: that is changed or given up, or waits.
    fn refused(&mut self, family: usize, error: &io::Error, stats: &mut DriverStats) {
        let queue = &mut self.queues[family];
        let errno = error.raw_os_error().unwrap_or(0);
        let Some(front) = queue.waiting.front_mut() else { return };
        match errno {
            libc::EINTR => return,
            libc::EAGAIN => {
                queue.blocked = true;
                return;
            }
            _ => {}
        }
        match front.source {
            SourceUse::Given if is_lost_source(errno) => {
                if let Some(from) = front.train.from.take() {
                    front.source = SourceUse::LeftOut(from);
                    return;
                }
            }
            SourceUse::LeftOut(from) => {
                front.train.from = Some(from);
                front.source = SourceUse::Settled;
            }
            SourceUse::Given | SourceUse::Settled => {}
        }
        let single = front.apart && self.cutter.together(&front.train) == 1;
        if !single && self.cutter.refused(&front.train, errno, stats) {
            front.apart = true;
            stats.trains_unsegmented += 1;
            return;
        }
        stats.train_refused.count(errno);
        queue.waiting.pop_front();
    }
}

/// Which queue a train goes into: 0 for IPv4, 1 for IPv6.
pub(super) const fn family(train: &Train) -> usize {
    train.to.is_ipv6() as usize
}
