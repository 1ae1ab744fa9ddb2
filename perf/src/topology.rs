//! Client – gateway – destination: the three namespaces every scenario starts from.
//!
//! ```text
//!   cli                      gw                        dst
//!  ┌──────────────┐  veth  ┌──────────────────┐ veth ┌──────────────┐
//!  │ out 10.91.1.2├────────┤ out 10.91.1.1    │      │              │
//!  │   fd91:1::2  │ outside│   fd91:1::1      │      │              │
//!  │              │        │   far 10.91.2.1  ├──────┤ far 10.91.2.2│
//!  │ tunnel       │ inside │ tunnel fd91:2::1 │      │  fd91:2::2   │
//!  │ 10.91.9.2    ├ ─ ─ ─ ─┤ 10.91.9.1        │      │              │
//!  │ fd91:9::2    │        │ fd91:9::1        │      │              │
//!  └──────────────┘        └──────────────────┘      └──────────────┘
//! ```
//!
//! The gateway's daemon may be pinned to one CPU and everything else to another, as the reference
//! figures were measured.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::netns::{Netns, veth};
use crate::ping;
use crate::programs::{Program, Tunnel};
use crate::wg::{Config, KeyPair, Peer};

/// UDP port of the gateway.
pub const GATEWAY_PORT: u16 = 51_820;

/// Limit for a first handshake: one retry after 5 s is allowed for.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(12);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    const fn pick(self, v4: &'static str, v6: &'static str) -> &'static str {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

/// Where a wire's addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The gateway on the outer network.
    GatewayOutside,
    /// The client on the outer network.
    ClientOutside,
    /// The gateway's end of the tunnel.
    GatewayInside,
    /// The client's end of the tunnel.
    ClientInside,
    /// The destination behind the gateway.
    Destination,
}

impl Place {
    /// Its address in one family.
    ///
    /// # Panics
    /// Never: the addresses are constants of this file.
    #[must_use]
    pub fn address(self, family: Family) -> IpAddr {
        let text = match self {
            Self::GatewayOutside => family.pick("10.91.1.1", "fd91:1::1"),
            Self::ClientOutside => family.pick("10.91.1.2", "fd91:1::2"),
            Self::GatewayInside => family.pick("10.91.9.1", "fd91:9::1"),
            Self::ClientInside => family.pick("10.91.9.2", "fd91:9::2"),
            Self::Destination => family.pick("10.91.2.2", "fd91:2::2"),
        };
        text.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }
}

/// Which CPUs: the measured program alone on one, all else on another. `None` leaves it to the
/// scheduler.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pinning {
    /// CPU list of the gateway daemon.
    pub gateway: Option<&'static str>,
    /// CPU list of the client daemon and of both traffic ends.
    pub ends: Option<&'static str>,
}

impl Pinning {
    /// As measured: gateway on CPU 1, the rest on CPU 0.
    pub const MEASURE: Self = Self { gateway: Some("1"), ends: Some("0") };
}

/// The three namespaces with their wires; no tunnel yet.
#[derive(Debug)]
pub struct Line {
    /// The client's host.
    pub cli: Netns,
    /// The gateway's host.
    pub gw: Netns,
    /// The destination's host.
    pub dst: Netns,
}

impl Line {
    /// Builds it. `outer_mtu` is the MTU in bytes of the wire between client and gateway.
    ///
    /// # Errors
    /// Without privilege, or when `ip` refuses.
    pub fn new(outer_mtu: u16) -> Result<Self> {
        let line = Self { cli: Netns::new("cli")?, gw: Netns::new("gw")?, dst: Netns::new("dst")? };
        veth((&line.cli, "out"), (&line.gw, "out"), outer_mtu)?;
        line.cli.address("out", &["10.91.1.2/24", "fd91:1::2/64"])?;
        line.gw.address("out", &["10.91.1.1/24", "fd91:1::1/64"])?;
        line.add_destination(1500.max(outer_mtu))?;
        Ok(line)
    }

