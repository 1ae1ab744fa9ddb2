//! What becomes of each setting of another program: an option, nothing because it is always so, or
//! a sentence about what it waits for.
//!
//! A rule names keys as they are found in the wild and, where one key means several things, a word
//! that must stand above it. The first rule that fits counts. Rows such as `EX-2` are those of the
//! table in the README.

use std::net::{IpAddr, SocketAddr};

use super::{Kind, Setting};

/// What becomes of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Becomes {
    /// This option with this value, as TOML writes it; or why its value cannot be read.
    Option { section: &'static str, key: &'static str, value: Result<String, String> },
    /// It is always so, and why.
    Always(String),
    /// Somebody has to look at it, and why.
    Left(String),
}

/// Reads the value of an option, as TOML writes it.
type Read = fn(&Setting) -> Result<String, String>;

/// What a rule does.
enum Does {
    Option(&'static str, &'static str, Read),
    Always(&'static str),
    /// In the records, where the API and the CLI change it: with the words of the record.
    Record(&'static str),
    /// Not there yet: the row it waits for, and what that is.
    Waits(&'static str, &'static str),
    /// As another function says.
    Ask(fn(&Setting) -> Becomes),
}

/// Keys (the last of the path), a word that must stand above (or none), what it does.
type Rule = (&'static [&'static str], &'static str, Does);

use Does::{Always, Ask, Option as Opt, Record, Waits};

const GATEWAY: &[Rule] = &[
    (
        &["listen", "listen_address", "listen_addr", "bind", "address"],
        "",
        Opt("interface", "listen_port", port),
    ),
    (&["port", "listen_port"], "", Opt("interface", "listen_port", number)),
    (&["protocol"], "", Ask(protocol)),
    (&["max_clients", "max_connections"], "", Opt("limits", "peers_max", number)),
    (&["methods", "auth_methods"], "auth", Record("`factors` of a policy, in this order")),
    (&["require_auth"], "", Ask(require_auth)),
    (&["session_timeout"], "", Record("`session_timeout_s` of a policy, in seconds")),
    (&["idle_timeout"], "", Record("`idle_timeout_s` of a policy, in seconds")),
    (&["network", "subnet", "cidr", "pool"], "", Opt("interface", "pools", list)),
    (
        &["range_start", "range_end", "start", "end", "start_ip", "end_ip"],
        "",
        Record("`range4` of the pool `default`"),
    ),
    (&["dns", "dns_servers"], "", Opt("clients", "dns", list)),
    (&["discovery_interval", "interval"], "discovery", Waits("EX-2", "discovery of exits")),
    (
        &[
            "discovery_interval",
            "health_check_interval",
            "min_nodes",
            "max_nodes",
            "health_threshold",
        ],
        "",
        Waits("EX-2", "discovery and health of exits"),
    ),
    (&["strategy"], "", Waits("EX-4", "choosing between exits")),
    (&["failover"], "", Waits("EX-8", "failover between exits")),
    (&["name", "bandwidth", "priority"], "classes", Waits("QS-4", "classes of service")),
    (&["enabled"], "qos", Always("limits are in force where a policy, a group or a user has one")),
    (
        &["limit", "bandwidth_limit", "rate"],
        "",
        Record("`session_rate` or `user_rate` of a policy, in bits per second"),
    ),
    (&["burst", "burst_size"], "", Record("`burst_bytes` of a rate, in bytes")),
    (&["kill_switch"], "", Waits("EX-9", "failing closed where no exit is left")),
    (&["dns_leak_protection"], "", Waits("RT-5", "protection against DNS leaks")),
    (&["dpi_evasion"], "", Waits("PT-12", "camouflage")),
    (&["perfect_forward_secrecy", "pfs"], "", Ask(forward_secrecy)),
];

const PROXY: &[Rule] = &[
    (&["type"], "auth", Record("`factors` of a policy: \"password\" is what `basic` asks for")),
    (
        &["auth", "auth_type", "method"],
        "",
        Record("`factors` of a policy: \"password\" is what `basic` asks for"),
    ),
    (&["type", "proxy_type"], "", Ask(proxy)),
    (&["listen", "bind", "address", "port"], "", Waits("PT-3", "proxies and their addresses")),
    (&["max_connections"], "", Waits("PT-3", "proxies and their limits")),
    (&["users", "users_file", "file"], "auth", Record("users, each made with `ringway user add`")),
    (&["bandwidth_per_user"], "", Record("`user_rate` of a policy, in bits per second")),
    (
        &["connections_per_user"],
        "",
        Waits("PT-3", "proxies; a policy limits sessions with `sessions_max`"),
    ),
    (&["idle_timeout"], "", Record("`idle_timeout_s` of a policy, in seconds")),
    (
        &["cert", "cert_file", "key", "key_file", "min_version", "tls_min_version"],
        "",
        Waits("PT-3", "TLS of proxies"),
    ),
    (&["level", "log_level"], "", Opt("log", "level", word)),
    (&["format", "log_format"], "", Opt("log", "format", word)),
    (&["file", "output", "log_file"], "", Opt("log", "file", text)),
];

const DISPATCH: &[Rule] = &[
    (&["gateway", "gateway-ip", "subnet"], "", Waits("RT-8", "gateway mode for a LAN")),
    (&["transparent-port"], "", Waits("PT-11", "transparent intake")),
    (&["dns-port"], "", Waits("RT-4", "the DNS service")),
    (&["nat-interface"], "", Ask(nat_interface)),
    (&["auto-config"], "", Opt("exit", "enable_forwarding", truth)),
    (&["web"], "", Waits("MG-5", "the web page")),
    (&["debug"], "", Ask(debug)),
    (&["balancer"], "", Waits("EX-4", "exits with weights")),
    (&["lhost", "lport"], "", Waits("PT-4", "SOCKS5")),
    (&["tunnel"], "", Waits("EX-1", "upstream proxies as exits")),
    (&["quiet"], "", Ask(quiet)),
];

/// What becomes of a setting.
pub(super) fn becomes(kind: Kind, setting: &Setting) -> Becomes {
    let rules = match kind {
        Kind::Gateway => GATEWAY,
        Kind::Proxy => PROXY,
        Kind::Dispatch => DISPATCH,
    };
    let lower = |text: &String| match kind {
        Kind::Dispatch => text.to_ascii_lowercase(),
        Kind::Gateway | Kind::Proxy => text.to_ascii_lowercase().replace('-', "_"),
    };
    let path: Vec<String> = setting.path.iter().map(lower).collect();
    let Some((leaf, above)) = path.split_last() else {
        return Becomes::Left("it has no name".to_owned());
    };
    let fits = |(keys, word, _): &&Rule| {
        keys.contains(&leaf.as_str())
            && (word.is_empty() || above.iter().any(|of| of.contains(word)))
    };
    match rules.iter().find(fits).map(|(.., does)| does) {
        None => Becomes::Left("nothing is known of it: see control/manual/options.md".to_owned()),
        Some(Opt(section, key, read)) => Becomes::Option { section, key, value: read(setting) },
        Some(Always(why)) => Becomes::Always((*why).to_owned()),
        Some(Record(what)) => Becomes::Left(format!("is not in the file: {what}")),
        Some(Waits(row, what)) => waits(row, what),
        Some(Ask(ask)) => ask(setting),
    }
}

fn waits(row: &str, what: &str) -> Becomes {
    Becomes::Left(format!("waits for {row}: {what}"))
}

fn protocol(setting: &Setting) -> Becomes {
    let name = first(setting).to_ascii_lowercase();
    match name.as_str() {
        "wireguard" => Becomes::Always("WireGuard is what is served".to_owned()),
        "openvpn" => waits("PT-7", "OpenVPN; until then clients need WireGuard"),
        "ikev2" | "ipsec" => waits("PT-8", "IKEv2; until then clients need WireGuard"),
        "openconnect" | "anyconnect" => {
            waits("PT-2", "OpenConnect; until then clients need WireGuard")
        }
        "sstp" => waits("PT-9", "SSTP; until then clients need WireGuard"),
        "l2tp" => waits("PT-10", "L2TP; until then clients need WireGuard"),
        _ => Becomes::Left("nothing is known of this protocol".to_owned()),
    }
}

fn require_auth(setting: &Setting) -> Becomes {
    if is_true(setting) {
        Becomes::Always("every device has a key; what people prove is in their policy".to_owned())
    } else {
        Becomes::Left("is not in the file: the factor \"anonymous\" of a policy".to_owned())
    }
}

fn forward_secrecy(setting: &Setting) -> Becomes {
    if is_true(setting) {
        Becomes::Always("keys are renewed every two minutes and then erased".to_owned())
    } else {
        Becomes::Left("it cannot be switched off".to_owned())
    }
}

fn proxy(setting: &Setting) -> Becomes {
    match first(setting).to_ascii_lowercase().as_str() {
        "http" | "https" => waits("PT-3", "the HTTP proxy"),
        "socks" | "socks5" | "socks4" => waits("PT-4", "SOCKS5"),
        "shadowsocks" | "ss" => waits("PT-5", "Shadowsocks"),
        _ => Becomes::Left("nothing is known of this protocol".to_owned()),
    }
}

fn nat_interface(setting: &Setting) -> Becomes {
    if first(setting) == "auto" {
        let value = Ok("true".to_owned());
        return Becomes::Option { section: "exit", key: "masquerade", value };
    }
    waits("EX-1", "exits by interface; masquerading follows the route")
}

fn debug(setting: &Setting) -> Becomes {
    level(setting, "debug", "is off already")
}

fn quiet(setting: &Setting) -> Becomes {
    level(setting, "error", "is off already")
}

fn level(setting: &Setting, level: &str, off: &str) -> Becomes {
    if is_true(setting) {
        let value = Ok(format!("\"{level}\""));
        return Becomes::Option { section: "log", key: "level", value };
    }
    Becomes::Always(off.to_owned())
}

fn first(setting: &Setting) -> &str {
    setting.values.first().map_or("", String::as_str)
}

fn is_true(setting: &Setting) -> bool {
    ["true", "yes", "on", "1"].contains(&first(setting).to_ascii_lowercase().as_str())
}

/// The port of `ADDRESS:PORT`. An address of its own cannot be chosen here.
fn port(setting: &Setting) -> Result<String, String> {
    let text = first(setting);
    if let Ok(address) = text.parse::<SocketAddr>() {
        if !address.ip().is_unspecified() {
            return Err("names one address, and this gateway listens on all of them".to_owned());
        }
        return Ok(address.port().to_string());
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    let number = port.parse::<u16>().map_err(|_| "is no ADDRESS:PORT".to_owned())?;
    Ok(number.to_string())
}

fn number(setting: &Setting) -> Result<String, String> {
    let number = first(setting).replace('_', "").parse::<u64>();
    number.map(|number| number.to_string()).map_err(|_| "is no number".to_owned())
}

fn truth(setting: &Setting) -> Result<String, String> {
    Ok(is_true(setting).to_string())
}

fn word(setting: &Setting) -> Result<String, String> {
    let word = match first(setting).to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        other => other.to_owned(),
    };
    Ok(quoted(&word))
}

fn text(setting: &Setting) -> Result<String, String> {
    Ok(quoted(first(setting)))
}

/// Addresses or prefixes.
fn list(setting: &Setting) -> Result<String, String> {
    let bare = |text: &String| {
        let address = text.split('/').next().unwrap_or_default();
        address.parse::<IpAddr>().map_err(|_| format!("holds {text:?}, which is no address"))
    };
    setting.values.iter().try_for_each(|value| bare(value).map(drop))?;
    let quoted: Vec<String> = setting.values.iter().map(|value| quoted(value)).collect();
    Ok(format!("[{}]", quoted.join(", ")))
}

/// A text as TOML writes it: whatever is in it cannot end it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
