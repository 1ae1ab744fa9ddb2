//! What a gateway is made of before anything runs: made here, or left by another process.
//!
//! What was made goes away by being dropped, so a failure half-way leaves nothing behind; what was
//! left stays the other process's until it has been taken over.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringway_dataplane::accounts::ACCOUNTS_MAX;
use ringway_dataplane::worker::PAGE_WORDS;
use ringway_link::page::PageWriter;
use ringway_link::usage::UsageWriter;
use ringway_proto::CoreId;
use ringway_proto::crypto::Random;
use ringway_ring::{TunError, TunOffloads, TunOptions, TunQueue, UdpSockets, clock};
use rtnetlink::LinkUnspec;
use tracing::{info, warn};

use super::without::offloads;
use super::{Setup, UapiSocket};
use crate::failure::{Failure, Status};
use crate::listen::{ListenError, Listener, adopt, listen};
use crate::uapi::serve::Access;
use crate::upgrade;

/// What another process left: descriptors, and what sessions depend on.
#[derive(Debug)]
pub struct Taken {
    /// One queue per core.
    pub queues: Vec<TunQueue>,
    /// Sockets of each core, or none at all.
    pub sockets: Vec<UdpSockets>,
    /// Listening socket for counters.
    pub stats: OwnedFd,
    /// Listening socket of the configuration protocol; not every gateway has one.
    pub uapi: Option<OwnedFd>,
    /// Listening socket for the next upgrade.
    pub upgrade: OwnedFd,
    /// Masks the owner in receiver indices.
    pub index_secret: u32,
}

/// What is there before the workers are.
pub(super) struct Parts {
    pub(super) queues: Vec<TunQueue>,
    pub(super) sockets: Vec<UdpSockets>,
    pub(super) stats: Rc<Listener>,
    pub(super) uapi: Option<Rc<Listener>>,
    pub(super) access: Access,
    pub(super) upgrade: Rc<Listener>,
    pub(super) index_secret: u32,
}

impl Parts {
    pub(super) async fn new(setup: &Setup, cores: u16) -> Result<Self, Failure> {
        let queues = open_tun(&setup.interface, cores, offloads(setup.workers.without))?;
        set_mtu(queues[0].index(), setup.policy.inner_mtu).await?;
        let (uapi, access) = open_uapi(&setup.uapi)?;
        let stats = Rc::new(open_socket(&setup.stats_socket)?);
        let upgrade = Rc::new(open_socket(&upgrade::socket_path(&setup.stats_socket))?);
        let index_secret = index_secret();
        Ok(Self { queues, sockets: Vec::new(), stats, uapi, access, upgrade, index_secret })
    }

    pub(super) fn of(taken: Taken, setup: &Setup) -> Result<Self, Failure> {
        let adopted = |socket: OwnedFd, path: &Path| {
            let adopted = adopt(socket, path).map(Rc::new);
            adopted.map_err(|error| Failure::new(Status::State, error.to_string()))
        };
        let Taken { queues, sockets, stats, uapi, upgrade, index_secret } = taken;
        let stats_path = &setup.stats_socket;
        let access = if setup.uapi.writable { Access::ReadAndWrite } else { Access::ReadOnly };
        Ok(Self {
            queues,
            sockets,
            stats: adopted(stats, stats_path)?,
            uapi: uapi.map(|uapi| adopted(uapi, &setup.uapi.path)).transpose()?,
            access,
            upgrade: adopted(upgrade, &upgrade::socket_path(stats_path))?,
            index_secret,
        })
    }
}

/// The files of the counter pages.
#[derive(Debug)]
pub(super) struct Pages {
    folder: Option<PathBuf>,
    /// The names are another process's until it has ended: what they are now, and what they will
    /// be.
    aside: Option<Vec<(PathBuf, PathBuf)>>,
}

impl Pages {
    pub(super) fn new(folder: Option<PathBuf>, aside: bool) -> Self {
        Self { folder, aside: aside.then(Vec::new) }
    }

    /// The page of a core.
    pub(super) fn open(&mut self, core: CoreId) -> PageWriter {
        let Some(folder) = &self.folder else { return PageWriter::new(PAGE_WORDS) };
        let path = folder.join(format!("core-{}.page", core.0));
        let Some(aside) = &mut self.aside else { return open_page(&path) };
        let next = folder.join(format!("core-{}.page.next", core.0));
        // Of an upgrade that failed.
        let _ = std::fs::remove_file(&next);
        let page = open_page(&next);
        aside.push((next, path));
        page
    }

