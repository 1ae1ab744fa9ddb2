//! Devices: keys, caps, client files.

use super::*;
use crate::directory::input::{DevicePatch, NewPolicy, Patch, RotateKey, UserPatch};
use crate::directory::surroundings::FilePeer;
use crate::keys;
use crate::store::records::KeyOrigin;

fn with_key(name: &str, key: String) -> NewDevice {
    NewDevice { public_key: Some(key), ..new_device(name) }
}

#[tokio::test]
async fn a_key_that_is_made_here_is_handed_out_once_and_not_kept() {
    let desk = Desk::new("device_made").await;
    desk.user("ada", None).await;
    let added = desk.device("ada", "Laptop").await;
    let device = &added.view.device;
    assert_eq!((device.name.as_str(), device.key_origin), ("laptop", KeyOrigin::Gateway));
    assert!(added.file.has_private_key);
    let line = |name: &str| {
        let found = added.file.text.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name} in {}", *added.file.text)).to_owned()
    };
    let private = keys::parse_private(&line("PrivateKey = ")).unwrap();
    assert_eq!(private.public(), device.public_key);
    assert_eq!(line("Address = "), "10.77.0.2/32, fd00:77::2/128");
    assert_eq!(line("Endpoint = "), "vpn.example.org:51820");
    let id = device.id;
    let kept = desk.directory.store().read(move |db| db.device_secrets(id)).await.unwrap();
    assert_eq!(line("PresharedKey = "), *keys::encode(&kept.preshared.0));
    let again = desk.directory.client_file("ada", "laptop").await.unwrap_err();
    assert!(again.to_string().contains("rotate the key"), "{again}");
    assert!(added.file.svg().unwrap().starts_with("<svg "));
}

#[tokio::test]
async fn a_device_that_keeps_its_key_gets_a_file_without_secrets_as_often_as_it_wants() {
    let desk = Desk::new("device_key").await;
    let policy = NewPolicy {
        name: "split".to_owned(),
        routes: vec!["10.0.0.0/8".to_owned()],
        dns: vec!["10.0.0.53".parse().unwrap()],
        ..NewPolicy::default()
    };
    desk.directory.create_policy(&root(), policy).await.unwrap();
    let ada = NewUser { policy: Some("split".to_owned()), ..new_user("ada") };
    desk.directory.create_user(&root(), ada).await.unwrap();
    let added = desk.directory.add_device(&root(), "ada", with_key("a", key(1))).await.unwrap();
    let text = desk.directory.client_file("ada", "a").await.unwrap().text;
    assert_eq!(*text, *added.file.text);
    assert!(!text.contains("\nPrivateKey") && !text.contains("PresharedKey"), "{}", *text);
    assert!(text.contains("AllowedIPs = 10.0.0.0/8\n") && text.contains("DNS = 10.0.0.53\n"));
}

