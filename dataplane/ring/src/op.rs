//! Operations and their numbers.
//!
//! Each operation in flight carries a 64-bit token: what it is, which slot it belongs to, and the
//! generation of that slot. A completion whose generation is not the slot's own is late and is told
//! apart from the slot's current work. This file must not know what an operation does.

use ringway_alloc::forget;

use crate::failures::Failures;

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    /// Multishot receive of a UDP socket; the slot is the socket.
    Receive = 1,
    /// Read of the TUN; the slot is the number of the read.
    Read = 2,
    /// Send of a train; the slot is a transmit slot.
    Send = 3,
    /// Write to the TUN; the slot is a write slot.
    Write = 4,
    /// Read of the wake-up counter.
    Wake = 5,
    /// Request to cancel others; nothing waits for its result.
    Cancel = 6,
}

/// The 64 bits that travel with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) op: Op,
    /// 24 bits.
    pub(crate) generation: u32,
    pub(crate) slot: u32,
}

const GENERATION_BITS: u32 = 24;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

impl Token {
    pub(crate) const fn new(op: Op, slot: u32, generation: u32) -> Self {
        Self { op, generation: generation & GENERATION_MASK, slot }
    }

    pub(crate) const fn encode(self) -> u64 {
        (self.op as u64) << 56 | (self.generation as u64) << 32 | self.slot as u64
    }

    /// `None` if the kernel returned a number that we never gave it.
    pub(crate) const fn decode(user_data: u64) -> Option<Self> {
        let op = match (user_data >> 56) as u8 {
            1 => Op::Receive,
            2 => Op::Read,
            3 => Op::Send,
            4 => Op::Write,
            5 => Op::Wake,
            6 => Op::Cancel,
            _ => return None,
        };
        let generation = (user_data >> 32) as u32 & GENERATION_MASK;
        Some(Self { op, generation, slot: user_data as u32 })
    }
}

/// A fixed number of slots for operations in flight. Slots never move: the kernel holds addresses
/// into them.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    op: Op,
    slots: Box<[Slot<T>]>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    busy: bool,
    content: T,
}

impl<T> Slots<T> {
    pub(crate) fn new(op: Op, count: u32, mut make: impl FnMut() -> T) -> Self {
        let slot = |_| Slot { generation: 0, busy: false, content: make() };
        Self { op, slots: (0..count).map(slot).collect(), free: (0..count).rev().collect() }
    }

    /// Takes a free slot and the token of its next operation.
    pub(crate) fn take(&mut self) -> Option<(Token, &mut T)> {
        let index = self.free.pop()?;
        let slot = &mut self.slots[index as usize];
        slot.busy = true;
        Some((Token::new(self.op, index, slot.generation), &mut slot.content))
    }

    /// The content that an operation in flight belongs to.
    ///
    /// # Panics
    /// If no such operation is in flight: the kernel completed something twice, or we released a
    /// slot too early.
    pub(crate) fn content(&mut self, token: Token) -> &mut T {
        let slot = &mut self.slots[token.slot as usize];
        assert!(slot.busy, "{token:?} is not in flight");
        assert_eq!(slot.generation & GENERATION_MASK, token.generation, "{token:?} is late");
        &mut slot.content
    }

    /// Frees a slot after the terminal completion of its operation.
    pub(crate) fn release(&mut self, token: Token) {
        let _ = self.content(token);
        let slot = &mut self.slots[token.slot as usize];
        slot.busy = false;
        slot.generation = slot.generation.wrapping_add(1);
        // Within the capacity reserved at construction: this never allocates.
        self.free.push(token.slot);
    }

    /// Makes anew what no operation uses, and wipes what was there.
    pub(crate) fn renew_idle(&mut self, mut make: impl FnMut() -> T) {
        for slot in self.slots.iter_mut().filter(|slot| !slot.busy) {
            drop(forget::wipe_value(&mut slot.content, make()));
        }
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// The generation of an operation that is started, ends and is started again: a receive or the
/// wake-up read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arm {
    op: Op,
    slot: u32,
    generation: u32,
    armed: bool,
    used: bool,
    failures: Failures,
}

impl Arm {
    pub(crate) const fn new(op: Op, slot: u32) -> Self {
        Self { op, slot, generation: 0, armed: false, used: false, failures: Failures::new() }
    }

