//! A queue of a TUN device, with its offloads.
//!
//! Packets carry a virtio header of [`VNET_HEADER_BYTES`]; the kernel hands over and takes
//! super-packets as far as the offloads were accepted. This file must not know rings, and does not
//! give the device addresses: that is control's.

use std::ffi::{CString, c_ulong};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use crate::driver::VNET_HEADER_BYTES;
use crate::sys;

/// What the kernel may leave to us and we to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunOffloads(u32);

impl TunOffloads {
    const CSUM: u32 = 0x01;
    const TSO4: u32 = 0x02;
    const TSO6: u32 = 0x04;
    const USO: u32 = 0x20 | 0x40;

    /// Checksums, TCP and UDP segmentation of both families (USO since Linux 6.2).
    pub const ALL: Self = Self(Self::CSUM | Self::TSO4 | Self::TSO6 | Self::USO);
    /// Checksums and TCP segmentation of both families.
    pub const TCP: Self = Self(Self::CSUM | Self::TSO4 | Self::TSO6);
    /// Checksums only.
    pub const CHECKSUM: Self = Self(Self::CSUM);
    /// Nothing: whole packets with valid checksums.
    pub const NONE: Self = Self(0);

    /// What is asked for, in order, until the kernel accepts.
    const LADDER: [Self; 4] = [Self::ALL, Self::TCP, Self::CHECKSUM, Self::NONE];

    /// Whether packets may come and go without their checksums filled in.
    #[must_use]
    pub const fn checksum(self) -> bool {
        self.0 & Self::CSUM != 0
    }

    /// Whether TCP super-packets come.
    #[must_use]
    pub const fn tcp(self) -> bool {
        self.0 & (Self::TSO4 | Self::TSO6) == Self::TSO4 | Self::TSO6
    }

    /// Whether UDP super-packets come.
    #[must_use]
    pub const fn udp(self) -> bool {
        self.0 & Self::USO == Self::USO
    }
}

impl std::fmt::Display for TunOffloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [(self.checksum(), "csum"), (self.tcp(), "tso"), (self.udp(), "uso")];
        let mut on = names.into_iter().filter_map(|(on, name)| on.then_some(name)).peekable();
        if on.peek().is_none() {
            return f.write_str("none");
        }
        f.write_str(&on.collect::<Vec<_>>().join("+"))
    }
}

/// How to open the device.
#[derive(Clone, Debug)]
pub struct TunOptions {
    /// Name of the interface, 1 to 15 bytes; `%d` in it is replaced by a free number.
    pub name: String,
    /// Several queues may be open, one per core (IFF_MULTI_QUEUE).
    pub multi_queue: bool,
    /// The most to ask for.
    pub offloads: TunOffloads,
}

impl TunOptions {
    /// One queue with all offloads.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), multi_queue: false, offloads: TunOffloads::ALL }
    }
}

/// Why there is no TUN.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunError {
    /// The module is not there.
    #[error(
        "There is no /dev/net/tun; load the module with `modprobe tun`, or give the container the \
         device"
    )]
    NoDevice,
    /// It is kept from this user.
    #[error(
        "This user may not open /dev/net/tun; open it to all with `chmod 0666 /dev/net/tun`, as \
         udev does (what it takes to make an interface is a capability), or run as root"
    )]
    DeviceClosed,
    /// The privilege is missing.
    #[error("Making the interface {name} needs CAP_NET_ADMIN; grant it or run as root")]
    NotAllowed {
        /// The interface.
        name: String,
    },
    /// Somebody has it.
    #[error(
        "The interface {name} exists and is in use; see `ip -details link show {name}`, stop its \
         owner, remove it with `ip link delete {name}`, or choose another name"
    )]
    Busy {
        /// The interface.
        name: String,
    },
    /// The name cannot be used.
    #[error("{name:?} cannot be the name of an interface (1 to 15 bytes, no slash, no space)")]
    Name {
        /// The name.
        name: String,
    },
    /// It exists and is something else.
    #[error(
        "The interface {name} exists and is not such a TUN; remove it with `ip link delete {name}` \
         or choose another name"
    )]
    Different {
        /// The interface.
        name: String,
    },
    /// Anything else.
    #[error("Cannot open the TUN {name}: {what}: {source}")]
    Other {
        /// The interface.
        name: String,
        /// The step that failed.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// How often, and after which pause, a busy name is tried again: a ring that was just closed lets
/// go of its queue some milliseconds later. A quarter of a second in all.
const BUSY_TRIES: usize = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// One open queue. The device goes when its last queue is closed, unless it was made persistent.
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    name: String,
    offloads: TunOffloads,
    nowait: bool,
}

