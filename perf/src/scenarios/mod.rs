//! What is measured. A scenario builds its own namespaces, so that nothing is left over from the
//! one before, and runs on a thread of its own, so that what it binds to a processor is bound no
//! longer than it lasts.

mod crowd;
mod datagrams;
mod latency;
mod memory;
mod order;
mod path;
mod setting;
mod spread;
mod tcp;

use std::thread;

use anyhow::{Context as _, Result, anyhow};

use crate::iperf::Direction;
use crate::programs::Program;
use crate::report::Figure;
use crate::rr::Transport;
pub use setting::Settings;
use setting::{Busy, Used, own_tool, to_float};

/// Sessions over which a saturating load is spread.
pub const SPREAD_COUNTS: [u32; 5] = [1, 100, 1_000, 10_000, 100_000];

/// Bytes of the inner packets that are spread.
const SPREAD_BYTES: usize = 1_360;

/// Whether datagrams arrive merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// In GSO trains of up to 64.
    Merged,
    /// One by one: the generator's kernel splits its trains before the wire.
    Single,
}

/// What goes on beside the round trips that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// A TCP stream of the same client, at a rate that every server can carry.
    Stream,
    /// Full-size datagrams of another peer, at a rate that every server can carry.
    Flood,
}

/// One measurement, with its parameters in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// `tcp-N-up`, `tcp-N-down`: N streams through a stock client.
    Tcp {
        /// Parallel streams.
        streams: u32,
        /// Which way.
        direction: Direction,
    },
    /// `paced-up`, `paced-down`: one stream of 0.4 Gbit/s through a stock client.
    Paced {
        /// Which way.
        direction: Direction,
    },
    /// `flood-SIZE-merged`, `flood-SIZE-single`, `-nosum`: a saturated gateway decrypts.
    Flood {
        /// Bytes of the inner packet.
        size: usize,
        /// How datagrams arrive.
        regime: Regime,
        /// Whether inner UDP has a checksum.
        checksum: bool,
    },
    /// `imix-merged`, `imix-single`: as a flood, 64, 576 and 1,360 bytes in the ratio 7 : 4 : 1.
    Imix {
        /// How datagrams arrive.
        regime: Regime,
    },
    /// `encrypt-SIZE-single`: packets from the destination, one per TUN read, sealed towards a
    /// client that only counts.
    Encrypt {
        /// Bytes of the inner packet.
        size: usize,
    },
    /// `rr-tcp`, `rr-udp`, `-stream`, `-flood`: round trips of one byte.
    RoundTrips {
        /// What carries the byte.
        transport: Transport,
        /// What goes on beside it.
        beside: Beside,
    },
    /// `handshakes`: a closed loop of handshakes of many clients.
    Handshakes,
    /// `churn`: clients are configured, connect, and are removed again.
    Churn,
    /// `sessions-N`: the same single datagrams per second for all N, spread over N sessions.
    Sessions {
        /// Sessions.
        count: u32,
    },
    /// `flood-sessions-N-single`, `flood-sessions-N-64`: a saturated gateway decrypts single
    /// datagrams of N sessions in turn.
    FloodSessions {
        /// Sessions.
        count: u32,
        /// Bytes of the inner packet.
        size: usize,
    },
    /// `encrypt-sessions-N`: a saturated gateway encrypts single packets to N clients in turn.
    EncryptSessions {
        /// Sessions.
        count: u32,
    },
    /// `order-up`, `order-down`: numbered datagrams of several sessions.
    Order {
        /// Which way.
        direction: Direction,
    },
    /// `memory-N`: resident memory with N configured peers and no traffic.
    Memory {
        /// Peers.
        peers: u32,
    },
}

