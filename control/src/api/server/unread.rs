//! An answer to whoever sent nothing that can be read: a problem, as every other refusal.
//!
//! The library answers a head that it cannot read by itself, with a status and no body, and one
//! that does not come in time not at all. Until the first request of a connection is read nothing
//! else can be written, so what the library writes until then is held back, and the gateway answers
//! with the status that it has chosen. Later on the same connection its answer stands, because
//! there it cannot be told from the end of the one before. This module must not know what is asked.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tower::ServiceExt as _;

use super::bounds::Bounds;
use crate::api::front::Unread;
use crate::api::gatekeeper::Via;
use crate::api::problem::Problem;
use crate::api::reason::Reason;

/// What begins the library's answer, before the status.
const VERSION: &[u8] = b"HTTP/1.1 ";

/// Bytes of a problem, at most.
const BODY_MAX: usize = 16 << 10;

/// How long, and how much, the rest of what was refused is read and thrown away.
const REST: Duration = Duration::from_millis(500);
const REST_BYTES: usize = 256 << 10;

/// The stream of a connection on which perhaps nothing was asked yet. Clones are the same.
pub(super) struct Early<S>(Rc<Inner<S>>);

struct Inner<S> {
    stream: RefCell<S>,
    was_asked: Cell<bool>,
    was_heard: Cell<bool>,
    /// What the library wrote before anything was asked, as far as the status.
    held: RefCell<Vec<u8>>,
}

impl<S> Clone for Early<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Early<S> {
    pub(super) fn new(stream: S) -> Self {
        let (was_asked, was_heard) = (Cell::new(false), Cell::new(false));
        Self(Rc::new(Inner {
            stream: RefCell::new(stream),
            was_asked,
            was_heard,
            held: RefCell::default(),
        }))
    }

    /// A request was read: from now on everything is written as it is.
    pub(super) fn ask(&self) {
        self.0.was_asked.set(true);
    }

    /// Whether one was.
    pub(super) fn was_asked(&self) -> bool {
        self.0.was_asked.get()
    }

    /// Ends a connection on which nothing was asked, with an answer if something came.
    pub(super) async fn part(
        mut self,
        ended: Option<&hyper::Error>,
        bounds: &Bounds,
        via: Via,
        router: Router,
    ) -> io::Result<()> {
        if self.was_asked() {
            return Ok(());
        }
        if let Some(problem) = self.problem(ended, bounds) {
            let answer = written(problem, via, router).await;
            self.ask();
            self.write_all(&answer).await?;
            self.shutdown().await?;
            // Closing on what was not read would take the answer back from a client that still
            // sends.
            let _ = tokio::time::timeout(REST, self.pass_over()).await;
            return Ok(());
        }
        self.ask();
        self.shutdown().await
    }

    /// Reads what is still sent, up to a limit.
    async fn pass_over(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BODY_MAX];
        let mut left = REST_BYTES;
        while left > 0 {
            match self.read(&mut buffer).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok(())
    }

    fn problem(&self, ended: Option<&hyper::Error>, bounds: &Bounds) -> Option<Problem> {
        let held = self.0.held.borrow();
        let status = held.strip_prefix(VERSION).and_then(|rest| rest.get(..3));
        match status {
            Some(b"431" | b"414") => {
                let (bytes, count) = (bounds.head_bytes, bounds.headers);
                let detail = format!(
                    "The head of a request may have {bytes} bytes and {count} headers: send less"
                );
                Some(Problem::new(Reason::HeadersTooLarge, detail))
            }
            Some(_) => {
                let detail = "This is no request of HTTP/1.1: its first line or a header cannot be \
                              read";
                Some(Problem::new(Reason::BadRequest, detail))
            }
            None if self.0.was_heard.get() && ended.is_some_and(hyper::Error::is_timeout) => {
                let seconds = bounds.head.as_secs_f32();
                let detail = format!("The head of the request did not come within {seconds} s");
                Some(Problem::new(Reason::RequestTimeout, detail))
            }
            None => None,
        }
    }
}

/// The answer as it goes over the wire.
async fn written(problem: Problem, via: Via, router: Router) -> Vec<u8> {
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(via);
    request.extensions_mut().insert(Unread(problem));
    let Ok(response) = router.oneshot(request).await;
    let (mut parts, body) = Response::into_parts(response);
    let body = to_bytes(body, BODY_MAX).await.unwrap_or_default();
    let headers = &mut parts.headers;
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    headers.extend(HeaderValue::from_str(&date).ok().map(|date| (header::DATE, date)));
    let mut bytes = [VERSION, parts.status.to_string().as_bytes(), b"\r\n"].concat();
    for (name, value) in headers.iter() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    bytes.extend(&body);
    bytes
}

impl<S: AsyncRead + Unpin> AsyncRead for Early<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(context, buffer);
        self.0.was_heard.set(self.0.was_heard.get() || buffer.filled().len() > before);
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Early<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.was_asked.get() {
            return Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(context, bytes);
        }
        let mut held = self.0.held.borrow_mut();
        let missing = (VERSION.len() + 3).saturating_sub(held.len());
        held.extend(bytes.iter().take(missing));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.0.was_asked.get() {
            let mut stream = self.0.stream.borrow_mut();
            return Pin::new(&mut *stream).poll_write_vectored(context, bytes);
        }
        let first = bytes.iter().find(|slice| !slice.is_empty());
        self.poll_write(context, first.map_or(&[], |slice| &**slice))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.0.was_asked.get() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.0.was_asked.get() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(context)
    }
}
