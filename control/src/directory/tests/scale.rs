//! Many users: that making and listing them does not grow with how many there are.

use std::time::Instant;

use super::*;
use crate::store::Page;
use crate::store::query::UserFilter;

/// How many, unless `RINGWAY_TEST_USERS` says otherwise: with 100000 the lines that are printed say
/// how long a large directory takes.
const USERS: u64 = 1000;

#[tokio::test]
async fn many_users_and_their_devices_are_made_and_listed() {
    let users: u64 = std::env::var("RINGWAY_TEST_USERS")
        .map_or(USERS, |text| text.parse().expect("RINGWAY_TEST_USERS is a number"));
    let mut here = surroundings();
    here.addresses[0] =
        crate::config::InterfaceAddress { address: "10.0.0.1".parse().unwrap(), prefix: 8 };
    here.pool4 = Some("10.0.0.0/14".parse().unwrap());
    let desk = Desk::at("scale", here).await;
    let begun = Instant::now();
    for number in 0..users {
        desk.user(&format!("user{number:06}"), None).await;
    }
    eprintln!("{users} users made in {:?}", begun.elapsed());
    let begun = Instant::now();
    for number in 0..users {
        let form = NewDevice { public_key: Some(key(number)), ..new_device("one") };
        let user = format!("user{number:06}");
        let added = desk.directory.add_device(&root(), &user, form).await.unwrap();
        let expected = std::net::Ipv4Addr::from_bits((10 << 24) + 2 + number as u32);
        assert_eq!(added.view.lease.unwrap().address4, Some(expected));
    }
    eprintln!("{users} devices with leases added in {:?}", begun.elapsed());
    let begun = Instant::now();
    let (mut page, mut listed, mut slowest) = (Page::first(), 0, begun.elapsed());
    loop {
        let one = Instant::now();
        let rows = desk.directory.users(UserFilter::default(), None, page.clone()).await.unwrap();
        (slowest, listed) = (slowest.max(one.elapsed()), listed + rows.items.len() as u64);
        let Some(next) = rows.next else { break };
        page.after = Some(next);
    }
    eprintln!("listed in {:?}, the slowest page of 1000 in {slowest:?}", begun.elapsed());
    assert_eq!(listed, users);
}
