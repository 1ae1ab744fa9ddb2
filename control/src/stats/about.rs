//! The families that are computed or that control counts, in the order of their table.
//!
//! Each is written from what is there and not at all where there is nothing: a family without
//! samples has no head either. User-supplied text is a label value and nothing else.

use super::cardinality::{Chosen, Moved, OTHER, Rest, choose};
use super::exposition::{Type, bounded, head, real, sample};
use super::families::Family;
use super::latency::Latency;
use super::service::{Access, Api, ByCode, Node, ServiceStats, SignIn, Store};
use super::signals::{QUANTILES, Signals, signals};
use super::snapshot::{Snapshot, Value, values};
use crate::access::sessions::State;

/// Writes all families of the table.
pub(super) fn write(out: &mut String, snapshot: &Snapshot, service: &ServiceStats) {
    let now = signals(snapshot, service);
    let mut text = Text { out, last: None };
    text.real(Family::SnapshotTimestamp, service.at.map(|at| at.0 as f64 / 1e3));
    text.whole(Family::ActiveConnections, &[], now.active);
    text.whole(Family::ActiveSessions, &[], now.active);
    if let Some(access) = &service.access {
        text.connected(access);
    }
    text.traffic(&now);
    text.cost(&now, &service.nodes);
    text.quality(snapshot, &now);
    if let Some(sign_in) = &service.sign_in {
        text.sign_in(sign_in);
    }
    if let Some(access) = &service.access {
        text.access(access);
    }
    if let Some(api) = &service.api {
        text.api(api);
    }
    for (kind, state, count) in &service.doors {
        text.whole(Family::ApiDoors, &[("kind", kind), ("state", state)], *count);
    }
    if let Some(store) = &service.store {
        text.store(store);
    }
    let logs = service.logs;
    text.whole(Family::LogLines, &[("outcome", "written")], logs.written);
    text.whole(Family::LogLines, &[("outcome", "lost")], logs.lost);
    text.whole(Family::LogLines, &[("outcome", "left_out")], logs.left_out);
    if service.live.sessions_max > 0 {
        text.apart(&choose(&service.live));
    }
}

/// The text, and the family whose head was written last.
struct Text<'a> {
    out: &'a mut String,
    last: Option<Family>,
}

