//! A hundred thousand users: how long it takes. Printed, not judged; run with `--ignored`.

use std::time::Instant;

use super::*;
use crate::store::Page;
use crate::store::query::UserFilter;

#[tokio::test]
#[ignore = "takes a minute or more: a measurement, not a test"]
async fn a_hundred_thousand_users_are_made_and_listed() {
    let mut here = surroundings();
    here.pool4 = Some("10.77.0.0/16".parse().unwrap());
    here.addresses[0].prefix = 8;
    here.pool4 = Some("10.0.0.0/15".parse().unwrap());
    let desk = Desk::at("scale", here).await;
    let begun = Instant::now();
    for number in 0..100_000 {
        desk.user(&format!("user{number:06}"), None).await;
    }
    eprintln!("100,000 users made in {:?}", begun.elapsed());
    let begun = Instant::now();
    for number in 0..10_000_u64 {
        let form = NewDevice { public_key: Some(key(number)), ..new_device("one") };
        let user = format!("user{number:06}");
        desk.directory.add_device(&root(), &user, form).await.unwrap();
    }
    eprintln!("10,000 devices with leases added in {:?}", begun.elapsed());
    let begun = Instant::now();
    let (mut page, mut pages, mut slowest) = (Page::first(), 0, begun.elapsed());
    loop {
        let one = Instant::now();
        let rows = desk.directory.users(UserFilter::default(), None, page.clone()).await.unwrap();
        (slowest, pages) = (slowest.max(one.elapsed()), pages + 1);
        let Some(next) = rows.next else { break };
        page.after = Some(next);
    }
    eprintln!("{pages} pages of 1000 listed in {:?}, slowest {slowest:?}", begun.elapsed());
}
