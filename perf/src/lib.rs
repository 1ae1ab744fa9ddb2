//! The whole gateway under load, beside its peers, and the toolbox the namespace lab is made of.
//!
//! Everything here sees a gateway as a black box: a program, an interface, the `wg` tool, packets
//! in and out. The lab tests (`tests/lab`) and the measurements (`tools/perf`) share the same
//! namespaces, drivers and runners, so that a scenario that is tested is also the scenario that is
//! measured.
//!
//! | room | what |
//! |---|---|
//! | [`process`], [`netns`], [`wait`] | owners that clean up; waiting for states |
//! | [`wg`], [`programs`] | keys, configuration, the WireGuard programs behind one driver |
//! | [`topology`] | client – gateway – destination |
//! | [`others`] | OpenVPN and ocserv in the place of both tunnels |
//! | [`iperf`], [`ping`], [`rr`], [`flood`], [`inner`], [`frames`] | traffic |
//! | [`fleet`] | very many clients, an attacker, and the far end of their datagrams |
//! | [`uapi`], [`stats`], [`api`] | our gateway's configuration socket, counters, API |
//! | [`sink`], [`cpu`], [`profile`] | what arrived, what it cost, and where that went |
//! | [`emulator`], [`impair`] | the seeded link model; a relay that applies it to datagrams |
//! | [`order`], [`nonce`] | checkers for packet order and for nonces used twice |
//! | [`scenarios`], [`shards`], [`people`] | what is measured: beside peers, crowds, users |
//! | [`report`], [`outcomes`], [`folder`], [`plot`], [`charts`] | how it is written down |
//! | [`targets`], [`compare`], [`model`] | what has to be reached; what changed; larger machines |
//!
//! It must not know the insides of the gateway; the load generators alone borrow the protocol crate
//! to speak WireGuard faster than any client would.

pub mod api;
pub mod charts;
pub mod compare;
pub mod cpu;
pub mod emulator;
pub mod fleet;
pub mod flood;
pub mod folder;
pub mod frames;
pub mod impair;
pub mod inner;
pub mod iperf;
pub mod model;
pub mod netns;
pub mod nonce;
pub mod order;
pub mod others;
pub mod outcomes;
pub mod people;
pub mod ping;
pub mod plot;
pub mod process;
pub mod profile;
pub mod programs;
pub mod report;
pub mod rr;
pub mod scenarios;
pub mod shards;
pub mod sink;
pub mod stats;
pub mod targets;
pub mod topology;
pub mod uapi;
pub mod wait;
pub mod wg;