    /// Begins the next generation.
    pub(crate) const fn start(&mut self) -> Token {
        self.generation = self.generation.wrapping_add(1);
        self.armed = true;
        self.used = true;
        self.token()
    }

    pub(crate) const fn token(&self) -> Token {
        Token::new(self.op, self.slot, self.generation)
    }

    pub(crate) fn is_current(&self, token: Token) -> bool {
        self.token() == token
    }

    /// The kernel will not post for this arm any more.
    pub(crate) const fn ended(&mut self) {
        self.armed = false;
    }

    pub(crate) const fn is_armed(&self) -> bool {
        self.armed
    }

    /// Whether it was armed since the last reset: starting it now is starting it again.
    pub(crate) const fn was_armed(&self) -> bool {
        self.used
    }

    /// Whether it is not armed and may be.
    pub(crate) const fn wants_arming(&self) -> bool {
        !self.armed && self.broken().is_none()
    }

    pub(crate) const fn succeeded(&mut self) {
        self.failures.succeeded();
    }

    pub(crate) const fn failed(&mut self, errno: i32) {
        self.failures.failed(errno);
    }

    /// Why it was given up, as an error number.
    pub(crate) const fn broken(&self) -> Option<i32> {
        self.failures.broken()
    }

    /// A new descriptor: past failures no longer count.
    pub(crate) const fn reset(&mut self) {
        self.used = false;
        self.failures.reset();
    }
}

/// Gives memory up for good: the kernel did not end an operation that may still touch it, and a
/// leak is harmless where a free is not.
pub(crate) fn give_up<T>(memory: T) {
    Box::leak(Box::new(memory));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::failures::FAILURES_MAX;

    #[test]
    fn a_token_survives_the_kernel() {
        for op in [Op::Receive, Op::Read, Op::Send, Op::Write, Op::Wake, Op::Cancel] {
            for (slot, generation) in [(0, 0), (7, 1), (u32::MAX, u32::MAX), (1, 1 << 24)] {
                let token = Token::new(op, slot, generation);
                assert_eq!(Token::decode(token.encode()), Some(token));
            }
        }
        assert_eq!(Token::decode(0), None);
        assert_eq!(Token::decode(u64::MAX), None);
    }

    #[test]
    fn slots_run_out_and_come_back_with_a_new_generation() {
        let mut slots = Slots::new(Op::Send, 2, || 0u32);
        let (first, content) = slots.take().unwrap();
        *content = 5;
        let (second, _) = slots.take().unwrap();
        assert!(slots.take().is_none());
        assert_eq!(slots.in_flight(), 2);
        assert_eq!(*slots.content(first), 5);
        slots.release(first);
        let (again, _) = slots.take().unwrap();
        assert_eq!(again.slot, first.slot);
        assert_ne!(again, first);
        assert_ne!(again, second);
    }

    #[test]
    #[should_panic(expected = "late")]
    fn a_late_completion_is_not_taken_for_the_current_one() {
        let mut slots = Slots::new(Op::Send, 1, || ());
        let (first, ()) = slots.take().map(|(token, _)| (token, ())).unwrap();
        slots.release(first);
        let _ = slots.take();
        slots.release(first);
    }

    #[test]
    fn an_arm_gives_up_only_after_many_failures_in_a_row() {
        let mut arm = Arm::new(Op::Receive, 0);
        for round in 0..100 {
            let token = arm.start();
            assert!(arm.is_current(token));
            arm.ended();
            if round % 10 == 9 {
                arm.succeeded()
            } else {
                arm.failed(libc::EIO)
            }
            assert!(arm.wants_arming());
        }
        for _ in 0..FAILURES_MAX {
            arm.failed(libc::EBADFD);
        }
        assert!(!arm.wants_arming());
        assert_eq!(arm.broken(), Some(libc::EBADFD));
        arm.reset();
        assert!(arm.wants_arming());
    }
}
