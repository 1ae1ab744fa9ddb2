//! The few numbers that say how the gateway does, from many counters: rates, shares, costs.
//!
//! Metrics and reports use the same ones, so they cannot disagree. What cannot be said is absent,
//! not zero: a gateway that just started has no rates yet. Pure.

use ringway_proto::DropReason;

use super::recent::Window;
use super::service::ServiceStats;
use super::snapshot::{Snapshot, Value, values};

/// How the gateway does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signals {
    /// Clients with a session now.
    pub active: u64,
    /// Sessions that began, per second.
    pub establishment_rate: Option<f64>,
    /// Handshakes completed, per second.
    pub connection_rate: Option<f64>,
    /// Inner bits per second towards exits and towards clients.
    pub bits_per_second: Option<(f64, f64)>,
    /// CPU seconds per second and connection.
    pub cpu_per_connection: Option<f64>,
    /// Bytes per connection.
    pub memory_per_connection: Option<f64>,
    /// Share of the time in which cores worked, 0 to 1.
    pub utilisation: Option<f64>,
    /// Share of packets that ended here, 0 to 1.
    pub packet_loss_rate: Option<f64>,
    /// Share of handshakes that were refused, 0 to 1.
    pub error_rate: Option<f64>,
    /// Seconds that half, 95 % and 99 % of turns do not exceed.
    pub latency_s: Option<[f64; 3]>,
    /// Mean of the same.
    pub average_latency_s: Option<f64>,
    /// Share of zero-copy sends that were none, 0 to 1.
    pub zero_copy_efficiency: Option<f64>,
}

/// The quantiles in [`Signals::latency_s`], in thousandths.
pub const QUANTILES: [u64; 3] = [500, 950, 990];

/// What the counters say.
#[must_use]
pub fn signals(snapshot: &Snapshot, service: &ServiceStats) -> Signals {
    let total = snapshot.total();
    let number = |name: &str| {
        let mut fields = values(&snapshot.layout, &total);
        fields.find_map(|(field, value)| match value {
            Value::Number(value) if field.name == name => Some(value),
            Value::Number(_) | Value::Histogram(_) | Value::ByReason(_) => None,
        })
    };
    let active = number("sessions").unwrap_or(0);
    let held = number("session_bytes").unwrap_or(0);
    let per_connection = |value: f64| (active > 0).then(|| value / active as f64);
    let asked = number("zero_copy_sent").unwrap_or(0);
    let copied = number("zero_copy_copied").unwrap_or(0);
    let now = Signals {
        active,
        memory_per_connection: per_connection(held as f64),
        zero_copy_efficiency: share(asked.saturating_sub(copied), asked),
        ..Signals::default()
    };
    let Some(window) = &service.window else { return now };
    let cpu = window.cpu.as_secs_f64() / window.span.as_secs_f64();
    Signals { cpu_per_connection: per_connection(cpu), ..of_window(window, now) }
}

/// Adds what the last minute says.
fn of_window(window: &Window, now: Signals) -> Signals {
    let bits = |name: &str| window.per_second(name) * 8.0;
    let completed = window.counter("handshakes_completed_responder");
    let refused = window.drops(is_handshake);
    let lost = window.drops(|reason| !is_handshake(reason));
    let passed = window.counter("to_exit_packets") + window.counter("to_client_packets");
    let turns = window.histogram("turn_ns").filter(|turns| turns.count() > 0);
    let all_time = window.span.as_secs_f64() * window.cores as f64;
    let seconds = |ns: u64| ns as f64 / 1e9;
    Signals {
        establishment_rate: window.established_per_second(),
        connection_rate: Some(window.per_second("handshakes_completed_responder")),
        bits_per_second: Some((bits("to_exit_bytes"), bits("to_client_bytes"))),
        utilisation: turns.map(|turns| (seconds(turns.sum) / all_time).min(1.0)),
        packet_loss_rate: share(lost, lost + passed),
        error_rate: share(refused, refused + completed),
        latency_s: turns.map(|turns| QUANTILES.map(|permille| seconds(turns.quantile(permille)))),
        average_latency_s: turns.map(|turns| turns.mean() / 1e9),
        ..now
    }
}

/// Whether a packet for this reason was part of a handshake: its sender is not connected by it.
#[must_use]
pub fn is_handshake(reason: DropReason) -> bool {
    let name = reason.name();
    name.starts_with("handshake_") || name.starts_with("mac")
}

/// `part` of `whole`; none of nothing.
#[must_use]
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
#[path = "signals_tests.rs"]
mod tests;