    /// What accounts used on a core. Another process that is taken over counts in the same file
    /// until it is paused. What does not fit this version is put aside, not removed: it may not
    /// have been paid for.
    pub(super) fn usage(&self, core: CoreId) -> io::Result<UsageWriter> {
        let Some(folder) = &self.folder else { return UsageWriter::in_memory(ACCOUNTS_MAX) };
        let path = folder.join(format!("core-{}.usage", core.0));
        let epoch = clock::wall().as_secs();
        let mapped = UsageWriter::map_file(&path, ACCOUNTS_MAX, epoch).or_else(|error| {
            let aside = folder.join(format!("core-{}.usage.{epoch}", core.0));
            warn!("{error}; it is kept as {}", aside.display());
            let _ = std::fs::rename(&path, &aside);
            UsageWriter::map_file(&path, ACCOUNTS_MAX, epoch)
        });
        mapped.or_else(|error| {
            warn!("{error}; what accounts use is kept in memory only");
            UsageWriter::in_memory(ACCOUNTS_MAX)
        })
    }

    /// Gives the pages their names.
    pub(super) fn name(&self) {
        for (next, path) in self.aside.iter().flatten() {
            if let Err(error) = std::fs::rename(next, path) {
                warn!("Cannot name the counter page {}: {error}", path.display());
            }
        }
    }
}

/// For another process that will ask for them.
pub(super) fn second_descriptors(queues: &[TunQueue]) -> Result<Vec<OwnedFd>, Failure> {
    let seconds = queues.iter().map(|queue| queue.descriptor().try_clone_to_owned());
    seconds.collect::<io::Result<_>>().map_err(|error| cannot("keep the interface", &error))
}

/// A gateway that nobody can configure otherwise does not start without its socket; for others it
/// is a convenience (`wg show`) that the rights of the process may not allow.
fn open_uapi(socket: &UapiSocket) -> Result<(Option<Rc<Listener>>, Access), Failure> {
    if socket.writable {
        return Ok((Some(Rc::new(open_socket(&socket.path)?)), Access::ReadAndWrite));
    }
    match listen(&socket.path) {
        Ok(listener) => Ok((Some(Rc::new(listener)), Access::ReadOnly)),
        Err(error) => {
            info!("`wg show` will not find this gateway: {error}");
            Ok((None, Access::ReadOnly))
        }
    }
}

fn open_tun(name: &str, cores: u16, offloads: TunOffloads) -> Result<Vec<TunQueue>, Failure> {
    let options = TunOptions { multi_queue: cores > 1, offloads, ..TunOptions::named(name) };
    let first = TunQueue::open(&options).map_err(tun_failure)?;
    let mut queues = vec![first];
    for _ in 1..cores {
        queues.push(queues[0].another().map_err(tun_failure)?);
    }
    Ok(queues)
}

fn tun_failure(error: TunError) -> Failure {
    let status = if matches!(error, TunError::Busy { .. } | TunError::Different { .. }) {
        Status::InterfaceExists
    } else if matches!(error, TunError::Name { .. }) {
        Status::Usage
    } else {
        Status::Unsupported
    };
    Failure::new(status, error.to_string())
}

fn open_socket(path: &Path) -> Result<Listener, Failure> {
    listen(path).map_err(|error| {
        let status = match error {
            ListenError::InUse { .. } => Status::InterfaceExists,
            ListenError::NoSocket { .. } | ListenError::System { .. } => Status::State,
        };
        Failure::new(status, error.to_string())
    })
}

/// A page that outlives the process, or one in memory where that cannot be had: counters are worth
/// less than packets.
fn open_page(path: &Path) -> PageWriter {
    let mapped = PageWriter::map_file(path, PAGE_WORDS).or_else(|_| {
        // Of another version, most likely: the new one begins at zero.
        let _ = std::fs::remove_file(path);
        PageWriter::map_file(path, PAGE_WORDS)
    });
    mapped.unwrap_or_else(|error| {
        warn!("{error}; counters are kept in memory only");
        PageWriter::new(PAGE_WORDS)
    })
}

async fn set_mtu(index: u32, bytes: u16) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Status::Unsupported, format!("Cannot set the interface's MTU: {error}"))
    };
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| failed(&error))?;
    let connection = tokio::spawn(connection);
    let message = LinkUnspec::new_with_index(index).mtu(bytes.into()).build();
    let done = handle.link().set(message).execute().await;
    connection.abort();
    done.map_err(|error| failed(&error))
}

fn index_secret() -> u32 {
    let mut bytes = [0; 4];
    crate::keys::SystemRandom.fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

pub(super) fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::new(Status::Unsupported, format!("Cannot {what}: {error}"))
}
