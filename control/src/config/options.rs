//! Every option of the configuration file: its default, what it wants and what it is for.
//!
//! One table feeds `ringway check`, the refusals ("write …") and the manual; a test compares the
//! manual with it. A new option is a line here, a field in `raw.rs`, a checked field in
//! `types.rs`.

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt {
    /// Section, without brackets.
    pub section: &'static str,
    /// Key within the section.
    pub key: &'static str,
    /// What may be written, completing "write …".
    pub wants: &'static str,
    /// The default as it would be written, or in words if it is derived.
    pub default: &'static str,
    /// What it is for and why the default is what it is.
    pub help: &'static str,
}

/// Finds an option. Every key that is read is in the table, which a test checks.
#[must_use]
pub fn find(section: &str, key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.section == section && option.key == key)
}

/// All sections in the order in which they are explained.
pub const SECTIONS: &[(&str, &str)] = &[
    ("interface", "The gateway's own end of all tunnels."),
    ("exit", "How inner traffic leaves by this host."),
    ("clients", "What `ringway peer add` writes into client files; the gateway itself ignores it."),
    ("limits", "Upper bounds."),
    ("workers", "Cores. Start-up flags win over this section."),
    ("memory", "Memory of sessions."),
    ("stats", "The control and statistics socket."),
    ("store", "Where users, devices and what they used are kept."),
    ("api", "The HTTP API, which `ringway user` and its like use too."),
    ("sign_in", "How people prove who they are, beside passwords, which are in the store."),
    ("issuer", "One `[[issuer]]` for each service whose access tokens (JWT) are taken."),
    ("metrics", "What is measured beyond the gateway as a whole."),
    ("security", "How secrets are kept in memory."),
    ("log", "What is printed while running."),
    ("peer", "One `[[peer]]` per client; written by `ringway peer add`."),
];

macro_rules! options {
    ($($section:ident . $key:ident = $default:literal, $wants:literal, $help:literal;)*) => {
        /// All options, section by section.
        pub const OPTIONS: &[Opt] = &[$(Opt {
            section: stringify!($section),
            key: stringify!($key),
            wants: $wants,
            default: $default,
            help: $help,
        },)*];
    };
}

