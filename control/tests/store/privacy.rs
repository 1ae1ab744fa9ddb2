//! What is kept of a person.

use ringway_control::store::query::{AuditFilter, ConnectionFilter};
use ringway_control::store::records::*;
use ringway_control::store::{Db, Page, StoreError};
use serde_json::json;

use crate::made;
use crate::world::World;

/// Entries about each of two people; one more is about something else that is called the same.
const ABOUT: usize = 10;

/// Two people with everything that may be kept of one.
fn fill(world: &World) -> [User; 2] {
    world.write(|db| {
        let pool = made::pool("p");
        db.insert_pool(&pool)?;
        let people = ["alice", "bob"].map(|name| {
            let (user, device) = made::with_device(db, name);
            fill_one(db, &user, &device, &pool).unwrap();
            user
        });
        Ok(people)
    })
}

fn fill_one(db: &mut Db<'_>, user: &User, device: &Device, pool: &Pool) -> Result<(), StoreError> {
    let number = u32::try_from(made::number()).unwrap();
    db.set_user_secrets(
        user.id,
        &UserSecrets {
            password_hash: Some("s3cret-hash".to_owned()),
            totp_secret: Some(b"s3cret-totp".to_vec()),
            totp_kind: OtpKind::Time,
            totp_last_step: 0,
        },
    )?;
    db.insert_lease(&made::lease(device.id, pool.id, number))?;
    let token = made::token(user.id);
    let mut hash = [1; 32];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    db.insert_token(&token, &hash)?;
    db.insert_enrolment(&made::enrolment(user.id), &hash)?;
    db.add_usage(&[made::usage(user.id, device.id, 5, 10)], &[])?;
    db.append_connections(&[made::connection(user.id, device.id, 6)])?;
    db.log_sessions("w", &[made::begun(number.into(), user.id, device.id)], Timestamp(7))?;
    db.put_ban(&Ban {
        subject: format!("user:{}", user.name),
        until: Timestamp(9),
        score: 1,
        reason: "bad_password".to_owned(),
    })?;
    let (at, id, author) = (user.created_at, user.id.to_string(), format!("user:{}", user.name));
    let renamed = format!("{}-before", user.name);
    let made = json!({ "name": renamed });
    db.append_audit(at, "local:0", "user.created", &id, &made)?;
    db.append_audit(at, &format!("user:{renamed}"), "group.changed", "staff", &json!({}))?;
    db.append_audit(at, "local:0", "user.changed", &id, &json!({ "name": [renamed, user.name] }))?;
    db.append_audit(at, &author, "policy.changed", "default", &json!({}))?;
    db.append_audit(at, "local:0", "device.changed", &device.id.to_string(), &json!({}))?;
    db.append_audit(at, &format!("token:{}", token.id), "pool.changed", "p", &json!({}))?;
    let gone = DeviceId::fresh().to_string();
    let detail = json!({ "user": user.id, "name": "phone", "public_key": format!("key-{id}") });
    db.append_audit(at, "local:0", "device.created", &gone, &detail)?;
    db.append_audit(at, "local:0", "device.removed", &gone, &json!({}))?;
    let kill = json!({ "session": 7, "by_key": format!("key-{id}") });
    db.append_audit(at, "local:0", "session.kill", &format!("{}/phone", user.name), &kill)?;
    let detail = json!({ "members": ["zoe", { "x": author }] });
    db.append_audit(at, "local:0", "group.changed", "staff", &detail)?;
    // The same word where it means something else, and the name as somebody else will have it.
    let detail = json!({ "note": "nobody", "word": user.name, "name": [user.name, "x"] });
    db.append_audit(at, "local:0", "group.changed", &user.name, &detail)?;
    Ok(())
}

pub(crate) fn export(world: &World) {
    let [alice, _] = fill(world);
    let id = alice.id;
    let shown = world.read(move |db| db.export_user(id));
    for (part, count) in [
        ("devices", 1),
        ("leases", 1),
        ("tokens", 1),
        ("enrolments", 1),
        ("usage", 1),
        ("connections", 2),
        ("open_sessions", 1),
        ("bans", 1),
        ("audit", ABOUT),
    ] {
        assert_eq!(shown[part].as_array().map(Vec::len), Some(count), "{part}: {shown}");
    }
    let text = shown.to_string();
    assert!(text.contains("alice") && !text.contains("bob"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let gone = world.try_write(|db| db.export_user(UserId::fresh()));
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
}

pub(crate) fn erasure(world: &World) {
    let [alice, bob] = fill(world);
    let (id, other) = (alice.id, bob.id);
    let head = world.read(|db| db.audit_head());
    world.write(move |db| db.erase_user(id, Timestamp(77), "user:alice"));
    assert_eq!(world.read(|db| db.verify_audit()), Ok(23));
    assert_eq!(world.read(move |db| db.verify_audit_since(&head)), Ok(23));
    let entries = world.read(|db| db.audit(&AuditFilter::default(), &Page::first())).items;
    let other_word = entries.iter().find(|entry| entry.object == "alice").unwrap();
    assert_eq!(other_word.detail["word"], "alice", "a word that means something else stays");
    let about = |entry: &&AuditEntry| entry.sequence != other_word.sequence;
    let shown = format!("{:?}", entries.iter().filter(about).collect::<Vec<_>>());
    assert!(!shown.contains("alice") && !shown.contains(&id.to_string()), "{shown}");
    assert!(shown.contains("bob") && shown.contains("nobody"), "others keep theirs: {shown}");
    let note = entries.last().unwrap();
    assert_eq!((note.action.as_str(), note.actor.as_str()), ("audit.erased", "user:erased"));
    assert_eq!(note.detail, json!({ "entries": [[1, 10]] }));

    // Late usage of a session that was still open does not bring anything back.
    let device = DeviceId::fresh();
    world.write(move |db| {
        db.add_usage(&[made::usage(id, device, 5, 10), made::usage(other, device, 6, 1)], &[])?;
        db.append_connections(&[made::connection(id, device, 7)])?;
        let open = made::open_session(1, id, device);
        db.note_sessions("w", Timestamp(8), &[open])?;
        db.log_sessions("w", &[made::begun(u64::MAX >> 1, id, device)], Timestamp(9))
    });
    let open = world.read(|db| db.open_sessions("w")).sessions;
    assert!(open.len() == 1 && open[0].user == other, "{open:?}");
    let left = world.read(move |db| {
        let filter = ConnectionFilter { user: Some(id), ..ConnectionFilter::default() };
        Ok((
            db.user_by_name("alice")?,
            db.usage_sum(id, 0)?,
            db.connections(&filter, &Page::first())?.items.len(),
            db.bans(Timestamp(0))?.len(),
            db.usage_sum(other, 6)?,
        ))
    });
    assert_eq!(left, (None, 0, 0, 1, 3));
    let shown = world.read(move |db| db.export_user(other));
    assert_eq!(shown["audit"].as_array().map(Vec::len), Some(ABOUT));
    // An erasure on the quiet is found although another one was noted before.
    world.raw(
        "UPDATE audit SET salt = NULL, actor = NULL, object = NULL, detail = NULL \
         WHERE sequence = 15",
    );
    assert_eq!(world.read(|db| db.verify_audit()).unwrap_err().sequence, 15);
}
