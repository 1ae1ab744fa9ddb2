//! Waiting on the control thread until a descriptor that tokio does not know becomes readable.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::unix::AsyncFd;

/// A descriptor registered with the control thread's event loop.
#[derive(Debug)]
pub struct Ready<T: AsRawFd>(AsyncFd<T>);

impl<T: AsFd + AsRawFd> Ready<T> {
    /// Registers a non-blocking descriptor.
    ///
    /// # Errors
    /// What epoll says.
    #[expect(deprecated, reason = "the unsafe spelling asks for what `AsFd` promises already")]
    pub fn new(inner: T) -> io::Result<Self> {
        AsyncFd::new(inner).map(Self)
    }

    /// Waits until it is readable and empties it with `drain`.
    ///
    /// # Errors
    /// When the event loop is gone.
    pub async fn readable(&self, drain: impl FnOnce(&T)) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        drain(self.0.get_ref());
        ready.clear_ready();
        Ok(())
    }

    /// What was registered.
    #[must_use]
    pub fn get(&self) -> &T {
        self.0.get_ref()
    }
}
