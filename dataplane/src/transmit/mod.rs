//! What leaves a core in one turn, collected into as few operations as possible.
//!
//! [`outside`] keeps an open GSO train per peer: reserve room in it, fill in the plain packet, and
//! the whole train is sealed and committed when it is full or the turn ends. [`inside`] keeps open
//! super-packets for the TUN: packets of one flow are merged by reference. Both are bounded;
//! running out is a counted drop, never a wait.
//!
//! This module must not know routes or policy.

pub mod inside;
pub mod outside;

pub use inside::InsideQueue;
pub use outside::Trains;
