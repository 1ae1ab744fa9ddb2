//! A small client of the API: HTTP/1.1 over the gateway's Unix socket or over TCP, one connection
//! that is kept and made anew when it is lost.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection of either kind.
pub(crate) trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null if there is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The body, if the answer is a success.
    pub(crate) fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.text);
        self.json()
    }

    /// The stable code of a problem.
    pub(crate) fn reason(&self) -> String {
        let kind = self.json()["type"].as_str().unwrap_or_default().to_owned();
        kind.rsplit(':').next().unwrap_or_default().to_owned()
    }
}

type Dial = Box<dyn Fn() -> std::io::Result<Box<dyn Wire>> + Send + Sync>;

/// Asks one gateway.
pub(crate) struct Api {
    dial: Dial,
    wire: Mutex<Option<BufReader<Box<dyn Wire>>>>,
}

impl Api {
    /// By the Unix socket at `path`.
    pub(crate) fn at(path: &Path) -> Self {
        let path = PathBuf::from(path);
        Self::by(move || {
            let stream = UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Box::new(stream))
        })
    }

    /// By whatever `dial` makes.
    pub(crate) fn by(
        dial: impl Fn() -> std::io::Result<Box<dyn Wire>> + Send + Sync + 'static,
    ) -> Self {
        Self { dial: Box::new(dial), wire: Mutex::new(None) }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.ask("GET", path, None).ok()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", path, Some(body)).ok()
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Value {
        self.ask("PUT", path, Some(body)).ok()
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Value {
        self.ask("PATCH", path, Some(body)).ok()
    }

    pub(crate) fn delete(&self, path: &str) {
        self.ask("DELETE", path, None).ok();
    }

    /// Asks, and takes whatever the answer is.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let text = body.map(ToString::to_string).unwrap_or_default();
        let answer = self.try_ask(method, path, &[("content-type", "application/json")], &text);
        answer.unwrap_or_else(|failure| panic!("{method} {path}: {failure}"))
    }

    /// Asks with headers and a body of any kind; fails if there is nobody.
    pub(crate) fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        let mut wire = self.wire.lock().unwrap();
        let kept = wire.is_some();
        let answer = self.exchange(&mut wire, method, path, headers, body);
        // A connection that was kept may have been closed meanwhile; then nothing was answered.
        if answer.is_err() && kept {
            *wire = None;
            return self.exchange(&mut wire, method, path, headers, body);
        }
        answer
    }

    fn exchange(
        &self,
        wire: &mut Option<BufReader<Box<dyn Wire>>>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
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

fn read(reader: &mut BufReader<Box<dyn Wire>>) -> std::io::Result<Answer> {
    let wrong = |what: &str| std::io::Error::other(format!("not HTTP: {what:?}"));
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

fn line(reader: &mut BufReader<Box<dyn Wire>>) -> std::io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
