//! The log: what the gateway says while it runs, to standard error, the journal or a file.
//!
//! [`init`] is the one place that decides how. A line becomes text or JSON in [`mod@line`], is
//! counted instead of repeated in [`repeats`], loses addresses that may not be kept in [`privacy`],
//! and goes through the queue of [`writer`] to a [`sink`]. Nobody who says something waits for the
//! disk. Codes of refusals are in [`reason`].

pub mod connections;
mod layer;
pub mod line;
pub mod privacy;
pub mod reason;
pub mod repeats;
pub mod sink;
pub mod writer;

use std::env;
use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ringway_proto::allowed_ips::IpNet;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::layer::{Counting, Shared, ToLines};
use self::line::{Dress, Format};
use self::privacy::{Privacy, Scrub};
use self::repeats::{Allowance, Repeats};
use self::sink::{FileSettings, Rotating, Sink, Stderr};
use self::writer::{Counts, Writer, lock};
use crate::failure::{Failure, Status};

/// How long the end of the program waits for the log.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Standard error: a terminal, the journal, or whoever started the program.
    #[default]
    Stderr,
    /// A file, turned at its size.
    File(FileSettings),
}

/// How the gateway logs: `[log]` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The least urgent that is said.
    pub level: LevelFilter,
    /// Text or JSON.
    pub format: Format,
    /// Where to.
    pub output: Output,
    /// How often the same may be said.
    pub repeats: Allowance,
    /// What may be kept of clients.
    pub privacy: Privacy,
    /// Addresses that are no client's: the gateway's own and its pools. In the mode `no-log` all
    /// others are taken out of every line.
    pub own: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            level: LevelFilter::INFO,
            format: Format::default(),
            output: Output::default(),
            repeats: Allowance::default(),
            privacy: Privacy::default(),
            own: Vec::new(),
        }
    }
}

/// What is set up once for the process.
struct Log {
    writer: Writer,
    shared: Arc<Shared>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Begins to log. Only the first call counts: a process has one log, and a test that listens itself
/// goes on listening.
///
/// # Errors
/// The file cannot be opened, or no thread can be started.
pub fn init(settings: &Settings) -> Result<(), Failure> {
    if LOG.get().is_some() {
        return Ok(());
    }
    let (layer, log) = make(settings)?;
    // A subscriber that is there already was put there by a test.
    if tracing_subscriber::registry().with(layer).try_init().is_ok() {
        // Nobody else gets here: a process has one first subscriber.
        let _ = LOG.set(log);
    }
    Ok(())
}

/// Has the file of the log opened anew: it may have been moved away.
pub fn reopen() {
    if let Some(log) = LOG.get() {
        log.writer.reopen();
    }
}

/// Waits a moment for lines that are under way. For the end of the program.
pub fn finish() {
    if let Some(log) = LOG.get() {
        // What is not written by then is lost; nobody is left to be told.
        let _ = log.writer.flush(LAST_LINES);
    }
}

/// What became of lines so far; nothing before [`init`].
#[must_use]
pub fn counts() -> Counts {
    LOG.get().map_or_else(Counts::default, |log| Counts {
        left_out: lock(&log.shared.repeats).left_out(),
        ..log.writer.counts()
    })
}

fn make(settings: &Settings) -> Result<(ToLines, Log), Failure> {
    let sink: Box<dyn Sink> = match &settings.output {
        Output::Stderr => Box::new(Stderr),
        Output::File(file) => {
            let opened = Rotating::open(file.clone());
            let failed = |error| Failure::file("write the log", &file.path, &error);
            Box::new(opened.map_err(failed)?)
        }
    };
    let to_stderr = settings.output == Output::Stderr;
    let dress = Dress {
        format: settings.format,
        colours: to_stderr && settings.format == Format::Text && io::stderr().is_terminal(),
        journal: to_stderr && is_journal(),
    };
    let repeats = Mutex::new(Repeats::new(settings.repeats));
    let shared = Arc::new(Shared { repeats, dress, begun: Instant::now() });
    let writer = Writer::start(sink, Box::new(Counting(Arc::clone(&shared)))).map_err(|error| {
        Failure::new(Status::Unsupported, format!("Cannot start the thread of the log: {error}"))
    })?;
    let layer = ToLines {
        shared: Arc::clone(&shared),
        level: settings.level,
        scrub: Scrub::new(settings.privacy.mode, settings.own.clone()),
        writer: writer.clone(),
    };
    Ok((layer, Log { writer, shared }))
}

/// Whether standard error is the journal itself: the variable is inherited by everybody whom a
/// service starts, also by those whose standard error goes elsewhere.
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = rustix::fs::fstat(io::stderr()) else { return false };
    stream == format!("{}:{}", stderr.st_dev, stderr.st_ino)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
