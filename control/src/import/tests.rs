#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const GATEWAY: &str = include_str!("samples/gateway.yaml");
const PROXY: &str = include_str!("samples/proxy.toml");
const DISPATCH: &str = include_str!("samples/dispatch.flags");

fn parsed(text: &str) -> Config {
    Config::parse(text, "t", Path::new("/"), &Overrides::default()).unwrap()
}

fn read(kind: Kind, text: &str) -> Result<Vec<Setting>, String> {
    match kind {
        Kind::Gateway => yaml::read(text),
        Kind::Proxy => toml_file::read(text),
        Kind::Dispatch => flags::read(text),
    }
}

#[test]
fn the_gateway_sample_becomes_ours_with_its_port_pool_and_dns() {
    let imported = import(Kind::Gateway, "gateway.yaml", GATEWAY).unwrap();
    let config = parsed(&imported.text);
    assert_eq!(config.interface.listen_port, 1194);
    assert_eq!(config.interface.pool4, Some("10.8.0.0/24".parse().unwrap()));
    assert_eq!(config.clients.dns.len(), 2);
    for expected in [
        "# vpn_gateway.server.listen = 0.0.0.0:1194 (line 4)\nlisten_port = 1194\n",
        "# - vpn_gateway.server.protocol = openvpn (line 5)\n#     waits for PT-7",
        "# - vpn_gateway.authentication.methods = certificate, token (line 9)\n#     is not in the file: `factors`",
        "vpn_gateway.exit_nodes.min_nodes = 5 (line 21)\n#     waits for EX-2",
        "vpn_gateway.qos.classes.1.priority = 2 (line 37)\n#     waits for QS-4",
        "dns_leak_protection = true (line 40)\n#     waits for RT-5",
        "perfect_forward_secrecy = true (line 42)\n#     keys are renewed",
    ] {
        assert!(imported.text.contains(expected), "missing:\n{expected}\nin:\n{}", imported.text);
    }
    assert!(imported.carried >= 6 && imported.left > 15, "{imported:?}");
}

#[test]
fn the_proxy_sample_becomes_ours_with_its_log() {
    let imported = import(Kind::Proxy, "proxy.toml", PROXY).unwrap();
    parsed(&imported.text);
    for expected in [
        "level = \"info\"",
        "server.type = http (line 3)\n#     waits for PT-3",
        "auth.users_file = /etc/proxy/users (line 9)\n#     is not in the file: users",
        "limits.bandwidth_per_user = 100MB (line 12)\n#     is not in the file: `user_rate`",
        "tls.min_version = 1.2 (line 19)\n#     waits for PT-3",
    ] {
        assert!(imported.text.contains(expected), "missing:\n{expected}\nin:\n{}", imported.text);
    }
}

#[test]
fn the_flags_become_ours_and_every_balancer_is_named() {
    let imported = import(Kind::Dispatch, "run.sh", DISPATCH).unwrap();
    let config = parsed(&imported.text);
    assert!(config.exit.masquerade && config.exit.enable_forwarding);
    assert_eq!(config.log.level, crate::config::LogLevel::Debug);
    for expected in [
        "dns-port = 5353 (line 2)\n#     waits for RT-4",
        "balancer = 192.168.1.10@3 (line 3)\n#     waits for EX-4",
        "balancer = 10.81.201.18@2 (line 3)",
        "gateway-ip = 192.168.100.1 (line 1)\n#     waits for RT-8",
    ] {
        assert!(imported.text.contains(expected), "missing:\n{expected}\nin:\n{}", imported.text);
    }
}

#[test]
fn every_setting_of_every_sample_is_in_the_result() {
    for (kind, text) in [(Kind::Gateway, GATEWAY), (Kind::Proxy, PROXY), (Kind::Dispatch, DISPATCH)]
    {
        let settings = read(kind, text).unwrap();
        let imported = import(kind, "sample", text).unwrap();
        assert_eq!(imported.carried + imported.left, settings.len());
        for setting in &settings {
            assert!(imported.text.contains(&shown(setting)), "{setting:?}\n{}", imported.text);
        }
        assert!(!imported.text.contains("nothing is known of it"), "{}", imported.text);
    }
}

#[test]
fn the_kind_is_seen_from_the_name_or_from_what_is_inside() {
    for (path, text, kind) in [
        ("a.yaml", PROXY, Kind::Gateway),
        ("a.YML", PROXY, Kind::Gateway),
        ("a.toml", GATEWAY, Kind::Proxy),
        ("a", GATEWAY, Kind::Gateway),
        ("a", PROXY, Kind::Proxy),
        ("a.sh", DISPATCH, Kind::Dispatch),
        ("a", "10.0.0.1@2 10.0.0.2@1", Kind::Dispatch),
        ("a", "-debug", Kind::Dispatch),
        ("a", "---\na: b\n", Kind::Gateway),
    ] {
        assert_eq!(kind_of(Path::new(path), text), kind, "{path} {text}");
    }
}

