//! Attacks by ring: the hijacked worker submits what it likes to the ring that it has.

#![allow(unsafe_code, reason = "attacks are submissions")]

use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::{CancelBuilder, Fd, FsyncFlags, Timespec};
use io_uring::{opcode, squeue};

use super::attacks::{Loot, call, config, judge, on_a_worker};
use crate::backend::Backend;
use crate::driver::{Driver, Wait};
use crate::ring::FILE_WAKE;
use crate::uring::UringDriver;

/// No completion of the driver carries this.
const ATTACK: u64 = 0xa77a_c4ed;

type Attack = (&'static str, fn(&mut UringDriver, &Loot) -> io::Result<()>);

const ENTRIES: &[Attack] = &[
    ("OPENAT", |driver, _| {
        let path = c"/etc/passwd".as_ptr();
        opened(submit(driver, opcode::OpenAt::new(Fd(libc::AT_FDCWD), path).build()))
    }),
    ("OPENAT2", |driver, _| {
        let how = io_uring::types::OpenHow::new();
        let path = c"/etc/passwd".as_ptr();
        opened(submit(
            driver,
            opcode::OpenAt2::new(Fd(libc::AT_FDCWD), path, &raw const how).build(),
        ))
    }),
    ("STATX", |driver, _| {
        let mut status = [0_u64; 32];
        let (path, room) = (c"/etc/passwd".as_ptr(), status.as_mut_ptr().cast());
        done(submit(driver, opcode::Statx::new(Fd(libc::AT_FDCWD), path, room).build()))
    }),
    ("SOCKET", |driver, _| {
        opened(submit(driver, opcode::Socket::new(libc::AF_INET, libc::SOCK_DGRAM, 0).build()))
    }),
    ("CONNECT", |driver, loot| {
        let address = (&raw const loot.address).cast();
        done(submit(driver, opcode::Connect::new(of(&loot.stream), address, 16).build()))
    }),
    ("URING_CMD", |driver, loot| {
        // SOCKET_URING_OP_SIOCOUTQ
        done(submit(driver, opcode::UringCmd16::new(of(&loot.stream), 1).build()))
    }),
    ("SPLICE", |driver, loot| {
        let (from, to) = (of(&loot.full[0]), of(&loot.empty[1]));
        done(submit(driver, opcode::Splice::new(from, -1, to, -1, 1).build()))
    }),
    ("TEE", |driver, loot| {
        let (from, to) = (of(&loot.full[0]), of(&loot.empty[1]));
        done(submit(driver, opcode::Tee::new(from, to, 1).build()))
    }),
    ("WRITE", |driver, loot| {
        let entry = opcode::Write::new(of(&loot.empty[1]), c"x".as_ptr().cast(), 1).build();
        done(submit(driver, entry))
    }),
    ("FSYNC", |driver, loot| {
        let entry = opcode::Fsync::new(of(&loot.file)).flags(FsyncFlags::DATASYNC).build();
        done(submit(driver, entry))
    }),
    ("FILES_UPDATE", |driver, loot| {
        let fds = [loot.file.as_raw_fd()];
        let entry = opcode::FilesUpdate::new(fds.as_ptr(), 1).offset(FILE_WAKE as i32 + 1).build();
        // Without a sandbox the answer is about the table, not about the right to change it.
        match submit(driver, entry) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            outcome => done(outcome),
        }
    }),
    ("TIMEOUT", |driver, _| {
        let time = Timespec::new().nsec(1);
        match submit(driver, opcode::Timeout::new(&raw const time).build()) {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(()),
            outcome => done(outcome),
        }
    }),
    ("NOP", |driver, _| done(submit(driver, opcode::Nop::new().build()))),
    ("READ of an unregistered file", |driver, loot| {
        let mut byte = 0_u8;
        let room = &raw mut byte;
        done(submit(driver, opcode::Read::new(of(&loot.file), room, 1).offset(0).build()))
    }),
    ("WRITEV to an unregistered file", |driver, loot| {
        let byte = c"x".as_ptr().cast_mut().cast();
        let vector = libc::iovec { iov_base: byte, iov_len: 1 };
        let to = of(&loot.empty[1]);
        done(submit(driver, opcode::Writev::new(to, &raw const vector, 1).build()))
    }),
    ("an allowed operation that is linked", |driver, _| {
        let nobody = CancelBuilder::user_data(1).all();
        let flags = squeue::Flags::FIXED_FILE | squeue::Flags::ASYNC;
        done(submit(driver, opcode::AsyncCancel2::new(nobody).build().flags(flags)))
    }),
];

