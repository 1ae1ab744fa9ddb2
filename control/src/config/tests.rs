//! The configuration as an operator writes it, well and badly.

use std::path::Path;

use proptest::prelude::*;

use super::*;

const KEY_A: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
const KEY_B: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, "f.toml", Path::new("/etc/ringway"), &Overrides::default())
}

fn refusal(text: &str) -> String {
    match parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(problems) => problems.to_string(),
    }
}

fn peer(key: &str, rest: &str) -> String {
    format!("[[peer]]\npublic_key = \"{key}\"\n{rest}\n")
}

#[test]
fn an_empty_file_is_the_defaults_of_the_manual() {
    let config = parse("").unwrap();
    assert_eq!(config.interface.name, "ringway0");
    assert_eq!(config.interface.listen_port, 51_820);
    assert_eq!(config.interface.private_key_file, Path::new("/etc/ringway/private.key"));
    assert_eq!(config.interface.pool4, Some("10.77.0.0/24".parse().unwrap()));
    assert_eq!(config.interface.addresses[0].to_string(), "10.77.0.1/24");
    assert_eq!(config.interface.addresses[1].to_string(), "fd72:696e:6777::1/64");
    assert!(config.exit.masquerade);
    assert!(!config.exit.enable_forwarding, "the host is not changed unasked");
    assert_eq!(config.limits.peers_max, 253);
    assert_eq!(config.workers.count, WorkerCount::Exactly(1));
    assert_eq!(config.stats.socket, Path::new("/run/ringway/ringway0.stats"));
    assert!(config.peers.is_empty());
    assert!(config.origins.is_empty());
}

#[test]
fn the_defaults_that_are_documented_are_the_defaults_that_apply() {
    let mut text = String::new();
    let lists = ["peer", "issuer"];
    for (section, _) in options::SECTIONS.iter().filter(|(section, _)| !lists.contains(section)) {
        text.push_str(&format!("[{section}]\n"));
        for option in options::OPTIONS.iter().filter(|option| option.section == *section) {
            let literal = option.default.starts_with(['"', '[', 't', 'f'])
                || option.default.starts_with(|first: char| first.is_ascii_digit());
            if literal && option.default != "the first address of each pool" {
                let value = option.default.replace("NAME", "ringway0");
                text.push_str(&format!("{} = {value}\n", option.key));
            }
        }
    }
    assert_eq!(differences(&parse(&text).unwrap(), &parse("").unwrap()), "");
}

/// Every text is refused, and the refusal has all the parts.
fn expect(table: &[(&str, Vec<&str>)]) {
    for (text, parts) in table {
        let message = refusal(text);
        for part in parts {
            assert!(message.contains(part), "for:\n{text}\nlacks: {part}\ngot: {message}");
        }
        assert!(!message.contains(KEY_B), "a secret was printed: {message}");
    }
}

