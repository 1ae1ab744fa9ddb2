//! Which queue of a TUN gets a packet of the kernel: that of the core that owns its destination.
//!
//! Two maps, one per family, know whose a prefix is; a small program looks the destination up,
//! longest prefix first. Control fills the maps while packets flow.
//!
//! Measured with 100,000 prefixes of either family (Linux 6.18, slabs and `BPF_PROG_TEST_RUN`): a
//! prefix costs 128 bytes of the kernel (two nodes of 64) and 53 here, and 3 us to insert; a packet
//! costs 35 ns with one prefix, 94 with 1,000, 137 with 100,000 if it goes where the last went and
//! 0.8 us if it goes anywhere.
//!
//! The program sees a packet as the TUN does: its IP header at offset 0. What it returns is taken
//! modulo the number of queues, so the core with number n must have the n-th queue. Without it the
//! kernel sends a flow to the queue that last wrote a packet of it, and cores hand over.

// HashMap: control's note of what the maps hold; packets are looked up by the kernel.
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::SPREAD;
use super::assembler::{
    FRAME, Instruction, LOAD_BYTES, Line, MAP_LOOKUP, R, address, assemble, call, copy, exit, jump,
    jump_if, jump_unless, load_8, load_32, map, modulo, multiply, set, shift_right, store_32, xor,
};
use super::bpf;
#[cfg(test)]
use super::mixed;
use crate::sys;
use crate::tun::TunQueue;

