//! A small client of the gateway's API: HTTP/1.1 over its Unix socket, or over whatever else a
//! caller dials; one connection that is kept, and made anew when it is lost.
//!
//! It sees the API as any client does and must not know the gateway's insides. A request that is
//! answered is no error, whatever the status; what a test or a scenario expects is checked there.

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection of any kind.
pub trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The value of a header, named in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null if there is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The body, if the answer is a success.
    ///
    /// # Errors
    /// With status and body, if it is none.
    pub fn success(self) -> Result<Value> {
        if (200..300).contains(&self.status) {
            return Ok(self.json());
        }
        Err(Error::other(format!("{}: {}", self.status, self.text)))
    }

    /// The stable code of a problem.
    #[must_use]
    pub fn reason(&self) -> String {
        let kind = self.json()["type"].as_str().unwrap_or_default().to_owned();
        kind.rsplit(':').next().unwrap_or_default().to_owned()
    }
}

type Dial = Box<dyn Fn() -> Result<Box<dyn Wire>> + Send + Sync>;

/// Asks one gateway.
pub struct Api {
    dial: Dial,
    wire: Mutex<Option<BufReader<Box<dyn Wire>>>>,
}

impl Api {
    /// By the Unix socket at `path`.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let path = PathBuf::from(path);
        Self::by(move || {
            let stream = UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Box::new(stream))
        })
    }

    /// By whatever `dial` makes.
    pub fn by(dial: impl Fn() -> Result<Box<dyn Wire>> + Send + Sync + 'static) -> Self {
        Self { dial: Box::new(dial), wire: Mutex::new(None) }
    }

    /// Asks with a JSON body, or without one.
    ///
    /// # Errors
    /// If there is nobody, or what answers speaks no HTTP.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let text = body.map(ToString::to_string).unwrap_or_default();
        let answer = self.try_ask(method, path, &[("content-type", "application/json")], &text);
        answer.map_err(|error| Error::new(error.kind(), format!("{method} {path}: {error}")))
    }

    /// As [`Api::request`]; gives the body of a success.
    ///
    /// # Errors
    /// Also if the answer is none.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let answer = self.request(method, path, body)?.success();
        answer.map_err(|error| Error::other(format!("{method} {path}: {error}")))
    }

    /// Asks with headers and a body of any kind.
    ///
    /// # Errors
    /// If there is nobody.
    pub fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer> {
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = wire.is_some();
        let answer = self.exchange(&mut wire, method, path, headers, body);
        // A connection that was kept may have been closed meanwhile; then nothing was answered.
        if answer.is_err() && kept {
            *wire = None;
            return self.exchange(&mut wire, method, path, headers, body);
        }
        answer
    }

    /// Lets the connection go, so that the next request makes its own.
    pub fn hang_up(&self) {
        *self.wire.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn exchange(
        &self,
        wire: &mut Option<BufReader<Box<dyn Wire>>>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer> {
        let mut reader = match wire.take() {
            Some(reader) => reader,
            None => BufReader::new((self.dial)()?),
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers.iter().filter(|(name, _)| {
            // No body, no type.
            !body.is_empty() || *name != "content-type"
        }) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        reader.get_mut().write_all(request.as_bytes())?;
        let answer = read(&mut reader)?;
        if answer.header("connection") != Some("close") {
            *wire = Some(reader);
        }
        Ok(answer)
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

fn read(reader: &mut BufReader<Box<dyn Wire>>) -> Result<Answer> {
    let wrong = |what: &str| Error::other(format!("not HTTP: {what:?}"));
    let line = line(reader)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| wrong(&line))?;
    let mut headers = Vec::new();
    loop {
        let line = self::line(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, text: String::new() };
    let mut body = Vec::new();
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = self::line(reader)?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| wrong(&size))?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = answer.header("content-length") {
        body = vec![0; length.parse().map_err(|_| wrong(length))?];
        reader.read_exact(&mut body)?;
    }
    answer.text = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
}

fn line(reader: &mut BufReader<Box<dyn Wire>>) -> Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::Cursor;

    use super::*;

    fn parsed(text: &str) -> Result<Answer> {
        read(&mut BufReader::new(Box::new(Cursor::new(text.as_bytes().to_vec()))))
    }

    #[test]
    fn a_body_is_read_by_its_length_and_in_chunks() {
        let whole = parsed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]rest").unwrap();
        assert_eq!((whole.status, whole.json()[1].as_u64()), (200, Some(2)));
        let chunks =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n";
        assert_eq!(parsed(chunks).unwrap().text, "[1,2]");
        assert!(parsed("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").is_err());
        assert!(parsed("SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn a_problem_is_no_success_and_has_a_code() {
        let text = r#"{"type":"urn:ringway:problem:not-found"}"#;
        let answer = format!("HTTP/1.1 404 Gone\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        assert_eq!(parsed(&answer).unwrap().reason(), "not-found");
        assert!(parsed(&answer).unwrap().success().is_err());
    }
}