#[test]
fn a_bad_interface_section_says_where_why_and_what_to_write() {
    expect(&[
        ("[interface\n", vec!["f.toml:1:11:", "not valid"]),
        ("[interfce]\n", vec!["f.toml:1:2:", "interfce is not known", "write interface"]),
        ("\n[interface]\nlisten-port = 1", vec!["f.toml:3:1:", "write listen_port"]),
        ("[interface]\nzzz = 1", vec!["f.toml:2:1:", "zzz is not known", "`listen_port`"]),
        ("interface = 5", vec!["f.toml:1:13:"]),
        ("[interface]\nmtu.x = 5", vec!["f.toml:2:", "a value, not a section"]),
        (
            "[interface]\nlisten_port = 70000",
            vec![
                "f.toml:2:15:",
                "listen_port = 70000 is out of range",
                "write a UDP port from 1 to 65535",
                "2 | listen_port = 70000",
            ],
        ),
        ("[interface]\nlisten_port = \"5\"", vec!["f.toml:2:15:", "without quotes"]),
        ("[interface]\nlisten_port = 1.5", vec!["f.toml:2:15:", "not a whole number"]),
        ("[interface]\nlisten_port = 1\nlisten_port = 2", vec!["f.toml:3:1:", "duplicate key"]),
        ("[interface]\nmtu = 100", vec!["f.toml:2:7:", "from 576 to 9216"]),
        ("[interface]\nmtu = 1200", vec!["f.toml:2:7:", "1280 bytes that IPv6 needs"]),
        (
            "[interface]\npools = [\"10.77.0.0/24\"]\naddresses = [\"10.77.0.0/24\"]",
            vec![
                "f.toml:3:13:",
                "is the address of its network",
                "write for example \"10.77.0.1/24\"",
            ],
        ),
        (
            "[interface]\npools = [\"10.0.0.0/24\"]\naddresses = [\"10.0.1.255/23\"]",
            vec!["f.toml:3:13:", "is the broadcast address", "\"10.0.0.1/23\""],
        ),
        ("[interface]\nname = \"lo\"", vec!["f.toml:2:8:", "host talks to itself", "write a name"]),
        (
            "[stats]\nsocket = \"/run/a.sock\"\n[api]\nsocket = \"/run/a.sock\"",
            vec!["f.toml:4:10:", "/run/a.sock", "[stats] and that of [api]"],
        ),
        (
            "[stats]\nsocket = \"/run/ringway/ringway0.api\"",
            vec!["f.toml:2:10:", "write another one"],
        ),
        ("[interface]\nname = \"a/b\"", vec!["f.toml:2:8:", "write a name of 1 to 15 letters"]),
        (
            "[interface]\npools = [\"10.0.0.5/24\"]",
            vec!["f.toml:2:10:", "\"10.0.0.0/24\" is the whole"],
        ),
        (
            "[interface]\npools = [\"10.0.0.0/24\", \"10.0.0.0/25\"]",
            vec!["f.toml:2:25:", "overlap"],
        ),
        ("[interface]\npools = [\"10.0.0.0/24\", \"10.1.0.0/24\"]", vec!["2:25:", "one family"]),
        ("[interface]\npools = [\"10.0.0.0/31\"]", vec!["f.toml:2:10:", "no room", "/30"]),
        ("[interface]\npools = [\"224.0.0.0/24\"]", vec!["f.toml:2:10:", "10.77.0.0/24"]),
        ("[interface]\npools = [\"10.0.0.0/33\"]", vec!["f.toml:2:10:", "prefix length"]),
        ("[interface]\npools = \"10.0.0.0/24\"", vec!["f.toml:2:9:", "not a list in brackets"]),
        ("[interface]\naddresses = [\"10.77.0.1\"]", vec!["f.toml:2:14:", "no prefix length"]),
        ("[interface]\naddresses = [\"10.9.0.1/24\"]", vec!["2:13:", "add \"10.77.0.1/24\""]),
    ]);
}

