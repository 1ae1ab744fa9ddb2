//! The end of the server, as an answer that would go on for ever hears of it.
//!
//! Each request brings one along. An ordinary answer needs none: it has the server's grace to end
//! by itself. This module must not know what is answered, nor how the server ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The end of the server, for the answers of one connection.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    stopped: watch::Receiver<bool>,
    is_endless: Arc<AtomicBool>,
}

impl Ending {
    /// That of a connection; `stopped` becomes true when the server ends.
    pub(super) fn new(stopped: watch::Receiver<bool>) -> Self {
        Self { stopped, is_endless: Arc::default() }
    }

    /// Another request is answered now.
    pub(super) fn begin(&self) {
        self.is_endless.store(false, Ordering::Relaxed);
    }

    /// Says that the answer on this connection has no end of its own: it ends when told so.
    pub(super) fn will_be_heard(&self) {
        self.is_endless.store(true, Ordering::Relaxed);
    }

    /// Whether there is such an answer: a client that does not take it is not waited for.
    pub(super) fn is_heard(&self) -> bool {
        self.is_endless.load(Ordering::Relaxed)
    }

    /// Returns when the server ends; also when it is gone.
    pub(super) async fn comes(&mut self) {
        let _ = self.stopped.wait_for(|stopped| *stopped).await;
    }
}
