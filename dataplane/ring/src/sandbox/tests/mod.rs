//! A hijacked worker in its sandbox, and an honest one.
//!
//! Every attack is made twice: on a thread without a sandbox, where it must succeed (else the test
//! would prove nothing), and on a worker's thread in its sandbox, where it must be refused while
//! the driver goes on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod attacks;
mod by_call;
mod by_ring;
mod honest;
