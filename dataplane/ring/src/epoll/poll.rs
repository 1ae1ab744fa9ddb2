//! One wait for everything that concerns a core.
//!
//! Level-triggered on purpose: what a bounded turn leaves behind is reported again without being
//! remembered, and a report that went unused is not lost. What cannot be used now (no buffer to
//! receive into, nothing to send) is not asked for, so nothing spins. This file must not know what
//! is behind a descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use crate::driver::Wait;
use crate::sys;

/// Something can be received.
pub(super) const IN: u32 = libc::EPOLLIN as u32;

/// Something can be sent.
pub(super) const OUT: u32 = libc::EPOLLOUT as u32;

/// It failed or was taken down; reported whether asked for or not.
const TROUBLE: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Source {
    Ipv4,
    Ipv6,
    InitiationsIpv4,
    InitiationsIpv6,
    Tun,
    Wake,
}

const SOURCES: usize = 6;

/// What a wait found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found([u32; SOURCES]);

impl Found {
    /// Whether receiving is worth a try: trouble shows there, too.
    pub(super) const fn has_input(self, source: Source) -> bool {
        self.0[source as usize] & (IN | TROUBLE) != 0
    }

    /// Whether sending is worth a try.
    pub(super) const fn has_room(self, source: Source) -> bool {
        self.0[source as usize] & (OUT | TROUBLE) != 0
    }
}

/// A descriptor and what the kernel was asked to say about it.
#[derive(Clone, Copy, Debug)]
struct Watch {
    fd: Option<RawFd>,
    asked: u32,
}

/// The epoll instance of one core.
#[derive(Debug)]
pub(super) struct Poll {
    fd: OwnedFd,
    watches: [Watch; SOURCES],
    events: [libc::epoll_event; SOURCES],
    /// Whether the kernel takes limits in nanoseconds (5.11, and no filter forbids it).
    precise: bool,
}

impl Poll {
    /// # Errors
    /// What the kernel says, usually no descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            fd: sys::epoll_create()?,
            watches: [Watch { fd: None, asked: 0 }; SOURCES],
            events: [libc::epoll_event { events: 0, u64: 0 }; SOURCES],
            precise: true,
        })
    }

    /// Forgets the old descriptor of `source` and remembers `fd`, of which nothing is asked yet.
    /// To be called while the old one is still open.
    ///
    /// # Errors
    /// What the kernel says about the old one.
    pub(super) fn attach(&mut self, source: Source, fd: Option<RawFd>) -> io::Result<()> {
        self.ask(source, 0)?;
        self.watches[source as usize].fd = fd;
        Ok(())
    }

    /// Asks for `events` of `source` from now on. A call only where that is news.
    ///
    /// # Errors
    /// What the kernel says, usually no memory left for watches.
    pub(super) fn ask(&mut self, source: Source, events: u32) -> io::Result<()> {
        let watch = &mut self.watches[source as usize];
        let Some(fd) = watch.fd else { return Ok(()) };
        if watch.asked == events {
            return Ok(());
        }
        // Trouble cannot be left out of what is asked, so nothing asked is nothing watched.
        let operation = match (watch.asked, events) {
            (_, 0) => libc::EPOLL_CTL_DEL,
            (0, _) => libc::EPOLL_CTL_ADD,
            (_, _) => libc::EPOLL_CTL_MOD,
        };
        let event = libc::epoll_event { events, u64: source as u64 };
        sys::epoll_control(self.fd.as_fd(), operation, fd, event)?;
        watch.asked = events;
        Ok(())
    }

    /// What the kernel was asked about `source`.
    pub(super) const fn asked(&self, source: Source) -> u32 {
        self.watches[source as usize].asked
    }

    /// Waits as told, or until something is there.
    ///
    /// # Errors
    /// Only what makes the instance unusable.
    pub(super) fn wait(&mut self, wait: Wait) -> io::Result<Found> {
        let count = match self.call(wait) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        let mut found = Found::default();
        for event in &self.events[..count] {
            // Copied out: the structure is packed.
            let (source, events) = (event.u64, event.events);
            found.0[source as usize] = events;
        }
        Ok(found)
    }

    fn call(&mut self, wait: Wait) -> io::Result<usize> {
        let fd = self.fd.as_fd();
        let limit = match wait {
            Wait::No => return sys::epoll_wait(fd, &mut self.events, 0),
            Wait::Forever => return sys::epoll_wait(fd, &mut self.events, -1),
            Wait::AtMost(limit) => limit,
        };
        if self.precise {
            match sys::epoll_wait_at_most(fd, &mut self.events, limit) {
                Err(error) if is_unknown(&error) => self.precise = false,
                result => return result,
            }
        }
        sys::poll_input(fd, limit)?;
        sys::epoll_wait(fd, &mut self.events, 0)
    }
}

/// Whether the kernel, or a filter on system calls, does not have a call.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn limits_are_kept_to_the_microsecond_with_and_without_the_newer_call() {
        for precise in [true, false] {
            let mut poll = Poll::new().unwrap();
            poll.precise = precise;
            let shortest = (0..50).map(|_| {
                let begin = clock::boot_ns();
                poll.wait(Wait::AtMost(Duration::from_micros(100))).unwrap();
                clock::boot_ns() - begin
            });
            let shortest = shortest.min().unwrap();
            assert!((100_000..900_000).contains(&shortest), "{shortest} ns");
        }
    }

    #[test]
    fn what_is_not_used_is_reported_again_and_what_is_not_asked_never() {
        for precise in [true, false] {
            let mut poll = Poll::new().unwrap();
            poll.precise = precise;
            let event = sys::event_fd().unwrap();
            let mut other = std::fs::File::from(event.try_clone().unwrap());
            other.write_all(&1u64.to_ne_bytes()).unwrap();
            poll.attach(Source::Tun, Some(event.as_raw_fd())).unwrap();
            assert!(!poll.wait(Wait::No).unwrap().has_input(Source::Tun));
            poll.ask(Source::Tun, IN).unwrap();
            for wait in [Wait::No, Wait::AtMost(Duration::from_secs(5)), Wait::Forever] {
                let found = poll.wait(wait).unwrap();
                assert!(found.has_input(Source::Tun));
                assert!(!found.has_room(Source::Tun));
                assert!(!found.has_input(Source::Wake));
            }
            poll.ask(Source::Tun, OUT).unwrap();
            assert!(poll.wait(Wait::Forever).unwrap().has_room(Source::Tun));
            poll.attach(Source::Tun, None).unwrap();
            assert!(!poll.wait(Wait::No).unwrap().has_room(Source::Tun));
        }
    }
}
