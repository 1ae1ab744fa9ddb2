//! Usage and connections.

use ringway_control::store::Page;
use ringway_control::store::query::{ConnectionFilter, UsageMark};
use ringway_control::store::records::*;

use crate::made;
use crate::world::World;

pub(crate) fn adds_up(world: &World) {
    let (user, other) = (UserId::fresh(), UserId::fresh());
    let devices: Vec<DeviceId> = (0..150).map(|_| DeviceId::fresh()).collect();
    let mark = |slot, seen| UsageMark {
        page: "w0".to_owned(),
        epoch: u64::MAX - 3,
        slot,
        tag: u64::MAX,
        seen: [seen, u64::MAX, 0, 1],
    };
    let (first, many) = (devices[0], devices.clone());
    world.write(move |db| {
        // The same device twice in one batch, and enough for whole and broken chunks.
        let mut batch = vec![made::usage(user, first, 10, 5), made::usage(user, first, 10, 6)];
        batch.extend(many.iter().map(|device| made::usage(other, *device, 11, 100)));
        db.add_usage(&batch, &[mark(1, 7), mark(1, 8), mark(0, 1)])
    });
    world.write(move |db| db.add_usage(&[made::usage(user, first, 10, 1)], &[mark(0, 2)]));
    let marks = world.read(|db| Ok((db.usage_marks("w0")?, db.usage_marks("w1")?.len())));
    assert_eq!(marks, (vec![mark(0, 2), mark(1, 8)], 0));
    let kept = world.read(move |db| db.usage_of(user, 10, 10));
    let mut sum = made::usage(user, first, 10, 12);
    (sum.up_packets, sum.down_packets) = (9, 12);
    assert_eq!(kept, [sum]);
    let sums = world.read(move |db| {
        Ok((
            db.usage_sum(user, 10)?,
            db.usage_sum(user, 11)?,
            db.usage_sums(0)?,
            db.usage_report(10, 11, 1)?,
            db.usage_of(user, 11, 20)?.len(),
        ))
    });
    let of_other = 150 * 300;
    assert_eq!((sums.0, sums.1, sums.4), (36, 0, 0));
    let mut expected = vec![(user, 36), (other, of_other)];
    expected.sort();
    assert_eq!(sums.2, expected);
    assert_eq!(sums.3, [(other, 150 * 100, 150 * 200)]);

    let huge = Usage { up_bytes: u64::MAX, ..made::usage(user, first, 12, u64::MAX / 2) };
    world.write(move |db| db.add_usage(&[huge.clone(), huge.clone()], &[]));
    assert!(world.read(move |db| db.usage_sum(user, 0)) > 1 << 53);
    world.write(|db| db.drop_usage_marks("w0", u64::MAX - 3));
    assert_eq!(world.read(|db| db.usage_marks("w0")), []);
}

pub(crate) fn connections(world: &World) {
    let (user, other, device) = (UserId::fresh(), UserId::fresh(), DeviceId::fresh());
    let quiet = |at| ConnectionEntry {
        event: "connected".to_owned(),
        endpoint: None,
        reason: None,
        duration_s: None,
        ..made::connection(other, device, at)
    };
    let all: Vec<ConnectionEntry> = (0..100)
        .map(|at| if at % 2 == 0 { made::connection(user, device, at) } else { quiet(at) })
        .collect();
    let given = all.clone();
    world.write(move |db| {
        db.append_connections(&given[..70])?;
        db.append_connections(&[])?;
        db.append_connections(&given[70..])
    });
    let list = |filter: ConnectionFilter| {
        world.read(move |db| db.connections(&filter, &Page::first())).items
    };
    let none = ConnectionFilter::default();
    assert_eq!(list(none.clone()), all);
    let newest = world.read(|db| {
        let filter = ConnectionFilter { newest_first: true, ..ConnectionFilter::default() };
        let first = db.connections(&filter, &Page { after: None, limit: 3 })?;
        let second = db.connections(&filter, &Page { after: first.next.clone(), limit: 2 })?;
        Ok([first.items, second.items].concat())
    });
    let latest: Vec<ConnectionEntry> = all.iter().rev().take(5).cloned().collect();
    assert_eq!(newest, latest);
    assert_eq!(list(ConnectionFilter { user: Some(user), ..none.clone() }).len(), 50);
    assert_eq!(list(ConnectionFilter { device: Some(device), ..none.clone() }).len(), 100);
    let event = Some("connected".to_owned());
    assert_eq!(list(ConnectionFilter { event, ..none.clone() }).len(), 50);
    let (from, until) = (Some(Timestamp(10)), Some(Timestamp(20)));
    assert_eq!(list(ConnectionFilter { from, until, ..none.clone() }), all[10..20]);
    assert_eq!(world.write(|db| db.purge_connections(Timestamp(40))), 40);
    assert_eq!(list(none), all[40..]);
}
