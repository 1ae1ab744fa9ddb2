//! Everything that crosses threads.
//!
//! A core and the control thread, or two cores, meet nowhere else: [`spsc`] carries commands,
//! reports and stray packets, [`mesh`] joins every two cores by two such rings, [`handover`]
//! carries a snapshot and brings the old one back, [`page`] carries counters, `usage` what accounts
//! used, and [`wake`] ends a sleep. Nothing here waits for the other side, so a thread that stops
//! never holds back another.
//!
//! This crate must not know what the items, snapshots and words mean.
//!
//! # Why the orderings are enough
//!
//! **Ring.** `tail` counts what was ever put in, `head` what was ever taken out; each is written by
//! one side only, and both wrap. A slot is written before `tail` passes it with `Release`, and read
//! after `tail` was seen with `Acquire`: the value is whole. It is read before `head` passes it
//! with `Release`, and written again after `head` was seen with `Acquire`: no slot is overwritten
//! while it is read. Each side caches the other's cursor. A stale cursor only makes the ring look
//! fuller to the sender and emptier to the receiver than it is, and each looks again before it says
//! so.
//!
//! **Handover.** A pointer changes hands through one atomic word with `Release` on the giving and
//! `Acquire` on the taking side, so whoever holds the pointer sees everything written through it
//! before. Exactly one side ever holds it.
//!
//! **Page.** Words are relaxed atomics, so no access is a race; what remains is to show that a
//! reader took all of them from one publication. There are two banks. Publication `n` goes to bank
//! `n mod 2`: the writer stores `begun = n`, a `Release` fence, the words, and `published = n` with
//! `Release`. A reader loads `published = n` with `Acquire`, which shows it all words of `n`; reads
//! bank `n mod 2`; an `Acquire` fence; and loads `begun`. Had it read one word of publication `n +
//! 2` or later, which is the next to use that bank, the two fences would make `begun >= n + 2`
//! visible to it. So `begun < n + 2` proves that every word is of `n`. A writer killed at any
//! instruction leaves `published` naming a whole bank.
//!
//! **Usage.** Each word is written by one thread and means something by itself: relaxed loads and
//! stores are enough. Only a slot that gets another owner has an order: nobody's, zeros, the new
//! owner; a reader that saw the same owner before and after the counts has that owner's.
//!
//! **Sleep.** The sleeper stores its flag, then looks at its queues; the waker puts something in a
//! queue, then looks at the flag. Each side has a `SeqCst` fence between its two steps. Fences are
//! totally ordered: if the waker's comes first, the sleeper sees the item and stays awake;
//! otherwise the waker sees the flag and ends the sleep. Release and acquire alone would allow both
//! to miss. With several wakers the flag may also be down because another one lowered it after this
//! announcement: that one ends the sleep, and the same holds of the next look. Lowering is a swap,
//! so one of them wins.
//!
//! `tests/loom.rs` runs these very functions through every interleaving and every stale value the
//! model allows.

pub mod handover;
mod map;
pub mod mesh;
pub mod page;
mod primitive;
pub mod spsc;
#[cfg(not(loom))]
pub mod usage;
pub mod wake;
