//! What `top` knows: the last reading of the gateway, and the rates since the one before.
//!
//! A gateway that was started anew counts from zero; such a difference is no rate. Pure: the time
//! is in the reading.

use std::collections::BTreeMap;

use serde_json::Value;

use super::metrics::{Core, Metrics};
use super::view::{Sort, View};
use crate::cli::show::word;
use crate::store::ids::Timestamp;

/// One look at the gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// Milliseconds on a clock that is never set.
    pub(super) at_ms: u64,
    /// The time of day.
    pub(super) now: Timestamp,
    /// `GET /api/v1/status`.
    pub(super) status: Value,
    /// `parts` of `GET /api/v1/health`.
    pub(super) health: Vec<Value>,
    /// Live sessions.
    pub(super) sessions: Vec<Session>,
    /// Counters.
    pub(super) metrics: Metrics,
    /// Users whose quota is used up: name, and what is done about it.
    pub(super) used_up: Vec<(String, String)>,
    /// What could not be read, or not whole.
    pub(super) notes: Vec<String>,
}

/// A session as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) user: String,
    pub(super) device: String,
    pub(super) client: String,
    pub(super) state: String,
    pub(super) up_bps: u64,
    pub(super) down_bps: u64,
    pub(super) connected_at: Timestamp,
    pub(super) core: u64,
}

impl Session {
    /// From `GET /api/v1/sessions`.
    pub(super) fn of(session: &Value) -> Self {
        let number = |at: &str| session[at].as_u64().unwrap_or(0);
        let connected_at = session["connected_at"].as_str().and_then(|text| text.parse().ok());
        Self {
            id: number("id"),
            user: word(session, "/user"),
            device: word(session, "/device"),
            client: word(session, "/client_ip"),
            state: word(session, "/status"),
            up_bps: number("rate_up_bps"),
            down_bps: number("rate_down_bps"),
            connected_at: connected_at.unwrap_or_default(),
            core: number("core"),
        }
    }

    fn has(&self, text: &str) -> bool {
        [&self.user, &self.device, &self.client].iter().any(|field| field.contains(text))
    }
}

/// What a core did since the reading before, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CoreRates {
    /// Share of the time in which it worked, 0 to 1.
    pub(super) busy: f64,
    pub(super) up_packets: u64,
    pub(super) down_packets: u64,
    pub(super) up_bps: u64,
    pub(super) down_bps: u64,
    pub(super) drops: u64,
}

/// What `top` knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// The last reading.
    pub(super) last: Reading,
    /// By core; empty until there are two readings of one run of the gateway.
    pub(super) cores: BTreeMap<u16, CoreRates>,
    /// Drops per second and since the start, by reason, those with drops only.
    pub(super) drops: Vec<(String, u64, u64)>,
    /// Why the last look failed.
    pub(super) away: Option<String>,
}

impl Model {
    /// Takes a reading.
    pub(super) fn take(&mut self, reading: Reading) {
        let started = |reading: &Reading| reading.status["started_at"].clone();
        let same_run = started(&self.last) == started(&reading) && self.last.at_ms > 0;
        let elapsed_ms = reading.at_ms.saturating_sub(self.last.at_ms);
        let before = if same_run && elapsed_ms > 0 { Some(&self.last.metrics) } else { None };
        let rate = |new: u64, old: u64| per_second(new.saturating_sub(old), elapsed_ms);
        self.cores.clear();
        for (number, new) in &reading.metrics.cores {
            let Some(before) = before else { break };
            let old = before.cores.get(number).copied().unwrap_or(*new);
            self.cores.insert(*number, rates(*new, old, elapsed_ms));
        }
        self.drops.clear();
        for (reason, total) in reading.metrics.drops.iter().filter(|(_, total)| **total > 0) {
            let since =
                before.map_or(*total, |before| before.drops.get(reason).copied().unwrap_or(0));
            self.drops.push((reason.clone(), rate(*total, since), *total));
        }
        // What drops now comes first, then what dropped most.
        self.drops.sort_by(|a, b| (b.1, b.2, &a.0).cmp(&(a.1, a.2, &b.0)));
        self.away = None;
        self.last = reading;
    }

