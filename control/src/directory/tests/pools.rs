//! Pools: what overlaps, what is outside, who is in the way.

use super::*;
use crate::directory::input::{NewPool, Patch, PoolPatch};
use crate::directory::surroundings::FilePeer;

fn new_pool(name: &str, net4: &str, net6: &str) -> NewPool {
    let net = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    NewPool { name: name.to_owned(), net4: net(net4), net6: net(net6), ..NewPool::default() }
}

#[tokio::test]
async fn a_pool_that_overlaps_or_lies_outside_is_refused_at_its_place() {
    let mut here = surroundings();
    here.peers.push(FilePeer {
        name: "site".to_owned(),
        public: ringway_proto::crypto::PublicKey([9; 32]),
        nets: vec!["10.77.64.0/18".parse().unwrap()],
    });
    let desk = Desk::at("pool_wrong", here).await;
    for (net4, net6, place, part) in [
        ("10.77.0.128/25", "", "/net4", "overlaps 10.77.0.0/24 of the pool \"default\""),
        ("10.77.0.0/16", "", "/net4", "overlaps"),
        ("", "fd00:77::/80", "/net6", "overlaps"),
        ("10.78.0.0/24", "", "/net4", "not inside the interface's"),
        ("", "fd00:78::/64", "/net6", "not inside the interface's"),
        ("10.77.65.0/24", "", "/net4", "peer \"site\""),
        ("10.77.1.1/24", "", "/net4", "write \"10.77.1.0/24\""),
        ("10.77.1.0/31", "", "/net4", "/30"),
        ("fd00:77:1::/64", "", "/net4", "belongs in net6"),
        ("", "10.77.1.0/24", "/net6", "belongs in net4"),
        ("", "", "/net4", "needs net4"),
        ("x", "", "/net4", "not an IP address"),
    ] {
        let form = new_pool("p", net4, net6);
        let refusal = desk.directory.create_pool(&root(), form).await.unwrap_err();
        assert_eq!(places(&refusal), [place], "{net4} {net6}: {refusal}");
        assert!(refusal.to_string().contains(part), "{refusal} lacks {part}");
    }
    desk.directory.create_pool(&root(), new_pool("p", "10.77.1.0/24", "")).await.unwrap();
    let range = |first: &str, last: &str| NewPool {
        range4: Some((first.parse().unwrap(), last.parse().unwrap())),
        ..new_pool("q", "10.77.2.0/24", "")
    };
    let outside = desk.directory.create_pool(&root(), range("10.77.1.9", "10.77.3.0")).await;
    assert_eq!(places(&outside.unwrap_err()), ["/range4/0", "/range4/1"]);
    let turned = desk.directory.create_pool(&root(), range("10.77.2.9", "10.77.2.8")).await;
    assert_eq!(places(&turned.unwrap_err()), ["/range4"]);
}

#[tokio::test]
async fn a_pool_is_not_made_smaller_below_what_is_leased() {
    let desk = Desk::new("pool_shrink").await;
    desk.user("ada", None).await;
    for number in 0..5 {
        desk.device("ada", &format!("d{number}")).await;
    }
    let range = |first: &str, last: &str| PoolPatch {
        range4: Patch::Set((first.parse().unwrap(), last.parse().unwrap())),
        ..PoolPatch::default()
    };
    let patch = range("10.77.0.4", "10.77.0.200");
    let refusal = desk.directory.patch_pool(&root(), "default", None, patch).await.unwrap_err();
    let text = refusal.to_string();
    assert_eq!(refusal.reason(), "in_use");
    assert!(text.contains("ada/d0 (10.77.0.2, fd00:77::2)") && text.contains("ada/d1"), "{text}");
    assert!(!text.contains("ada/d2"), "{text}");
    let patch = range("10.77.0.2", "10.77.0.6");
    desk.directory.patch_pool(&root(), "default", None, patch).await.unwrap();
    let full = desk.directory.pool("default").await.unwrap();
    assert_eq!(full.1, 0);
    let in_use = desk.directory.remove_pool(&root(), "default", None).await.unwrap_err();
    assert_eq!(in_use.reason(), "conflict");
}

#[tokio::test]
async fn the_pool_default_follows_the_configuration_unless_somebody_is_in_the_way() {
    let desk = Desk::new("pool_default").await;
    let directory = &desk.directory;
    let mut here = surroundings();
    here.pool4 = Some("10.77.4.0/24".parse().unwrap());
    assert!(directory.check_surroundings(here.clone()).await.unwrap().is_empty());
    directory.set_surroundings(here);
    directory.take_configured_pools().await.unwrap();
    assert_eq!(directory.pool("default").await.unwrap().0.net4.unwrap(), "10.77.4.0/24");
    desk.user("ada", None).await;
    desk.device("ada", "one").await;
    let before = directory.pool("default").await.unwrap();
    let wrong = directory.check_surroundings(surroundings()).await.unwrap();
    assert!(wrong.len() == 1 && wrong[0].contains("ada/one"), "{wrong:?}");
    directory.set_surroundings(surroundings());
    let refusal = directory.take_configured_pools().await.unwrap_err();
    assert_eq!(refusal.reason(), "in_use");
    assert_eq!(directory.pool("default").await.unwrap().0, before.0);
    // A peer of the file that takes the device's address is in the way too.
    let mut here = surroundings();
    here.pool4 = Some("10.77.4.0/24".parse().unwrap());
    here.peers.push(FilePeer {
        name: "site".to_owned(),
        public: ringway_proto::crypto::PublicKey([9; 32]),
        nets: vec!["10.77.4.2/32".parse().unwrap()],
    });
    let wrong = directory.check_surroundings(here).await.unwrap();
    assert!(wrong.len() == 1 && wrong[0].contains("ada/one"), "{wrong:?}");
}

#[test]
fn a_configuration_that_promises_more_clients_than_its_pools_hold_is_refused() {
    let mut here = surroundings();
    let mut default = pool("default", "10.8.0.0/24", "");
    default.range4 = Some(("10.8.0.100".parse().unwrap(), "10.8.0.200".parse().unwrap()));
    here.peers_max = 101;
    keeps_promise(&default, &here).unwrap();
    here.peers_max = 1000;
    let refusal = keeps_promise(&default, &here).unwrap_err().to_string();
    for part in ["101 clients", "promises 1000", "peers_max = 101"] {
        assert!(refusal.contains(part), "{refusal} lacks {part}");
    }
}
