//! The command line's client of the API: one request, one answer, or one sentence why not.
//!
//! HTTP/1.1 over the gateway's Unix socket, or HTTPS to another host. Redirects are not followed,
//! because a token must not go where nobody sent it. What the API refuses becomes a [`Failure`]
//! whose exit code says which kind of refusal it was ([`problem`]). Nothing here knows what users
//! or devices are.

mod problem;
pub(super) mod target;

use std::io;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use crate::api::server::certificate;
use crate::failure::{Failure, Status};
use target::Target;

/// How long a connection may take: a gateway answers within milliseconds, another continent within
/// one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take: longer than the 30 s after which the gateway itself gives up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
/// How long a stream may be silent: two of its keep-alives and a bit.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// Rows of a page: as many as the API gives at once.
const PAGE_ROWS: &str = "1000";

/// A connection to the API.
pub(super) struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    /// `http://localhost` or `https://HOST`, without a slash at its end.
    base: String,
    token: Option<Zeroizing<String>>,
    /// Where the API is, for people.
    place: String,
}

/// What the API answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The body as it came.
    pub(super) text: String,
    /// The version of what is in it.
    pub(super) etag: Option<String>,
}

impl Answer {
    /// The body as JSON.
    pub(super) fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.text).map_err(|error| {
            let message = format!(
                "The answer of the API cannot be read ({error}): are the program and the gateway \
                 of the same version?"
            );
            Failure::new(Status::Findings, message)
        })
    }
}

/// What goes with a request.
#[derive(Debug, Default)]
pub(super) struct Extra<'a> {
    /// Parameters of the query; those that are none are left out.
    pub(super) query: &'a [(&'a str, Option<String>)],
    /// The version that a change is meant for, as `If-Match` writes it.
    pub(super) if_match: Option<&'a str>,
}

/// The body of a request.
pub(super) enum Body {
    /// None.
    Empty,
    /// JSON.
    Json(Value),
    /// A configuration.
    Toml(String),
}

