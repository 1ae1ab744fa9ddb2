//! Sessions that live, and what of them is in the connection log.

use ringway_control::store::Page;
use ringway_control::store::query::{ConnectionFilter, OpenSessions, SessionNote};
use ringway_control::store::records::*;

use crate::made;
use crate::world::World;

/// Moments and kinds of all entries, in their order.
fn log(world: &World) -> Vec<(i64, String)> {
    let page = Page { after: None, limit: 1_000 };
    let all = world.read(move |db| db.connections(&ConnectionFilter::default(), &page)).items;
    all.into_iter().map(|entry| (entry.at.0, entry.event)).collect()
}

fn open(world: &World, gateway: &'static str) -> OpenSessions {
    world.read(move |db| db.open_sessions(gateway))
}

pub(crate) fn once(world: &World) {
    let (user, device) = (UserId::fresh(), DeviceId::fresh());
    let begun = |session| made::begun(session, user, device);
    let ended = |session| made::ended(session, user, device, false);
    // Whole and broken chunks; every third has ended in the batch in which it began.
    let first: Vec<SessionNote> = (1..=200)
        .flat_map(|one| {
            let end = (one % 3 == 0).then(|| ended(one));
            [begun(one)].into_iter().chain(end)
        })
        .collect();
    let second: Vec<SessionNote> =
        (1..=150).filter(|one| one % 3 != 0).map(ended).chain([begun(201), ended(201)]).collect();
    let tell = |notes: &[SessionNote], at| {
        // Whoever got no answer tells it again.
        for _ in 0..2 {
            let notes = notes.to_vec();
            world.write(move |db| db.log_sessions("a", &notes, Timestamp(at)));
        }
    };
    tell(&first, 300);
    let known = open(world, "a");
    assert_eq!((known.noted_at, known.last_session), (Some(Timestamp(300)), 200));
    let left: Vec<u64> = known.sessions.iter().map(|one| one.session).collect();
    assert_eq!(left, (1..=200).filter(|one| one % 3 != 0).collect::<Vec<_>>());
    assert_eq!(known.sessions[0], made::open_session(1, user, device));
    tell(&second, 400);
    tell(&[], 500);
    let known = open(world, "a");
    assert_eq!((known.noted_at, known.last_session), (Some(Timestamp(400)), 201));
    assert!(known.sessions.iter().all(|one| one.session > 150));
    let log = log(world);
    let of = |event: &str| log.iter().filter(|(_, found)| found == event).count();
    assert_eq!((of("connected"), of("disconnected")), (201, 200 / 3 + 100 + 1));
    let mut distinct = log.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), log.len(), "nothing twice");
    // An end that nobody knows the beginning of says so itself.
    let (unknown, alone) = (ended(900), made::ended(901, user, device, true));
    world
        .write(move |db| db.log_sessions("a", &[unknown.clone(), alone.clone()], Timestamp(2_000)));
    assert_eq!(self::log(world)[log.len()..], [(1_901, "disconnected".to_owned())]);
}

pub(crate) fn noted(world: &World) {
    let (user, device) = (UserId::fresh(), DeviceId::fresh());
    assert_eq!(open(world, "a"), OpenSessions::default());
    for (gateway, sessions) in [("a", 1..=70), ("b", 50..=60)] {
        let notes: Vec<_> = sessions.map(|one| made::begun(one, user, device)).collect();
        world.write(move |db| db.log_sessions(gateway, &notes, Timestamp(100)));
    }
    let end = made::ended(60, user, device, false);
    world.write(move |db| db.log_sessions("b", std::slice::from_ref(&end), Timestamp(101)));
    assert_eq!((open(world, "a").sessions.len(), open(world, "b").sessions.len()), (70, 10));
    let moved = |session| OpenSession {
        up_bytes: 1 << 50,
        down_bytes: session,
        endpoint: Some("192.0.2.1".to_owned()),
        ..made::open_session(session, user, device)
    };
    let changed: Vec<OpenSession> = (1..=200).map(moved).collect();
    world.write(move |db| db.note_sessions("a", Timestamp(777), &changed));
    let known = open(world, "a");
    assert_eq!((known.noted_at, known.last_session), (Some(Timestamp(777)), 70));
    assert_eq!(known.sessions, (1..=70).map(moved).collect::<Vec<_>>(), "no others");
    let other = open(world, "b");
    assert_eq!(other.noted_at, Some(Timestamp(101)));
    assert!(other.sessions.iter().all(|one| one.up_bytes == one.session), "it is untouched");
    world.write(|db| db.note_sessions("a", Timestamp(800), &[]));
    assert_eq!(open(world, "a").noted_at, Some(Timestamp(800)));
    world.write(|db| db.forget_sessions("a"));
    let known = open(world, "a");
    assert_eq!((known.sessions.len(), known.last_session), (0, 70), "no number is given again");
    assert_eq!(open(world, "b").sessions.len(), 10);
}
