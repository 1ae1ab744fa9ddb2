//! From a client through a server to the destination, whatever the protocol.

use anyhow::{Result, bail, ensure};

use super::Settings;
use crate::others::Pair;
use crate::programs::Program;
use crate::topology::{Family, Line, Site};

/// Two connected ends of a tunnel and their namespaces.
pub(super) enum Path {
    /// A WireGuard server, and the client that is the same for all of them.
    WireGuard(Box<Site>),
    /// A server of another protocol and its own client.
    Other(Box<Pair>),
}

impl Path {
    /// Connects `server` and a client; packets pass when this returns.
    pub(super) fn open(server: Program, settings: &Settings) -> Result<Self> {
        let line = Line::new(1500)?;
        let plan = settings.plan(server);
        if server.is_wireguard() {
            let site = line.connect(plan)?;
            site.await_traffic(settings.inside)?;
            return Ok(Self::WireGuard(Box::new(site)));
        }
        let v4 = settings.inside == Family::V4 && settings.outside == Family::V4;
        ensure!(v4, "{server} is measured over IPv4 only");
        Ok(Self::Other(Box::new(Pair::connect(line, server, plan.pinning)?)))
    }

    pub(super) const fn line(&self) -> &Line {
        match self {
            Self::WireGuard(site) => &site.line,
            Self::Other(pair) => &pair.line,
        }
    }

    pub(super) fn server_pid(&self) -> u32 {
        match self {
            Self::WireGuard(site) => site.gateway.tunnel.pid(),
            Self::Other(pair) => pair.server_pid(),
        }
    }

    pub(super) fn client_pid(&self) -> u32 {
        match self {
            Self::WireGuard(site) => site.client.pid(),
            Self::Other(pair) => pair.client_pid(),
        }
    }

    /// For what only WireGuard can do: other peers beside the client, counters.
    pub(super) fn wireguard(&self) -> Result<&Site> {
        match self {
            Self::WireGuard(site) => Ok(site),
            Self::Other(_) => bail!("This needs a WireGuard server"),
        }
    }
}
