//! Every limit of the packet path, with its unit and its reason.

use std::time::Duration;

/// Datagrams in one GRO buffer or one GSO train at the most. The kernel accepts 128 since 6.9 and
/// 64 before; 64 is where the gain flattens (perf figures), and it bounds the arrays on the stack.
pub const RUN_MAX: usize = 64;

/// Bytes of a receive or transmit buffer: the largest UDP payload rounded up, so that a full GRO
/// buffer fits.
pub const BUFFER_BYTES: usize = 65_536;

/// Largest UDP payload over IPv4, in bytes (65,535 - 20 - 8).
pub const UDP_PAYLOAD_MAX: usize = 65_507;

/// Packets staged for one peer while its handshake runs (kernel `MAX_STAGED_PACKETS`).
pub const STAGED_PACKETS_MAX: usize = 128;

/// Handshake messages waiting on one core: two seconds of work, 4 MiB of which only what is used is
/// touched. As many that other cores have opened have room beside them. Who comes later is better
/// off with the repetition, five seconds after the first try. (The kernel's implementation keeps
/// 4,096, and asks for cookies from 512 on.)
pub const HANDSHAKES_QUEUED_MAX: usize = 16_384;

/// Handshake messages worked on in one turn: at about 130 us each this holds data back for at most
/// 0.5 ms.
pub const HANDSHAKES_PER_TURN_MAX: usize = 4;

/// Initiations whose MACs are looked at in one turn: at a third of a microsecond each, and
/// another half under load, this holds data back for at most 0.25 ms. More are dropped unseen.
pub const HANDSHAKES_CHECKED_PER_TURN_MAX: usize = 256;

/// Responses and cookie replies for a live index that are looked at in one turn, on their own
/// account: reading a cookie takes about 1.5 us, so this holds data back for at most 0.2 ms.
pub const ANSWERS_CHECKED_PER_TURN_MAX: usize = 128;

/// Cookies sent in one turn: 3 us each. Who gets none asks again in five seconds.
pub const COOKIES_PER_TURN_MAX: usize = 32;

/// Handshake messages per second of one source (an IPv4 address or an IPv6 /64), while the core is
/// under load. A client begins one in two minutes, and repeats an unanswered one every five
/// seconds: this is room for fifty clients behind one address.
pub const HANDSHAKES_PER_SOURCE_SECOND: u32 = 10;

/// Handshake messages of one source at once, while the core is under load (kernel
/// `PACKETS_BURSTABLE`).
pub const HANDSHAKES_PER_SOURCE_BURST: u32 = 5;

/// Live sessions of one source on one core beyond which a core under load begins no other one for
/// it: more clients than a household or a small office has behind one address. Those that are live
/// are renewed nevertheless.
pub const SESSIONS_PER_SOURCE_MAX: u32 = 50;

/// Live sessions of all cores together beyond which a core under load begins no other one: what
/// memory is planned for.
pub const SESSIONS_MAX: u32 = 100_000;

/// Sessions of all cores together that we answered and whose client has not shown that it has the
/// keys, beyond which a core under load begins no other one: twice what a core can answer while the
/// slowest path (1 s) is travelled twice, so that honest clients never see it.
pub const HALF_OPEN_MAX: u32 = 5_000;

/// Moves of a peer's endpoint in a second, in the long run. A phone on a train changes its network
/// every few minutes and a translator its port every few seconds; each move costs a new search of
/// the path, and a client that forges its source could aim our answers elsewhere with each packet.
pub const ENDPOINT_MOVES_PER_SECOND: u32 = 5;

/// Moves of a peer's endpoint at once: both ways twice, for a client that is on two networks while
/// it changes from one to the other.
pub const ENDPOINT_MOVES_BURST: u32 = 4;

/// Timers fired in one turn. Each may start a handshake, which is half the work of answering
/// one, so this holds data back for at most about 1 ms, however many peers are asked at once.
pub const TIMERS_PER_TURN_MAX: usize = 16;

/// Commands taken in one turn.
pub const COMMANDS_PER_TURN_MAX: usize = 64;

/// Peers created in one turn: each costs a Diffie-Hellman operation and tables that grow, about 50
/// us, so that loading many holds data back for at most 0.4 ms at a time.
pub const PEERS_MADE_PER_TURN_MAX: usize = 8;

/// Work on commands in one turn, in units of about a tenth of a microsecond: what concerns all
/// peers, or many prefixes, is spread over turns so that it holds data back for 0.5 ms at a time,
/// and at most for one handshake more.
pub const WALK_UNITS_PER_TURN_MAX: u32 = 5_000;

/// Looking at one peer, which is mostly not in the cache.
pub const WALK_UNITS_VISIT: u32 = 1;

/// Giving or taking one prefix: two tables.
pub const WALK_UNITS_PREFIX: u32 = 2;

/// Making, changing or removing one account: a branch and a home.
pub const WALK_UNITS_ACCOUNT: u32 = 20;

/// Removing one peer: its keys and replay marks are erased.
pub const WALK_UNITS_REMOVAL: u32 = 20;

/// One Diffie-Hellman operation: a peer is made, or made anew for another identity.
pub const WALK_UNITS_KEY: u32 = 400;

/// Beginning a handshake: three such operations and more.
pub const WALK_UNITS_HANDSHAKE: u32 = 1_300;

/// Peers in one answer to control: 25 us and some.
pub const PEERS_PER_PAGE_MAX: usize = 256;

/// Completions taken in one turn before timers and commands are looked at again, if they are small;
/// of large ones [`TURN_UNITS_MAX`].
pub const COMPLETIONS_PER_TURN_MAX: usize = 128;

/// What a turn carries before commands, timers and handshakes are looked at again, in units of a
/// byte: half a mebibyte of full datagrams is a quarter of a millisecond merged, half a millisecond
/// one by one.
pub const TURN_UNITS_MAX: u64 = 512 << 10;

/// What a packet costs besides its bytes, in the same units.
pub const PACKET_UNITS: u64 = 512;

/// What a buffer costs at the least, in the same units: a packet that comes alone takes a write of
/// its own, of which there are as many as a turn takes buffers.
pub const BUFFER_UNITS: u64 = TURN_UNITS_MAX / COMPLETIONS_PER_TURN_MAX as u64;

/// Buffers that an overloaded core looks at in one turn: more than all that a core has, so that a
/// flood is seen through to its end.
pub const COMPLETIONS_PRESSED_MAX: usize = 512;

/// Receive buffers of the UDP sockets that may wait on an overloaded core, 4 MiB: what a download
/// has on the way at 10 Gbit/s in 3 ms.
pub const WAITING_OUTSIDE_MAX: usize = 64;

/// Receive buffers of the TUN that may wait on an overloaded core.
pub const WAITING_INSIDE_MAX: usize = 64;

/// Time between two publications of the counters.
pub const HOUSEKEEPING_PERIOD: Duration = Duration::from_millis(100);

/// ICMP errors one core sends in a second, and at once. A sender needs one per flow; what a flood
/// provokes must stay far below what it costs (Linux allows 1,000 a second and 50 at once per
/// host).
pub const ICMP_ANSWERS_PER_SECOND: u32 = 1000;

/// See [`ICMP_ANSWERS_PER_SECOND`].
pub const ICMP_ANSWERS_BURST: u32 = 50;
