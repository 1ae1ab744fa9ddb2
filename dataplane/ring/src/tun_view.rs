//! A second descriptor of a TUN queue, for whoever watches the device from another thread.
//!
//! It follows the device through renaming and into other network namespaces, where no name or
//! number that was known before still finds it. It moves no packets.

#![allow(unsafe_code, reason = "poll, and an ioctl that returns a descriptor")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::sys;
use crate::tun::TunQueue;

/// The request that returns a descriptor of the device's network namespace (Linux 5.2).
const TUNGETDEVNETNS: libc::c_ulong = 0x54e3;

/// What the device is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunState {
    /// It moves packets.
    Up,
    /// It exists and moves none.
    Down,
    /// It has been deleted.
    Gone,
}

/// A second descriptor of a queue.
#[derive(Debug)]
pub struct TunView {
    queue: OwnedFd,
}

impl TunView {
    /// Of this queue. The device lives as long as the queue or the view does.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn of(queue: &TunQueue) -> io::Result<Self> {
        Ok(Self { queue: queue.descriptor().try_clone_to_owned()? })
    }

    /// What the device is doing, as polling tells: only a device that is up can be written to.
    /// (A write of nothing tells it too, but not once packets carry a virtio header.)
    #[must_use]
    pub fn state(&self) -> TunState {
        let mut poll =
            libc::pollfd { fd: self.queue.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: the pointer is to one entry, which outlives the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        if ready < 0 || poll.revents & (libc::POLLERR | libc::POLLNVAL) != 0 {
            TunState::Gone
        } else if poll.revents & libc::POLLOUT != 0 {
            TunState::Up
        } else {
            TunState::Down
        }
    }

    /// The name the device has now.
    ///
    /// # Errors
    /// `EBADFD` when it is gone.
    pub fn name(&self) -> io::Result<String> {
        let Some(mut request) = sys::interface_request("?") else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        sys::ioctl(self.queue.as_fd(), libc::TUNGETIFF, &mut request)?;
        let name = request.ifr_name.iter().take_while(|c| **c != 0);
        Ok(name.map(|c| char::from(*c as u8)).collect())
    }

    /// The network namespace the device is in now.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN over that namespace, `EBADFD` when the device is gone.
    pub fn namespace(&self) -> io::Result<OwnedFd> {
        // SAFETY: the request takes no argument.
        let fd = unsafe { libc::ioctl(self.queue.as_raw_fd(), TUNGETDEVNETNS) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel made this descriptor for us; nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::tun::TunOptions;

    #[test]
    fn privileged_a_view_knows_name_namespace_and_state() {
        let name = format!("rwv{}", std::process::id() % 100_000);
        let queue = TunQueue::open(&TunOptions::named(&name)).unwrap();
        let view = TunView::of(&queue).unwrap();
        assert_eq!(view.name().unwrap(), name);
        assert_eq!(view.state(), TunState::Down);
        view.namespace().unwrap();
        let ip = |args: &[&str]| {
            assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
        };
        ip(&["link", "set", &name, "up"]);
        assert_eq!(view.state(), TunState::Up);
        ip(&["link", "delete", &name]);
        assert_eq!(view.state(), TunState::Gone);
        assert!(view.name().is_err());
    }
}
