//! Asking a running gateway: connect, one line, read to the end.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the gateway may be silent before the client gives up. Answers are made in milliseconds.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Sends `query` to the stats socket at `path` and copies the answer to `out`.
///
/// # Errors Nobody answers there (`NotFound`, `ConnectionRefused`), or nothing came for 10 s, or
/// `out` refused.
pub fn ask(path: &Path, query: &str, out: &mut impl Write) -> io::Result<()> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(SILENCE_MAX))?;
    socket.write_all(query.as_bytes())?;
    socket.write_all(b"\n")?;
    socket.shutdown(Shutdown::Write)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        out.write_all(&buffer[..count])?;
    }
}