#[test]
fn any_other_bad_section_says_where_why_and_what_to_write() {
    expect(&[
        ("[exit]\nmasquerade = 1", vec!["f.toml:2:14:", "neither true nor false"]),
        ("[memory]\nsession_heaps = \"some\"", vec!["f.toml:2:17:", "\"always\""]),
        ("[workers]\ncount = 0", vec!["f.toml:2:9:", "from 1 to 1024"]),
        ("[workers]\ncpus = \"3-1\"", vec!["f.toml:2:8:", "ends before it begins"]),
        ("[workers]\ncount = 3\ncpus = \"0,1\"", vec!["f.toml:2:9:", "write count = 2"]),
        ("[workers]\ndriver = \"kqueue\"", vec!["f.toml:2:10:", "or \"epoll\""]),
        ("[workers]\nsteering = \"on\"", vec!["f.toml:2:12:", "write \"auto\" or \"off\""]),
        ("[workers]\nspin_us = 1001", vec!["f.toml:2:11:", "from 0 to 1000"]),
        ("[workers]\nspin_us = \"on\"", vec!["f.toml:2:11:", "write \"auto\", or a number"]),
        ("[workers]\nsandbox = true", vec!["f.toml:2:11:", "write \"on\" or \"off\""]),
        ("[workers]\nzero_copy = true", vec!["f.toml:2:13:", "\"auto\" or \"on\""]),
        ("[workers]\nwithout = [\"gro\", \"lro\"]", vec!["f.toml:2:19:", "\"tun-offload\""]),
        ("[limits]\npeers_max = 300", vec!["f.toml:2:13:", "the 253 clients that the pools hold"]),
        ("[stats]\nsocket = \"a.sock\"", vec!["f.toml:2:10:", "begin with a slash"]),
        ("[clients]\nkeepalive = \"0.5s\"", vec!["f.toml:2:13:", "whole number with one unit"]),
        ("[clients]\nkeepalive = \"20h\"", vec!["f.toml:2:13:", "65535s"]),
        ("[clients]\nendpoint = \"fd00::1:5\"", vec!["f.toml:2:12:", "without brackets"]),
        ("[[peer]]\nname = \"x\"", vec!["f.toml:2:8:", "no public_key"]),
    ]);
}

#[test]
fn a_bad_peer_says_where_why_and_what_to_write() {
    let dup = peer(KEY_A, "name = \"a\"") + &peer(KEY_A, "name = \"b\"");
    let names = peer(KEY_A, "name = \"a\"") + &peer(KEY_B, "name = \"a\"");
    let nets = peer(KEY_A, "allowed_ips = [\"10.77.0.2/32\"]")
        + &peer(KEY_B, "allowed_ips = [\"10.77.0.2\"]");
    let own = peer(KEY_A, "allowed_ips = [\"10.77.0.1/32\"]");
    let both = peer(KEY_A, &format!("preshared_key = \"{KEY_B}\"\npreshared_key_file = \"p\""));
    let bare = peer(KEY_A, "keepalive = 25");
    let unit = peer(KEY_A, "keepalive = \"25sec\"");
    let host = peer(KEY_A, "endpoint = \"example.org:51820\"");
    let short = peer("abc", "");
    expect(&[
        (&short, vec!["f.toml:2:14:", "this has 3", "ringway pubkey"]),
        (&bare, vec!["f.toml:3:13:", "\"25s\" if you mean seconds"]),
        (&unit, vec!["f.toml:3:13:", "write \"25s\""]),
        (&host, vec!["f.toml:3:12:", "a name, not an address"]),
        (&dup, vec!["f.toml:5:14:", "line 2 too"]),
        (&names, vec!["f.toml:6:8:", "name \"a\" belongs to the peer of line 2"]),
        (&nets, vec!["f.toml:6:16:", "10.77.0.2/32 belongs to the peer of line 2"]),
        (&own, vec!["f.toml:3:16:", "gateway's own address"]),
        (&both, vec!["f.toml:4:22:", "contradict each other"]),
    ]);
}

#[test]
fn everything_that_is_wrong_is_reported_at_once_in_the_order_of_the_file() {
    let message = refusal("[interface]\nmtu = 1\nlisten_port = 0\n[exit]\nmasquerade = 5\n");
    let lines: Vec<&str> = message.lines().filter(|line| line.starts_with("f.toml")).collect();
    assert_eq!(lines.len(), 3, "{message}");
    assert!(lines[0].starts_with("f.toml:2:") && lines[2].starts_with("f.toml:5:"), "{message}");
}