options! {
    interface.name = "\"ringway0\"",
        "a name of 1 to 15 letters, digits, \"_\", \"-\" or \".\", such as \"ringway0\"",
        "Name of the TUN interface that the gateway makes.";
    interface.listen_port = "51820",
        "a UDP port from 1 to 65535, such as 51820",
        "UDP port for both IPv4 and IPv6.";
    interface.private_key_file = "\"private.key\"",
        "the path of a file, such as \"private.key\"",
        "The gateway's private key; made once if missing. Relative to this file's folder.";
    interface.mtu = "1420",
        "a number of bytes from 576 to 9216, such as 1420",
        "Largest inner packet in bytes; 1420 fits an outer path of 1500 bytes over IPv6.";
    interface.pools = "[\"10.77.0.0/24\", \"fd72:696e:6777::/64\"]",
        "at most one IPv4 and one IPv6 prefix, such as [\"10.77.0.0/24\", \"fd12:3456:789a::/64\"]",
        "Inner addresses of clients. The gateway has the first address of each pool.";
    interface.addresses = "the first address of each pool",
        "addresses with prefix length, such as [\"10.77.0.1/24\"]",
        "Inner addresses of the gateway; their prefixes are what is routed to the clients.";
    interface.fwmark = "0",
        "a number from 0 to 4294967295, such as 0xca6c",
        "Mark of outer packets for policy routing; 0 is none.";
    exit.masquerade = "true",
        "true or false",
        "Hide pool addresses behind this host's when they leave by another interface.";
    exit.enable_forwarding = "false",
        "true or false",
        "Switch IP forwarding of the host on while running, then back. Off: it changes the host.";
    exit.mss_clamp = "true",
        "true or false",
        "Reduce the segment size in TCP handshakes to what the tunnel carries.";
    exit.verify_checksums = "true",
        "true or false",
        "Verify inner checksums before packets are merged; off trusts the tunnel's own tag.";
    clients.endpoint = "none",
        "HOST:PORT, such as \"vpn.example.org:51820\"",
        "Where clients find this gateway; `--endpoint` of `peer add` wins.";
    clients.allowed_ips = "[\"0.0.0.0/0\", \"::/0\"]",
        "prefixes, such as [\"10.77.0.0/24\"]",
        "What clients send into the tunnel; the default is everything.";
    clients.dns = "[]",
        "IP addresses, such as [\"9.9.9.9\", \"2620:fe::fe\"]",
        "DNS servers that clients use while connected; none leaves theirs alone.";
    clients.keepalive = "\"off\"",
        "whole seconds such as \"25s\", or \"off\"",
        "How often clients send an empty packet to stay reachable behind NAT.";
    limits.peers_max = "what the smaller pool holds",
        "a number from 1 to 1000000, such as 250",
        "Most peers in this file.";
    limits.rate_up = "none",
        "a rate such as \"900mbit\"",
        "What all clients of the store may send together.";
    limits.rate_down = "none",
        "a rate such as \"900mbit\"",
        "What all clients of the store may receive together.";
    limits.sessions_max = "100000",
        "a number from 1 to 1000000, such as 5000",
        "Live sessions from which on a gateway under load begins none with strangers.";
    limits.sessions_per_source = "50",
        "a number from 1 to 1000000, such as 500",
        "The same for each client address (IPv6: /64). Raise it where many share one address.";
    limits.half_open_max = "5000",
        "a number from 1 to 1000000, such as 5000",
        "The same for sessions that wait for their client's first packet.";
    limits.handshakes_per_source = "10",
        "a number from 1 to 100000, such as 100",
        "Handshakes per second that a gateway under load answers to each client address.";
    workers.count = "1",
        "a number from 1 to 1024, or \"auto\"",
        "Cores that carry traffic; \"auto\" is one per physical core allowed.";
    workers.oversubscribe = "false",
        "true or false",
        "Allow more workers than CPUs; for tests only.";
    workers.cpus = "all allowed CPUs",
        "a CPU list, such as \"0-3,8\"",
        "CPUs that workers may be pinned to.";
    workers.numa = "\"auto\"",
        "\"auto\", \"off\" or node numbers, such as \"0,1\"",
        "Memory nodes: follow the CPUs, ignore, or only these.";
    workers.control_cpu = "none",
        "a CPU number, such as 0",
        "CPU of the control thread; not pinned by default.";
    workers.driver = "\"auto\"",
        "\"auto\", \"uring\" or \"epoll\"",
        "How packets are read and written; \"auto\" takes the best that the kernel offers.";
    workers.steering = "\"auto\"",
        "\"auto\" or \"off\"",
        "Let the kernel bring packets to the worker that owns their session; off is for tests.";
    workers.spin_us = "\"auto\"",
        "\"auto\", or a number of microseconds from 0 to 1000, such as 20",
        "Look for work so long before sleeping; \"auto\": only while lone packets follow close.";
    workers.sandbox = "\"on\"",
        "\"on\" or \"off\"",
        "Workers give up privileges, files and calls that they do not need; off is for tests.";
    workers.zero_copy = "\"off\"",
        "\"off\", \"auto\" or \"on\"",
        "Send large trains from where they lie: never, where the kernel does not copy, or always.";
    workers.without = "[]",
        "names among \"gro\", \"gso\", \"tun-offload\", \"coalescing\", \"avx512\", \"zero-copy\", \
         \"multishot\", \"deferred\" and \"huge-pages\", or \"all\"",
        "Fast paths to do without, where a kernel or a network card has bugs in one.";
    memory.session_heaps = "\"auto\"",
        "\"auto\", \"always\" or \"never\"",
        "A memory heap of its own per session: while few, always, or never.";
    stats.socket = "\"/run/ringway/NAME.stats\"",
        "the absolute path of a Unix socket",
        "Socket that answers `stats`, `metrics`, `sessions` and `reload`; NAME is the interface's.";
    store.url = "\"sqlite:ringway.db\"",
        "\"sqlite:FILE\", \"postgresql://USER:PASSWORD@HOST/NAME\" or \"off\"",
        "A file of its own (relative to the state folder) for one gateway, a server for a fleet.";
    api.socket = "\"/run/ringway/NAME.api\"",
        "the absolute path of a Unix socket, or \"off\"",
        "Socket of the API; who may open it is an administrator. NAME is the interface's.";
    api.listen = "[]",
        "addresses with port, such as [\"127.0.0.1:8443\"]",
        "Addresses where the API answers too, in their own family: [::] is no 0.0.0.0. Without \
         certificate_file only loopback ones. Each opens by itself, as soon as it is on this host.";
    api.certificate_file = "none",
        "the path of a PEM file",
        "Certificate chain of the API, read again when it changes; until it is there, listen opens \
         nothing. Relative to this file's folder.";
    api.key_file = "none",
        "the path of a PEM file",
        "Private key of the certificate.";
    api.url = "none",
        "an address such as \"https://vpn.example.org:8443\"",
        "How others reach the API; links in invitations begin with it.";
    sign_in.certificate_authorities = "none",
        "the path of a PEM file",
        "Who signs the certificates of clients; without it, none are taken.";
    sign_in.revocation_lists = "[]",
        "paths of PEM or DER files",
        "Certificates that are not valid any more; read again when they change.";
    sign_in.revocation = "\"strict\"",
        "\"strict\" or \"warn\"",
        "Whether a certificate is refused when the list for it is missing or too old.";
    sign_in.ocsp = "\"off\"",
        "\"off\", \"warn\" or \"strict\"",
        "Whether responders are asked if a certificate was revoked, and whether it is refused when \
         they do not say.";
    sign_in.ocsp_responder = "none",
        "an address such as \"http://ocsp.example.org\"",
        "Whom to ask, in place of the responders that certificates name.";
    sign_in.allow = "[]",
        "prefixes, such as [\"192.0.2.0/24\"]",
        "Where people may sign in from; none is everywhere.";
    sign_in.deny = "[]",
        "prefixes, such as [\"198.51.100.0/24\"]",
        "Where they may not, whatever allow says.";
    sign_in.groups_from_credentials = "false",
        "true or false",
        "Whether a token or client certificate that names groups moves its user into the first of \
         them that exists.";
    issuer.name = "required",
        "a name of 1 to 64 letters, digits, \"_\", \"-\", \".\" or \"@\"",
        "What the operator calls it.";
    issuer.issuer = "required",
        "an address such as \"https://id.example.org\"",
        "Who must have issued a token: its \"iss\".";
    issuer.audience = "required",
        "a word such as \"ringway\"",
        "For whom it must have been issued: its \"aud\".";
    issuer.algorithms = "required",
        "names among \"EdDSA\", \"ES256\", \"ES384\", \"RS256\" and \"PS256\"",
        "Signatures that are taken, and no others.";
    issuer.keys = "required",
        "the path of a JWKS file, or its address such as \"https://id.example.org/jwks\"",
        "The issuer's public keys. A file is relative to this file's folder.";
    issuer.user_claim = "\"sub\"",
        "a word such as \"email\"",
        "What of a token is the name of the user.";
    issuer.groups_claim = "none",
        "a word such as \"groups\"",
        "What of a token lists the user's groups.";
    metrics.sessions_max = "0",
        "a number from 0 to 10000, such as 100",
        "Sessions that have series of their own, the busiest first; the rest is one sum.";
    security.core_dumps = "false",
        "true or false",
        "Allow core dumps and debuggers, to look into a crash. Dumps hold keys.";
    security.lock_memory = "false",
        "true or false",
        "Keep everything but packets in memory, so that no key reaches a swap device.";
    log.level = "\"info\"",
        "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        "How much is logged. Addresses of clients appear from \"debug\" on.";
    log.format = "\"text\"",
        "\"text\" or \"json\"",
        "Lines for people, or one JSON object each.";
    log.file = "none",
        "the path of a file",
        "Where lines go instead of standard error. Relative to the state folder.";
    log.connections = "\"full\"",
        "\"full\" or \"no-log\"",
        "Whether it is kept who was connected when and from where; \"no-log\" keeps no address.";
    log.retention = "\"30d\"",
        "a time from \"1d\" to \"3650d\"",
        "How long connections are kept.";
    peer.name = "none",
        "a name of 1 to 64 letters, digits, \"_\", \"-\", \".\" or \"@\"",
        "What the operator calls the peer.";
    peer.public_key = "required",
        "a key of 44 characters of base64, as \"ringway pubkey\" prints",
        "Who the peer is.";
    peer.preshared_key = "none",
        "a key of 44 characters of base64, as \"ringway genpsk\" prints",
        "Secret mixed into every handshake, a second lock. Not together with preshared_key_file.";
    peer.preshared_key_file = "none",
        "the path of a file",
        "The same, kept in a file. Relative to this file's folder.";
    peer.allowed_ips = "[]",
        "prefixes, such as [\"10.77.0.2/32\"]",
        "Inner addresses that the peer may use, and that are sent to it.";
    peer.endpoint = "none",
        "ADDRESS:PORT, such as \"192.0.2.7:51820\" or \"[2001:db8::7]:51820\"",
        "Where the peer is expected, if the gateway should call first. Names are not looked up.";
    peer.keepalive = "\"off\"",
        "whole seconds such as \"25s\", or \"off\"",
        "How often the gateway sends an empty packet to the peer.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_belongs_to_a_section_and_every_section_has_options() {
        for option in OPTIONS {
            assert!(SECTIONS.iter().any(|(name, _)| *name == option.section), "{option:?}");
        }
        for (name, _) in SECTIONS {
            assert!(OPTIONS.iter().any(|option| option.section == *name), "{name}");
        }
    }

    #[test]
    fn the_manual_explains_every_option_with_its_default() {
        let manual = include_str!("../../manual/options.md");
        for option in OPTIONS {
            let line = format!("| `{}` | `{}` | {}", option.key, option.default, option.help);
            assert!(manual.contains(&line), "control/manual/options.md lacks: {line}");
        }
    }
}
