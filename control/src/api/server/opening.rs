//! One door: opened now or later, and kept open.
//!
//! A door that cannot be opened keeps no other one closed: it says why, once and whenever that
//! changes, and is tried again for ever, because addresses appear and certificates are put in
//! place. One for TLS stays closed until there is a certificate; nothing is served instead of it.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;

use super::connection::Host;
use super::tls::Tls;
use super::{Board, Doors};
use crate::api::doors::{Closed, Fault, Standing};
use crate::listen::{self, ListenError};

/// Connections that wait to be accepted: as many as a program gets that does not choose.
const BACKLOG: i32 = 4096;

/// How long to wait when no client can be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long to wait before a closed door is tried again, at first and at most.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Tries after which it is said again why a door is closed: a quarter of an hour at the longest
/// pause.
const SAID_AGAIN: u32 = 90;

/// A door that may be opened.
pub(super) enum Opener {
    /// The Unix socket.
    Unix(PathBuf),
    /// TCP without encryption.
    Plain(SocketAddr),
    /// TCP with TLS; without a certificate there is none to open.
    Https(SocketAddr, Option<Arc<Tls>>),
}

/// A door that is open, and not served yet.
enum Opened {
    Unix(Rc<listen::Listener>),
    Tcp(TcpListener, Option<Arc<Tls>>),
}

impl Opener {
    /// All doors, the Unix socket first.
    pub(super) fn all(doors: Doors) -> Vec<Self> {
        let Doors { unix, plain, https, tls } = doors;
        let unix = unix.into_iter().map(Self::Unix);
        let https = https.into_iter().map(|address| Self::Https(address, tls.clone()));
        unix.chain(plain.into_iter().map(Self::Plain)).chain(https).collect()
    }

    /// Kind and place, for people.
    pub(super) fn about(&self) -> (&'static str, String) {
        match self {
            Self::Unix(path) => ("unix", path.display().to_string()),
            Self::Plain(address) => ("http", address.to_string()),
            Self::Https(address, _) => ("https", address.to_string()),
        }
    }

    /// Opens it, as often as it takes, and serves it.
    pub(super) async fn serve(self, number: usize, host: Rc<Host>, board: Board) {
        let (_, place) = self.about();
        let (mut pause, mut tries, mut said) = (PAUSE, 0, None);
        let opened = loop {
            let closed = match self.open().await {
                Ok(opened) => break opened,
                Err(closed) => closed,
            };
            if said.as_ref() != Some(&closed) || tries % SAID_AGAIN == 0 {
                let (reason, why) = (closed.fault.code(), &closed.why);
                tracing::warn!(
                    reason,
                    "The API does not answer at {place} yet; this is tried again: {why}"
                );
                said = Some(closed.clone());
                tries = 0;
            }
            board.set(number, Standing::Closed(closed));
            tries += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        };
        let place = opened.place().unwrap_or(place);
        if said.is_some() {
            tracing::info!("The API answers on {place} now");
        }
        board.set(number, Standing::Open(place));
        match opened {
            Opened::Unix(listener) => {
                let cut = |error: &std::io::Error| tracing::debug!(%error, "API client");
                listener.serve(cut, async move |stream| host.unix(stream).await).await;
            }
            Opened::Tcp(listener, tls) => accept(listener, host, tls).await,
        }
    }

    async fn open(&self) -> Result<Opened, Closed> {
        match self {
            Self::Unix(path) => {
                let listener = listen::listen_for(path, 0o660);
                listener.map(|listener| Opened::Unix(Rc::new(listener))).map_err(no_socket)
            }
            Self::Plain(address) if !address.ip().is_loopback() => Err(Closed {
                fault: Fault::InTheClear,
                why: "without TLS it would be open to other hosts: give it certificate_file and \
                      key_file, or use 127.0.0.1"
                    .to_owned(),
            }),
            Self::Plain(address) => bind(*address).map(|listener| Opened::Tcp(listener, None)),
            Self::Https(address, tls) => {
                let Some(tls) = tls else {
                    let why = "HTTPS needs a certificate and its key".to_owned();
                    return Err(Closed { fault: Fault::CertificateUnreadable, why });
                };
                tls.ensure().await?;
                bind(*address).map(|listener| Opened::Tcp(listener, Some(Arc::clone(tls))))
            }
        }
    }
}

impl Opened {
    /// Where it is, with the port that the system chose.
    fn place(&self) -> Option<String> {
        match self {
            Self::Unix(listener) => Some(listener.path().display().to_string()),
            Self::Tcp(listener, _) => Some(listener.local_addr().ok()?.to_string()),
        }
    }
}

fn no_socket(error: ListenError) -> Closed {
    let fault = match &error {
        ListenError::InUse { .. } | ListenError::NoSocket { .. } => Fault::SocketTaken,
        ListenError::System { source, .. } if is_forbidden(source) => Fault::NotPermitted,
        ListenError::System { .. } => Fault::CannotListen,
    };
    let what = if fault == Fault::NotPermitted {
        ": name a socket in a folder that the gateway may write"
    } else {
        ""
    };
    Closed { fault, why: format!("{error}{what}") }
}

fn is_forbidden(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

fn bind(address: SocketAddr) -> Result<TcpListener, Closed> {
    let cannot = |why: String| Closed { fault: Fault::CannotListen, why };
    let listener = listening(address).map_err(|error| not_bound(address, error))?;
    TcpListener::from_std(listener).map_err(|error| cannot(error.to_string()))
}

fn not_bound(address: SocketAddr, error: Errno) -> Closed {
    let (ip, port) = (address.ip(), address.port());
    let (fault, why) = match error {
        Errno::ADDRNOTAVAIL => (
            Fault::AddressMissing,
            format!(
                "{ip} is not on this host now ({error}): give it to an interface, or name another \
                 address in listen of [api]"
            ),
        ),
        Errno::ADDRINUSE => (
            Fault::AddressTaken,
            format!(
                "another program listens there ({error}): \"ss -ltnp\" says which; stop it, or \
                 choose another port in listen of [api]"
            ),
        ),
        Errno::ACCESS | Errno::PERM => (
            Fault::NotPermitted,
            format!(
                "this process may not listen on port {port} ({error}): choose another port, from \
                 1024 on, or give it CAP_NET_BIND_SERVICE"
            ),
        ),
        other => (
            Fault::CannotListen,
            format!("the system refuses it ({other}): choose another address in listen of [api]"),
        ),
    };
    Closed { fault, why }
}

/// An IPv6 address opens nothing in IPv4: what is not named is not open, and both may be named.
pub(super) fn listening(address: SocketAddr) -> rustix::io::Result<StdListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

async fn accept(listener: TcpListener, host: Rc<Host>, tls: Option<Arc<Tls>>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => host.tcp(stream, from, tls.as_deref()),
            Err(error) => {
                tracing::debug!(%error, "No client of the API can be accepted");
                // Out of descriptors, most likely: clients need time to go.
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
