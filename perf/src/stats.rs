//! The stats socket of our gateway: counters as JSON.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The socket of one interface.
#[derive(Clone, Debug)]
pub struct Stats {
    path: PathBuf,
}

/// All counters at about one moment.
#[derive(Clone, Debug)]
pub struct Page(Value);

impl Stats {
    /// The socket of an interface, whether or not it is there.
    #[must_use]
    pub fn of(interface: &str) -> Self {
        Self { path: PathBuf::from(format!("/run/ringway/{interface}.stats")) }
    }

    /// Asks for all counters. The cores publish theirs every 100 ms.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn read(&self) -> Result<Page> {
        let mut stream = UnixStream::connect(&self.path)
            .with_context(|| format!("Connecting to {}", self.path.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"stats json\n")?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let page = serde_json::from_str(&text).context("The counters are no JSON")?;
        Ok(Page(page))
    }

    /// As [`Stats::read`], after the cores have published what happened so far.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn settled(&self) -> Result<Page> {
        std::thread::sleep(Duration::from_millis(250));
        self.read()
    }
}

impl Page {
    /// A counter of all cores together; 0 if there is none of that name.
    #[must_use]
    pub fn total(&self, name: &str) -> u64 {
        self.0["total"][name].as_u64().unwrap_or(0)
    }

    /// How often something was dropped for this reason.
    #[must_use]
    pub fn drops(&self, reason: &str) -> u64 {
        self.0["total"]["drops"][reason].as_u64().unwrap_or(0)
    }

    /// The reasons that dropped more since `before`, with how much.
    #[must_use]
    pub fn drops_since(&self, before: &Self) -> Vec<(String, u64)> {
        let Some(now) = self.0["total"]["drops"].as_object() else { return Vec::new() };
        now.iter()
            .map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0)))
            .map(|(name, count)| (name.clone(), count.saturating_sub(before.drops(&name))))
            .filter(|(_, more)| *more > 0)
            .collect()
    }

    /// A number that control itself keeps.
    #[must_use]
    pub fn about(&self, name: &str) -> u64 {
        self.0["about"][name].as_u64().unwrap_or(0)
    }

    /// A counter of each core.
    #[must_use]
    pub fn per_core(&self, name: &str) -> Vec<u64> {
        let cores = self.0["cores"].as_array().map(Vec::as_slice).unwrap_or_default();
        cores.iter().map(|core| core[name].as_u64().unwrap_or(0)).collect()
    }

    /// A percentile of a histogram of all cores: `p50`, `p99`, `p999`.
    #[must_use]
    pub fn quantile(&self, histogram: &str, which: &str) -> u64 {
        self.0["total"][histogram][which].as_u64().unwrap_or(0)
    }
}