    /// Notes that the gateway cannot be reached.
    pub(super) fn lose(&mut self, why: String) {
        self.away = Some(why);
    }

    /// The sessions that `view` asks for, in its order.
    pub(super) fn sessions(&self, view: &View) -> Vec<&Session> {
        let mut shown: Vec<&Session> =
            self.last.sessions.iter().filter(|session| session.has(&view.filter)).collect();
        // The number breaks ties, so that rows stay where they are.
        match view.sort {
            Sort::Rate => shown.sort_by_key(|one| {
                (std::cmp::Reverse(one.up_bps.saturating_add(one.down_bps)), one.id)
            }),
            Sort::Up => shown.sort_by_key(|one| (std::cmp::Reverse(one.up_bps), one.id)),
            Sort::Down => shown.sort_by_key(|one| (std::cmp::Reverse(one.down_bps), one.id)),
            Sort::Since => shown.sort_by_key(|one| (std::cmp::Reverse(one.connected_at), one.id)),
            Sort::User => shown.sort_by(|a, b| (&a.user, a.id).cmp(&(&b.user, b.id))),
            Sort::Device => shown.sort_by(|a, b| (&a.device, a.id).cmp(&(&b.device, b.id))),
        }
        if view.reverse {
            shown.reverse();
        }
        shown
    }

    /// Both rates of all cores together.
    pub(super) fn whole(&self) -> CoreRates {
        self.cores.values().fold(CoreRates::default(), |sum, core| CoreRates {
            busy: sum.busy + core.busy,
            up_packets: sum.up_packets + core.up_packets,
            down_packets: sum.down_packets + core.down_packets,
            up_bps: sum.up_bps + core.up_bps,
            down_bps: sum.down_bps + core.down_bps,
            drops: sum.drops + core.drops,
        })
    }

    /// Drops by limits of accounts: reason, per second, since the start.
    pub(super) fn limit_drops(&self) -> Vec<&(String, u64, u64)> {
        let is_limit = |reason: &str| {
            reason.starts_with("rate_exceeded") || reason.starts_with("quota_exceeded")
        };
        self.drops.iter().filter(|(reason, ..)| is_limit(reason)).collect()
    }
}

fn rates(new: Core, old: Core, elapsed_ms: u64) -> CoreRates {
    let rate = |new: u64, old: u64| per_second(new.saturating_sub(old), elapsed_ms);
    let seconds = elapsed_ms as f64 / 1000.0;
    CoreRates {
        busy: ((new.busy_s - old.busy_s) / seconds).clamp(0.0, 1.0),
        up_packets: rate(new.up_packets, old.up_packets),
        down_packets: rate(new.down_packets, old.down_packets),
        up_bps: rate(new.up_bytes, old.up_bytes).saturating_mul(8),
        down_bps: rate(new.down_bytes, old.down_bytes).saturating_mul(8),
        drops: rate(new.drops, old.drops),
    }
}

