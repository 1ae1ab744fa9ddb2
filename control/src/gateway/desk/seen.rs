//! What the desk remembers so that it can say how things go: the last minute, the last month, and
//! which parts of control have something to say.
//!
//! A reading of all counters is taken every ten seconds. What may be shown of clients is decided
//! here as well, once, for everybody who reads peers.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ringway_alloc::forget;
use ringway_dataplane::command::PeerPage;
use rustix::time::{ClockId, clock_gettime};

use super::Desk;
use crate::logs;
use crate::logs::privacy::{Mode, Privacy};
use crate::stats::history::{History, Point, Totals};
use crate::stats::openmetrics;
use crate::stats::recent::{Recent, STEP};
use crate::stats::service::{Node, ServiceStats, Source};
use crate::stats::signals::{Signals, signals};
use crate::store::ids::Timestamp;

/// What is remembered.
#[derive(Default)]
pub(super) struct Seen {
    recent: Recent,
    history: History,
    sources: Vec<Box<dyn Source>>,
    privacy: Privacy,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

impl Desk {
    /// Asks this part of control, too, from now on.
    pub fn hear(&self, source: Box<dyn Source>) {
        self.seen.borrow_mut().sources.push(source);
    }

    /// What may be shown of clients from now on.
    pub fn keep_private(&self, privacy: Privacy) {
        if privacy.mode == Mode::NoLog {
            forget::begin();
        }
        self.seen.borrow_mut().privacy = privacy;
    }

    /// What may be kept and shown of clients.
    #[must_use]
    pub fn privacy(&self) -> Privacy {
        self.seen.borrow().privacy
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn metrics(&self) -> String {
        openmetrics::write(&self.snapshot(), &self.service())
    }

    /// The few numbers that say how the gateway does.
    #[must_use]
    pub fn signals(&self) -> Signals {
        signals(&self.snapshot(), &self.service())
    }

    /// What happened from `from` on and before `to`, by the minute or by the hour.
    #[must_use]
    pub fn history(&self, from: Timestamp, to: Timestamp) -> Vec<Point> {
        self.seen.borrow().history.between(from, to)
    }

    /// What parts of control say of themselves now.
    #[must_use]
    pub fn service(&self) -> ServiceStats {
        let seen = self.seen.borrow();
        let mut service = ServiceStats {
            at: Some(now()),
            window: seen.recent.window(&self.snapshot()),
            logs: logs::counts(),
            nodes: vec![Node { name: "local".to_owned(), load: None }],
            ..ServiceStats::default()
        };
        seen.sources.iter().for_each(|source| source.fill(&mut service));
        service
    }

    /// Takes a reading of all counters.
    pub fn take_reading(&self) {
        let snapshot = self.snapshot();
        let started = self.service().access.map(|access| access.started);
        let since_start = self.inner.borrow().started.elapsed();
        let seen = &mut *self.seen.borrow_mut();
        seen.recent.take(since_start, cpu_time(), started, &snapshot);
        seen.history.feed(now(), Totals::of(&snapshot));
    }

    /// Takes from a page of peers what may not be shown.
    pub(super) fn redact(&self, page: &mut PeerPage) {
        let privacy = self.privacy();
        for peer in &mut page.peers {
            peer.endpoint = peer.endpoint.and_then(|endpoint| privacy.show(endpoint));
        }
    }
}

/// Takes readings until the task is dropped.
pub(crate) async fn keep_reading(desk: Rc<Desk>) {
    loop {
        desk.take_reading();
        tokio::time::sleep(STEP).await;
    }
}

/// CPU time of all threads of the process so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn now() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