impl TunQueue {
    /// Opens a queue, making the device if there is none of that name.
    ///
    /// # Errors
    /// [`TunError`]: what is missing or in the way, and what to do.
    pub fn open(options: &TunOptions) -> Result<Self, TunError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::open_once(options) {
                Err(TunError::Busy { .. }) if tries < BUSY_TRIES => {
                    std::thread::sleep(BUSY_PAUSE);
                }
                result => return result,
            }
        }
    }

    fn open_once(options: &TunOptions) -> Result<Self, TunError> {
        let name = || options.name.clone();
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|source| match source.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDevice,
                Some(libc::EPERM | libc::EACCES) => TunError::DeviceClosed,
                _ => TunError::Other { name: name(), what: "/dev/net/tun", source },
            })?;
        let fd = OwnedFd::from(device);
        let invalid = options.name.contains(['/', ' ', ':']) || options.name == ".";
        let request = sys::interface_request(&options.name).filter(|_| !invalid);
        let Some(mut request) = request else { return Err(TunError::Name { name: name() }) };
        let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if options.multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        sys::ioctl(fd.as_fd(), libc::TUNSETIFF, &mut request).map_err(|source| {
            match source.raw_os_error() {
                Some(libc::EPERM) => TunError::NotAllowed { name: name() },
                Some(libc::EBUSY) => TunError::Busy { name: name() },
                Some(libc::EINVAL) => TunError::Different { name: name() },
                _ => TunError::Other { name: name(), what: "TUNSETIFF", source },
            }
        })?;
        Self::prepare(fd, options.offloads)
    }

    /// Takes a queue that was opened elsewhere (handed over by another process), with a virtio
    /// header or not yet.
    ///
    /// # Errors
    /// [`TunError::Other`] if it is not an attached TUN queue with the virtio header and without
    /// packet information.
    pub fn adopt(fd: OwnedFd, offloads: TunOffloads) -> Result<Self, TunError> {
        Self::prepare(fd, offloads)
    }

    fn prepare(fd: OwnedFd, most: TunOffloads) -> Result<Self, TunError> {
        let (name, flags) = attached(fd.as_fd()).map_err(|source| TunError::Other {
            name: "(unknown)".into(),
            what: "not an attached TUN queue",
            source,
        })?;
        let needed = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if i32::from(flags) & needed != needed {
            return Err(TunError::Different { name });
        }
        let fail = |what| {
            let name = name.clone();
            move |source| TunError::Other { name, what, source }
        };
        let mut header_bytes = VNET_HEADER_BYTES as libc::c_int;
        sys::ioctl(fd.as_fd(), libc::TUNSETVNETHDRSZ, &mut header_bytes)
            .map_err(fail("virtio header size"))?;
        let mut accepted = Err(io::Error::from_raw_os_error(libc::EINVAL));
        for offloads in TunOffloads::LADDER {
            if offloads.0 & !most.0 != 0 {
                continue;
            }
            accepted =
                sys::ioctl_number(fd.as_fd(), libc::TUNSETOFFLOAD, c_ulong::from(offloads.0))
                    .map(|()| offloads);
            if accepted.is_ok() {
                break;
            }
        }
        let offloads = accepted.map_err(fail("offloads"))?;
        let nowait = sys::accepts_nowait_writes(fd.as_fd());
        Ok(Self { fd, name, offloads, nowait })
    }

    /// Another queue of the same device, for another core.
    ///
    /// # Errors
    /// [`TunError`]; the device must have been opened with `multi_queue`.
    pub fn another(&self) -> Result<Self, TunError> {
        Self::open(&TunOptions {
            name: self.name.clone(),
            multi_queue: true,
            offloads: self.offloads,
        })
    }

    /// Name of the interface.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Index of the interface, 0 if it is gone.
    #[must_use]
    pub fn index(&self) -> u32 {
        CString::new(self.name.as_str()).map_or(0, |name| sys::interface_index(&name))
    }

    /// What the kernel accepted.
    #[must_use]
    pub const fn offloads(&self) -> TunOffloads {
        self.offloads
    }

    /// The queue's descriptor, for attaching a steering program or handing it over.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Whether a write that would wait is refused instead. It keeps later writes from overtaking
    /// one that waits.
    pub(crate) const fn writes_nowait(&self) -> bool {
        self.nowait
    }
}

/// Name and flags of the device a queue is attached to.
fn attached(fd: BorrowedFd<'_>) -> io::Result<(String, libc::c_short)> {
    let Some(mut request) = sys::interface_request("?") else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    sys::ioctl(fd, libc::TUNGETIFF, &mut request)?;
    let name = request.ifr_name.iter().take_while(|c| **c != 0);
    Ok((name.map(|c| char::from(*c as u8)).collect(), sys::request_flags(&request)))
}

/// The features the TUN driver of this kernel has, without making a device.
pub(crate) fn driver_features() -> Result<u32, TunError> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let device = device.map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunError::DeviceClosed,
        _ => TunError::NoDevice,
    })?;
    let mut features: libc::c_uint = 0;
    sys::ioctl(device.as_fd(), libc::TUNGETFEATURES, &mut features)
        .map_err(|source| TunError::Other { name: "tun".into(), what: "TUNGETFEATURES", source })?;
    Ok(features)
}
