//! Every family that is not a counter of the cores or of control: name, type and help, in one
//! table.
//!
//! The manual has the same table, which a test compares. Nothing here computes.

use super::exposition::Type;

macro_rules! families {
    ($($variant:ident $name:literal $kind:ident $help:literal;)*) => {
        /// A metric family.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Family { $(#[doc = $help] $variant,)* }

        impl Family {
            /// All of them, in the order of the text and of the manual.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => concat!("ringway_", $name),)* }
            }

            /// Its type.
            #[must_use]
            pub const fn kind(self) -> Type {
                match self { $(Self::$variant => Type::$kind,)* }
            }

            /// What an operator should know.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

families! {
    SnapshotTimestamp "snapshot_timestamp_seconds" Gauge "When everything here was true, since 1970.";
    // Connections.
    ActiveConnections "active_connections" Gauge "Clients with a session now.";
    ActiveSessions "active_sessions" Gauge "The same; WireGuard has one session per connection.";
    SessionStates "session_states" Gauge "Sessions by state; their sum may count devices that are about to connect.";
    UsersConnected "users_connected" Gauge "Users with a session now.";
    EstablishmentRate "connection_establishment_rate" Gauge "Sessions that began, per second in the last minute.";
    ConnectionRate "connection_rate" Gauge "Handshakes completed per second in the last minute, renewals included.";
    // Traffic.
    ThroughputGbps "throughput_gbps" Gauge "Inner Gbit/s in the last minute, by direction.";
    TotalBandwidth "total_bandwidth_bps" Gauge "Inner bits per second in the last minute, both directions together.";
    // Cost.
    CpuPerConnection "cpu_per_connection" Gauge "CPU seconds per second of the whole process in the last minute, per connection.";
    MemoryPerConnection "memory_per_connection" Gauge "Bytes held for sessions, per connection.";
    NodeUtilisation "node_utilisation" Gauge "Share of the time that is used, 0 to 1; of this node: in which cores worked.";
    // Quality.
    PacketLossRate "packet_loss_rate" Gauge "Share of packets that ended in the gateway, in the last minute; loss on the way is not seen.";
    ErrorRate "error_rate" Gauge "Share of handshakes that were refused, in the last minute.";
    Latency "latency_seconds" Summary "What the gateway adds: how long a turn of a core works; quantiles of the last minute, from above. The way of a packet is not measured.";
    AverageLatency "average_latency_seconds" Gauge "Mean of the same in the last minute.";
    ZeroCopy "zero_copy_efficiency" Gauge "Share of sends that were asked to be without a copy and were, since the start.";
    // Sign-in.
    AuthenticationLatency "authentication_latency_seconds" Histogram "How long it took to decide about a sign-in.";
    Authentications "authentications" Counter "Sign-ins accepted, by method.";
    AuthenticationsRefused "authentications_refused" Counter "Sign-ins refused, by reason.";
    AuthenticationsWaiting "authentications_waiting" Gauge "Sign-ins that wait for their turn.";
    CertificateEnds "certificate_ends_seconds" Gauge "Time until the first certificate or revocation list of a kind ends; 0 if it has ended.";
    CertificateAnswers "certificate_answers" Counter "What responders (OCSP) said about certificates when they were asked.";
    CertificatesUnanswered "certificates_unanswered" Counter "Sign-ins by a certificate that no responder called good, where that is a warning only.";
    // Access.
    SessionsStarted "sessions_started" Counter "Sessions that began.";
    SessionsEnded "sessions_ended" Counter "Sessions that ended, by reason.";
    DevicesKeptOut "devices_kept_out" Gauge "Devices that may not connect now, by reason.";
    // The API and the records.
    ApiAnswers "api_answers" Counter "Answers of the API, by status.";
    ApiRefused "api_refused" Counter "Requests that the API refused, by reason.";
    ApiLatency "api_latency_seconds" Histogram "How long answers of the API took.";
    ApiDoors "api_doors" Gauge "Addresses and sockets of the API by kind; the state is open, or the reason why it is closed.";
    StoreHealthy "store_healthy" Gauge "1 while the records can be read and written.";
    StoreWaiting "store_waiting" Gauge "Operations on the records that wait.";
    StoreOperations "store_operations" Counter "Operations on the records done.";
    StoreFailures "store_failures" Counter "Operations on the records that failed, by reason.";
    StoreLatency "store_latency_seconds" Histogram "How long operations on the records took.";
    // The log.
    LogLines "log_lines" Counter "Lines of the log: written, lost, or left out because the same was said before.";
    // Sessions apart.
    SessionReceived "session_received_bytes" Gauge "Inner bytes from the client since the session began: the largest sessions, and all others together.";
    SessionSent "session_sent_bytes" Gauge "Inner bytes to the client since the session began, likewise.";
    SessionsUnlisted "sessions_unlisted" Gauge "Sessions that have no series of their own.";
    UserReceived "user_received_bytes" Gauge "Inner bytes from all live sessions of a user: the largest users, and all others together.";
    UserSent "user_sent_bytes" Gauge "Inner bytes to all live sessions of a user, likewise.";
    UsersUnlisted "users_unlisted" Gauge "Users that have no series of their own.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_explains_every_family_with_its_type() {
        let manual = include_str!("../../manual/service_metrics.md");
        for family in Family::ALL {
            let name = family.name().trim_start_matches("ringway_");
            let row = format!("| `{name}` | {} | {} |", family.kind().word(), family.help());
            assert!(manual.contains(&row), "control/manual/service_metrics.md lacks: {row}");
        }
        let rows = manual.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, Family::ALL.len(), "the manual explains what there is not");
    }

    #[test]
    fn all_names_that_were_asked_for_are_there_or_explained_to_be_absent() {
        let manual = include_str!("../../manual/service_metrics.md");
        let known = |name: &str| {
            Family::ALL.iter().any(|family| family.name().starts_with(&format!("ringway_{name}")))
        };
        for name in [
            "connection_establishment_rate",
            "active_connections",
            "throughput_gbps",
            "cpu_per_connection",
            "memory_per_connection",
            "packet_loss_rate",
            "latency",
            "authentication_latency",
            "zero_copy_efficiency",
            "active_sessions",
            "total_bandwidth",
            "connection_rate",
            "error_rate",
            "average_latency",
            "node_utilisation",
        ] {
            assert!(known(name), "{name}");
        }
        assert!(!known("dtls_handshake_success_rate"), "there is no DTLS to count");
        assert!(manual.contains("dtls_handshake_success_rate"));
    }
}