#[test]
fn an_address_at_the_end_of_a_network_is_none_of_its_ends() {
    for address in ["10.77.0.254/24", "10.77.0.0/16", "10.77.0.255/16", "10.77.0.1/32"] {
        let both = format!(
            "[interface]\npools = [\"10.77.0.0/24\"]\naddresses = [\"10.77.0.1/24\", \"{address}\"]"
        );
        assert_eq!(parse(&both).is_ok(), address != "10.77.0.0/16", "{address}");
    }
    for address in ["10.9.0.0/31", "10.9.0.1/31", "10.9.0.0/32"] {
        let both = format!(
            "[interface]\naddresses = [\"10.77.0.1/24\", \"fd72:696e:6777::1/64\", \"{address}\"]"
        );
        assert!(parse(&both).is_ok(), "{address}: {:?}", parse(&both).err());
    }
}

#[test]
fn a_prefix_outside_the_pools_is_a_warning_and_not_an_error() {
    let config = parse(&peer(KEY_A, "allowed_ips = [\"192.168.7.0/24\"]")).unwrap();
    let warnings = config.show_warnings("f.toml");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("warning: f.toml:3:16: 192.168.7.0/24 is in no pool"));
}

#[test]
fn flags_win_over_the_file_and_say_so() {
    let overrides = Overrides { count: Some(WorkerCount::Auto), ..Overrides::default() };
    let text = "[workers]\ncount = 2\n";
    let config = Config::parse(text, "f", Path::new("/"), &overrides).unwrap();
    assert_eq!(config.workers.count, WorkerCount::Auto);
    assert_eq!(config.origins.get(&("workers", "count")), Some(&Origin::Flag));
    assert!(config.explain().contains("(command line)\ncount = \"auto\""));
}

#[test]
fn the_explained_configuration_means_the_same() {
    let text = format!(
        "[interface]\nname = \"wg7\"\nfwmark = 0xca6c\n[workers]\ncpus = \"0-2,5\"\ncount = 2\n\
         numa = \"0,1\"\ncontrol_cpu = 7\n[clients]\nendpoint = \"vpn.example.org:7\"\n\
         dns = [\"9.9.9.9\"]\n{}",
        peer(KEY_A, "name = \"a\"\nkeepalive = \"2m\"\nendpoint = \"[fd00::1]:5\"")
    );
    let config = parse(&text).unwrap();
    let again = parse(&config.explain()).unwrap();
    assert_eq!(differences(&config, &again), "");
    let mut peer = again.peers[0].clone();
    peer.line = config.peers[0].line;
    assert_eq!(peer, config.peers[0]);
}

#[test]
fn a_preshared_key_is_never_explained() {
    let text = peer(KEY_A, &format!("preshared_key = \"{KEY_B}\""));
    let explained = parse(&text).unwrap().explain();
    assert!(!explained.contains(KEY_B));
    assert!(explained.contains("is set and not shown"));
}

#[test]
fn a_changed_peer_set_is_a_change_and_nothing_else() {
    let old = peer(KEY_A, "allowed_ips = [\"10.77.0.2\", \"10.77.0.3\"]");
    let new = peer(KEY_A, "allowed_ips = [\"10.77.0.3\", \"10.77.0.4\"]\nkeepalive = \"25s\"")
        + &peer(KEY_B, "");
    let (old, new) = (parse(&old).unwrap(), parse(&new).unwrap());
    let there = diff(&old, &new).unwrap();
    assert_eq!(there.added, new.peers[1..]);
    assert!(there.removed.is_empty());
    let update = &there.changed[0];
    assert_eq!(update.nets_added, ["10.77.0.4/32".parse().unwrap()]);
    assert_eq!(update.nets_removed, ["10.77.0.2/32".parse().unwrap()]);
    assert!(update.keepalive && !update.preshared && !update.endpoint);
    let back = diff(&new, &old).unwrap();
    assert_eq!(back.removed, [new.peers[1].public]);
    assert!(diff(&old, &old).unwrap().is_empty());
}

#[test]
fn a_renamed_peer_changes_nothing_for_the_cores() {
    let old = parse(&peer(KEY_A, "name = \"a\"")).unwrap();
    let new = parse(&peer(KEY_A, "name = \"b\"")).unwrap();
    assert!(diff(&old, &new).unwrap().is_empty());
}

