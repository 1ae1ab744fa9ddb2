//! Over a real store and the real sign-in.

use std::net::IpAddr;

use super::*;
use crate::api::caller::Source;
use crate::api::sign_in::{SignInAttempt, SignInOutcome};
use crate::auth::{Gate, Settings};
use crate::configs::{Entry, StoreHistory};
use crate::directory::Proved;
use crate::scratch::Scratch;
use crate::store::records::Factor;
use crate::store::{StoreOptions, StoreUrl};

const NOW: Timestamp = Timestamp(1_796_000_000_000);
const PASSWORD: &str = "correct horse battery";

struct World {
    _folder: Scratch,
    store: Store,
    gate: Gate,
    accounts: StoreAccounts,
}

impl World {
    async fn new(name: &str) -> Self {
        let folder = Scratch::new(&format!("accounts_{name}"));
        let url = format!("sqlite:{}", folder.path().join("ringway.db").display());
        let url = StoreUrl::parse(&url).unwrap();
        let store = Store::open(&url, &StoreOptions::default()).await.unwrap();
        let gate = Gate::builder(Settings::default(), Arc::new(store.clone())).unwrap().build();
        let accounts = StoreAccounts::new(store.clone(), Arc::new(gate.hasher().clone()));
        Self { _folder: folder, store, gate, accounts }
    }

    async fn make(&self, name: &str, password: &str) -> Result<UserId, Problem> {
        let password = Zeroizing::new(password.to_owned());
        self.accounts.make_first(name.to_owned(), password, NOW).await
    }

    async fn sign_in(&self, name: &str, password: &str) -> SignInOutcome {
        let attempt = SignInAttempt {
            name: Some(name.to_owned()),
            password: Some(Zeroizing::new(password.to_owned())),
            totp: None,
            token: None,
            certificates: Vec::new(),
            continuation: None,
            source: Source::Ip(IpAddr::from([192, 0, 2, 1])),
        };
        crate::api::SignIn::sign_in(&self.gate, attempt).await
    }
}

#[tokio::test]
async fn the_first_administrator_signs_in_with_the_password_it_was_made_with() {
    let world = World::new("first").await;
    assert_eq!(world.accounts.has_administrator().await, Ok(false));
    for weak in ["short", "boss boss boss", "aaaaaaaaaaaa"] {
        let refused = world.make("boss", weak).await.unwrap_err();
        assert_eq!(refused.errors[0].pointer, "/password", "{weak}");
    }
    let id = world.make("boss", PASSWORD).await.unwrap();
    assert_eq!(world.accounts.has_administrator().await, Ok(true));
    assert_eq!(world.make("boss2", PASSWORD).await.unwrap_err().reason, Reason::Gone);
    let name = "boss".to_owned();
    let stored = world.accounts.by_id(id).await.unwrap().unwrap();
    let password_print = Some(stored.password_print);
    let proved = Proved { password_print, ..Proved::of(vec![Factor::Password]) };
    let accepted = SignInOutcome::Accepted { user: id, name, proved };
    assert_eq!(world.sign_in("boss", PASSWORD).await, accepted);
    assert_eq!(world.sign_in("boss", "correct horse").await, SignInOutcome::Refused);
    assert_eq!(world.sign_in("nobody", PASSWORD).await, SignInOutcome::Refused);
    let audit = world.store.read(|db| db.verify_audit()).await.unwrap();
    assert_eq!(audit, Ok(1));
}

#[tokio::test]
async fn of_two_first_administrators_at_once_one_is_made() {
    let world = World::new("race").await;
    let (one, two) = tokio::join!(world.make("one", PASSWORD), world.make("two", PASSWORD));
    assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1);
}

#[tokio::test]
async fn a_changed_password_changes_the_print_and_a_token_finds_its_owner() {
    let world = World::new("print").await;
    let id = world.make("boss", PASSWORD).await.unwrap();
    let before = world.accounts.by_id(id).await.unwrap().unwrap();
    let token = Token {
        id: TokenId::fresh(),
        user: id,
        name: "script".to_owned(),
        scopes: vec!["*".to_owned()],
        expires_at: None,
        last_used_at: None,
        created_at: NOW,
    };
    let kept = token.clone();
    let write = world.store.write(move |db| {
        let mut secrets = db.user_secrets(id)?;
        secrets.password_hash = Some("another".to_owned());
        db.set_user_secrets(id, &secrets)?;
        db.insert_token(&kept, &hash(b"secret"))
    });
    write.await.unwrap();
    let after = world.accounts.by_id(id).await.unwrap().unwrap();
    assert_ne!(before.password_print, after.password_print);
    assert_eq!(world.accounts.by_id(UserId::fresh()).await, Ok(None));
    let (found, owner) = world.accounts.by_token(hash(b"secret")).await.unwrap().unwrap();
    assert_eq!((found, owner.id), (token.clone(), id));
    assert_eq!(world.accounts.by_token(hash(b"other")).await, Ok(None));
    world.accounts.touch(token.id, NOW).await.unwrap();
    let (found, _) = world.accounts.by_token(hash(b"secret")).await.unwrap().unwrap();
    assert!(found.last_used_at.is_some());
}

#[tokio::test]
async fn the_history_of_the_configuration_counts_in_the_store() {
    let world = World::new("history").await;
    let history = StoreHistory::shared(world.store.clone(), "one".to_owned());
    let other = StoreHistory::shared(world.store.clone(), "other".to_owned());
    assert_eq!(history.last().await, Ok(None));
    for number in 1..=3 {
        let entry = Entry {
            at: NOW,
            actor: "user:boss".to_owned(),
            text: format!("text {number}"),
            hash: "0".repeat(64),
            action: "config.put",
        };
        assert_eq!(history.append(entry).await, Ok(number));
    }
    assert_eq!(history.last().await.unwrap().unwrap().text, "text 3");
    assert_eq!(other.last().await, Ok(None), "a gateway sees and counts its own");
    assert_eq!(other.get(1).await, Ok(None));
    let entry = Entry {
        at: NOW,
        actor: "gateway".to_owned(),
        text: "another".to_owned(),
        hash: "1".repeat(64),
        action: "config.found",
    };
    assert_eq!(other.append(entry).await, Ok(1));
    assert_eq!(history.get(1).await.unwrap().unwrap().text, "text 1");
    let key = history.key().await.unwrap();
    assert_eq!(other.key().await.unwrap(), key, "the same for all, and always");
    assert_ne!(*key, [0; 32]);
    assert_eq!(history.get(2).await.unwrap().unwrap().text, "text 2");
    assert_eq!(history.get(9).await, Ok(None));
    let rows = history.list(Page { after: None, limit: 2 }).await.unwrap();
    let numbers: Vec<u64> = rows.items.iter().map(|row| row.version).collect();
    assert_eq!(numbers, [3, 2]);
    let rows = history.list(Page { after: rows.next, limit: 2 }).await.unwrap();
    assert_eq!((rows.items.len(), rows.next), (1, None));
}
