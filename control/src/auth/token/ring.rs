//! Where the keys of an issuer come from, and how often they are fetched.
//!
//! Keys are fetched in the background before they are old. While the server is unreachable the old
//! ones go on to be used, up to a bound. A token that names an unknown key has them fetched at
//! once, but not more often than once per interval, however many such tokens come: whoever waits
//! meanwhile waits for the same fetch. What is fetched is bounded in bytes and time, and no
//! redirect is followed. This module must not know tokens.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::Url;

use super::keys::{KeySet, SET_BYTES_MAX};
use crate::store::records::Timestamp;

/// The longest that a fetch may take: within a client's patience, and a server that needs longer
/// for a few kilobytes is not well.
const FETCH_MAX: Duration = Duration::from_secs(5);

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file of this host.
    File(PathBuf),
    /// `https://…`, or `http://` to a loopback address.
    Url(Url),
}

impl KeySource {
    /// Reads a path or URL.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let url = Url::parse(text).map_err(|error| format!("\"{text}\" is no URL: {error}"))?;
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let is_loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        match url.scheme() {
            "https" => Ok(Self::Url(url)),
            "http" if is_loopback => Ok(Self::Url(url)),
            "http" => Err(format!(
                "\"{text}\" would bring keys over the network without TLS: use https, or a loopback address"
            )),
            other => Err(format!("\"{other}\" is neither https nor a file: \"{text}\"")),
        }
    }
}

/// How often keys are fetched. All in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshSettings {
    /// In the background, 60 to 86,400. Default 600.
    pub every_s: u32,
    /// At least between two tries, whatever asks for them. Default 30.
    pub interval_s: u32,
    /// Keys that were fetched longer ago are not used. Default 86,400: a day to mend the server.
    pub stale_s: u32,
}

impl Default for RefreshSettings {
    fn default() -> Self {
        Self { every_s: 600, interval_s: 30, stale_s: 86_400 }
    }
}

/// When to fetch, pure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Schedule {
    tried_at: Option<Timestamp>,
    fetched_at: Option<Timestamp>,
}

impl Schedule {
    /// Whether the background should fetch now.
    pub(super) fn is_due(&self, settings: &RefreshSettings, now: Timestamp) -> bool {
        let is_old = |at: Timestamp| now.since(at) >= i64::from(settings.every_s) * 1000;
        self.fetched_at.is_none_or(is_old) && self.may_try(settings, now)
    }

    /// Whether an unknown key may be a reason to fetch now.
    pub(super) fn may_try(&self, settings: &RefreshSettings, now: Timestamp) -> bool {
        let pause = i64::from(settings.interval_s) * 1000;
        // A clock that went back does not stop us for longer than the interval.
        self.tried_at.is_none_or(|at| !(0..pause).contains(&now.since(at)))
    }

    /// Whether what was fetched may still be used.
    pub(super) fn is_usable(&self, settings: &RefreshSettings, now: Timestamp) -> bool {
        self.fetched_at.is_some_and(|at| now.since(at) <= i64::from(settings.stale_s) * 1000)
    }

    pub(super) fn tried(&mut self, now: Timestamp) {
        self.tried_at = Some(now);
    }

    pub(super) fn fetched(&mut self, now: Timestamp) {
        self.fetched_at = Some(now);
    }
}

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct KeyRing {
    source: KeySource,
    settings: RefreshSettings,
    client: Option<reqwest::Client>,
    kept: RwLock<Kept>,
    /// Held while keys are fetched: whoever comes meanwhile waits for the same fetch.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Arc<KeySet>,
    schedule: Schedule,
}

impl KeyRing {
    pub(super) fn new(source: KeySource, settings: RefreshSettings) -> Result<Self, String> {
        let client = match &source {
            KeySource::File(_) => None,
            KeySource::Url(_) => Some(client()?),
        };
        let kept = RwLock::new(Kept::default());
        Ok(Self { source, settings, client, kept, fetching: tokio::sync::Mutex::new(()) })
    }

    /// The keys, unless they are too old to be used.
    pub(super) fn keys(&self, now: Timestamp) -> Option<Arc<KeySet>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.schedule.is_usable(&self.settings, now).then(|| Arc::clone(&kept.keys))
    }

    /// Whether the background should fetch now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.schedule.is_due(&self.settings, now)
    }

    /// Fetches, unless that was done within the interval; waits for a fetch that is under way.
    pub(super) async fn refresh(&self, now: Timestamp) {
        let _turn = self.fetching.lock().await;
        {
            let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
            if !kept.schedule.may_try(&self.settings, now) {
                return;
            }
            kept.schedule.tried(now);
        }
        let fetched = match &self.source {
            KeySource::File(path) => read(path.clone()).await,
            KeySource::Url(url) => self.fetch(url.clone()).await,
        };
        let parsed = fetched.and_then(|bytes| KeySet::parse(&bytes).map_err(|e| e.to_string()));
        match parsed {
            Ok(keys) => {
                for why in &keys.left_out {
                    tracing::warn!(source = ?self.source, why, "left out of the key set");
                }
                let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
                kept.keys = Arc::new(keys);
                kept.schedule.fetched(now);
            }
            Err(why) => {
                tracing::warn!(source = ?self.source, why, "keys of a token issuer not fetched; the old ones stay");
            }
        }
    }

    async fn fetch(&self, url: Url) -> Result<Vec<u8>, String> {
        let client = self.client.as_ref().ok_or("no client")?;
        let failed = |error: reqwest::Error| error.without_url().to_string();
        let mut response = client.get(url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("the server answers {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > SET_BYTES_MAX {
                return Err(format!("more than {SET_BYTES_MAX} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

fn client() -> Result<reqwest::Client, String> {
    // Fails if there is a provider already, which is then as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(FETCH_MAX)
        .no_proxy()
        .build()
        .map_err(|error| format!("no client for key sets: {error}"))
}

/// Reads on a thread: a file may lie on a server that hangs.
async fn read(path: PathBuf) -> Result<Vec<u8>, String> {
    let reading = tokio::task::spawn_blocking(move || {
        bounded(&path).map_err(|error| format!("{}: {error}", path.display()))
    });
    let waited = tokio::time::timeout(FETCH_MAX, reading).await;
    waited.map_err(|_| "reading takes too long")?.map_err(|error| error.to_string())?
}

fn bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;

    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(SET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
