#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const NO_LOG: Privacy = Privacy { mode: Mode::NoLog, show_live: false, retention_days: 1 };

fn no_log() -> Scrub {
    Scrub::new(Mode::NoLog, vec!["10.77.0.0/24".parse().unwrap(), "fd72::/64".parse().unwrap()])
}

#[test]
fn in_full_everything_is_kept_and_shown() {
    let address: SocketAddr = "192.0.2.1:7".parse().unwrap();
    let privacy = Privacy::default();
    assert_eq!(privacy.keep(address), Some(address));
    assert_eq!(privacy.show(address), Some(address));
    assert_eq!(privacy.redact(address).to_string(), "192.0.2.1:7");
    assert_eq!(serde_json::to_value(privacy.redact(address)).unwrap(), "192.0.2.1:7");
    assert_eq!(Scrub::default().text("from 192.0.2.1"), "from 192.0.2.1");
}

#[test]
fn without_a_log_nothing_is_kept_and_what_lives_is_shown_only_if_asked_for() {
    let address: SocketAddr = "192.0.2.1:7".parse().unwrap();
    assert_eq!(NO_LOG.keep(address), None);
    assert_eq!(NO_LOG.show(address), None);
    assert_eq!(Privacy { show_live: true, ..NO_LOG }.show(address), Some(address));
    assert_eq!(Privacy { show_live: true, ..NO_LOG }.keep(address), None);
    assert_eq!(NO_LOG.keep_seen(Timestamp(7)), None);
    let redacted = NO_LOG.redact(address);
    assert_eq!(format!("{redacted} {redacted:?}"), "not-kept not-kept");
    assert!(serde_json::to_value(redacted).unwrap().is_null());
    assert_eq!(redacted.into_kept(), None);
}

#[test]
fn what_is_older_than_the_retention_is_purged() {
    let now = Timestamp(10 * DAY_MS);
    assert_eq!(NO_LOG.purge_before(now), Some(Timestamp(9 * DAY_MS)));
    assert_eq!(Privacy { retention_days: 0, ..NO_LOG }.purge_before(now), None);
    let longest = Privacy { retention_days: RETENTION_DAYS_MAX, ..NO_LOG };
    assert!(longest.purge_before(now).unwrap() < Timestamp(0));
}

#[test]
fn addresses_of_clients_are_taken_out_however_they_are_written() {
    for (text, expected) in [
        ("from 192.0.2.1", "from not-kept"),
        ("from 192.0.2.1:51820, again", "from not-kept:51820, again"),
        ("moved 198.51.100.7.", "moved not-kept."),
        ("peer198.51.100.7", "peernot-kept"),
        ("[2001:db8::1]:7 moved", "[not-kept]:7 moved"),
        ("2001:db8::1", "not-kept"),
        ("fe80::1%3 moved", "not-kept%3 moved"),
        ("[::ffff:192.0.2.1]:7", "[not-kept]:7"),
        ("2001:db8:0:0:0:0:0:1 to 203.0.113.9", "not-kept to not-kept"),
        ("[203, 0, 113, 9]", "[not-kept]"),
        ("[203, 0, 113, 9, 1]", "[not-kept, 1]"),
        ("a=203.0.113.9;b=203.0.113.10", "a=not-kept;b=not-kept"),
    ] {
        assert_eq!(no_log().text(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_address_of_a_client_stays() {
    for text in [
        "Serving 0.0.0.0:51820 and [::]:51820",
        "127.0.0.1, ::1 and ::ffff:127.0.0.1",
        "pool 10.77.0.0/24, fd72::/64, 10.77.0.9",
        "ringway_control::gateway::desk: at 00:53:20",
        "Cannot open /dev/net/tun (os error 2)",
        "version 1.2.3, 5 of 10, 20, 30",
        "dead_beef::x, x::y",
        "",
    ] {
        assert_eq!(no_log().text(text), text);
    }
}

proptest! {
    #[test]
    fn no_address_passes_wherever_it_stands(
        octets in any::<[u8; 4]>(),
        groups in any::<[u16; 8]>(),
        port in any::<u16>(),
        before in "[a-zA-Z_ =(\\[\"]{0,4}",
        after in "[ ,;)\\]\"]{0,4}",
    ) {
        let v4 = IpAddr::from(octets);
        let v6 = IpAddr::from(groups);
        prop_assume!(!is_nobodys(v4) && !no_log().own.iter().any(|net| net.contains(v4)));
        prop_assume!(!is_nobodys(v6) && !no_log().own.iter().any(|net| net.contains(v6)));
        let socket4 = SocketAddr::from((v4, port));
        let socket6 = SocketAddr::from((v6, port));
        let mapped = Ipv4Addr::from(octets).to_ipv6_mapped();
        for shown in [v4.to_string(), socket4.to_string(), format!("{octets:?}")] {
            let text = no_log().text(&format!("{before}{shown}{after}")).into_owned();
            prop_assert!(text.contains(NOT_KEPT) && !text.contains(&v4.to_string()), "{}", text);
        }
        for shown in [socket6.to_string(), format!("[{mapped}]:1"), format!("{v6:?}")] {
            let text = no_log().text(&format!("from {shown}{after}")).into_owned();
            prop_assert!(text.contains(NOT_KEPT), "{}", text);
            prop_assert!(!text.contains(&v6.to_string()) && !text.contains(&v4.to_string()));
        }
    }

    #[test]
    fn scrubbing_never_fails(text in any::<String>(), noise in "[0-9a-f:., ]{0,60}") {
        let _ = no_log().text(&text);
        let once = no_log().text(&noise).into_owned();
        prop_assert_eq!(no_log().text(&once).into_owned(), once.clone());
    }
}
