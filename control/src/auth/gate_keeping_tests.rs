//! What outlasts one attempt: a password that is changed meanwhile, and who is kept out.

use super::super::password;
use super::tests::{
    NOW, RIGHT, World, accepted, at, attempt, patient, reason, settings, ticket, with_code,
    with_password,
};
use super::*;

#[tokio::test]
async fn a_password_that_was_changed_between_two_factors_opens_nothing() {
    let world = World::new(patient());
    let ticket = Some(ticket(world.password("bob", RIGHT).await));
    let new = world.gate.hasher().hash(&Secret::new("another long one")).unwrap();
    world.memory.change("bob", |bob| bob.secrets.password_hash = Some(new));
    world.gate.changed("bob");
    world.pass(200_000);
    let second = Attempt { ticket, ..attempt("bob", with_code(&world.code())) };
    assert_eq!(reason(world.gate.sign_in(second).await), Reason::PasswordWrong);
    // Whoever has the new one is in, with the print of what is stored now.
    world.pass(30_000);
    let both =
        Credentials { code: Some(Secret::new(world.code())), ..with_password("another long one") };
    let identity = accepted(world.gate.sign_in(attempt("bob", both)).await);
    let stored = world.memory.person("bob").unwrap().secrets.password_hash;
    assert_eq!(identity.password_print, Some(password::print(stored.as_deref())));
}

#[tokio::test]
async fn a_user_of_this_host_guesses_no_more_often_than_somebody_from_elsewhere() {
    let world = World::new(settings());
    let from =
        |source, password: &str| Attempt { source, ..attempt("ann", with_password(password)) };
    let mut tried = 0;
    loop {
        let guess = from(Source::Unix(1001), "wrong wrong wrong");
        if reason(world.gate.sign_in(guess).await) == Reason::SourceBanned {
            break;
        }
        tried += 1;
        assert!(tried <= 10, "it guesses for ever");
    }
    let right = world.gate.sign_in(from(Source::Unix(1001), RIGHT)).await;
    assert_eq!(reason(right), Reason::SourceBanned);
    accepted(world.gate.sign_in(from(Source::Unix(1002), RIGHT)).await);
    for _ in 0..20 {
        let guess = from(Source::Local(0), "wrong wrong wrong");
        assert_eq!(reason(world.gate.sign_in(guess).await), Reason::PasswordWrong);
    }
    accepted(world.gate.sign_in(from(Source::Local(0), RIGHT)).await);
}

#[tokio::test]
async fn where_nothing_is_kept_of_clients_an_address_is_kept_out_in_memory_only() {
    let world = World::new(Settings { keeps_addresses: false, ..settings() });
    for _ in 0..10 {
        world.password("ann", "wrong wrong wrong").await;
        let elsewhere = Attempt {
            source: at("192.0.2.77"),
            ..attempt("ann", with_password("wrong wrong wrong"))
        };
        world.gate.sign_in(elsewhere).await;
    }
    let out: Vec<String> = world.gate.bans().into_iter().map(|ban| ban.subject).collect();
    assert!(out.contains(&"192.0.2.1/32".to_owned()), "{out:?}");
    let kept =
        || -> Vec<String> { world.memory.kept_bans().into_iter().map(|ban| ban.subject).collect() };
    while kept().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(kept().iter().all(|subject| subject == "user:ann"), "{:?}", kept());
    assert!(world.gate.lift_unstored("192.0.2.1/32") && !world.gate.lift_unstored("user:ann"));
    let ann = attempt("bob", with_password(RIGHT));
    assert!(matches!(world.gate.sign_in(ann).await, Outcome::Challenge { .. }));
    // What was stored while it might be goes at the next start, and still holds.
    let old = Ban {
        subject: "198.51.100.7/32".to_owned(),
        until: NOW.plus_ms(60_000),
        score: 80,
        reason: "password_wrong".to_owned(),
    };
    world.gate.0.people.put_ban(old).await.unwrap();
    world.gate.restore().await.unwrap();
    assert!(kept().iter().all(|subject| subject == "user:ann"), "{:?}", kept());
    let source = at("198.51.100.7");
    let tried = Attempt { source, ..attempt("bob", with_password(RIGHT)) };
    assert_eq!(reason(world.gate.sign_in(tried).await), Reason::SourceBanned);
    world.gate.keep_addresses(true);
    assert!(!world.gate.lift_unstored("198.51.100.7/32"));
}
