//! The namespace lab: the real gateway and the real clients, in network namespaces.
//!
//! Each test begins with its topology and is named `privileged_*`: it needs root. Without it the
//! test fails and says what is missing. Tests wait for states, never for seconds, and clean up
//! after themselves.
//!
//! `RINGWAY_BIN` chooses the gateway (default: the newest build in `target`); `LAB_GATEWAY` puts
//! another program in its place (`wireguard-go`, `gotatun`, …), which tells whether a failure is
//! ours or the lab's.
//!
//! `RINGWAY_LAB_WORKERS` (1, 2, 4, …), `RINGWAY_LAB_DRIVER` (`uring`, `epoll`) and
//! `RINGWAY_LAB_STEERING` (`auto`, `off`), `RINGWAY_LAB_WITHOUT` (as `--without`) and
//! `RINGWAY_LAB_ZERO_COPY` (`off`, `auto`, `on`) are handed to the gateway as flags, so that the
//! same tests run over a matrix. `RINGWAY_LAB_LONG` makes what waits wait as long as the
//! requirement says.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cores;
mod drivers;
mod fast_paths;
mod impaired;
mod interop;
mod mtu;
mod nat;
mod people;
mod product;
mod refusal;
mod rekey;
mod restart;
mod roam;
#[cfg(target_arch = "x86_64")] // its tracer sets registers
mod sandbox;
mod setup;
mod shards;
mod upgrade;