    /// As [`Line::new`], with a router between client and gateway whose link to the gateway has
    /// another MTU, and which never says so: it drops every ICMP error it would send (a black
    /// hole).
    ///
    /// ```text
    ///  cli 10.91.4.2 ── 10.91.4.254 rtr 10.91.5.254 ─ path_mtu ─ 10.91.5.1 gw
    /// ```
    ///
    /// The addresses of [`Place`] are host addresses on the outer links.
    ///
    /// # Errors
    /// Without privilege, or when `ip` or `nft` refuses.
    pub fn with_black_hole(path_mtu: u16) -> Result<(Self, Netns)> {
        let (line, router) = Self::with_router(path_mtu)?;
        router.nft(
            "table inet hole {
                chain out {
                    type filter hook output priority 0;
                    icmp type destination-unreachable drop
                    icmpv6 type { destination-unreachable, packet-too-big } drop
                }
            }",
        )?;
        Ok((line, router))
    }

    /// As [`Line::new`], with a router between client and gateway.
    ///
    /// # Errors
    /// Without privilege, or when `ip` refuses.
    pub fn with_router(path_mtu: u16) -> Result<(Self, Netns)> {
        let (cli, gw, dst) = (Netns::new("cli")?, Netns::new("gw")?, Netns::new("dst")?);
        let router = Netns::new("rtr")?;
        veth((&cli, "out"), (&router, "cli"), 1500)?;
        // Below 1280 bytes an interface has no IPv6: the far side keeps its MTU and the router's
        // route is narrow.
        veth((&router, "gw"), (&gw, "out"), 1500)?;
        router.address("cli", &["10.91.4.254/24", "fd91:4::254/64"])?;
        router.address("gw", &["10.91.5.254/24", "fd91:5::254/64"])?;
        router.forward()?;
        cli.address("out", &["10.91.4.2/24", "fd91:4::2/64", "10.91.1.2/32", "fd91:1::2/128"])?;
        gw.address("out", &["10.91.5.1/24", "fd91:5::1/64", "10.91.1.1/32", "fd91:1::1/128"])?;
        cli.ip("route add 10.91.1.1 via 10.91.4.254 src 10.91.1.2")?;
        cli.ip("-6 route add fd91:1::1 via fd91:4::254 src fd91:1::2")?;
        gw.ip("route add 10.91.1.2 via 10.91.5.254 src 10.91.1.1")?;
        gw.ip("-6 route add fd91:1::2 via fd91:5::254 src fd91:1::1")?;
        let mtu = format!("mtu lock {path_mtu}");
        router.ip(&format!("route add 10.91.1.1 via 10.91.5.1 {mtu}"))?;
        router.ip(&format!("route add 10.91.1.2 via 10.91.4.2 {mtu}"))?;
        router.ip(&format!("-6 route add fd91:1::1 via fd91:5::1 {mtu}"))?;
        router.ip(&format!("-6 route add fd91:1::2 via fd91:4::2 {mtu}"))?;
        let line = Self { cli, gw, dst };
        line.add_destination(1500)?;
        Ok((line, router))
    }

    fn add_destination(&self, mtu: u16) -> Result<()> {
        veth((&self.gw, "far"), (&self.dst, "far"), mtu)?;
        self.gw.address("far", &["10.91.2.1/24", "fd91:2::1/64"])?;
        self.dst.address("far", &["10.91.2.2/24", "fd91:2::2/64"])?;
        self.gw.forward()?;
        self.dst.route("10.91.9.0/24", "10.91.2.1")?;
        self.dst.route("fd91:9::/64", "fd91:2::1")
    }

    /// Starts a gateway that knows one client, which is not there yet.
    ///
    /// # Errors
    /// When the program does not start or `wg` refuses the configuration.
    pub fn serve(&self, plan: &Plan) -> Result<Gateway> {
        let tunnel = Tunnel::start(plan.gateway, &self.gw, plan.pinning.gateway)
            .with_context(|| format!("Gateway {}", plan.gateway))?;
        let (keys, client_keys) = (KeyPair::generate()?, KeyPair::generate()?);
        let gateway = Gateway { tunnel, keys, client_keys, tunnel_mtu: plan.tunnel_mtu };
        gateway.tunnel.configure(&gateway.config())?;
        gateway.bring_up(&self.gw)?;
        Ok(gateway)
    }

    /// Starts a gateway and a client, configured for each other as planned.
    ///
    /// # Errors
    /// When a program does not start or `wg` refuses the configuration.
    pub fn connect(self, plan: Plan) -> Result<Site> {
        self.connect_with(plan, |_| {})
    }

    /// As [`Line::connect`], with a client configuration that `edit` has changed before anything
    /// was sent.
    ///
    /// # Errors
    /// When a program does not start or `wg` refuses the configuration.
    pub fn connect_with(self, plan: Plan, edit: impl FnOnce(&mut Config)) -> Result<Site> {
        let gateway = self.serve(&plan)?;
        let client = Tunnel::start(plan.client, &self.cli, plan.pinning.ends)
            .with_context(|| format!("Client {}", plan.client))?;
        let site = Site { client, gateway, line: self, plan };
        let mut config = site.client_config();
        edit(&mut config);
        site.client.configure(&config)?;
        site.bring_up_client()?;
        Ok(site)
    }
}

