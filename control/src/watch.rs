//! Watching the interface: up, down, a new MTU, deleted.
//!
//! Netlink tells of changes, but only in the namespace where the interface is, and interfaces are
//! moved (that is how a container gets one). A view of the TUN queue always knows the namespace, so
//! after a move the watch goes on there. Where entering it is not allowed, the queue is asked once
//! a second whether the interface is up; a new MTU then goes unnoticed until it comes back.
//!
//! This module must not know what follows from an event.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use ringway_ring::{TunState, TunView};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::{Handle, MulticastGroup};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::debug;

/// How often the queue is asked where netlink cannot be.
const POLL_PERIOD: Duration = Duration::from_secs(1);

/// Something happened to the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is up, or down.
    Up(bool),
    /// Largest packet it takes, in bytes.
    Mtu(u32),
    /// It has been deleted. Nothing follows.
    Gone,
}

/// Reports what happens to the interface of `view`, beginning with its present state. Ends with
/// [`LinkEvent::Gone`], or when nobody listens.
pub async fn watch(view: TunView, events: mpsc::Sender<LinkEvent>) {
    let mut last = Last { events, up: None, mtu: None };
    while !last.events.is_closed() {
        let followed = follow(&view, &mut last).await;
        match (view.state(), followed) {
            (TunState::Gone, _) => {
                // If nobody listens, nobody needs to know.
                let _ = last.events.send(LinkEvent::Gone).await;
                return;
            }
            // It has moved, or messages were lost: go on where it is now.
            (TunState::Up | TunState::Down, Ok(())) => {}
            (state, Err(error)) => {
                debug!("Watching the interface: {error}");
                last.up(state == TunState::Up).await;
                sleep(POLL_PERIOD).await;
            }
        }
    }
}

/// What was reported last: netlink repeats itself.
struct Last {
    events: mpsc::Sender<LinkEvent>,
    up: Option<bool>,
    mtu: Option<u32>,
}

impl Last {
    async fn up(&mut self, up: bool) {
        if self.up.replace(up) != Some(up) {
            let _ = self.events.send(LinkEvent::Up(up)).await;
        }
    }

    async fn mtu(&mut self, mtu: u32) {
        if self.mtu.replace(mtu) != Some(mtu) {
            let _ = self.events.send(LinkEvent::Mtu(mtu)).await;
        }
    }

    /// The MTU first: packets may flow as soon as the interface is up.
    async fn link(&mut self, link: &LinkMessage) {
        for attribute in &link.attributes {
            if let LinkAttribute::Mtu(mtu) = attribute {
                self.mtu(*mtu).await;
            }
        }
        self.up(link.header.flags.contains(LinkFlags::Up)).await;
    }
}

type Messages = futures_util::stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// Follows the interface in the namespace where it is now, until it leaves or messages were lost.
async fn follow(view: &TunView, last: &mut Last) -> io::Result<()> {
    let (handle, mut messages) = subscribe(&view.namespace()?)?;
    // Subscribed first, asked afterwards: no change falls between.
    let name = view.name()?;
    let mut links = Box::pin(handle.link().get().match_name(name).execute());
    let link = links.next().await.ok_or(io::ErrorKind::NotFound)?.map_err(io::Error::other)?;
    let index = link.header.index;
    last.link(&link).await;
    while let Some(message) = messages.next().await {
        let payload = message.payload;
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = &payload
            && link.header.index == index
        {
            last.link(link).await;
        }
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) = &payload
            && link.header.index == index
        {
            return Ok(());
        }
        if matches!(payload, NetlinkPayload::Overrun(_)) {
            return Ok(());
        }
        if last.events.is_closed() {
            return Ok(());
        }
    }
    Err(io::Error::other("The netlink socket was closed"))
}

/// Opens a netlink socket in the namespace and subscribes to its links.
fn subscribe(namespace: &OwnedFd) -> io::Result<(Handle, Messages)> {
    let connect = || rtnetlink::new_multicast_connection(&[MulticastGroup::Link]);
    let (connection, handle, messages) = if is_ours(namespace)? {
        connect()?
    } else {
        // A socket belongs to the namespace of the thread that made it: this one may go there and
        // end, the control thread stays.
        let runtime = tokio::runtime::Handle::current();
        let visitor = || {
            let _guard = runtime.enter();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            connect()
        };
        std::thread::scope(|scope| scope.spawn(visitor).join())
            .map_err(|_| io::Error::other("The visitor of a namespace panicked"))??
    };
    tokio::spawn(connection);
    Ok((handle, messages.map(|(message, _)| message).boxed()))
}

fn is_ours(namespace: &OwnedFd) -> io::Result<bool> {
    let there = fs::File::from(namespace.try_clone()?).metadata()?;
    let here = fs::metadata("/proc/self/ns/net")?;
    Ok((there.dev(), there.ino()) == (here.dev(), here.ino()))
}