#[test]
fn without_restrictions_every_entry_is_carried_out() {
    on_a_worker(false, |driver: &mut UringDriver, loot| attack(false, driver, loot));
}

#[test]
fn a_hijacked_worker_is_refused_every_entry_and_traffic_goes_on() {
    on_a_worker(true, |driver: &mut UringDriver, loot| attack(true, driver, loot));
}

fn attack(boxed: bool, driver: &mut UringDriver, loot: &Loot) {
    for (name, attempt) in ENTRIES {
        judge(boxed, name, &attempt(driver, loot));
    }
    // What the driver itself does goes on.
    let nobody = CancelBuilder::user_data(1).all();
    let entry = opcode::AsyncCancel2::new(nobody).build().flags(squeue::Flags::FIXED_FILE);
    submit(driver, entry).unwrap();
}

/// `io_uring_register`: a new table of files, lifted restrictions, a ring by number, a probe.
const REGISTERS: [(&str, usize); 8] = [
    ("BUFFERS", 0),
    ("FILES", 2),
    ("UNREGISTER_FILES", 3),
    ("PROBE", 8),
    ("PERSONALITY", 9),
    ("RESTRICTIONS", 11),
    ("ENABLE_RINGS", 12),
    ("RING_FDS", 20),
];

#[test]
fn a_hijacked_worker_cannot_register_what_the_driver_does_not() {
    on_a_worker(true, |driver: &mut UringDriver, loot| {
        let fds = [loot.file.as_raw_fd(); 4];
        for (name, code) in REGISTERS {
            let outcome = register(driver, code, fds.as_ptr() as usize, 1);
            judge(true, name, &done(outcome));
        }
    });
}

/// The kernel's own answers, where the filter does not come first.
#[test]
fn restrictions_hold_by_themselves_and_cannot_be_lifted() {
    on_a_worker(false, |driver: &mut UringDriver, loot| {
        // The first turn enables the ring as it is; then it is too late.
        driver.turn(Wait::No).unwrap();
        assert_eq!(driver.restrict().unwrap_err().raw_os_error(), Some(libc::EBADFD));
        judge(false, "PERSONALITY", &done(register(driver, 9, 0, 0)));

        let mut driver = UringDriver::make(config()).unwrap();
        driver.restrict().unwrap();
        for (name, attempt) in ENTRIES {
            judge(true, name, &attempt(&mut driver, loot));
        }
        let fds = [loot.file.as_raw_fd(); 4];
        for (name, code) in REGISTERS {
            judge(true, name, &done(register(&driver, code, fds.as_ptr() as usize, 1)));
        }
        driver.shutdown().unwrap();
    });
}

fn register(driver: &UringDriver, code: usize, at: usize, count: usize) -> io::Result<i64> {
    let ring = driver.ring_fd().unwrap() as usize;
    call(libc::SYS_io_uring_register, &[ring, code, at, count])
}

/// Submits one entry to the driver's own ring and waits for what becomes of it.
fn submit(driver: &mut UringDriver, entry: squeue::Entry) -> io::Result<i64> {
    let (ring, stats) = driver.bare();
    // SAFETY: what attacks point to lives until they are answered, which is waited for below.
    unsafe { ring.push(entry.user_data(ATTACK), stats) };
    loop {
        ring.enter(Wait::Forever, stats).unwrap();
        if let Some(completion) = ring.pop() {
            assert_eq!(completion.user_data(), ATTACK, "something of the driver ended");
            let result = completion.result();
            return match result {
                0.. => Ok(result.into()),
                _ => Err(io::Error::from_raw_os_error(-result)),
            };
        }
    }
}

fn of(file: &impl AsRawFd) -> Fd {
    Fd(file.as_raw_fd())
}

fn done(outcome: io::Result<i64>) -> io::Result<()> {
    outcome.map(drop)
}

fn opened(outcome: io::Result<i64>) -> io::Result<()> {
    outcome.map(super::attacks::close)
}
