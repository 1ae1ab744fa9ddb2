//! From raw values to the checked configuration: values one by one, then what they mean together.
//!
//! Everything that is wrong is collected, so that one run shows all of it. Nothing is taken from
//! the file system here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use ringway_proto::allowed_ips::IpNet;
use toml::Spanned;

use super::contradictions;
use super::fast_paths::FastPaths;
use super::options;
use super::problem::{Lines, Problem};
use super::raw::{
    RawClients, RawExit, RawFile, RawInterface, RawMemory, RawPeer, RawStats, RawWorkers, Scalar,
    Value,
};
use super::read_service::socket_path;
use super::types::{
    Clients, Config, DriverChoice, Exit, Interface, InterfaceAddress, Memory, NumaChoice, Origin,
    Overrides, Peer, SandboxChoice, SessionHeaps, SpinChoice, Stats, SteeringChoice, WorkerCount,
    Workers, ZeroCopyChoice,
};
use super::values;
use crate::keys;
use crate::peers::ipam;

/// Default pools, see the table of options.
const POOLS: [&str; 2] = ["10.77.0.0/24", "fd72:696e:6777::/64"];

/// The text under the reader, and what it found so far.
pub(super) struct Reader<'a> {
    lines: Lines<'a>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    origins: BTreeMap<(&'static str, &'static str), Origin>,
}

/// Where the parts of the file are that can contradict each other.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) pools: Vec<(IpNet, Range<usize>)>,
    pub(super) addresses: Range<usize>,
    pub(super) mtu: Range<usize>,
    /// The path of a Unix socket that the file has.
    pub(super) sockets: Range<usize>,
    pub(super) peers_max: Option<Range<usize>>,
    pub(super) workers: Range<usize>,
    pub(super) steering: Range<usize>,
    pub(super) spin_us: Range<usize>,
    pub(super) peers: Vec<PeerPlaces>,
}

/// Where the parts of one peer are.
#[derive(Debug, Default)]
pub(super) struct PeerPlaces {
    pub(super) name: Range<usize>,
    pub(super) public_key: Range<usize>,
    pub(super) allowed_ips: Vec<Range<usize>>,
}

/// Reads `raw`, which was parsed from `text`. Relative paths are relative to `folder`.
pub(super) fn read(
    text: &str,
    raw: &RawFile,
    folder: &Path,
    overrides: &Overrides,
) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader {
        lines: Lines::new(text),
        problems: Vec::new(),
        warnings: Vec::new(),
        origins: BTreeMap::new(),
    };
    let mut places = Places::default();
    let interface = reader.interface(&raw.interface, folder, &mut places);
    let exit = reader.exit(&raw.exit);
    let clients = reader.clients(&raw.clients);
    let peers = raw.peer.iter().filter_map(|peer| reader.peer(peer, folder, &mut places)).collect();
    let limits = reader.limits(&raw.limits, &interface, &mut places);
    let workers = reader.workers(&raw.workers, overrides, &mut places);
    let memory = reader.memory(&raw.memory);
    let socket = raw.api.socket.as_ref().or(raw.stats.socket.as_ref());
    places.sockets = socket.map_or(0..0, Spanned::span);
    let stats = reader.stats(&raw.stats, &interface.name);
    let store = reader.store(&raw.store);
    let api = reader.api(&raw.api, &interface.name, folder);
    let sign_in = reader.sign_in(&raw.sign_in, folder);
    let issuers = reader.issuers(&raw.issuer, folder);
    let metrics = reader.metrics(&raw.metrics);
    let security = reader.security(&raw.security);
    let log = reader.log(&raw.log);
    let mut config = Config {
        interface,
        exit,
        clients,
        limits,
        workers,
        memory,
        stats,
        store,
        api,
        sign_in,
        issuers,
        metrics,
        security,
        log,
        peers,
        warnings: Vec::new(),
        origins: BTreeMap::new(),
    };
    // Values that are wrong were replaced by defaults above; comparing those would only confuse.
    if reader.problems.is_empty() {
        contradictions::find(&mut reader, &config, &places);
    }
    if reader.problems.is_empty() {
        config.warnings = reader.warnings;
        config.origins = reader.origins;
        Ok(config)
    } else {
        reader.problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(reader.problems)
    }
}