impl Client {
    /// Makes the client. Nothing is sent.
    pub(super) fn new(target: Target) -> Result<Self, Failure> {
        let broken = |error: &dyn std::fmt::Display| {
            Failure::new(Status::Unsupported, format!("Cannot make a client of the API ({error})"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| broken(&error))?;
        // Another part of the program may have chosen it already; it is the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("ringway/", env!("CARGO_PKG_VERSION")));
        if let Some(socket) = &target.socket {
            http = http.unix_socket(socket.as_path());
        }
        if target.is_local() {
            http = http.no_proxy();
        }
        if let Some(pem) = &target.authority {
            let authorities = reqwest::Certificate::from_pem_bundle(pem);
            let authorities = authorities.map_err(|error| {
                let message = format!("--ca has no certificate ({error}): give a PEM file");
                Failure::new(Status::Usage, message)
            })?;
            http = http.tls_built_in_root_certs(false);
            for authority in authorities {
                http = http.add_root_certificate(authority);
            }
        }
        if let Some(pem) = &target.identity {
            let identity = reqwest::Identity::from_pem(pem).map_err(|error| {
                let why = root_of(&error);
                let message = format!("--cert and --key cannot be used ({why}): give PEM files");
                Failure::new(Status::Usage, message)
            })?;
            http = http.identity(identity);
        }
        let http = http.build().map_err(|error| broken(&error))?;
        let Target { base, token, place, .. } = target;
        Ok(Self { runtime, http, base, token, place })
    }

    /// Where the API is, for people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Reads what is at `path`.
    pub(super) fn get(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
    ) -> Result<Answer, Failure> {
        self.send(Method::GET, path, &Extra { query, if_match: None }, Body::Empty)
    }

    /// Reads JSON.
    pub(super) fn get_json(&self, path: &str) -> Result<Value, Failure> {
        self.get(path, &[])?.json()
    }

    /// Reads all pages of a list, as one page without a next.
    pub(super) fn pages(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
    ) -> Result<Value, Failure> {
        let mut items = Vec::new();
        let mut after = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", Some(PAGE_ROWS.to_owned())));
            query.push(("after", after));
            let mut page = self.get(path, &query)?.json()?;
            let Some(rows) = page["items"].as_array_mut() else {
                let message = format!("The answer of {} to {path} is no list", self.place);
                return Err(Failure::new(Status::Findings, message));
            };
            items.append(rows);
            after = page["next"].as_str().map(str::to_owned);
            if after.is_none() {
                return Ok(json!({ "items": items, "next": null }));
            }
        }
    }

    /// Sends one request and waits for its answer.
    pub(super) fn send(
        &self,
        method: Method,
        path: &str,
        extra: &Extra<'_>,
        body: Body,
    ) -> Result<Answer, Failure> {
        let mut request = self.request(method, path, extra)?.timeout(ANSWER_TIMEOUT);
        request = match body {
            Body::Empty => request,
            Body::Json(value) => {
                request.header(CONTENT_TYPE, "application/json").body(value.to_string())
            }
            Body::Toml(text) => request.header(CONTENT_TYPE, "application/toml").body(text),
        };
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| self.unreachable(&error))?;
            let etag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
            let etag = etag.map(str::to_owned);
            let response = self.accepted(response).await?;
            let text = response.text().await.map_err(|error| self.unreachable(&error))?;
            Ok(Answer { text, etag })
        })
    }

    /// Reads what is at `path` whatever its status says, with whether that is success.
    pub(super) fn get_any(&self, path: &str) -> Result<(bool, Answer), Failure> {
        let request = self.request(Method::GET, path, &Extra::default())?.timeout(ANSWER_TIMEOUT);
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| self.unreachable(&error))?;
            let good = response.status().is_success();
            let text = response.text().await.map_err(|error| self.unreachable(&error))?;
            Ok((good, Answer { text, etag: None }))
        })
    }

    /// Opens a stream of events after `last`.
    pub(super) fn stream(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
        last: Option<u64>,
    ) -> Result<Stream<'_>, Failure> {
        let extra = Extra { query, if_match: None };
        let mut request = self.request(Method::GET, path, &extra)?;
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| self.unreachable(&error))?;
            self.accepted(response).await
        })?;
        Ok(Stream { client: self, response })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        extra: &Extra<'_>,
    ) -> Result<RequestBuilder, Failure> {
        let given = extra.query.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?)));
        let query: Vec<String> =
            given.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let url = format!("{}{path}{mark}{}", self.base, query.join("&"));
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            let header = Zeroizing::new(format!("Bearer {}", **token));
            let mut header = HeaderValue::from_str(&header).map_err(|_| {
                let message = "The token has characters that no token has: give it as it was shown";
                Failure::new(Status::Usage, message)
            })?;
            header.set_sensitive(true);
            request = request.header(AUTHORIZATION, header);
        }
        if let Some(version) = extra.if_match {
            let header = HeaderValue::from_str(version).map_err(|_| {
                Failure::new(Status::Usage, "A version has letters, digits and hyphens only")
            })?;
            request = request.header(IF_MATCH, header);
        }
        Ok(request)
    }

    async fn accepted(&self, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wait = response.headers().get("retry-after").and_then(|wait| wait.to_str().ok());
        let wait = wait.and_then(|wait| wait.parse().ok());
        let body = response.text().await.map_err(|error| self.unreachable(&error))?;
        Err(problem::failure(status.as_u16(), &body, wait, &self.place))
    }

    /// Why there was no answer.
    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let place = &self.place;
        let why = root_of(error);
        if error.is_timeout() && !error.is_connect() {
            let message = format!("{place} did not answer in time: try again");
            return Failure::new(Status::Unavailable, message);
        }
        let kind = io_kind(error);
        if kind == Some(io::ErrorKind::PermissionDenied) {
            let message = format!(
                "Cannot open {place} ({why}): run as root or as the user that the gateway runs as"
            );
            return Failure::new(Status::Denied, message);
        }
        if let Some(rustls::Error::InvalidCertificate(error)) = tls_error(error) {
            let url = reqwest::Url::parse(&self.base).ok();
            let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or("HOST");
            let why = certificate::refused(error, host.trim_matches(['[', ']']));
            let message = format!("The certificate of {place} is not accepted: {why}");
            return Failure::new(Status::Denied, message);
        }
        let message = format!(
            "No gateway answers at {place} ({why}): start it with \"ringway run\", or say where \
             its API is with --config, --socket or --api"
        );
        Failure::new(Status::NotRunning, message)
    }
}

/// Events as they come.
pub(super) struct Stream<'a> {
    client: &'a Client,
    response: Response,
}

impl Stream<'_> {
    /// The next piece; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let client = self.client;
        client.runtime.block_on(async {
            match tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await {
                Ok(Ok(chunk)) => Ok(chunk.map(|chunk| chunk.to_vec())),
                Ok(Err(error)) => Err(client.unreachable(&error)),
                // Whoever is silent for so long is gone.
                Err(_) => Ok(None),
            }
        })
    }
}

/// The path of something, each part as URLs write it.
pub(super) fn path(parts: &[&str]) -> String {
    let parts: String = parts.iter().map(|part| format!("/{}", encode(part))).collect();
    format!("/api/v1{parts}")
}

/// Writes `text` as a part of a URL.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn root_of(error: &reqwest::Error) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(next) = at.source() {
        at = next;
    }
    at.to_string()
}

/// What TLS said, wherever it is in there: the library wraps it in errors of the system.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An error of the system with another inside names the source of that one as its own.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        at = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let mut at: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = at {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        at = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_has_its_parts_and_nothing_of_them_leads_elsewhere() {
        assert_eq!(path(&["users", "ada"]), "/api/v1/users/ada");
        assert_eq!(path(&["bans", "10.0.0.0/8"]), "/api/v1/bans/10.0.0.0%2F8");
        assert_eq!(path(&["users", "a?b#c d"]), "/api/v1/users/a%3Fb%23c%20d");
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_part_of_a_path(text in ".{0,24}") {
            let encoded = encode(&text);
            prop_assert!(!encoded.contains(['/', '?', '#', '&', '=', ' ', '+']));
            prop_assert!(encoded.is_ascii());
        }
    }
}
