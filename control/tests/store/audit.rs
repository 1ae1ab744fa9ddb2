//! The audit log.

use ringway_control::store::Page;
use ringway_control::store::audit::AuditHead;
use ringway_control::store::query::AuditFilter;
use ringway_control::store::records::Timestamp;
use serde_json::json;

use crate::world::World;

/// Five entries by two people.
fn fill(world: &World) -> AuditHead {
    world.write(|db| {
        for number in 1..=5 {
            let actor = if number % 2 == 0 { "user:ada" } else { "local:0" };
            let detail = json!({ "after": { "number": number }, "before": "\u{1f98a} \" '" });
            db.append_audit(Timestamp(number), actor, "user.update", "bob", &detail)?;
        }
        db.audit_head()
    })
}

pub(crate) fn holds(world: &World) {
    assert_eq!(world.read(|db| db.verify_audit()), Ok(0));
    let empty = world.read(|db| db.audit_head());
    let head = fill(world);
    assert_eq!((empty.sequence, head.sequence), (0, 5));
    assert_eq!(world.read(|db| db.verify_audit()), Ok(5));
    for head in [empty, head.clone()] {
        assert_eq!(world.read(move |db| db.verify_audit_since(&head)), Ok(5));
    }
    let wrong = AuditHead { hash: "0".repeat(64), ..head.clone() };
    assert_eq!(world.read(move |db| db.verify_audit_since(&wrong)).unwrap_err().sequence, 5);
    let list = |filter: AuditFilter| {
        let rows = world.read(move |db| db.audit(&filter, &Page::default()));
        rows.items.into_iter().map(|entry| entry.sequence).collect::<Vec<_>>()
    };
    let all = AuditFilter::default();
    assert_eq!(list(all.clone()), [1, 2, 3, 4, 5]);
    assert_eq!(list(AuditFilter { newest_first: true, ..all.clone() }), [5, 4, 3, 2, 1]);
    let actor = Some("user:ada".to_owned());
    assert_eq!(list(AuditFilter { actor, ..all.clone() }), [2, 4]);
    let (from, until) = (Some(Timestamp(2)), Some(Timestamp(4)));
    assert_eq!(list(AuditFilter { from, until, ..all.clone() }), [2, 3]);
    let action = Some("user.remove".to_owned());
    assert_eq!(list(AuditFilter { action, ..all }), [0; 0]);
    let last = world.read(|db| db.audit(&AuditFilter::default(), &Page::default()));
    let last = last.items.last().cloned().unwrap();
    assert_eq!((last.hash, last.detail["after"]["number"].as_i64()), (head.hash, Some(5)));
}

/// Statements behind the store's back, and the entry at which they are found.
const TAMPERING: &[(&str, u64)] = &[
    ("UPDATE audit SET actor = 'user:eve' WHERE sequence = 2", 2),
    ("UPDATE audit SET object = 'eve' WHERE sequence = 3", 3),
    ("UPDATE audit SET detail = '{}' WHERE sequence = 1", 1),
    ("UPDATE audit SET action = 'user.insert' WHERE sequence = 4", 4),
    ("UPDATE audit SET at = at + 1 WHERE sequence = 5", 5),
    ("UPDATE audit SET salt = digest WHERE sequence = 2", 2),
    ("UPDATE audit SET digest = hash WHERE sequence = 2", 2),
    ("UPDATE audit SET hash = digest WHERE sequence = 3", 3),
    ("DELETE FROM audit WHERE sequence = 1", 1),
    ("DELETE FROM audit WHERE sequence = 3", 3),
    ("DELETE FROM audit WHERE sequence = 5", 5),
    ("DELETE FROM audit", 1),
    (
        "UPDATE audit SET sequence = 90 WHERE sequence = 2;
         UPDATE audit SET sequence = 2 WHERE sequence = 3;
         UPDATE audit SET sequence = 3 WHERE sequence = 90",
        2,
    ),
    (
        "INSERT INTO audit (sequence, at, action, salt, actor, object, detail, digest, hash)
         SELECT 6, at, action, salt, actor, object, detail, digest, hash FROM audit
         WHERE sequence = 5",
        6,
    ),
    (
        "INSERT INTO audit (sequence, at, action, salt, actor, object, detail, digest, hash)
         SELECT -1, at, action, salt, actor, object, detail, digest, hash FROM audit
         WHERE sequence = 5",
        1,
    ),
    (
        "UPDATE audit SET salt = NULL, actor = NULL, object = NULL, detail = NULL WHERE sequence = 2",
        2,
    ),
    ("UPDATE audit SET actor = NULL WHERE sequence = 4", 4),
    ("UPDATE counters SET value = 7 WHERE name = 'audit'", 6),
];

pub(crate) fn tampering(world: &World) {
    fill(world);
    let copy = "CREATE TABLE kept AS SELECT * FROM audit";
    world.raw(copy);
    for (sql, found) in TAMPERING {
        world.raw(sql);
        let broken = world.read(|db| db.verify_audit()).expect_err(sql);
        assert_eq!(broken.sequence, *found, "{sql}: {broken}");
        world.raw(
            "DELETE FROM audit; INSERT INTO audit SELECT * FROM kept;
             UPDATE counters SET value = 5 WHERE name = 'audit'",
        );
        assert_eq!(world.read(|db| db.verify_audit()), Ok(5));
    }
    // Cut off by somebody who knows of the counter: only a head kept elsewhere tells.
    let head = world.read(|db| db.audit_head());
    world.raw(
        "DELETE FROM audit WHERE sequence > 3; UPDATE counters SET value = 3 WHERE name = 'audit'",
    );
    assert_eq!(world.read(|db| db.verify_audit()), Ok(3));
    assert_eq!(world.read(move |db| db.verify_audit_since(&head)).unwrap_err().sequence, 4);
}
