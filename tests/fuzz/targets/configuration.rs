//! What operators and their tools write: the configuration file and the configuration socket.

use std::path::Path;

use ringway_control::config::{Config, Overrides};
use ringway_control::peers::edit;
use ringway_control::uapi::parse::{Parser, Request};
use ringway_proto::crypto::{PresharedKey, PublicKey};

use super::input::Input;

/// Requests come out the same however the bytes were cut on their way.
pub(crate) fn requests_are_parsed_whatever_the_chunks(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let chunk = usize::from(input.byte()) + 1;
    let text = input.take(usize::MAX);
    let whole = requests(std::iter::once(text));
    assert_eq!(whole, requests(text.chunks(chunk)));
    assert_eq!(whole, requests(text.chunks(1)));
}

fn requests<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Request> {
    let mut parser = Parser::new(|name| (name == "eth0").then_some(2));
    let mut requests = Vec::new();
    for mut rest in chunks {
        while !rest.is_empty() {
            let (taken, request) = parser.feed(rest);
            assert!(taken > 0 && taken <= rest.len());
            assert!(request.is_some() || taken == rest.len());
            rest = &rest[taken..];
            let hung_up = matches!(request, Some(Request::HangUp(_)));
            requests.extend(request);
            if hung_up {
                return requests;
            }
        }
    }
    requests.extend(parser.finish());
    requests
}

/// Any text is a configuration or is refused with places that exist; a peer that is added and
/// removed again leaves the other peers as they were.
pub(crate) fn a_file_is_accepted_or_refused_with_a_line(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parse =
        |text: &str| Config::parse(text, "a.toml", Path::new("/etc"), &Overrides::default());
    let config = match parse(text) {
        Ok(config) => config,
        Err(problems) => {
            assert!(!problems.list.is_empty());
            for problem in &problems.list {
                // A problem at the end of the file may be on the line after the last one.
                assert!(problem.line <= text.lines().count() + 1, "{problem:?}");
                assert!(!problem.message.is_empty() && !problem.show("a.toml").is_empty());
            }
            return;
        }
    };
    let _ = (config.explain(), config.show_warnings("a.toml"));
    let public = PublicKey([0x5a; 32]);
    if config.peers.iter().any(|peer| peer.public == public) {
        return;
    }
    let entry = edit::Entry {
        name: "fuzzed".to_owned(),
        public,
        preshared: PresharedKey([3; 32]),
        allowed_ips: vec!["192.0.2.77".parse().expect("an address")],
    };
    let Ok(with) = edit::add(text, &entry) else { return };
    let without = edit::remove(&with, &public).expect("was written by us").expect("is there");
    let back = parse(&without).expect("was a configuration before");
    let keys = |config: &Config| config.peers.iter().map(|peer| peer.public).collect::<Vec<_>>();
    assert_eq!(keys(&back), keys(&config));
}