#[test]
fn a_value_that_cannot_be_used_is_left_and_spoils_nothing() {
    let text = "vpn_gateway:\n  listen: 192.0.2.1:1194\n  pool: nonsense\n  max_clients: many\n  \
                dns: [9.9.9.9]\n  port: 70000\n  unheard_of: 1\n";
    let imported = import(Kind::Gateway, "x", text).unwrap();
    assert_eq!((imported.carried, imported.left), (1, 6 - 1), "{}", imported.text);
    assert!(imported.text.contains("names one address"), "{}", imported.text);
    assert!(imported.text.contains("nothing is known of it"), "{}", imported.text);
}

#[test]
fn hostile_yaml_is_refused_in_a_sentence_and_at_once() {
    let bomb = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b,*b]\n".to_owned();
    let deep = format!("a: {}", "[".repeat(100_000));
    let deep_map = (0..200).map(|n| format!("{}k:\n", " ".repeat(n))).collect::<String>();
    let wide = (0..20_000).map(|n| format!("k{n}: 1\n")).collect::<String>();
    let large = format!("a: {}", "x".repeat(BYTES_MAX));
    for (text, why) in [
        (bomb, "anchor"),
        ("a: *b\n".to_owned(), "line 1"),
        (deep, "line 1"),
        (deep_map, "deeper than 32"),
        (wide, "more than 10000"),
        (large, "larger than"),
        ("a: !!binary x\n".to_owned(), "tag"),
        ("a: 1\na: 2\n".to_owned(), "twice"),
        ("a: 1\n---\nb: 2\n".to_owned(), "second document"),
        ("[a]: 1\n".to_owned(), "line 1"),
        ("just words".to_owned(), "key: value"),
        ("a: \"open".to_owned(), "no YAML"),
        (String::new(), "no setting"),
    ] {
        let failure = import(Kind::Gateway, "x", &text).unwrap_err();
        assert_eq!(failure.status, Status::Config);
        assert!(failure.message.contains(why), "{why}: {failure}");
        assert!(failure.message.len() < 500, "{failure}");
    }
}

#[test]
fn hostile_toml_and_flags_are_refused_too() {
    let deep = format!("a = {}", "[".repeat(100_000));
    for (kind, text) in [
        (Kind::Proxy, deep.as_str()),
        (Kind::Proxy, "a = 1\na = 2\n"),
        (Kind::Proxy, "a = "),
        (Kind::Dispatch, "-subnet"),
        (Kind::Dispatch, "-subnet -debug"),
        (Kind::Dispatch, "x 'open"),
    ] {
        let failure = import(kind, "x", text).unwrap_err();
        assert!(failure.message.starts_with("x: line "), "{failure}");
    }
}

#[test]
fn words_are_split_as_a_shell_does() {
    let text = "prog -web '80 90' \\\n -x=\"a\\\"b\" # comment -y\n10.0.0.1@1";
    let settings = flags::read(text).unwrap();
    let seen: Vec<_> =
        settings.iter().map(|s| (s.path[0].as_str(), s.values.join("|"), s.line)).collect();
    assert_eq!(
        seen,
        [
            ("web", "80 90".to_owned(), 1),
            ("x", "a\"b".to_owned(), 2),
            ("balancer", "10.0.0.1@1".to_owned(), 3)
        ]
    );
}

proptest! {
    #[test]
    fn no_text_panics_or_gets_out_of_its_comment(text in any::<String>(), noise in "[-a-z:\\[\\]{}&*!|>'\"@=# \n]{0,200}") {
        for kind in [Kind::Gateway, Kind::Proxy, Kind::Dispatch] {
            for text in [&text, &noise] {
                if let Ok(imported) = import(kind, "x", text) {
                    parsed(&imported.text);
                }
            }
        }
    }

    #[test]
    fn what_is_in_a_value_stays_there(value in any::<String>()) {
        let quoted = serde_json::to_string(&value).unwrap();
        let text = format!("vpn_gateway:\n  dns: {quoted}\n  kill_switch: {quoted}\n  listen: {quoted}\n");
        if let Ok(imported) = import(Kind::Gateway, "x", &text) {
            let config = parsed(&imported.text);
            prop_assert!(config.peers.is_empty());
            let plain = |line: &str| line.is_empty() || line.starts_with(['#', '['])
                || ["dns = ", "listen_port = "].iter().any(|key| line.starts_with(key));
            prop_assert!(imported.text.lines().all(plain), "{}", imported.text);
        }
    }
}