impl Reader<'_> {
    /// Notes a problem at `span`.
    pub(super) fn refuse(&mut self, span: &Range<usize>, message: String) {
        self.problems.push(Problem::at(&self.lines, span, message));
    }

    /// Notes a warning at `span`.
    pub(super) fn warn(&mut self, span: &Range<usize>, message: String) {
        self.warnings.push(Problem::at(&self.lines, span, message));
    }

    /// Reads one value, if it is there and good.
    pub(super) fn value<T>(
        &mut self,
        section: &'static str,
        key: &'static str,
        value: &Value,
        parse: impl FnOnce(&Scalar) -> Result<T, String>,
    ) -> Option<T> {
        let value = value.as_ref()?;
        let (line, _) = self.lines.position(value.span().start);
        self.origins.insert((section, key), Origin::Line(line));
        match parse(value.get_ref()) {
            Ok(parsed) => Some(parsed),
            Err(why) => {
                self.refuse_value(section, key, &value.span(), &why);
                None
            }
        }
    }

    /// Reads a list item by item, if it is there; bad items are noted and left out.
    pub(super) fn list<T>(
        &mut self,
        section: &'static str,
        key: &'static str,
        value: &Value,
        parse: impl Fn(&Scalar) -> Result<T, String>,
    ) -> Option<Vec<(T, Range<usize>)>> {
        let span = value.as_ref()?.span();
        let items = self.value(section, key, value, |value| match value {
            Scalar::List(items) => Ok(items.clone()),
            Scalar::Flag(_) | Scalar::Integer(_) | Scalar::Text(_) | Scalar::Other => {
                Err("is not a list in brackets".to_owned())
            }
        })?;
        let mut read = Vec::with_capacity(items.len());
        for item in &items {
            // Within an inline table the place of an item may be unknown.
            let at = if item.span().is_empty() { span.clone() } else { item.span() };
            match parse(item.get_ref()) {
                Ok(parsed) => read.push((parsed, at)),
                Err(why) => self.refuse_value(section, key, &at, &why),
            }
        }
        Some(read)
    }

    fn refuse_value(&mut self, section: &str, key: &str, span: &Range<usize>, why: &str) {
        let wants = options::find(section, key).map_or("something else", |option| option.wants);
        // What stands where a key belongs may be a secret.
        let offending = match self.lines.text.get(span.clone()) {
            Some(text) if !key.contains("key") => format!("= {} ", shorten(text)),
            _ => String::new(),
        };
        self.refuse(span, format!("{key} {offending}{why}: write {wants}"));
    }

    fn interface(&mut self, raw: &RawInterface, folder: &Path, places: &mut Places) -> Interface {
        const SECTION: &str = "interface";
        let name = self.value(SECTION, "name", &raw.name, |value| {
            values::interface_name(values::text(value)?)
        });
        let listen_port = self.value(SECTION, "listen_port", &raw.listen_port, |value| {
            values::integer(value, 1..=65_535)
        });
        let key = self.value(SECTION, "private_key_file", &raw.private_key_file, values::path);
        let mtu = self.value(SECTION, "mtu", &raw.mtu, |value| values::integer(value, 576..=9_216));
        let pools = self.list(SECTION, "pools", &raw.pools, values::net);
        let fwmark = self.value(SECTION, "fwmark", &raw.fwmark, |value| {
            values::integer(value, 0..=i64::from(u32::MAX))
        });
        places.pools = pools.unwrap_or_else(default_pools);
        places.mtu = span(&raw.mtu);
        places.addresses = span(&raw.addresses);
        let pool = |v4: bool| {
            let mut pools = places.pools.iter().map(|(net, _)| *net);
            pools.find(|net| net.address().is_ipv4() == v4)
        };
        let (pool4, pool6) = (pool(true), pool(false));
        let addresses = self.list(SECTION, "addresses", &raw.addresses, values::interface_address);
        let addresses = match addresses {
            Some(addresses) => addresses.into_iter().map(|(address, _)| address).collect(),
            None => pool4.into_iter().chain(pool6).map(first_address).collect(),
        };
        Interface {
            name: name.unwrap_or_else(|| "ringway0".to_owned()),
            listen_port: listen_port.unwrap_or(51_820),
            private_key_file: folder.join(key.unwrap_or_else(|| "private.key".into())),
            mtu: mtu.unwrap_or(1_420),
            pool4,
            pool6,
            addresses,
            fwmark: fwmark.unwrap_or(0),
        }
    }

    fn exit(&mut self, raw: &RawExit) -> Exit {
        const SECTION: &str = "exit";
        let masquerade = self.value(SECTION, "masquerade", &raw.masquerade, values::flag);
        let forwarding =
            self.value(SECTION, "enable_forwarding", &raw.enable_forwarding, values::flag);
        let mss_clamp = self.value(SECTION, "mss_clamp", &raw.mss_clamp, values::flag);
        let verify = self.value(SECTION, "verify_checksums", &raw.verify_checksums, values::flag);
        Exit {
            masquerade: masquerade.unwrap_or(true),
            enable_forwarding: forwarding.unwrap_or(false),
            mss_clamp: mss_clamp.unwrap_or(true),
            verify_checksums: verify.unwrap_or(true),
        }
    }

    fn clients(&mut self, raw: &RawClients) -> Clients {
        const SECTION: &str = "clients";
        let endpoint = self.value(SECTION, "endpoint", &raw.endpoint, |value| {
            values::host_and_port(values::text(value)?)
        });
        let allowed_ips = self.list(SECTION, "allowed_ips", &raw.allowed_ips, values::net);
        let dns = self.list(SECTION, "dns", &raw.dns, values::ip_address);
        let keepalive = self.value(SECTION, "keepalive", &raw.keepalive, values::keepalive);
        let everything = || {
            let all = [std::net::IpAddr::from([0; 4]), std::net::IpAddr::from([0; 16])];
            all.into_iter().filter_map(|address| IpNet::new(address, 0)).collect()
        };
        Clients {
            endpoint,
            allowed_ips: allowed_ips.map_or_else(everything, values_only),
            dns: dns.map_or_else(Vec::new, values_only),
            keepalive_s: keepalive.unwrap_or(0),
        }
    }

    fn workers(&mut self, raw: &RawWorkers, overrides: &Overrides, places: &mut Places) -> Workers {
        const SECTION: &str = "workers";
        let count = self.value(SECTION, "count", &raw.count, values::worker_count_value);
        let oversubscribe = self.value(SECTION, "oversubscribe", &raw.oversubscribe, values::flag);
        let cpus = self
            .value(SECTION, "cpus", &raw.cpus, |value| values::number_list(values::text(value)?));
        let numa =
            self.value(SECTION, "numa", &raw.numa, |value| values::numa(values::text(value)?));
        let control_cpu = self.value(SECTION, "control_cpu", &raw.control_cpu, |value| {
            values::integer(value, 0..=65_535)
        });
        let driver = self
            .value(SECTION, "driver", &raw.driver, |value| values::driver(values::text(value)?));
        let steering = self.value(SECTION, "steering", &raw.steering, |value| {
            values::steering(values::text(value)?)
        });
        let spin_us = self.value(SECTION, "spin_us", &raw.spin_us, values::spin_us_value);
        let sandbox = self
            .value(SECTION, "sandbox", &raw.sandbox, |value| values::sandbox(values::text(value)?));
        let zero_copy = self.value(SECTION, "zero_copy", &raw.zero_copy, |value| {
            values::zero_copy(values::text(value)?)
        });
        let without = self.list(SECTION, "without", &raw.without, |value| {
            FastPaths::default().and_word(values::text(value)?)
        });
        let without = without
            .map(|items| items.into_iter().fold(FastPaths::default(), |all, (one, _)| all.or(one)));
        places.workers = span(&raw.count);
        places.steering = span(&raw.steering);
        places.spin_us = span(&raw.spin_us);
        for (key, given) in [
            ("count", overrides.count.is_some()),
            ("oversubscribe", overrides.oversubscribe),
            ("cpus", overrides.cpus.is_some()),
            ("numa", overrides.numa.is_some()),
            ("control_cpu", overrides.control_cpu.is_some()),
            ("driver", overrides.driver.is_some()),
            ("steering", overrides.steering.is_some()),
            ("spin_us", overrides.spin_us.is_some()),
            ("sandbox", overrides.sandbox.is_some()),
            ("zero_copy", overrides.zero_copy.is_some()),
            ("without", overrides.without.is_some()),
        ] {
            if given {
                self.origins.insert((SECTION, key), Origin::Flag);
            }
        }
        Workers {
            count: overrides.count.or(count).unwrap_or(WorkerCount::Exactly(1)),
            oversubscribe: overrides.oversubscribe || oversubscribe.unwrap_or(false),
            cpus: overrides.cpus.clone().or(cpus),
            numa: overrides.numa.clone().or(numa).unwrap_or(NumaChoice::Auto),
            control_cpu: overrides.control_cpu.or(control_cpu),
            driver: overrides.driver.or(driver).unwrap_or(DriverChoice::Auto),
            steering: overrides.steering.or(steering).unwrap_or(SteeringChoice::Auto),
            spin_us: overrides.spin_us.or(spin_us).unwrap_or(SpinChoice::Auto),
            sandbox: overrides.sandbox.or(sandbox).unwrap_or(SandboxChoice::On),
            zero_copy: overrides.zero_copy.or(zero_copy).unwrap_or(ZeroCopyChoice::Off),
            without: overrides.without.or(without).unwrap_or_default(),
        }
    }

    fn memory(&mut self, raw: &RawMemory) -> Memory {
        let session_heaps = self.value("memory", "session_heaps", &raw.session_heaps, |value| {
            SessionHeaps::from_word(values::text(value)?).ok_or_else(not_one_of_them)
        });
        Memory { session_heaps: session_heaps.unwrap_or(SessionHeaps::Auto) }
    }

    fn stats(&mut self, raw: &RawStats, interface: &str) -> Stats {
        let socket = self.value("stats", "socket", &raw.socket, socket_path);
        Stats { socket: socket.unwrap_or_else(|| crate::stats::socket_path(interface)) }
    }

    fn peer(
        &mut self,
        spanned: &Spanned<RawPeer>,
        folder: &Path,
        places: &mut Places,
    ) -> Option<Peer> {
        const SECTION: &str = "peer";
        let raw = spanned.get_ref();
        let name =
            self.value(SECTION, "name", &raw.name, |value| values::peer_name(values::text(value)?));
        let public = self.value(SECTION, "public_key", &raw.public_key, |value| {
            keys::parse_public(values::text(value)?).map_err(|error| format!("is no key ({error})"))
        });
        let preshared = self.value(SECTION, "preshared_key", &raw.preshared_key, |value| {
            keys::parse_preshared(values::text(value)?)
                .map_err(|error| format!("is no key ({error})"))
        });
        let preshared_file =
            self.value(SECTION, "preshared_key_file", &raw.preshared_key_file, values::path);
        let allowed_ips = self.list(SECTION, "allowed_ips", &raw.allowed_ips, values::net);
        let endpoint = self.value(SECTION, "endpoint", &raw.endpoint, values::endpoint);
        let keepalive = self.value(SECTION, "keepalive", &raw.keepalive, values::keepalive);
        if let (Some(_), Some(file)) = (&raw.preshared_key, &raw.preshared_key_file) {
            let message = "preshared_key_file and preshared_key contradict each other: keep one";
            self.refuse(&file.span(), message.to_owned());
        }
        let start = first_place(raw).unwrap_or_else(|| spanned.span());
        if raw.public_key.is_none() {
            let wants = options::find(SECTION, "public_key").map_or("", |option| option.wants);
            self.refuse(&start, format!("the peer has no public_key: write {wants}"));
        }
        let (allowed_ips, allowed_at) = allowed_ips.unwrap_or_default().into_iter().unzip();
        let (line, _) = self.lines.position(start.start);
        let peer = Peer {
            name: name.unwrap_or_default(),
            public: public?,
            preshared: preshared.unwrap_or_default(),
            preshared_file: preshared_file.map(|file| folder.join(file)),
            allowed_ips,
            endpoint,
            keepalive_s: keepalive.unwrap_or(0),
            line,
        };
        let at = |value: &Value| value.as_ref().map_or_else(|| start.clone(), Spanned::span);
        places.peers.push(PeerPlaces {
            name: at(&raw.name),
            public_key: at(&raw.public_key),
            allowed_ips: allowed_at,
        });
        Some(peer)
    }
}

