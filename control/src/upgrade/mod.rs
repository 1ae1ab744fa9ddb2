//! `ringway upgrade`: a new process takes the gateway over from the running one, with its sockets,
//! its interface and its sessions, and clients notice nothing.
//!
//! The conversation, over a Unix socket beside the one for counters (`old` is the process that
//! runs, `new` the one that was started by the operator):
//!
//! ```text
//!   new ── greeting ──► old    both prove to the kernel that they are of one user
//!   new ◄── greeting ── old    from here on everything is sealed
//!   new ◄── offer ───── old    what it is; nothing has been touched yet
//!   new ──── yes ─────► old    same workers, same host settings; or no, with a reason
//!   new ◄ descriptors ─ old    queues, sockets, listeners, the journal's lock
//!   new ◄ configuration old    from here on changes of the configuration wait
//!   new ── prepared ──► old    workers stand frozen, peers are known
//!             old stops carrying packets; they wait in the kernel
//!   new ◄── sessions ── old
//!   new ─── ready ────► old
//!   new ◄──── go ────── old    from here on old's counters are not its own any more
//!             new carries packets
//!   new ── it runs ───► old    old ends and leaves the host as it is
//! ```
//!
//! If anything fails, is silent, or takes longer than packets may wait, old goes on: with its own
//! counters before *go*; after it with counters far above those that new may have used, and only
//! when new is dead. What new had accepted by then old does not know: a packet of those few seconds
//! could be replayed to it, until the session's next handshake. Whatever failed, new is not left
//! behind with descriptors. Whoever tells old to end before *go* is obeyed; after it, new is told.

mod accounts;
pub mod message;
pub mod new;
pub mod old;
pub mod rival;
pub mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringway_proto::crypto::PublicKey;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tracing::debug;

use crate::listen::Listener;
use message::Part;

/// How this process introduces itself. (The kernel only knows who first listened, which may have
/// been a process long gone.)
fn own_name() -> String {
    format!("ringway {}, process {}", env!("CARGO_PKG_VERSION"), std::process::id())
}

/// What this thread may do, as a mask of capabilities. Nothing if nobody knows.
fn own_capabilities() -> u64 {
    rustix::thread::capabilities(None).map_or(0, |sets| sets.effective.bits())
}

/// What a role leaves to the next process.
#[derive(Debug)]
pub struct Legacy {
    /// Which it is.
    pub part: Part,
    /// Its configuration file; empty without one.
    pub config: PathBuf,
    /// Its state folder; empty without one.
    pub state_dir: PathBuf,
    /// Settings that the host was made to agree with: name and value.
    pub settings: Vec<(String, String)>,
    /// The lock of the journal of what was changed on the host.
    pub journal: Option<OwnedFd>,
    /// Where its file expects peers. (Where they are is with their sessions.)
    pub endpoints: Endpoints,
}

/// Where a file expects peers.
pub type Endpoints = HashMap<PublicKey, SocketAddr>;

/// Where the next process asks for the gateway, beside the socket for counters.
#[must_use]
pub fn socket_path(stats: &Path) -> PathBuf {
    stats.with_extension("upgrade")
}

/// Waits for processes that want to take over. One is heard at a time.
pub async fn listen(listener: Rc<Listener>, requests: mpsc::Sender<UnixStream>) {
    let cut = |error: &std::io::Error| debug!("Upgrade: {error}");
    let converse = async move |stream| {
        // If the gateway is stopping there is nothing to take over.
        let _ = requests.send(stream).await;
        Ok(())
    };
    listener.serve(cut, converse).await;
}
