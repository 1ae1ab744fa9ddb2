//! bpf(2): maps by longest prefix, and programs.
//!
//! The call takes a union that differs by command; here is the beginning of each form that is used,
//! the rest is zero to the kernel. This file must not know what maps and programs are for.

#![allow(unsafe_code, reason = "this file is the door to bpf(2)")]

use std::ffi::{CStr, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::assembler::Instruction;

const MAP_CREATE: c_long = 0;
const MAP_UPDATE: c_long = 2;
const MAP_DELETE: c_long = 3;
const PROGRAM_LOAD: c_long = 5;

const MAP_BY_LONGEST_PREFIX: u32 = 11;
/// Entries take memory when they are made, which such maps demand.
const NO_PREALLOCATION: u32 = 1;
const PROGRAM_SOCKET_FILTER: u32 = 1;

/// Bytes of a map's value: one number.
const VALUE_BYTES: u32 = 4;

/// No function that is called demands a licence; this says ours.
const LICENCE: &CStr = c"MIT OR Apache-2.0";

/// Room for what the kernel says about a program that it refuses.
const LOG_BYTES: usize = 16 << 10;

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries_max: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct MapElement {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// Makes a map from prefixes to numbers. Its keys are the length of the prefix in bits (native
/// order, 4 bytes) and `address_bytes` of address.
pub(super) fn prefix_map(
    name: [u8; 16],
    address_bytes: u32,
    entries_max: u32,
) -> io::Result<OwnedFd> {
    let request = MapCreate {
        kind: MAP_BY_LONGEST_PREFIX,
        key_bytes: 4 + address_bytes,
        value_bytes: VALUE_BYTES,
        entries_max,
        flags: NO_PREALLOCATION,
        inner_map: 0,
        numa_node: 0,
        name,
    };
    // SAFETY: this command reads only the request.
    let fd = unsafe { call(MAP_CREATE, &request) }?;
    // SAFETY: the descriptor was just made by the kernel for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sets what a key stands for.
pub(super) fn update<const N: usize>(
    map: BorrowedFd<'_>,
    key: &[u8; N],
    value: u32,
) -> io::Result<()> {
    let request = MapElement {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: key.as_ptr() as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads as many bytes of key and value as the map was made for: a prefix and
    // a number. The caller passes a key of that map; both outlive the call.
    unsafe { call(MAP_UPDATE, &request) }.map(drop)
}

/// Forgets a key.
pub(super) fn delete<const N: usize>(map: BorrowedFd<'_>, key: &[u8; N]) -> io::Result<()> {
    let request = MapElement {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: key.as_ptr() as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: as for an update, without a value.
    unsafe { call(MAP_DELETE, &request) }.map(drop)
}

/// Loads a socket filter. If it is refused, also what the kernel says about it.
pub(super) fn load(name: [u8; 16], code: &[Instruction]) -> Result<OwnedFd, (io::Error, String)> {
    let mut log = Vec::new();
    match load_with(name, code, &mut log) {
        Ok(fd) => Ok(fd),
        Err(error) => {
            // Once more for the explanation; without the privilege there is none.
            log = vec![0; LOG_BYTES];
            let _same_error = load_with(name, code, &mut log);
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            Err((error, String::from_utf8_lossy(&log[..end]).into_owned()))
        }
    }
}

fn load_with(name: [u8; 16], code: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let request = ProgramLoad {
        kind: PROGRAM_SOCKET_FILTER,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        licence: LICENCE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_bytes: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        flags: 0,
        name,
    };
    // SAFETY: the request describes the code and the log, which outlive the call, and a terminated
    // string; the kernel writes only to the log.
    let fd = unsafe { call(PROGRAM_LOAD, &request) }?;
    // SAFETY: the descriptor was just made by the kernel for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// # Safety
/// The request must be the form that belongs to the command, and what it points to valid.
unsafe fn call<T>(command: c_long, request: &T) -> io::Result<c_long> {
    let request: *const T = request;
    // SAFETY: pointer and length describe the request; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, request, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