#[tokio::test]
async fn a_key_that_is_weak_taken_or_no_key_is_refused_at_its_place() {
    let mut here = surroundings();
    let parse = |text: &str| keys::parse_public(text).unwrap();
    here.gateway = parse(&key(1000));
    let peer = FilePeer { name: "site".to_owned(), public: parse(&key(1001)), nets: Vec::new() };
    here.peers.push(peer);
    let desk = Desk::at("device_weak", here).await;
    desk.user("ada", None).await;
    desk.user("bob", None).await;
    let directory = &desk.directory;
    directory.add_device(&root(), "bob", with_key("one", key(1))).await.unwrap();
    let encoded = |bytes: [u8; 32]| keys::encode(&bytes).to_string();
    let (mut one, mut high, mut prime) = ([0; 32], [0x11; 32], [0xff; 32]);
    (one[0], high[31], prime[0], prime[31]) = (1, 0x80, 0xed, 0x7f);
    // p + 1 is another spelling of 1, and a point of low order.
    let order8 = "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=".to_owned();
    for (text, part) in [
        (String::new(), "44 characters"),
        ("x".repeat(44), "base64"),
        (encoded([0; 32]), "zeros"),
        (encoded(one), "weak"),
        (order8, "weak"),
        (encoded(high), "canonical"),
        (encoded(prime), "canonical"),
        (key(1000), "gateway's own"),
        (key(1001), "\"site\""),
        (key(1), "Another device"),
    ] {
        let refusal = directory.add_device(&root(), "ada", with_key("x", text)).await.unwrap_err();
        assert_eq!(places(&refusal), ["/public_key"], "{refusal}");
        assert!(refusal.to_string().contains(part), "{refusal} lacks {part}");
    }
    assert!(directory.devices_of("ada").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_user_has_as_many_devices_as_its_policy_says_and_each_name_once() {
    let desk = Desk::new("device_cap").await;
    let policy = NewPolicy { name: "two".to_owned(), devices_max: Some(2), ..NewPolicy::default() };
    desk.directory.create_policy(&root(), policy).await.unwrap();
    let ada = NewUser { policy: Some("two".to_owned()), ..new_user("ada") };
    desk.directory.create_user(&root(), ada).await.unwrap();
    desk.device("ada", "one").await;
    let twice = desk.directory.add_device(&root(), "ada", new_device("ONE")).await.unwrap_err();
    assert_eq!(places(&twice), ["/name"]);
    desk.device("ada", "two").await;
    let third = desk.directory.add_device(&root(), "ada", new_device("three")).await.unwrap_err();
    assert!(matches!(third, Refusal::Full(_)), "{third:?}");
    assert!(third.to_string().contains("has 2 devices and may have 2"), "{third}");
    desk.directory.remove_device(&root(), "ada", "one", None).await.unwrap();
    desk.device("ada", "three").await;
    let other = desk.user("bob", None).await;
    desk.device(&other.name, "two").await;
}

#[tokio::test]
async fn a_new_key_keeps_the_addresses_and_ends_the_old_key() {
    let desk = Desk::new("device_rotate").await;
    let ada = desk.user("ada", None).await;
    let before = desk.device("ada", "one").await.view;
    let form = RotateKey { public_key: Some(key(5)) };
    let mine = as_user(&ada);
    let mut changes = desk.directory.changes();
    let after = desk.directory.rotate_key(&mine, "ada", "one", Some(1), form).await.unwrap();
    assert_eq!(after.view.lease, before.lease);
    assert_eq!(keys::show_public(&after.view.device.public_key), key(5));
    assert_eq!(after.view.device.key_origin, KeyOrigin::Device);
    assert_eq!(changes.try_recv(), Ok(Change::Device(before.device.id)));
    let id = before.device.id;
    let secrets = desk.directory.store().read(move |db| db.device_secrets(id)).await.unwrap();
    assert!(!secrets.preshared.is_set(), "it was known to the old owner of the file");
    let again = RotateKey { public_key: Some(key(5)) };
    let same = desk.directory.rotate_key(&mine, "ada", "one", None, again).await.unwrap_err();
    assert_eq!(places(&same), ["/public_key"]);
}

#[tokio::test]
async fn an_owner_disables_a_device_and_only_an_operator_lets_it_in_again() {
    let desk = Desk::new("device_disable").await;
    let ada = desk.user("ada", None).await;
    let mine = as_user(&ada);
    desk.device("ada", "one").await;
    let enabled = |enabled| DevicePatch { enabled: Patch::Set(enabled), ..DevicePatch::default() };
    let off = desk.directory.patch_device(&mine, "ada", "one", Some(1), enabled(false)).await;
    assert!(!off.unwrap().enabled);
    let on = desk.directory.patch_device(&mine, "ada", "one", None, enabled(true)).await;
    assert_eq!(on.unwrap_err().reason(), "forbidden");
    desk.directory.patch_device(&root(), "ada", "one", None, enabled(true)).await.unwrap();
    let null = DevicePatch { name: Patch::Clear, ..DevicePatch::default() };
    let null = desk.directory.patch_device(&root(), "ada", "one", None, null).await.unwrap_err();
    assert_eq!(places(&null), ["/name"]);
    let bob = as_user(&desk.user("bob", None).await);
    let foreign = desk.directory.remove_device(&bob, "ada", "one", None).await.unwrap_err();
    assert_eq!(foreign.reason(), "forbidden");
}

#[tokio::test]
async fn access_lasts_as_long_as_the_policy_says_and_is_renewed_without_a_new_key() {
    let desk = Desk::new("device_access").await;
    let ada = desk.user("ada", None).await;
    let (mine, directory) = (as_user(&ada), &desk.directory);
    let none = directory.grant_access(&mine, "ada", None).await.unwrap_err();
    assert_eq!(none.reason(), "conflict");
    desk.device("ada", "one").await;
    desk.device("ada", "two").await;
    let first = directory.grant_access(&mine, "ada", None).await.unwrap();
    let day = 86_400_000;
    assert_eq!((first.devices.len(), first.until), (2, Some(START.plus_ms(day))));
    desk.pass_ms(day / 2);
    let renewed = directory.grant_access(&mine, "ada", Some("ONE".to_owned())).await.unwrap();
    assert_eq!(renewed.until, Some(START.plus_ms(day + day / 2)));
    let until = |device: &str| {
        let device = device.to_owned();
        async move { directory.device("ada", &device).await.unwrap().device.access_until }
    };
    assert_eq!((until("one").await, until("two").await), (renewed.until, first.until));
    directory.end_access(&mine, "ada", Some("one".to_owned())).await.unwrap();
    assert_eq!((until("one").await, until("two").await), (None, first.until));
    let patch = UserPatch { expires_at: Patch::Set(START.plus_ms(day)), ..UserPatch::default() };
    directory.patch_user(&root(), "ada", None, patch).await.unwrap();
    desk.pass_ms(day);
    let late = directory.grant_access(&mine, "ada", None).await.unwrap_err();
    assert_eq!(late.reason(), "forbidden");
}

#[tokio::test]
async fn the_owner_of_a_disabled_device_does_not_bring_its_key_back() {
    let desk = Desk::new("device_disabled").await;
    let (d, me) = (&desk.directory, as_user(&desk.user("ada", None).await));
    let form = || NewDevice { public_key: Some(key(1)), ..new_device("phone") };
    d.add_device(&me, "ada", form()).await.unwrap();
    let off = DevicePatch { enabled: Patch::Set(false), ..Default::default() };
    d.patch_device(&root(), "ada", "phone", None, off).await.unwrap();
    let refusal = d.remove_device(&me, "ada", "phone", None).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Forbidden(_)), "{refusal:?}");
    let again = NewDevice { name: "other".to_owned(), ..form() };
    let refusal = d.add_device(&me, "ada", again).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Taken { .. }), "{refusal:?}");
    d.remove_device(&root(), "ada", "phone", None).await.unwrap();
}
