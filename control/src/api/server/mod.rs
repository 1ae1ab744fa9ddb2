//! Serves the API on a thread of its own.
//!
//! The thread has its own single-threaded runtime: what a flood of HTTP requests costs is paid
//! there, and the control thread, which answers the cores, `wg` and the watchdog, is not delayed by
//! it. The two meet only in `Live` and in the store. Doors: a Unix socket, plain TCP on loopback
//! addresses, TLS on any. How many connections there may be, and how slow they may be, is in
//! [`bounds`].

pub mod bounds;
mod connection;
pub mod holders;
mod patient;
#[cfg(test)]
mod tests;
pub mod tls;

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::configs::Configs;
use crate::failure::{Failure, Status};
use crate::listen;
use bounds::Bounds;
use tls::Tls;

/// How long requests that are being answered may go on when the server ends.
const GRACE: Duration = Duration::from_secs(3);

/// Connections that wait to be accepted: as many as a program gets that does not choose.
const BACKLOG: i32 = 4096;

/// How long to wait when no client can be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Where the API of an interface is unless the operator says otherwise.
#[must_use]
pub fn socket_path(interface: &str) -> PathBuf {
    PathBuf::from(crate::stats::FOLDER).join(format!("{interface}.api"))
}

/// By which doors the API is reached.
#[derive(Debug, Default)]
pub struct Doors {
    /// The Unix socket, mode 0660.
    pub unix: Option<PathBuf>,
    /// TCP without encryption: loopback addresses only.
    pub plain: Vec<SocketAddr>,
    /// TCP with TLS.
    pub https: Vec<SocketAddr>,
    /// Certificate and key for `https`.
    pub tls: Option<Arc<Tls>>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    /// Addresses of the plain doors, then of the TLS doors, with their real ports.
    pub addresses: Vec<SocketAddr>,
}

/// Starts serving `router`; `configs` has its trials watched.
///
/// # Errors
/// A door that cannot be opened, or must not be: plain TCP beyond this host.
pub fn start(
    doors: Doors,
    bounds: Bounds,
    router: Router,
    configs: Arc<Configs>,
) -> Result<Server, Failure> {
    let open = Open::new(&doors)?;
    let addresses = open.addresses();
    let (stop, stopped) = watch::channel(false);
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("api".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // File work, hashes of passwords: few at a time.
            .max_blocking_threads(4)
            .build();
        match runtime {
            Ok(runtime) => {
                let local = LocalSet::new();
                local.block_on(&runtime, serve(open, bounds, router, configs, stopped, ready));
                // What is being answered had its grace; a disk that hangs is not waited for.
                runtime.shutdown_timeout(Duration::from_millis(100));
            }
            Err(error) => {
                let _ = ready.send(Err(failed(&format!("no runtime ({error})"))));
            }
        }
    });
    let thread = thread.map_err(|error| failed(&format!("no thread ({error})")))?;
    let started = is_ready.recv();
    started.unwrap_or_else(|_| Err(failed("its thread ended")))?;
    Ok(Server { stop, thread: Some(thread), addresses })
}

fn failed(why: &str) -> Failure {
    Failure::new(Status::Findings, format!("The API cannot be served: {why}"))
}

impl Server {
    /// Takes no more requests, lets those under way end for some seconds, and ends.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic there was written when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Doors that are open for the kernel, but not served yet.
struct Open {
    unix: Option<PathBuf>,
    plain: Vec<StdListener>,
    https: Vec<StdListener>,
    tls: Option<Arc<Tls>>,
}

impl Open {
    fn new(doors: &Doors) -> Result<Self, Failure> {
        if let Some(open) = doors.plain.iter().find(|address| !address.ip().is_loopback()) {
            let message = format!(
                "The API must not be served on {open} without TLS: give it a certificate, or use \
                 127.0.0.1"
            );
            return Err(Failure::new(Status::Config, message));
        }
        if !doors.https.is_empty() && doors.tls.is_none() {
            return Err(Failure::new(Status::Config, "HTTPS needs a certificate and its key"));
        }
        let bind = |addresses: &[SocketAddr]| -> Result<Vec<StdListener>, Failure> {
            addresses.iter().map(|address| bind(*address)).collect()
        };
        let (plain, https) = (bind(&doors.plain)?, bind(&doors.https)?);
        Ok(Self { unix: doors.unix.clone(), plain, https, tls: doors.tls.clone() })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let all = self.plain.iter().chain(&self.https);
        all.filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

fn bind(address: SocketAddr) -> Result<StdListener, Failure> {
    listening(address).map_err(|error| {
        let message = format!("The API cannot listen on {address} ({error}): choose another port");
        Failure::new(Status::Findings, message)
    })
}

/// An IPv6 address opens nothing in IPv4: what is not named is not open, and both may be named.
fn listening(address: SocketAddr) -> rustix::io::Result<StdListener> {
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

type Ready = std::sync::mpsc::SyncSender<Result<(), Failure>>;

async fn serve(
    open: Open,
    bounds: Bounds,
    router: Router,
    configs: Arc<Configs>,
    stopped: watch::Receiver<bool>,
    ready: Ready,
) {
    let host = Rc::new(connection::Host::new(router, bounds, stopped.clone()));
    let doors = match Served::new(open) {
        Ok(doors) => doors,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let watch = tokio::task::spawn_local(configs.watch());
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(tls) = doors.tls.clone() {
        tasks.spawn_local(tls.watch());
    }
    if let Some(unix) = doors.unix {
        let host = Rc::clone(&host);
        tasks.spawn_local(async move {
            let refused = |error: &std::io::Error| tracing::debug!(%error, "API client");
            unix.serve(refused, async move |stream| host.unix(stream).await).await;
        });
    }
    for listener in doors.plain {
        tasks.spawn_local(accept(listener, Rc::clone(&host), None));
    }
    for listener in doors.https {
        tasks.spawn_local(accept(listener, Rc::clone(&host), doors.tls.clone()));
    }
    let _ = ready.send(Ok(()));
    let mut stopped = stopped;
    // The sender lives as long as the server.
    let _ = stopped.wait_for(|stop| *stop).await;
    tasks.shutdown().await;
    watch.abort();
    let _ = tokio::time::timeout(GRACE, host.empty()).await;
}

/// Doors with their sockets in the runtime.
struct Served {
    unix: Option<Rc<listen::Listener>>,
    plain: Vec<TcpListener>,
    https: Vec<TcpListener>,
    tls: Option<Arc<Tls>>,
}

impl Served {
    fn new(open: Open) -> Result<Self, Failure> {
        let take = |listeners: Vec<StdListener>| -> Result<Vec<TcpListener>, Failure> {
            let taken = listeners.into_iter().map(TcpListener::from_std);
            taken.collect::<Result<_, _>>().map_err(|error| failed(&error.to_string()))
        };
        let unix = open.unix.as_deref().map(|path| listen::listen_for(path, 0o660)).transpose();
        let unix = unix.map_err(|error| failed(&error.to_string()))?.map(Rc::new);
        Ok(Self { unix, plain: take(open.plain)?, https: take(open.https)?, tls: open.tls })
    }
}

async fn accept(listener: TcpListener, host: Rc<connection::Host>, tls: Option<Arc<Tls>>) {
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