/// The earliest value of a peer; tables themselves do not always say where they are.
fn first_place(raw: &RawPeer) -> Option<Range<usize>> {
    let values = [
        &raw.name,
        &raw.public_key,
        &raw.preshared_key,
        &raw.preshared_key_file,
        &raw.allowed_ips,
        &raw.endpoint,
        &raw.keepalive,
    ];
    values.into_iter().flatten().map(Spanned::span).min_by_key(|span| span.start)
}

fn default_pools() -> Vec<(IpNet, Range<usize>)> {
    POOLS.iter().filter_map(|pool| pool.parse().ok()).map(|pool| (pool, 0..0)).collect()
}

fn first_address(pool: IpNet) -> InterfaceAddress {
    InterfaceAddress { address: ipam::gateway_address(pool), prefix: pool.prefix() }
}

pub(super) fn span(value: &Value) -> Range<usize> {
    value.as_ref().map_or(0..0, Spanned::span)
}

pub(super) fn values_only<T>(list: Vec<(T, Range<usize>)>) -> Vec<T> {
    list.into_iter().map(|(value, _)| value).collect()
}

pub(super) fn not_one_of_them() -> String {
    "is none of the words".to_owned()
}

/// The offending text, short enough for one line.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 48;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= CHARS_MAX && line.len() == text.len() {
        return line.to_owned();
    }
    let start: String = line.chars().take(CHARS_MAX).collect();
    format!("{start}…")
}
