//! Talking to a client that may be slow, dead or hostile, on the control thread.
//!
//! Every wait has an end, every buffer a size, and what was sent is erased: it may have been a key.
//! This module must not know what is said.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroize;

/// Bytes taken from a client at once.
const INPUT_BYTES: usize = 16 << 10;

/// Bytes of an answer that are collected before they are sent. An answer of any length needs little
/// more memory than this.
pub const OUTPUT_BYTES: usize = 64 << 10;

/// How long a client may take for [`OUTPUT_BYTES`]. Whoever reads slower than 2 KiB/s is as good as
/// dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection with bounds.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Client {
    /// Takes a connection over.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, input: vec![0; INPUT_BYTES] }
    }

    /// The next bytes, none at the end of input. The caller hands them to [`Client::erase`].
    ///
    /// # Errors
    /// `TimedOut` after `silence_max` without any, or what the socket says.
    pub async fn read(&mut self, silence_max: Duration) -> io::Result<usize> {
        timeout(silence_max, self.stream.read(&mut self.input)).await?
    }

    /// The bytes that [`Client::read`] counted.
    #[must_use]
    pub fn input(&self, count: usize) -> &[u8] {
        &self.input[..count]
    }

    /// Forgets the input.
    pub fn erase(&mut self, count: usize) {
        self.input[..count].zeroize();
    }

    /// Sends `out` and empties it.
    ///
    /// # Errors
    /// `TimedOut` if the client does not read, or what the socket says.
    pub async fn send(&mut self, out: &mut String) -> io::Result<()> {
        let sent = timeout(WRITE_TIMEOUT, self.stream.write_all(out.as_bytes())).await;
        out.zeroize();
        sent?
    }

    /// Sends `out` if enough has come together.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_if_full(&mut self, out: &mut String) -> io::Result<()> {
        if out.len() >= OUTPUT_BYTES { self.send(out).await } else { Ok(()) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.input.zeroize();
    }
}
