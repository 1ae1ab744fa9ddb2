//! From the checked configuration to what the gateway is made of: sockets, workers, policy, log.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringway_dataplane::worker::SpinMode;
use ringway_flow::Policy;
use ringway_numa::Plan;
use ringway_ring::{PoolSizes, UdpOptions};
use tracing::level_filters::LevelFilter;
use tracing::warn;

use crate::config::{
    Config, LogFormat, LogLevel, SandboxChoice, SpinChoice, SteeringChoice, Workers,
};
use crate::gateway::{Placement, Setup, UapiSocket, WorkerSetup};
use crate::logs::line::Format;
use crate::logs::sink::{self, FileSettings};
use crate::logs::{self, Output};
use crate::{people, uapi};

/// What the gateway of a file is made of.
pub(super) fn setup(config: &Config, plan: &Plan) -> Setup {
    let interface = &config.interface;
    let own = interface.addresses.iter().map(|own| own.address);
    Setup {
        interface: interface.name.clone(),
        workers: worker_setup(&config.workers, placements(plan)),
        udp: UdpOptions {
            port: interface.listen_port,
            mark: interface.fwmark,
            ..UdpOptions::default()
        },
        policy: Policy {
            clamp_mss: config.exit.mss_clamp,
            inner_mtu: interface.mtu,
            verify_inner_checksum: config.exit.verify_checksums,
            address_v4: own.clone().find_map(|address| match address {
                std::net::IpAddr::V4(address) => Some(address),
                std::net::IpAddr::V6(_) => None,
            }),
            address_v6: own.clone().find_map(|address| match address {
                std::net::IpAddr::V6(address) => Some(address),
                std::net::IpAddr::V4(_) => None,
            }),
            admission: config.limits.admission,
            handshakes_per_source: config.limits.handshakes_per_source,
            ..Policy::default()
        },
        session_heaps: config.memory.session_heaps.word(),
        pools: PoolSizes::default(),
        stats_socket: config.stats.socket.clone(),
        pages: pages(config),
        uapi: UapiSocket { path: uapi::socket_path(&interface.name), writable: false },
    }
    .leave_out()
}

/// Where workers live.
pub(super) fn placements(plan: &Plan) -> Vec<Placement> {
    let seats = plan.workers.iter();
    seats.map(|seat| Placement { cpu: Some(seat.cpu), node: seat.node }).collect()
}

/// The folder of the counter pages, beside the stats socket; without one they are in memory only.
fn pages(config: &Config) -> Option<PathBuf> {
    let folder = config.stats.socket.with_extension("pages");
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder);
    match made {
        Ok(()) => Some(folder),
        Err(error) => {
            warn!("Cannot make {} ({error}): counters end with this run", folder.display());
            None
        }
    }
}

/// Workers as the file and the flags want them.
pub(super) fn worker_setup(workers: &Workers, placements: Vec<Placement>) -> WorkerSetup {
    WorkerSetup {
        placements,
        driver: workers.driver,
        steering: workers.steering == SteeringChoice::Auto,
        spin: match workers.spin_us {
            // Workers that share a CPU would look on instead of letting each other work.
            SpinChoice::Auto if workers.oversubscribe => SpinMode::Fixed(Duration::ZERO),
            SpinChoice::Auto => SpinMode::Auto,
            SpinChoice::Micros(us) => SpinMode::Fixed(Duration::from_micros(us.into())),
        },
        sandbox: workers.sandbox == SandboxChoice::On,
        zero_copy: workers.zero_copy.into(),
        without: workers.without,
    }
}

/// The log as the file wants it.
pub(super) fn log_settings(config: &Config, state_dir: &Path) -> logs::Settings {
    let level = match config.log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let format = match config.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let output = match &config.log.file {
        Some(file) => Output::File(FileSettings {
            path: state_dir.join(file),
            bytes_max: sink::BYTES_DEFAULT,
            old_files: sink::OLD_FILES_DEFAULT,
        }),
        None => Output::Stderr,
    };
    logs::Settings {
        level,
        format,
        output,
        privacy: people::privacy(config),
        own: config.interface.pools().collect(),
        ..logs::Settings::default()
    }
}
