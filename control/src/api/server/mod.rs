//! Serves the API on a thread of its own.
//!
//! The thread has its own single-threaded runtime: what a flood of HTTP requests costs is paid
//! there, and the control thread, which answers the cores, `wg` and the watchdog, is not delayed by
//! it. The two meet only in `Live` and in the store. Doors: a Unix socket, plain TCP on loopback
//! addresses, TLS on any; each opens by itself, now or later ([`opening`]). How many connections
//! there may be, and how slow they may be, is in [`bounds`].

pub mod bounds;
pub(crate) mod certificate;
mod connection;
pub mod holders;
mod opening;
mod patient;
#[cfg(test)]
mod tests;
pub mod tls;
mod unread;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::doors::{self, Board};
use crate::configs::Configs;
use crate::failure::{Failure, Status};
use bounds::Bounds;
use opening::Opener;
use tls::Tls;

/// How long requests that are being answered may go on when the server ends.
const GRACE: Duration = Duration::from_secs(3);

/// How long a start waits until each door was tried once.
const FIRST_TRY: Duration = Duration::from_secs(2);

/// How long another process that was the gateway may take to let go of its doors.
const OTHERS_END: Duration = Duration::from_secs(10);

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
    /// Certificate and key for `https`; they need not be there yet.
    pub tls: Option<Arc<Tls>>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    board: Board,
}

/// Starts serving `router`; `configs` has its trials watched. Each door is opened by itself, the
/// Unix socket first; those that cannot be opened are tried again for as long as the server runs,
/// and `board` says how it stands. Returns when each was tried once, or takes its time.
///
/// # Errors
/// No thread, or no runtime on it.
pub fn start(
    doors: Doors,
    bounds: Bounds,
    router: Router,
    configs: Arc<Configs>,
    board: Board,
) -> Result<Server, Failure> {
    let (stop, stopped) = watch::channel(false);
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let shown = board.clone();
    let thread = std::thread::Builder::new().name("api".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // File work, hashes of passwords: few at a time.
            .max_blocking_threads(4)
            .build();
        match runtime {
            Ok(runtime) => {
                let local = LocalSet::new();
                let parts = Parts { doors, bounds, router, configs, board: shown };
                local.block_on(&runtime, serve(parts, stopped, ready));
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
    Ok(Server { stop, thread: Some(thread), board })
}

fn failed(why: &str) -> Failure {
    Failure::new(Status::Findings, format!("The API cannot be served: {why}"))
}

impl Server {
    /// Addresses of the open plain doors, then of the open TLS doors, with their real ports.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let open = self.board.view().into_iter().filter(|door| door.open);
        open.filter_map(|door| door.address.parse().ok()).collect()
    }

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

/// What the thread of the server is given.
struct Parts {
    doors: Doors,
    bounds: Bounds,
    router: Router,
    configs: Arc<Configs>,
    board: Board,
}

type Ready = std::sync::mpsc::SyncSender<Result<(), Failure>>;

async fn serve(parts: Parts, stopped: watch::Receiver<bool>, ready: Ready) {
    let Parts { doors, bounds, router, configs, board } = parts;
    let host = Rc::new(connection::Host::new(router, bounds, stopped.clone()));
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(tls) = doors.tls.clone() {
        tasks.spawn_local(tls.watch());
    }
    let doors = Opener::all(doors);
    board.begin(doors.iter().map(Opener::about));
    for (number, door) in doors.into_iter().enumerate() {
        tasks.spawn_local(door.serve(number, Rc::clone(&host), board.clone()));
    }
    // A disk that hangs keeps one door closed, and nobody else waiting.
    let _ = tokio::time::timeout(FIRST_TRY, board.until(doors::all_tried)).await;
    let _ = ready.send(Ok(()));
    let watch = tokio::task::spawn_local(async move {
        // While all are closed another process, which ends, may watch still.
        let _ = tokio::time::timeout(OTHERS_END, board.until(doors::any_open)).await;
        configs.watch().await;
    });
    let mut stopped = stopped;
    // The sender lives as long as the server.
    let _ = stopped.wait_for(|stop| *stop).await;
    tasks.shutdown().await;
    watch.abort();
    let _ = tokio::time::timeout(GRACE, host.empty()).await;
}