#[test]
fn what_needs_a_restart_is_named_and_refused() {
    let old = parse("").unwrap();
    let new =
        parse("[interface]\nlisten_port = 9\nname = \"x\"\n[exit]\nmasquerade = false").unwrap();
    let error = diff(&old, &new).unwrap_err();
    assert_eq!(error.options, ["[interface] name", "[interface] listen_port", "[exit] masquerade"]);
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    let clients = parse("[clients]\ndns = [\"9.9.9.9\"]").unwrap();
    assert!(diff(&old, &clients).unwrap().is_empty(), "client files are made by peer add only");
}

#[test]
fn a_file_of_many_peers_is_read_in_one_pass() {
    // Twice the work for twice the peers; finding lines from the start took minutes for this file.
    let peers = (2_u32..20_002).map(|number| {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let key = keys::show_public(&ringway_proto::crypto::PublicKey(key));
        peer(&key, &format!("name = \"p{number}\"\nallowed_ips = [\"fd00::{number:x}/128\"]"))
    });
    let text: String = peers.collect();
    let config = parse(&format!("[interface]\npools = [\"fd00::/64\"]\n{text}")).unwrap();
    assert_eq!(config.peers.len(), 20_000);
    assert_eq!(config.peers[19_999].line, 2 + 19_999 * 4 + 2);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[\\[\\]a-z_=\" \n0-9.:/,{}#-]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_value_of_a_known_key_makes_the_parser_panic(
        option in 0..options::OPTIONS.len(),
        value in "(\"[^\"\\\\\n]{0,20}\"|-?[0-9]{1,18}|\\[(\"[0-9a-f.:/]{0,9}\",?){0,3}\\]|true)",
    ) {
        let option = options::OPTIONS[option];
        let (section, key) = (option.section, option.key);
        let text = match section {
            "peer" => format!("[[peer]]\n{key} = {value}\n"),
            _ => format!("[{section}]\n{key} = {value}\n"),
        };
        let _ = parse(&text);
    }
}

/// What differs between two configurations, as far as the gateway can tell.
fn differences(a: &Config, b: &Config) -> String {
    match diff(a, b) {
        Err(error) => error.to_string(),
        Ok(_) if a.clients != b.clients => "clients".to_owned(),
        Ok(_) if a.limits != b.limits => "limits".to_owned(),
        Ok(_) => String::new(),
    }
}

#[test]
fn options_of_workers_that_do_nothing_or_harm_are_warned_about() {
    for (text, expected) in [
        ("[workers]\nsteering = \"off\"\n", "changes nothing with one worker"),
        ("[workers]\nspin_us = 5\noversubscribe = true\n", "takes the CPU from the other"),
    ] {
        let config = parse(text).unwrap();
        let warnings = config.show_warnings("f.toml");
        assert_eq!(warnings.len(), 1, "{text}");
        assert!(
            warnings[0].contains(expected) && warnings[0].contains("f.toml:2:"),
            "{warnings:?}"
        );
    }
    assert!(parse("[workers]\ncount = 2\nsteering = \"off\"\n").unwrap().warnings.is_empty());
}

