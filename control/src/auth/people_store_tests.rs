use super::*;
use crate::scratch::Scratch;
use crate::store::handle::StoreOptions;
use crate::store::records::{Group, User, UserState};
use crate::store::url::StoreUrl;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn user(name: &str) -> User {
    User {
        id: UserId::fresh(),
        name: name.to_owned(),
        display_name: String::new(),
        group: None,
        policy: None,
        role: None,
        state: UserState::Active,
        expires_at: None,
        rate: None,
        quota: None,
        has_password: true,
        has_totp: false,
        totp_kind: None,
        created_at: NOW,
        version: 1,
    }
}

async fn store(scratch: &Scratch) -> Store {
    let path = scratch.path().join("ringway.db");
    let url = StoreUrl::parse(&format!("sqlite:{}", path.display())).unwrap();
    Store::open(&url, &StoreOptions::default()).await.unwrap()
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn a_users_own_policy_comes_before_that_of_the_group_and_the_default() {
    run(async {
        let scratch = Scratch::new("auth_people");
        let store = store(&scratch).await;
        let (ann, bob, eve) = (user("ann"), user("bob"), user("eve"));
        let secrets = UserSecrets { password_hash: Some("x".to_owned()), ..UserSecrets::default() };
        let ids = [ann.id, bob.id, eve.id];
        store
            .write(move |db| {
                let default = db.policy_by_name(DEFAULT_POLICY)?.expect("made with the store");
                let policy = |name: &str, factors: &[Factor]| Policy {
                    id: PolicyId::fresh(),
                    name: name.to_owned(),
                    factors: factors.to_vec(),
                    ..default.clone()
                };
                let own = policy("own", &[Factor::Token]);
                let shared = policy("shared", &[Factor::Password, Factor::Totp]);
                db.insert_policy(&own)?;
                db.insert_policy(&shared)?;
                let group = Group {
                    id: GroupId::fresh(),
                    name: "crew".to_owned(),
                    policy: Some(shared.id),
                    rate: Default::default(),
                    created_at: NOW,
                    version: 1,
                };
                db.insert_group(&group)?;
                let group = Some(group.id);
                db.insert_user(&User { group, policy: Some(own.id), ..ann.clone() }, &secrets)?;
                db.insert_user(&User { group, ..bob.clone() }, &secrets)?;
                db.insert_user(&eve, &secrets)
            })
            .await
            .unwrap();
        let factors = [
            ("ann", vec![Factor::Token]),
            ("bob", vec![Factor::Password, Factor::Totp]),
            ("eve", vec![Factor::Password]),
        ];
        for ((name, factors), id) in factors.into_iter().zip(ids) {
            let person = store.find(name.to_owned()).await.unwrap().person.unwrap();
            assert_eq!((person.id, person.factors), (id, factors), "{name}");
            assert_eq!(person.secrets.password_hash.as_deref(), Some("x"));
        }
        let nobody = store.find("nobody".to_owned()).await.unwrap();
        assert!(nobody.person.is_none());
        assert_eq!(nobody.default_factors, [Factor::Password]);
    });
}

#[test]
fn steps_codes_hashes_and_bans_are_kept() {
    run(async {
        let scratch = Scratch::new("auth_kept");
        let store = store(&scratch).await;
        let ann = user("ann");
        let id = ann.id;
        let secrets =
            UserSecrets { password_hash: Some("old".to_owned()), ..UserSecrets::default() };
        store.write(move |db| db.insert_user(&ann, &secrets)).await.unwrap();

        assert!(store.accept_totp_step(id, 7).await.unwrap());
        assert!(!store.accept_totp_step(id, 7).await.unwrap());
        assert!(!store.accept_totp_step(UserId(Uuid::nil()), 7).await.unwrap());
        assert!(!store.accept_hotp_counter(id, 8).await.unwrap(), "it goes by time");

        store.put_recovery_codes(id, vec![[1; 32], [2; 32]]).await.unwrap();
        assert!(!store.take_recovery_code(id, [3; 32]).await.unwrap());
        assert!(!store.take_recovery_code(UserId::fresh(), [1; 32]).await.unwrap());
        assert!(store.take_recovery_code(id, [1; 32]).await.unwrap());
        assert!(!store.take_recovery_code(id, [1; 32]).await.unwrap());
        assert!(store.take_recovery_code(id, [2; 32]).await.unwrap());
        assert!(!store.take_recovery_code(UserId(Uuid::nil()), [1; 32]).await.unwrap());

        store.rehash(id, "other".to_owned(), "wrong".to_owned()).await.unwrap();
        store.rehash(id, "old".to_owned(), "new".to_owned()).await.unwrap();
        let person = store.find("ann".to_owned()).await.unwrap().person.unwrap();
        assert_eq!(person.secrets.password_hash.as_deref(), Some("new"));
        assert_eq!(person.secrets.totp_last_step, 7);

        let ban = Ban {
            subject: "192.0.2.1/32".to_owned(),
            until: NOW.plus_ms(1000),
            score: 80,
            reason: "password_wrong".to_owned(),
        };
        store.put_ban(ban.clone()).await.unwrap();
        assert_eq!(People::bans(&store, NOW).await.unwrap(), [ban]);
        assert!(People::bans(&store, NOW.plus_ms(1000)).await.unwrap().is_empty());
        People::remove_ban(&store, "192.0.2.1/32".to_owned()).await.unwrap();
        assert!(People::bans(&store, NOW).await.unwrap().is_empty());
    });
}