/// Why packets of a TUN are not steered, or a prefix is not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunSteeringError {
    /// The privilege is missing.
    #[error(
        "Steering a TUN needs CAP_BPF (CAP_SYS_ADMIN before Linux 5.8); without it packets are \
         handed over between cores"
    )]
    NotAllowed,
    /// The kernel cannot do it.
    #[error(
        "This kernel cannot steer a TUN ({what}: {source}); it takes Linux 4.16 with \
         CONFIG_BPF_SYSCALL. Packets are handed over between cores"
    )]
    Kernel {
        /// What it does not know.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The kernel refused the program.
    #[error(
        "The kernel refused the program that steers the TUN: {source}; packets are handed over \
         between cores. It says:\n{log}"
    )]
    Program {
        /// What it said.
        source: io::Error,
        /// Its reasons, line by line.
        log: String,
    },
    /// There is no room for another prefix.
    #[error(
        "The steering of the TUN has no room for {address}/{len}: it holds {prefixes_max} prefixes \
         of a family; packets to it are handed over between cores"
    )]
    Full {
        /// Address of the prefix.
        address: IpAddr,
        /// Its length in bits.
        len: u8,
        /// How many there may be.
        prefixes_max: u32,
    },
    /// Anything else.
    #[error("Cannot change the steering of the TUN: {what}: {source}")]
    Other {
        /// The step that failed.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The steering of a TUN. It belongs to control. Dropping it leaves the program where it was
/// attached, with the prefixes as they are, until the device goes or another is attached.
#[derive(Debug)]
pub struct TunSteering {
    ipv4: OwnedFd,
    ipv6: OwnedFd,
    program: OwnedFd,
    cores: u16,
    prefixes_max: u32,
    /// What the maps hold.
    known: HashMap<(IpAddr, u8), u16>,
}

impl TunSteering {
    /// Makes a steering without prefixes and attaches it to the device of `queue`, all queues.
    ///
    /// # Errors
    /// [`TunSteeringError`]: what is missing.
    ///
    /// # Panics
    /// If there are no cores.
    pub fn attach(
        queue: &TunQueue,
        cores: u16,
        prefixes_max: u32,
    ) -> Result<Self, TunSteeringError> {
        let steering = Self::new(cores, prefixes_max)?;
        steering.attach_to(queue)?;
        Ok(steering)
    }

    /// Makes a steering for `cores` cores that is attached nowhere yet, so that it can be filled
    /// first: `prefixes_max` is the most that each family can have.
    ///
    /// # Errors
    /// [`TunSteeringError`]: what is missing.
    ///
    /// # Panics
    /// If there are no cores.
    pub fn new(cores: u16, prefixes_max: u32) -> Result<Self, TunSteeringError> {
        assert!(cores > 0);
        let ipv4 = bpf::prefix_map(*b"ringway_ipv4\0\0\0\0", 4, prefixes_max).map_err(no_map)?;
        let ipv6 = bpf::prefix_map(*b"ringway_ipv6\0\0\0\0", 16, prefixes_max).map_err(no_map)?;
        let code = program(ipv4.as_raw_fd(), ipv6.as_raw_fd(), cores);
        let program = bpf::load(*b"ringway_tun\0\0\0\0\0", &code).map_err(|(source, log)| {
            match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) if log.is_empty() => TunSteeringError::NotAllowed,
                _ => TunSteeringError::Program { source, log },
            }
        })?;
        Ok(Self { ipv4, ipv6, program, cores, prefixes_max, known: HashMap::new() })
    }

    /// Steers the device of `queue`, all queues, from the next packet on; what steered it before
    /// does so no longer.
    ///
    /// # Errors
    /// [`TunSteeringError::Kernel`] if it is older than Linux 4.16.
    pub fn attach_to(&self, queue: &TunQueue) -> Result<(), TunSteeringError> {
        let mut program = self.program.as_raw_fd();
        sys::ioctl(queue.descriptor(), libc::TUNSETSTEERINGEBPF, &mut program)
            .map_err(|source| TunSteeringError::Kernel { what: "TUNSETSTEERINGEBPF", source })
    }

    /// Leaves the choice to the kernel's own table of flows again.
    ///
    /// # Errors
    /// [`TunSteeringError::Other`] if the device has gone.
    pub fn detach(queue: &TunQueue) -> Result<(), TunSteeringError> {
        let mut nothing: libc::c_int = -1;
        sys::ioctl(queue.descriptor(), libc::TUNSETSTEERINGEBPF, &mut nothing)
            .map_err(|source| TunSteeringError::Other { what: "TUNSETSTEERINGEBPF", source })
    }

    /// Sends packets for a prefix to `core` from now on, unless a longer prefix says otherwise.
    /// Bits of `address` beyond `len` do not matter.
    ///
    /// # Errors
    /// [`TunSteeringError::Full`], or that the kernel has no memory.
    ///
    /// # Panics
    /// If the prefix is longer than its address or there is no such core.
    pub fn insert(&mut self, address: IpAddr, len: u8, core: u16) -> Result<(), TunSteeringError> {
        assert!(core < self.cores);
        let address = masked(address, len);
        let known = self.known.entry((address, len));
        if matches!(&known, Entry::Occupied(entry) if *entry.get() == core) {
            return Ok(());
        }
        let updated = match address {
            IpAddr::V4(_) => bpf::update(self.ipv4.as_fd(), &ipv4_key(address, len), core.into()),
            IpAddr::V6(_) => bpf::update(self.ipv6.as_fd(), &ipv6_key(address, len), core.into()),
        };
        updated.map_err(|source| match source.raw_os_error() {
            Some(libc::ENOSPC | libc::E2BIG) => {
                TunSteeringError::Full { address, len, prefixes_max: self.prefixes_max }
            }
            _ => TunSteeringError::Other { what: "a new prefix", source },
        })?;
        known.insert_entry(core);
        Ok(())
    }

    /// Forgets a prefix; whether it was known.
    ///
    /// # Errors
    /// [`TunSteeringError::Other`] if the kernel does not do it.
    ///
    /// # Panics
    /// If the prefix is longer than its address.
    pub fn remove(&mut self, address: IpAddr, len: u8) -> Result<bool, TunSteeringError> {
        let address = masked(address, len);
        if !self.known.contains_key(&(address, len)) {
            return Ok(false);
        }
        let deleted = match address {
            IpAddr::V4(_) => bpf::delete(self.ipv4.as_fd(), &ipv4_key(address, len)),
            IpAddr::V6(_) => bpf::delete(self.ipv6.as_fd(), &ipv6_key(address, len)),
        };
        deleted.map_err(|source| TunSteeringError::Other { what: "an old prefix", source })?;
        self.known.remove(&(address, len));
        Ok(true)
    }

    /// Prefixes of both families.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are no prefixes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The core of a destination that no prefix covers.
    #[cfg(test)]
    fn core_of_stranger(&self, address: IpAddr) -> u16 {
        // The program loads words in the order of the machine.
        let word = |bytes: &[u8]| u32::from_ne_bytes(*bytes.first_chunk().expect("four bytes"));
        let folded = match address {
            IpAddr::V4(v4) => word(&v4.octets()),
            IpAddr::V6(v6) => v6.octets().chunks(4).fold(0, |all, bytes| all ^ word(bytes)),
        };
        ((mixed(folded) >> 16) % u32::from(self.cores)) as u16
    }
}

fn no_map(source: io::Error) -> TunSteeringError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunSteeringError::NotAllowed,
        Some(libc::ENOSYS | libc::EINVAL) => {
            TunSteeringError::Kernel { what: "a map by longest prefix", source }
        }
        _ => TunSteeringError::Other { what: "a map by longest prefix", source },
    }
}