/// What to connect.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The program at the gateway.
    pub gateway: Program,
    /// The program at the client.
    pub client: Program,
    /// Outer address family.
    pub outside: Family,
    /// MTU of both tunnel interfaces, bytes.
    pub tunnel_mtu: u16,
    /// CPUs.
    pub pinning: Pinning,
}

impl Plan {
    /// `gateway` and `client` over IPv4, tunnel MTU 1420, unpinned.
    #[must_use]
    pub const fn new(gateway: Program, client: Program) -> Self {
        let pinning = Pinning { gateway: None, ends: None };
        Self { gateway, client, outside: Family::V4, tunnel_mtu: 1420, pinning }
    }
}

/// A gateway and the keys of its one client.
#[derive(Debug)]
pub struct Gateway {
    /// Its interface and daemon.
    pub tunnel: Tunnel,
    /// Its own keys.
    pub keys: KeyPair,
    /// The client's keys.
    pub client_keys: KeyPair,
    tunnel_mtu: u16,
}

impl Gateway {
    /// Its configuration: one peer without an endpoint.
    #[must_use]
    pub fn config(&self) -> Config {
        let peer = Peer {
            public: self.client_keys.public.clone(),
            allowed_ips: vec!["10.91.9.2/32".into(), "fd91:9::2/128".into()],
            ..Peer::default()
        };
        Config {
            private: self.keys.private.clone(),
            listen_port: Some(GATEWAY_PORT),
            fwmark: None,
            peers: vec![peer],
        }
    }

    /// Addresses and MTU of its interface; again after a restart of the daemon.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn bring_up(&self, gw: &Netns) -> Result<()> {
        let interface = self.tunnel.interface();
        gw.ip(&format!("link set {interface} mtu {}", self.tunnel_mtu))?;
        gw.address(interface, &["10.91.9.1/24", "fd91:9::1/64"])
    }
}

/// A gateway and a client that know each other.
#[derive(Debug)]
pub struct Site {
    /// The client's tunnel. Dropped before the namespaces.
    pub client: Tunnel,
    /// The gateway.
    pub gateway: Gateway,
    /// The namespaces.
    pub line: Line,
    /// What was asked for.
    pub plan: Plan,
}

impl Site {
    /// The client's configuration: everything through the gateway.
    #[must_use]
    pub fn client_config(&self) -> Config {
        let at = Place::GatewayOutside.address(self.plan.outside);
        let peer = Peer {
            public: self.gateway.keys.public.clone(),
            allowed_ips: vec!["0.0.0.0/0".into(), "::/0".into()],
            endpoint: Some(SocketAddr::new(at, GATEWAY_PORT)),
            ..Peer::default()
        };
        Config {
            private: self.gateway.client_keys.private.clone(),
            listen_port: None,
            fwmark: None,
            peers: vec![peer],
        }
    }

    /// Addresses, MTU and routes of the client's tunnel interface.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn bring_up_client(&self) -> Result<()> {
        let interface = self.client.interface();
        let cli = &self.line.cli;
        cli.ip(&format!("link set {interface} mtu {}", self.plan.tunnel_mtu))?;
        cli.address(interface, &["10.91.9.2/24", "fd91:9::2/64"])?;
        cli.ip(&format!("route replace 10.91.2.0/24 dev {interface}"))?;
        cli.ip(&format!("-6 route replace fd91:2::/64 dev {interface}")).map(drop)
    }

    /// Waits until the destination answers a ping through the tunnel.
    ///
    /// # Errors
    /// When it does not within [`HANDSHAKE_LIMIT`]; the message has what both interfaces say.
    pub fn await_traffic(&self, inside: Family) -> Result<()> {
        let to = Place::Destination.address(inside);
        ping::until_answered(&self.line.cli, to, HANDSHAKE_LIMIT)
            .with_context(|| format!("gateway: {:?}", self.gateway.tunnel.peers()))
            .with_context(|| format!("client: {:?}", self.client.peers()))
    }
}