fn per_second(count: u64, elapsed_ms: u64) -> u64 {
    let rate = u128::from(count) * 1000 / u128::from(elapsed_ms.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// A gateway that ran for `seconds` and does the same in each.
    pub(in crate::cli::top) fn reading(seconds: u64) -> Reading {
        let core = |busy: f64, scale: u64| Core {
            busy_s: busy * seconds as f64,
            up_packets: 1_000 * scale * seconds,
            down_packets: 2_000 * scale * seconds,
            up_bytes: 125_000 * scale * seconds,
            down_bytes: 250_000_000 * scale * seconds,
            drops: 7 * scale * seconds,
        };
        let session = |id: u64, user: &str, device: &str, up_bps, down_bps| Session {
            id,
            user: user.to_owned(),
            device: device.to_owned(),
            client: format!("192.0.2.{id}"),
            state: "active".to_owned(),
            up_bps,
            down_bps,
            connected_at: Timestamp(1_796_000_000_000 - 60_000 * id as i64),
            core: id % 2,
        };
        Reading {
            at_ms: 1 + seconds * 1000,
            now: Timestamp(1_796_000_000_000),
            status: json!({"started_at": "2026-11-30T20:00:00.000Z", "uptime_s": 3_661,
                "interface": "ringway0", "state": "running", "version": "0.1.0", "sessions": 3,
                "max_clients": 1000}),
            health: vec![
                json!({"name": "store", "healthy": false, "why": "it does not answer"}),
                json!({"name": "sign-in", "healthy": true}),
            ],
            sessions: vec![
                session(1, "ada", "laptop", 5_000_000, 1_000_000),
                session(2, "grace", "phone", 1_000, 90_000_000),
                session(3, "alan", "desk", 9_000_000, 0),
            ],
            metrics: Metrics {
                cores: [(0, core(0.25, 1)), (1, core(0.5, 2))].into(),
                drops: [
                    ("rate_exceeded_to_client".to_owned(), 20 * seconds),
                    ("mac1_wrong".to_owned(), seconds),
                    ("peer_gone".to_owned(), 0),
                ]
                .into(),
            },
            used_up: vec![("alan".to_owned(), "throttle".to_owned())],
            notes: Vec::new(),
        }
    }

    fn model() -> Model {
        let mut model = Model::default();
        model.take(reading(10));
        model.take(reading(12));
        model
    }

    #[test]
    fn two_readings_make_rates() {
        let model = model();
        let one = model.cores[&1];
        assert!((one.busy - 0.5).abs() < 1e-9);
        assert_eq!((one.up_packets, one.down_packets), (2_000, 4_000));
        assert_eq!((one.up_bps, one.down_bps, one.drops), (2_000_000, 4_000_000_000, 14));
        let reasons: Vec<&str> = model.drops.iter().map(|(reason, ..)| reason.as_str()).collect();
        assert_eq!(reasons, ["rate_exceeded_to_client", "mac1_wrong"]);
        assert_eq!(model.limit_drops(), [&("rate_exceeded_to_client".to_owned(), 20, 240)]);
        assert_eq!(model.whole().down_bps, 6_000_000_000);
    }

    #[test]
    fn a_gateway_that_was_started_anew_has_no_rates_at_first() {
        let mut model = model();
        let mut fresh = reading(1);
        fresh.at_ms = 20_000;
        fresh.status["started_at"] = json!("2026-11-30T21:00:00.000Z");
        model.take(fresh.clone());
        assert!(model.cores.is_empty());
        assert!(model.drops.iter().all(|(_, rate, _)| *rate == 0));
        fresh.at_ms += 1000;
        model.take(fresh);
        assert_eq!(model.cores[&0], CoreRates::default());
    }

    #[test]
    fn sessions_are_sorted_and_filtered_as_asked() {
        let model = model();
        let order = |sort, reverse, filter: &str| {
            let view = View { sort, reverse, filter: filter.to_owned(), ..View::default() };
            model.sessions(&view).iter().map(|one| one.id).collect::<Vec<_>>()
        };
        assert_eq!(order(Sort::Rate, false, ""), [2, 3, 1]);
        assert_eq!(order(Sort::Up, false, ""), [3, 1, 2]);
        assert_eq!(order(Sort::Down, false, ""), [2, 1, 3]);
        assert_eq!(order(Sort::User, false, ""), [1, 3, 2]);
        assert_eq!(order(Sort::Device, true, ""), [2, 1, 3]);
        assert_eq!(order(Sort::Since, false, ""), [1, 2, 3]);
        assert_eq!(order(Sort::User, false, "la"), [1, 3]);
        assert_eq!(order(Sort::User, false, "192.0.2.2"), [2]);
    }

    proptest! {
        #[test]
        fn no_two_readings_make_the_model_panic(
            a in any::<u64>(), b in any::<u64>(), ms in any::<u64>()
        ) {
            let at = |x: u64, at_ms| {
                let core = Core {
                    busy_s: x as f64,
                    up_packets: x,
                    down_packets: x,
                    up_bytes: x,
                    down_bytes: x,
                    drops: x,
                };
                let drops = [("x".to_owned(), x)].into();
                let metrics = Metrics { cores: [(0, core)].into(), drops };
                Reading { at_ms, metrics, ..Reading::default() }
            };
            let mut model = Model::default();
            model.take(at(a, 1));
            model.take(at(b, ms));
            prop_assert!(model.cores.values().all(|core| (0.0..=1.0).contains(&core.busy)));
        }
    }
}
