//! Migrations.

use ringway_control::configs::{Entry, StoreHistory};
use ringway_control::store::records::{OtpKind, Timestamp};
use ringway_control::store::{Store, StoreError};

use crate::world::{World, options};

pub(crate) fn at_once(world: &World) {
    let stores: Vec<Store> = world.wait(async {
        let opening: Vec<_> = (0..6)
            .map(|_| {
                let url = world.url.clone();
                tokio::spawn(async move { Store::open(&url, &options()).await.unwrap() })
            })
            .collect();
        let mut stores = Vec::new();
        for open in opening {
            stores.push(open.await.unwrap());
        }
        stores
    });
    for store in &stores {
        let policies = world.wait(store.read(|db| db.policies(&Default::default()))).unwrap();
        assert_eq!(policies.items.len(), 1);
    }
    assert_eq!(world.raw_number("SELECT COUNT(*) FROM migrations"), 6);
}

pub(crate) fn newer(world: &World) {
    drop(world.open().unwrap());
    world.raw("INSERT INTO migrations (version, at) VALUES (7, 0)");
    let refused = world.open().err().unwrap();
    assert_eq!(refused, StoreError::Newer { found: 7, known: 6 });
    let text = refused.to_string();
    assert!(text.contains('7') && text.contains("up to 6") && text.contains("backup"), "{text}");
    world.raw("DELETE FROM migrations WHERE version = 7");
    assert!(world.open().is_ok());
}

pub(crate) fn half(world: &World) {
    // The last table of the step is there already, so the step fails at its end.
    if world.file().is_some() {
        world.raw("PRAGMA application_id = 1380407129");
    }
    world.raw("CREATE TABLE settings (name TEXT PRIMARY KEY)");
    let tables = match world.file() {
        Some(_) => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'",
        None => "SELECT COUNT(*) FROM pg_catalog.pg_tables WHERE schemaname = current_schema()",
    };
    for _ in 0..2 {
        let failed = world.open().err().unwrap();
        assert!(failed.to_string().contains("settings"), "{failed}");
        assert_eq!(world.raw_number(tables), 1, "all of the step was undone");
    }
    world.raw("DROP TABLE settings");
    assert!(world.open().is_ok());
}

pub(crate) fn histories(world: &World) {
    drop(world.open().unwrap());
    for sql in [
        "DROP TABLE configs",
        "DROP TABLE access_authorities",
        "DROP TABLE access_certificates",
        "DROP TABLE gateways",
        "DROP TABLE open_sessions",
        "ALTER TABLE users DROP COLUMN totp_kind",
        "CREATE TABLE configs (version BIGINT PRIMARY KEY, at BIGINT NOT NULL, \
         actor TEXT NOT NULL, body TEXT NOT NULL, hash TEXT NOT NULL)",
        "INSERT INTO configs VALUES (1, 3, 'local:0', '[interface]', 'ab'), (2, 4, 'user:ada', \
         '[store]\nurl = \"postgresql://ringway:hunter2@db/ringway\"', 'cd')",
        "DELETE FROM migrations WHERE version > 1",
    ] {
        world.raw(sql);
    }
    let store = world.open().unwrap();
    let entry = |text: &str| Entry {
        at: Timestamp(5),
        actor: "gateway".to_owned(),
        text: text.to_owned(),
        hash: "ef".to_owned(),
        action: "config.found",
    };
    let [one, other] =
        ["one", "other"].map(|name| StoreHistory::shared(store.clone(), name.to_owned()));
    assert_eq!(world.wait(one.append(entry("mine"))), Ok(3), "it goes on from what there was");
    assert_eq!(world.wait(other.append(entry("another"))), Ok(1));
    let taken = world.wait(one.get(2)).unwrap().unwrap();
    assert_eq!(
        (taken.at, taken.actor.as_str(), taken.hash.as_str()),
        (Timestamp(4), "user:ada", "")
    );
    assert!(taken.text.contains("(redacted)@db") && !taken.text.contains("hunter2"), "{taken:?}");
    let rows = world.wait(other.list(Default::default())).unwrap();
    assert_eq!(rows.items.len(), 1);
}

pub(crate) fn fifth(world: &World) {
    drop(world.open().unwrap());
    world.raw("ALTER TABLE users DROP COLUMN totp_kind");
    world.raw(
        "INSERT INTO users (id, name, display_name, state, totp_secret, totp_last_step, \
         created_at, version) VALUES ('018f0000-0000-7000-8000-000000000001', 'ada', 'Ada', \
         'active', NULL, 42, 1, 1)",
    );
    world.raw("DROP TABLE gateways");
    world.raw("DROP TABLE open_sessions");
    world.raw("DELETE FROM migrations WHERE version > 4");
    let store = world.open().unwrap();
    let secrets = world.wait(store.read(|db| {
        let ada = db.user_by_name("ada")?.map(|ada| ada.id);
        ada.map(|id| db.user_secrets(id)).transpose()
    }));
    let secrets = secrets.unwrap().unwrap();
    assert_eq!((secrets.totp_kind, secrets.totp_last_step), (OtpKind::Time, 42));
}
