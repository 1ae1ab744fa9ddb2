//! One connection: who is there, and how long it may take.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tower::ServiceExt as _;

use super::bounds::{Bounds, Census};
use super::patient::Patient;
use super::tls::Tls;
use super::unread::Early;
use crate::api::caller::Source;
use crate::api::credentials::Chain;
use crate::api::ending::Ending;
use crate::api::gatekeeper::{Door, Via};
use crate::api::state::SourceKey;

/// How long a client may take to read the end of an answer that has none of its own.
const PARTING: Duration = Duration::from_millis(200);

/// What all connections share.
pub(super) struct Host {
    router: Router,
    bounds: Bounds,
    census: RefCell<Census<SourceKey>>,
    stopped: watch::Receiver<bool>,
    /// Conversations under way, by all doors.
    talks: Cell<usize>,
    left: Notify,
}

impl Host {
    pub(super) fn new(router: Router, bounds: Bounds, stopped: watch::Receiver<bool>) -> Self {
        let (census, talks) = (RefCell::default(), Cell::new(0));
        Self { router, bounds, census, stopped, talks, left: Notify::new() }
    }

    /// Talks to a client of the Unix socket. Its number is bounded by the listener.
    pub(super) async fn unix(&self, stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        let via = Via { door: Door::Unix, source: Source::Unix { uid } };
        self.converse(stream, via, Chain::default()).await
    }

    /// Talks to a client of a TCP door in a task of its own, or turns it away.
    pub(super) fn tcp(self: &Rc<Self>, stream: TcpStream, from: SocketAddr, tls: Option<&Tls>) {
        let source = Source::Ip(from.ip().to_canonical());
        let Some(place) = Place::take(self, SourceKey::new(source)) else {
            tracing::debug!(%from, "Too many connections to the API");
            return;
        };
        // Answers are small and whole; waiting for more only delays them.
        let _ = stream.set_nodelay(true);
        let acceptor = match tls.map(Tls::acceptor) {
            // Without a certificate the door is closed, so this is nobody's way in.
            Some(None) => return,
            acceptor => acceptor.flatten(),
        };
        tokio::task::spawn_local(async move {
            let host = &place.host;
            let plain = Via { door: Door::Loopback, source };
            let done = match acceptor {
                None => host.converse(stream, plain, Chain::default()).await,
                Some(acceptor) => {
                    let shaken = tokio::time::timeout(host.bounds.head, acceptor.accept(stream));
                    match shaken.await {
                        Ok(Ok(stream)) => {
                            let chain = stream.get_ref().1.peer_certificates();
                            let chain = Chain(chain.unwrap_or_default().into());
                            host.converse(stream, Via { door: Door::Https, source }, chain).await
                        }
                        Ok(Err(error)) => Err(error),
                        Err(_) => Err(io::ErrorKind::TimedOut.into()),
                    }
                }
            };
            if let Err(error) = done {
                tracing::debug!(%error, "A connection to the API broke off");
            }
        });
    }

    /// Returns when nobody is left.
    pub(super) async fn empty(&self) {
        loop {
            let left = self.left.notified();
            if self.talks.get() == 0 {
                return;
            }
            left.await;
        }
    }

    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        via: Via,
        chain: Chain,
    ) -> io::Result<()> {
        let _talk = Talk::begin(self);
        let router = self.router.clone();
        let mut ending = Ending::new(self.stopped.clone());
        let told = ending.clone();
        let early = Early::new(Patient::new(stream, self.bounds.stall));
        let service = service_fn(|request| {
            early.ask();
            told.begin();
            answer(router.clone(), request, via, chain.clone(), told.clone())
        });
        let stream = TokioIo::new(early.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.bounds.head)
            .max_headers(self.bounds.headers)
            .max_buf_size(self.bounds.head_bytes)
            .serve_connection(stream, service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = ending.comes() => {
                connection.as_mut().graceful_shutdown();
                match (early.was_asked(), ending.is_heard()) {
                    // Whoever asked nothing yet waits for nothing.
                    (false, _) => Ok(()),
                    (true, true) => {
                        let parted = tokio::time::timeout(PARTING, connection).await;
                        parted.unwrap_or(Ok(()))
                    }
                    (true, false) => connection.await,
                }
            }
        };
        let parted = early.part(ended.as_ref().err(), &self.bounds, via, self.router.clone());
        let parted = parted.await;
        ended.map_err(io::Error::other).and(parted)
    }
}

async fn answer(
    router: Router,
    request: hyper::Request<Incoming>,
    via: Via,
    chain: Chain,
    ending: Ending,
) -> Result<Response, Infallible> {
    let mut request: Request = request.map(Body::new);
    request.extensions_mut().insert(via);
    request.extensions_mut().insert(chain);
    request.extensions_mut().insert(ending);
    router.oneshot(request).await
}

/// A place in the census, given back when the task ends however it ends.
struct Place {
    host: Rc<Host>,
    source: SourceKey,
}

impl Place {
    fn take(host: &Rc<Host>, source: SourceKey) -> Option<Self> {
        let entered = host.census.borrow_mut().enter(source, &host.bounds);
        entered.then(|| Self { host: Rc::clone(host), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.host.census.borrow_mut().leave(self.source);
    }
}

/// A conversation, counted while it lasts.
struct Talk<'a>(&'a Host);

impl<'a> Talk<'a> {
    fn begin(host: &'a Host) -> Self {
        host.talks.set(host.talks.get() + 1);
        Self(host)
    }
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        self.0.talks.set(self.0.talks.get() - 1);
        self.0.left.notify_one();
    }
}
