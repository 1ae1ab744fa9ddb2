//! Conversations on the configuration socket, one task each.
//!
//! A `get` is written while cores are read page by page: it is no snapshot of one moment, and a
//! peer that goes away meanwhile is left out. Two `set`s never mix: each is applied in one step
//! once its last line is there.

use std::io;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use ringway_dataplane::command::{PeerStatus, Refusal};
use ringway_proto::allowed_ips::IpNet;
use tokio::net::UnixStream;
use tracing::{debug, warn};

use super::parse::{Parser, Refused, Request};
use super::{Errno, write};
use crate::client_io::{Client, OUTPUT_BYTES};
use crate::gateway::desk::{Desk, DeskError, PEERS_PER_PAGE};
use crate::listen::Listener;
use crate::logs::reason::Code;
use crate::stats::query::Place;

/// Why a gateway with a file takes no changes from `wg`.
const READ_ONLY: &str = "the configuration file says what this gateway does; change it and run \
                         \"ringway reload\", or use \"ringway peer\"";

/// How long a client may be silent inside a request, and between two.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What clients may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    ReadAndWrite,
    /// Look. What the gateway does is said elsewhere: a change made here would be lost with the
    /// next reload, and nobody would know.
    ReadOnly,
}

/// Serves clients until the task is dropped.
pub async fn serve(listener: Rc<Listener>, desk: Rc<Desk>, access: Access) {
    let counted = Rc::clone(&desk);
    let cut = move |error: &io::Error| {
        debug!("Configuration client: {error}");
        counted.count(|about| about.clients_cut += 1);
    };
    listener.serve(cut, async move |stream| converse(stream, &desk, access).await).await;
}

/// Number of the interface called `name` in our namespace.
fn zone_index(name: &str) -> Option<u32> {
    let any = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    rustix::net::netdevice::name_to_index(&any, name).ok()
}

async fn converse(stream: UnixStream, desk: &Desk, access: Access) -> io::Result<()> {
    let mut client = Client::new(stream);
    let mut parser = Parser::new(zone_index);
    loop {
        let count = client.read(SILENCE_MAX).await?;
        if count == 0 {
            if let Some(request) = parser.finish() {
                answer(&mut client, desk, request, access).await?;
            }
            return Ok(());
        }
        let mut taken = 0;
        while taken < count {
            let (more, request) = parser.feed(&client.input(count)[taken..]);
            taken += more;
            let Some(request) = request else { continue };
            let hang_up = matches!(request, Request::HangUp(_));
            answer(&mut client, desk, request, access).await?;
            if hang_up {
                client.erase(count);
                return Ok(());
            }
        }
        client.erase(count);
    }
}

async fn answer(
    client: &mut Client,
    desk: &Desk,
    request: Request,
    access: Access,
) -> io::Result<()> {
    let mut out = String::with_capacity(OUTPUT_BYTES + 4096);
    let errno = match request {
        Request::Get => get(client, desk, &mut out).await?,
        Request::Set(_) if access == Access::ReadOnly => {
            warn!(
                reason = Code::ConfigReadOnly.code(),
                "Configuration request refused: {READ_ONLY}"
            );
            Errno::NOT_PERMITTED
        }
        Request::Set(operations) => match desk.configure(operations).await {
            Ok(()) => Errno::OK,
            Err(error) => {
                let reason = Code::ConfigRefused.code();
                warn!(reason, "Configuration request refused: {error}");
                errno_of(&error)
            }
        },
        Request::Refused(refused) | Request::HangUp(refused) => {
            let Refused { errno, why } = refused;
            let reason = Code::ConfigMalformed.code();
            warn!(reason, "Configuration request refused: {why}");
            errno
        }
    };
    desk.count(|about| match errno {
        Errno::OK => about.requests_served += 1,
        _ => about.requests_refused += 1,
    });
    write::end(&mut out, errno);
    client.send(&mut out).await
}

const fn errno_of(error: &DeskError) -> Errno {
    match error {
        DeskError::Port(_) | DeskError::Refused(Refusal::Sockets) => Errno::PORT_IN_USE,
        DeskError::Refused(Refusal::TooManyPeers) => Errno::NO_SPACE,
        DeskError::Refused(
            Refusal::UnknownPeer
            | Refusal::OwnKey
            | Refusal::State
            | Refusal::UnknownAccount
            | Refusal::AccountInUse
            | Refusal::AccountChain
            | Refusal::TooManyAccounts,
        ) => Errno::INVALID,
        DeskError::Usage(_) => Errno::NO_SPACE,
        DeskError::Refused(Refusal::Pause) | DeskError::Stopping => Errno::STOPPING,
    }
}

async fn get(client: &mut Client, desk: &Desk, out: &mut String) -> io::Result<Errno> {
    let (port, mark) = desk.port_and_mark();
    desk.with_plane(|plane| write::interface(out, plane.private(), port, mark));
    let mut place = Some(Place::default());
    while let Some(from) = place {
        let Ok((page, next)) = desk.read_peers(from, PEERS_PER_PAGE).await else {
            return Ok(Errno::STOPPING);
        };
        for status in &page.peers {
            peer(client, desk, out, status).await?;
        }
        place = next;
    }
    Ok(Errno::OK)
}

/// Writes one peer, with its prefixes piece by piece: it may have a hundred thousand.
async fn peer(
    client: &mut Client,
    desk: &Desk,
    out: &mut String,
    status: &PeerStatus,
) -> io::Result<()> {
    let known = desk.with_plane(|plane| {
        let peer = plane.peer(&status.public)?;
        write::peer(out, &status.public, peer, status);
        Some(())
    });
    let mut after = known.map(|()| Bound::Unbounded);
    while let Some(from) = after {
        after = desk.with_plane(|plane| prefixes(plane.peer(&status.public)?, from, out));
        client.send_if_full(out).await?;
    }
    Ok(())
}

/// Writes prefixes until the buffer is full. Returns where to go on.
fn prefixes(
    peer: &crate::plane::Peer,
    from: Bound<IpNet>,
    out: &mut String,
) -> Option<Bound<IpNet>> {
    for net in peer.allowed_ips.range(from) {
        write::allowed_ip(out, net);
        if out.len() >= OUTPUT_BYTES {
            return Some(Bound::Excluded(*net));
        }
    }
    None
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