/// The address with nothing beyond the prefix.
fn masked(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            assert!(len <= 32, "{address}/{len}");
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            assert!(len <= 128, "{address}/{len}");
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

fn ipv4_key(address: IpAddr, len: u8) -> [u8; 8] {
    let IpAddr::V4(v4) = address else { unreachable!("{address} is not IPv4") };
    let mut key = [0; 8];
    key[..4].copy_from_slice(&u32::from(len).to_ne_bytes());
    key[4..].copy_from_slice(&v4.octets());
    key
}

fn ipv6_key(address: IpAddr, len: u8) -> [u8; 20] {
    let IpAddr::V6(v6) = address else { unreachable!("{address} is not IPv6") };
    let mut key = [0; 20];
    key[..4].copy_from_slice(&u32::from(len).to_ne_bytes());
    key[4..].copy_from_slice(&v6.octets());
    key
}

/// Where things are in the packet.
const VERSION_AT: i32 = 0;
const IPV4_DESTINATION_AT: i32 = 16;
const IPV6_DESTINATION_AT: i32 = 24;

/// Where things are in the stack: a key is 32 bits of length, then the address.
const VERSION: i16 = -24;
const IPV4_KEY: i16 = -8;
const IPV6_KEY: i16 = -20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Ipv6,
    Stranger4,
    Stranger6,
    Spread,
    Malformed,
}

/// The program: registers 6 and 7 keep the packet and the destination, folded.
fn program(ipv4: i32, ipv6: i32, cores: u16) -> Vec<Instruction> {
    let packet = R(6);
    let mut lines = vec![copy(packet, R(1))];
    lines.extend(load_bytes(packet, VERSION_AT, VERSION, 1));
    lines.extend([
        load_8(R(7), FRAME, VERSION),
        shift_right(R(7), 4),
        jump_if(R(7), 6, Label::Ipv6),
        jump_unless(R(7), 4, Label::Malformed),
    ]);

    lines.extend(load_bytes(packet, IPV4_DESTINATION_AT, IPV4_KEY + 4, 4));
    lines.extend(look_up(ipv4, IPV4_KEY, 32, Label::Stranger4));
    lines.extend([
        Line::At(Label::Stranger4),
        load_32(R(7), FRAME, IPV4_KEY + 4),
        jump(Label::Spread),
    ]);

    lines.push(Line::At(Label::Ipv6));
    lines.extend(load_bytes(packet, IPV6_DESTINATION_AT, IPV6_KEY + 4, 16));
    lines.extend(look_up(ipv6, IPV6_KEY, 128, Label::Stranger6));
    lines.extend([Line::At(Label::Stranger6), load_32(R(7), FRAME, IPV6_KEY + 4)]);
    for word in 1..4 {
        lines.extend([load_32(R(1), FRAME, IPV6_KEY + 4 + 4 * word), xor(R(7), R(1))]);
    }

    lines.extend([
        Line::At(Label::Spread),
        // As `mixed`.
        multiply(R(7), SPREAD.cast_signed()),
        copy(R(1), R(7)),
        shift_right(R(1), 16),
        xor(R(7), R(1)),
        multiply(R(7), SPREAD.cast_signed()),
        shift_right(R(7), 16),
        modulo(R(7), cores.into()),
        copy(R(0), R(7)),
        exit(),
        Line::At(Label::Malformed),
        set(R(0), 0),
        exit(),
    ]);
    assemble(&lines)
}

/// Copies bytes of the packet to a place in the stack; too short a packet is malformed.
fn load_bytes(packet: R, at: i32, place: i16, bytes: i32) -> Vec<Line<Label>> {
    let mut lines = vec![copy(R(1), packet), set(R(2), at)];
    lines.extend(address(R(3), place));
    lines.extend([set(R(4), bytes), call(LOAD_BYTES), jump_unless(R(0), 0, Label::Malformed)]);
    lines
}

/// Ends with what a map says about the key at a place in the stack, whose address is there already;
/// goes to `stranger` if it says nothing.
fn look_up(descriptor: i32, key: i16, bits: i32, stranger: Label) -> Vec<Line<Label>> {
    let mut lines = vec![store_32(key, bits)];
    lines.extend(map(R(1), descriptor));
    lines.extend(address(R(2), key));
    lines.extend([call(MAP_LOOKUP), jump_if(R(0), 0, stranger), load_32(R(0), R(0), 0), exit()]);
    lines
}

#[cfg(test)]
mod tests;