impl Text<'_> {
    fn connected(&mut self, access: &Access) {
        for (state, count) in State::ALL.iter().zip(access.by_state) {
            self.whole(Family::SessionStates, &[("state", state.word())], count);
        }
        self.whole(Family::UsersConnected, &[], access.users);
    }

    fn traffic(&mut self, now: &Signals) {
        self.real(Family::EstablishmentRate, now.establishment_rate);
        self.real(Family::ConnectionRate, now.connection_rate);
        let Some((to_exit, to_client)) = now.bits_per_second else { return };
        for (direction, bits) in [("to_exit", to_exit), ("to_client", to_client)] {
            let labels = [("direction", direction)];
            self.one(Family::ThroughputGbps, &labels, &real(bits / 1e9));
        }
        self.real(Family::TotalBandwidth, Some(to_exit + to_client));
    }

    fn cost(&mut self, now: &Signals, nodes: &[Node]) {
        self.real(Family::CpuPerConnection, now.cpu_per_connection);
        self.real(Family::MemoryPerConnection, now.memory_per_connection);
        for node in nodes {
            if let Some(load) = node.load.or(now.utilisation).filter(|load| load.is_finite()) {
                let labels = [("node", &*bounded(&node.name))];
                self.one(Family::NodeUtilisation, &labels, &real(load));
            }
        }
    }

    fn quality(&mut self, snapshot: &Snapshot, now: &Signals) {
        self.real(Family::PacketLossRate, now.packet_loss_rate);
        self.real(Family::ErrorRate, now.error_rate);
        if let Some(quantiles) = now.latency_s {
            self.turns(snapshot, quantiles);
        }
        self.real(Family::AverageLatency, now.average_latency_s);
        self.real(Family::ZeroCopy, now.zero_copy_efficiency);
    }

    /// Quantiles of the last minute; count and sum since the start, as the type wants them.
    fn turns(&mut self, snapshot: &Snapshot, quantiles: [f64; 3]) {
        for (permille, value) in QUANTILES.into_iter().zip(quantiles) {
            let quantile = real(permille as f64 / 1e3);
            self.one(Family::Latency, &[("quantile", &quantile)], &real(value));
        }
        let total = snapshot.total();
        for (field, value) in values(&snapshot.layout, &total) {
            if let (Value::Histogram(turns), "turn_ns") = (value, field.name) {
                self.suffixed(Family::Latency, "_sum", &[], &real(turns.sum as f64 / 1e9));
                self.suffixed(Family::Latency, "_count", &[], &turns.count().to_string());
            }
        }
    }

    fn sign_in(&mut self, sign_in: &SignIn) {
        self.latency(Family::AuthenticationLatency, &sign_in.latency);
        self.codes(Family::Authentications, "method", &sign_in.accepted);
        self.codes(Family::AuthenticationsRefused, "reason", &sign_in.refused);
        self.whole(Family::AuthenticationsWaiting, &[], sign_in.waiting);
        self.codes(Family::CertificateEnds, "kind", &sign_in.certificate_ends_s);
        self.codes(Family::CertificateAnswers, "answer", &sign_in.certificate_answers);
        if let Some(count) = sign_in.certificates_unanswered {
            self.whole(Family::CertificatesUnanswered, &[], count);
        }
    }

    fn access(&mut self, access: &Access) {
        self.whole(Family::SessionsStarted, &[], access.started);
        self.codes(Family::SessionsEnded, "reason", &access.ended);
        self.codes(Family::DevicesKeptOut, "reason", &access.kept_out);
    }

    fn api(&mut self, api: &Api) {
        for (status, count) in &api.answers {
            self.whole(Family::ApiAnswers, &[("status", &status.to_string())], *count);
        }
        self.codes(Family::ApiRefused, "reason", &api.refused);
        self.latency(Family::ApiLatency, &api.latency);
    }

    fn store(&mut self, store: &Store) {
        self.whole(Family::StoreHealthy, &[("engine", store.engine)], store.healthy.into());
        self.whole(Family::StoreWaiting, &[], store.waiting);
        self.whole(Family::StoreOperations, &[], store.done);
        self.codes(Family::StoreFailures, "reason", &store.failed);
        self.latency(Family::StoreLatency, &store.latency);
    }

    fn apart(&mut self, chosen: &Chosen) {
        self.sessions(Family::SessionReceived, chosen, |moved| moved.received);
        self.sessions(Family::SessionSent, chosen, |moved| moved.sent);
        self.whole(Family::SessionsUnlisted, &[], chosen.sessions_rest.count);
        self.users(Family::UserReceived, chosen, |moved| moved.received);
        self.users(Family::UserSent, chosen, |moved| moved.sent);
        self.whole(Family::UsersUnlisted, &[], chosen.users_rest.count);
    }

    fn sessions(&mut self, family: Family, chosen: &Chosen, value: impl Fn(Moved) -> u64) {
        for session in &chosen.sessions {
            let labels =
                [("session", &*session.id), ("user", &session.user), ("device", &session.device)];
            let moved = Moved { received: session.received, sent: session.sent };
            self.whole(family, &labels, value(moved));
        }
        let Rest { count, moved } = chosen.sessions_rest;
        if count > 0 {
            let labels = [("session", OTHER), ("user", OTHER), ("device", OTHER)];
            self.whole(family, &labels, value(moved));
        }
    }

    fn users(&mut self, family: Family, chosen: &Chosen, value: impl Fn(Moved) -> u64) {
        for (name, moved) in &chosen.users {
            self.whole(family, &[("user", name)], value(*moved));
        }
        let Rest { count, moved } = chosen.users_rest;
        if count > 0 {
            self.whole(family, &[("user", OTHER)], value(moved));
        }
    }

    fn latency(&mut self, family: Family, latency: &Latency) {
        for (bound, count) in latency.cumulative() {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), real);
            self.suffixed(family, "_bucket", &[("le", &bound)], &count.to_string());
        }
        self.suffixed(family, "_sum", &[], &real(latency.sum_s()));
        self.suffixed(family, "_count", &[], &latency.count().to_string());
    }

    fn codes(&mut self, family: Family, label: &str, codes: &ByCode) {
        for (code, count) in codes {
            self.whole(family, &[(label, code)], *count);
        }
    }

    fn real(&mut self, family: Family, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.one(family, &[], &real(value));
        }
    }

    fn whole(&mut self, family: Family, labels: &[(&str, &str)], value: u64) {
        self.one(family, labels, &value.to_string());
    }

    fn one(&mut self, family: Family, labels: &[(&str, &str)], value: &str) {
        let suffix = if family.kind() == Type::Counter { "_total" } else { "" };
        self.suffixed(family, suffix, labels, value);
    }

    fn suffixed(&mut self, family: Family, suffix: &str, labels: &[(&str, &str)], value: &str) {
        if self.last.replace(family) != Some(family) {
            head(self.out, family.name(), family.kind(), family.help());
        }
        sample(self.out, family.name(), suffix, labels, value);
    }
}