impl Scenario {
    /// All of them, in the order they are run.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        let both_ways = [Direction::Up, Direction::Down];
        for streams in [1, 4] {
            all.extend(both_ways.map(|direction| Self::Tcp { streams, direction }));
        }
        all.extend(both_ways.map(|direction| Self::Paced { direction }));
        for checksum in [true, false] {
            for regime in [Regime::Merged, Regime::Single] {
                let sizes: &[usize] = if checksum { &[64, 256, 512, 1_360] } else { &[64, 1_360] };
                all.extend(sizes.iter().map(|&size| Self::Flood { size, regime, checksum }));
            }
        }
        all.extend([Regime::Merged, Regime::Single].map(|regime| Self::Imix { regime }));
        all.extend([64, 1_360].map(|size| Self::Encrypt { size }));
        for beside in [Beside::Nothing, Beside::Stream, Beside::Flood] {
            let transports = [Transport::Tcp, Transport::Udp];
            all.extend(transports.map(|transport| Self::RoundTrips { transport, beside }));
        }
        all.extend([Self::Handshakes, Self::Churn]);
        all.extend([1, 10, 100, 1_000, 10_000, 100_000].map(|count| Self::Sessions { count }));
        for count in SPREAD_COUNTS {
            all.push(Self::FloodSessions { count, size: SPREAD_BYTES });
        }
        all.extend([1_000, 100_000].map(|count| Self::FloodSessions { count, size: 64 }));
        all.extend(SPREAD_COUNTS.map(|count| Self::EncryptSessions { count }));
        all.extend(both_ways.map(|direction| Self::Order { direction }));
        all.push(Self::Memory { peers: 10_000 });
        all
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Tcp { streams, direction } => format!("tcp-{streams}-{}", direction.name()),
            Self::Paced { direction } => format!("paced-{}", direction.name()),
            Self::Flood { size, regime, checksum } => {
                let suffix = if *checksum { "" } else { "-nosum" };
                format!("flood-{size}-{}{suffix}", regime.name())
            }
            Self::Imix { regime } => format!("imix-{}", regime.name()),
            Self::Encrypt { size } => format!("encrypt-{size}-single"),
            Self::RoundTrips { transport, beside } => {
                format!("rr-{}{}", transport.name(), beside.suffix())
            }
            Self::Handshakes => "handshakes".to_owned(),
            Self::Churn => "churn".to_owned(),
            Self::Sessions { count } => format!("sessions-{count}"),
            Self::FloodSessions { count, size: SPREAD_BYTES } => {
                format!("flood-sessions-{count}-single")
            }
            Self::FloodSessions { count, size } => format!("flood-sessions-{count}-{size}"),
            Self::EncryptSessions { count } => format!("encrypt-sessions-{count}"),
            Self::Order { direction } => format!("order-{}", direction.name()),
            Self::Memory { peers } => format!("memory-{peers}"),
        }
    }

    /// What it is, for the list.
    #[must_use]
    pub const fn about(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "iperf3 streams through the client; retransmits, RSS afterwards",
            Self::Paced { .. } => "one TCP stream of 0.4 Gbit/s: nobody may lose anything",
            Self::Flood { .. } => "a generator saturates the server, which decrypts",
            Self::Imix { .. } => "as flood, 64, 576 and 1360 bytes as 7:4:1",
            Self::Encrypt { .. } => "single packets from dst, one per TUN read, encrypted",
            Self::RoundTrips { beside, .. } => match beside {
                Beside::Nothing => "round trips of one byte, nothing else going on",
                Beside::Stream => "round trips beside a paced TCP stream of the same client",
                Beside::Flood => "round trips beside paced datagrams of another peer",
            },
            Self::Handshakes => "clients of the fleet shake hands in a closed loop",
            Self::Churn => "clients are added, connect, and are removed again",
            Self::Sessions { .. } => "100,000 single datagrams/s spread over so many sessions",
            Self::FloodSessions { .. } => "as flood, single datagrams of so many sessions in turn",
            Self::EncryptSessions { .. } => "single packets from dst to so many clients in turn",
            Self::Order { .. } => "numbered datagrams: late ones, doubles, losses",
            Self::Memory { .. } => "resident memory with so many configured peers, no traffic",
        }
    }

    /// Whether it is left out of a quick run, unless asked for by its whole name.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        matches!(self, Self::Flood { checksum: false, .. }) || self.has_very_many_sessions()
    }

    /// Whether connecting takes longer than measuring.
    const fn has_very_many_sessions(&self) -> bool {
        self.sessions() > 1_000
    }

    /// Over how many sessions a load is spread; 0 where that is not what is measured.
    const fn sessions(&self) -> u32 {
        match self {
            Self::Sessions { count }
            | Self::FloodSessions { count, .. }
            | Self::EncryptSessions { count } => *count,
            Self::Tcp { .. }
            | Self::Paced { .. }
            | Self::Flood { .. }
            | Self::Imix { .. }
            | Self::Encrypt { .. }
            | Self::RoundTrips { .. }
            | Self::Handshakes
            | Self::Churn
            | Self::Order { .. }
            | Self::Memory { .. } => 0,
        }
    }

    /// Whether it is worth measuring with this program. Peers would take minutes to take in ten
    /// thousand clients; the shapes of our own gateway are compared where they may differ.
    #[must_use]
    pub const fn is_for(&self, program: Program) -> bool {
        match program {
            Program::Ringway => true,
            Program::WireguardGo
            | Program::WireguardGoNew
            | Program::Boringtun
            | Program::Gotatun => !self.has_very_many_sessions(),
            Program::OpenVpn | Program::Ocserv => matches!(
                self,
                Self::Tcp { .. }
                    | Self::Paced { .. }
                    | Self::RoundTrips { beside: Beside::Nothing, .. }
            ),
            Program::RingwayUring | Program::RingwayEpoll => matches!(
                self,
                Self::Tcp { streams: 4, .. }
                    | Self::Flood { size: 64 | 1_360, checksum: true, .. }
                    | Self::Encrypt { size: 64 }
                    | Self::RoundTrips { beside: Beside::Nothing, .. }
            ),
            Program::RingwayTwo => matches!(
                self,
                Self::Sessions { count: 100 | 10_000 } | Self::Handshakes | Self::Order { .. }
            ),
        }
    }

    /// Whether one repetition is enough: where the figure hardly differs from one time to the next
    /// and takes long, and where only ours is of interest and a peer is there for the picture.
    #[must_use]
    pub const fn is_once(&self, program: Program) -> bool {
        match self {
            Self::Memory { .. } | Self::Flood { checksum: false, .. } => !program.is_ours(),
            Self::FloodSessions { size, .. } => *size != SPREAD_BYTES,
            Self::Tcp { .. }
            | Self::Paced { .. }
            | Self::Flood { .. }
            | Self::Imix { .. }
            | Self::Encrypt { .. }
            | Self::RoundTrips { .. }
            | Self::Handshakes
            | Self::Churn
            | Self::Sessions { .. }
            | Self::EncryptSessions { .. }
            | Self::Order { .. } => false,
        }
    }

    /// About how many seconds a measurement takes, as it was on the machine of the results.
    #[must_use]
    pub fn estimate_s(&self, program: Program, settings: &Settings) -> f64 {
        let whole_s = f64::from(settings.whole_s());
        let measured_s = f64::from(settings.measured_s);
        // Namespaces, keys, programs, a first handshake; then the fleet's handshakes.
        let (site_s, session_s) = (0.5, 230e-6);
        // It asks for cookies beyond 100 handshakes/s, and a client then waits for 5 s.
        let is_asked = self.sessions() >= 100 && program == Program::Boringtun;
        let cookies_s = if is_asked { 12.0 } else { 0.0 };
        let extra_s = match self {
            Self::Tcp { .. } | Self::Paced { .. } => whole_s - 0.5,
            Self::Flood { .. } | Self::Imix { .. } | Self::Encrypt { .. } => whole_s,
            Self::RoundTrips { beside: Beside::Nothing, .. } => 2.2 * measured_s + 0.5,
            Self::RoundTrips { .. } => measured_s + f64::from(latency::LEAD_S) + 0.5,
            Self::Handshakes => 8.0,
            Self::Churn => measured_s + 2.0,
            Self::Sessions { count } | Self::EncryptSessions { count } => {
                whole_s + session_s * f64::from(*count)
            }
            // Sealing takes as long as sending.
            Self::FloodSessions { count, .. } => 3.0 * measured_s + session_s * f64::from(*count),
            Self::Order { .. } => whole_s + 0.5,
            Self::Memory { .. } => 8.0,
        };
        site_s + cookies_s + extra_s
    }

    /// Measures `server` once.
    ///
    /// # Errors
    /// When a program fails or no traffic passes.
    pub fn measure(&self, server: Program, settings: &Settings) -> Result<Vec<Figure>> {
        let measure = || match *self {
            Self::Tcp { streams, direction } => {
                tcp::measure(server, settings, streams, direction, None)
            }
            Self::Paced { direction } => {
                tcp::measure(server, settings, 1, direction, Some(latency::STREAM_BITS_PER_S))
            }
            Self::Flood { size, regime, checksum } => {
                datagrams::flood(server, settings, size, regime, checksum)
            }
            Self::Imix { regime } => datagrams::imix(server, settings, regime),
            Self::Encrypt { size } => datagrams::encrypt(server, settings, size),
            Self::RoundTrips { transport, beside } => {
                latency::measure(server, settings, transport, beside)
            }
            Self::Handshakes => crowd::handshakes(server, settings),
            Self::Churn => crowd::churn(server, settings),
            Self::Sessions { count } => crowd::sessions(server, settings, count),
            // One session has one source: trains saturate better than frames.
            Self::FloodSessions { count: 1, size } => {
                datagrams::flood(server, settings, size, Regime::Single, true)
            }
            Self::FloodSessions { count, size } => spread::decrypt(server, settings, count, size),
            Self::EncryptSessions { count: 1 } => {
                datagrams::encrypt(server, settings, SPREAD_BYTES)
            }
            Self::EncryptSessions { count } => {
                spread::encrypt(server, settings, count, SPREAD_BYTES)
            }
            Self::Order { direction } => order::measure(server, settings, direction),
            Self::Memory { peers } => memory::measure(server, settings, peers),
        };
        let ended = thread::scope(|scope| scope.spawn(measure).join());
        ended
            .map_err(|_| anyhow!("The scenario panicked"))?
            .with_context(|| format!("{} with {server}", self.name()))
    }
}

impl Regime {
    /// Its name in scenarios.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Merged => "merged",
            Self::Single => "single",
        }
    }
}

impl Beside {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Stream => "-stream",
            Self::Flood => "-flood",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let mut names: Vec<String> = Scenario::all().iter().map(Scenario::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn ours_is_measured_in_every_scenario_and_peers_in_all_but_the_largest() {
        for scenario in Scenario::all() {
            assert!(scenario.is_for(Program::Ringway));
            let is_largest = ["10000", "100000"]
                .iter()
                .any(|count| scenario.name().contains(&format!("sessions-{count}")));
            assert_eq!(scenario.is_for(Program::Boringtun), !is_largest, "{}", scenario.name());
            assert!(!scenario.is_for(Program::OpenVpn) || scenario.is_for(Program::Boringtun));
        }
    }
}
