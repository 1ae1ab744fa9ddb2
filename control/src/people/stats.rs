//! What people's half of control says of itself in the metrics.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::upkeep::{self, Reached};
use crate::api::doors::{Board, Standing};
use crate::auth::certificate::Certificates;
use crate::auth::reason::Reason;
use crate::auth::{Gate, stats::LATENCY_BOUNDS_MS};
use crate::service::Service;
use crate::stats::latency::Latency;
use crate::stats::service::{Access, ServiceStats, SignIn, Source, Store};
use crate::store::{LATENCY_BOUNDS_US, StoreError};

/// Service, gate and store.
pub(super) struct Sources {
    service: Rc<Service>,
    gate: Gate,
    reached: Rc<Reached>,
    sessions_max: usize,
}

impl Sources {
    pub(super) const fn new(
        service: Rc<Service>,
        gate: Gate,
        reached: Rc<Reached>,
        sessions_max: usize,
    ) -> Self {
        Self { service, gate, reached, sessions_max }
    }
}

impl Source for Sources {
    fn fill(&self, stats: &mut ServiceStats) {
        stats.access = Some(self.access());
        stats.sign_in = Some(self.sign_in());
        stats.store = Some(self.store());
        stats.doors = doors(&self.reached.board);
        stats.live.sessions_max = self.sessions_max;
        if self.sessions_max > 0 {
            stats.live.sessions = self.service.live_sessions();
        }
    }
}

/// Doors of the API by kind and state. None of them is left out that was open a while ago.
fn doors(board: &Board) -> Vec<(&'static str, &'static str, u64)> {
    let mut counts = BTreeMap::new();
    for door in board.doors() {
        let state = match &door.standing {
            Standing::Untried => continue,
            Standing::Open(_) => "open",
            Standing::Closed(closed) => closed.fault.code(),
        };
        counts.entry((door.kind, "open")).or_insert(0);
        *counts.entry((door.kind, state)).or_insert(0) += 1;
    }
    counts.into_iter().map(|((kind, state), count)| (kind, state, count)).collect()
}

impl Sources {
    fn access(&self) -> Access {
        let mut access = Access::default();
        self.service.with_projection(|known| {
            for session in known.sessions().after(None) {
                access.by_state[session.state as usize] += 1;
            }
            access.users = known.users_connected();
            access.kept_out = known.kept_out();
        });
        let tally = self.service.tally();
        access.started = tally.started;
        access.ended = tally.ended.iter().map(|(code, count)| (*code, *count)).collect();
        access
    }

    fn sign_in(&self) -> SignIn {
        let stats = self.gate.stats();
        let refused =
            Reason::ALL.iter().map(|reason| reason.code()).zip(stats.refused.iter().copied());
        let bounds_us = LATENCY_BOUNDS_MS.map(|ms| ms * 1000);
        let latency = stats.latency.iter().fold(Latency::default(), |all, one| {
            all.plus(&Latency::of(&bounds_us, &one.buckets, one.sum_us))
        });
        let waiting =
            stats.lanes.iter().map(|(_, lane)| lane.waiting.iter().sum::<usize>() as u64).sum();
        let now = self.service.now().wall;
        let mut ends: BTreeMap<&'static str, u64> = BTreeMap::new();
        for one in upkeep::ending(&self.gate, &self.reached, now) {
            let seconds = u64::try_from(one.ends.since(now) / 1000).unwrap_or(0);
            // The first of its kind is the nearest.
            ends.entry(one.kind.word()).or_insert(seconds);
        }
        let responders = self.gate.certificates().and_then(Certificates::responders);
        let (answers, unanswered) =
            responders.map(|asking| (asking.counts(), asking.unanswered())).unzip();
        SignIn {
            certificate_answers: answers.unwrap_or_default(),
            certificates_unanswered: unanswered,
            certificate_ends_s: ends.into_iter().collect(),
            accepted: vec![("all", stats.accepted)],
            refused: refused.collect(),
            latency,
            waiting,
        }
    }

    fn store(&self) -> Store {
        let health = self.service.store().health();
        let failed = StoreError::REASONS.iter().copied().zip(health.failures);
        Store {
            engine: health.engine,
            healthy: health.is_up,
            waiting: health.queued as u64,
            done: health.requests,
            failed: failed.collect(),
            latency: Latency::of(&LATENCY_BOUNDS_US, &health.latency, health.latency_sum_us),
        }
    }
}
