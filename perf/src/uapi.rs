//! The WireGuard configuration socket, spoken without the `wg` tool: for edits by the thousand.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Longest wait for an answer: loading 100,000 peers is one request.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// The socket of one interface.
#[derive(Clone, Debug)]
pub struct Uapi {
    path: PathBuf,
}

/// A conversation of many requests.
#[derive(Debug)]
pub struct Conversation {
    stream: BufReader<UnixStream>,
}

impl Uapi {
    /// The socket of an interface, whether or not it is there.
    #[must_use]
    pub fn of(interface: &str) -> Self {
        Self { path: PathBuf::from(format!("/run/wireguard/{interface}.sock")) }
    }

    /// Whether somebody listens.
    #[must_use]
    pub fn answers(&self) -> bool {
        UnixStream::connect(&self.path).is_ok()
    }

    /// Opens a conversation.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(&self) -> Result<Conversation> {
        let stream = UnixStream::connect(&self.path)
            .with_context(|| format!("Connecting to {}", self.path.display()))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Conversation { stream: BufReader::new(stream) })
    }

    /// Asks for everything and returns how many bytes that was.
    ///
    /// # Errors
    /// When nobody listens, or the answer does not end.
    pub fn get(&self) -> Result<usize> {
        let mut conversation = self.open()?;
        conversation.stream.get_mut().write_all(b"get=1\n\n").context("Sending a request")?;
        let (mut bytes, mut line) = (0, String::new());
        loop {
            line.clear();
            let count = conversation.stream.read_line(&mut line)?;
            ensure!(count > 0, "The gateway hung up");
            bytes += count;
            if line == "\n" {
                return Ok(bytes);
            }
        }
    }

    /// Sends one `set` request of these lines.
    ///
    /// # Errors
    /// When it is refused.
    pub fn set(&self, lines: &str) -> Result<()> {
        self.open()?.set(lines)
    }
}

impl Conversation {
    /// Sends one `set` request of these lines and waits for its answer.
    ///
    /// # Errors
    /// When it is refused.
    pub fn set(&mut self, lines: &str) -> Result<()> {
        let request = format!("set=1\n{lines}\n");
        self.stream.get_mut().write_all(request.as_bytes()).context("Sending a request")?;
        let (mut errno, mut line) = (None, String::new());
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "The gateway hung up");
            match line.trim_end() {
                "" => break,
                other => errno = other.strip_prefix("errno=").map(str::to_owned),
            }
        }
        ensure!(errno.as_deref() == Some("0"), "The gateway refused a request: {errno:?}");
        Ok(())
    }
}

/// A key as the socket reads it.
#[must_use]
pub fn hex(key: &[u8; 32]) -> String {
    key.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}