#[test]
fn what_is_around_the_tunnels_is_read_and_explained_so_that_it_reads_the_same() {
    let text = "[limits]\nrate_up = \"1gbit\"\nsessions_per_source = 500\n\
        [store]\nurl = \"sqlite:users.db\"\n\
        [api]\nlisten = [\"[::1]:80\", \"127.0.0.1:80\", \"127.0.0.1:80\"]\n\
        url = \"https://vpn.example.org/\"\n\
        [sign_in]\ncertificate_authorities = \"ca.pem\"\nrevocation = \"warn\"\n\
        ocsp = \"strict\"\nocsp_responder = \"http://ocsp.example.org:8080/\"\n\
        groups_from_credentials = true\n\
        deny = [\"192.0.2.0/24\"]\n\
        [[issuer]]\nname = \"id\"\nissuer = \"https://id.example.org\"\naudience = \"ringway\"\n\
        algorithms = [\"EdDSA\"]\nkeys = \"jwks.json\"\n\
        [metrics]\nsessions_max = 10\n[log]\nformat = \"json\"\nretention = \"7d\"\n";
    let folder = Path::new("/etc/ringway");
    let read = |text: &str| Config::parse(text, "f.toml", folder, &Overrides::default()).unwrap();
    let config = read(text);
    assert_eq!(config.limits.rate_up_bps, Some(1_000_000_000));
    assert_eq!(config.api.listen.len(), 2);
    assert_eq!(config.api.url.as_deref(), Some("https://vpn.example.org"));
    assert_eq!(config.sign_in.certificate_authorities, Some(folder.join("ca.pem")));
    assert!(config.sign_in.groups_from_credentials);
    assert_eq!(config.sign_in.ocsp, Ocsp::Strict);
    assert_eq!(config.sign_in.ocsp_responder.as_deref(), Some("http://ocsp.example.org:8080"));
    assert!(!parse("").unwrap().sign_in.groups_from_credentials, "who issues decides nothing");
    assert_eq!(config.issuers[0].keys, "/etc/ringway/jwks.json");
    assert_eq!(config.issuers[0].user_claim, "sub");
    let again = read(&config.explain());
    assert_eq!(
        (&again.limits, &again.store, &again.api, &again.sign_in, &again.issuers, &again.log),
        (&config.limits, &config.store, &config.api, &config.sign_in, &config.issuers, &config.log)
    );
}

#[test]
fn what_is_wrong_around_the_tunnels_is_refused_with_what_to_write() {
    for (text, said) in [
        ("[api]\nlisten = [\"0.0.0.0:80\"]", "without encryption"),
        ("[api]\nkey_file = \"a\"", "write both"),
        ("[api]\nurl = \"vpn.example.org\"", "https://"),
        ("[api]\nsocket = \"api.sock\"", "does not begin with a slash"),
        ("[store]\nurl = \"mysql://a\"", "is no store"),
        ("[store]\nurl = \"sqlite:\"", "names no file"),
        ("[limits]\nrate_up = 5", "has no unit"),
        ("[limits]\nrate_down = \"1kbit\"", "less than 8kbit"),
        ("[limits]\nsessions_max = 0", "out of range"),
        ("[log]\nretention = \"5m\"", "out of range"),
        ("[metrics]\nsessions_max = 100000", "out of range"),
        ("[[issuer]]\nname = \"a\"", "the issuer has no issuer"),
        ("[[issuer]]\nkeys = \"http://id.example.org/jwks\"", "without encryption"),
        ("[[issuer]]\nalgorithms = [\"HS256\"]", "is none of the words"),
        ("[[issuer]]\nalgorithms = []", "write at least one"),
        ("[sign_in]\nrevocation = \"maybe\"", "is none of the words"),
    ] {
        let refused = refusal(text);
        assert!(refused.contains(said), "{text}: {refused}");
    }
}

#[test]
fn the_password_of_a_store_is_never_shown() {
    let text = "[store]\nurl = \"postgresql://ringway:hunter2@db/ringway\"\n";
    let config = Config::parse(text, "f", Path::new("/"), &Overrides::default()).unwrap();
    let shown = format!("{} {:?}", config.explain(), config.store);
    assert!(shown.contains("postgresql://ringway:(redacted)@db/ringway"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn whether_credentials_name_groups_changes_with_a_restart_only() {
    let (off, on) =
        (parse("").unwrap(), parse("[sign_in]\ngroups_from_credentials = true").unwrap());
    for (old, new) in [(&off, &on), (&on, &off)] {
        let refused = diff(old, new).unwrap_err();
        assert_eq!(refused.options, ["[sign_in] groups_from_credentials"]);
    }
}
