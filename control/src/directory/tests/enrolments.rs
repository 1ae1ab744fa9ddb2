//! One-time links: once, in time, and one of many who come at the same time.

use super::*;
use crate::directory::input::{NewEnrolment, Redeem};
use crate::store::Page;
use crate::store::records::{KeyOrigin, UserState};

fn invitation(valid_s: Option<u32>) -> NewEnrolment {
    NewEnrolment { device_name: "phone".to_owned(), valid_s }
}

fn redeem(secret: &str, number: u64) -> Redeem {
    Redeem { secret: Secret::new(secret), public_key: key(number) }
}

#[tokio::test]
async fn a_link_adds_one_device_whose_private_key_nobody_here_sees() {
    let desk = Desk::new("enrol_once").await;
    let ada = desk.user("ada", None).await;
    let made = desk.directory.invite(&as_user(&ada), "ada", invitation(None)).await.unwrap();
    let link = made.link.unwrap().0;
    assert_eq!(*link, format!("https://vpn.example.org/enrol#{}", *made.secret.0));
    assert_eq!(made.enrolment.expires_at, START.plus_ms(86_400_000));
    let redeemed = desk.directory.redeem(redeem(&made.secret.0, 1)).await.unwrap();
    let device = &redeemed.view.device;
    assert_eq!((device.user, device.key_origin), (ada.id, KeyOrigin::Device));
    assert_eq!(crate::keys::show_public(&device.public_key), key(1));
    assert!(redeemed.file.text.contains("\n# PrivateKey = "), "{}", *redeemed.file.text);
    assert!(!redeemed.file.text.contains("\nPrivateKey"));
    let listed = desk.directory.enrolments(None, Page::first()).await.unwrap().items;
    assert_eq!(listed[0].used_by, Some(device.id));
    let again = desk.directory.redeem(redeem(&made.secret.0, 2)).await.unwrap_err();
    assert!(matches!(again, Refusal::LinkRefused), "{again:?}");
}

#[tokio::test]
async fn a_link_that_is_unknown_old_or_its_users_end_is_one_and_the_same_refusal() {
    let desk = Desk::new("enrol_old").await;
    desk.user("ada", None).await;
    let directory = &desk.directory;
    let one = root();
    let invite = || directory.invite(&one, "ada", invitation(Some(60)));
    let made = invite().await.unwrap();
    let mut answers = Vec::new();
    for text in ["", "re_", &made.secret.0[..75], &made.secret.0.replace("re_", "rw_")] {
        answers.push(directory.redeem(redeem(text, 1)).await.unwrap_err());
    }
    let unknown = secret::make(secret::Purpose::Enrolment, &mut crate::keys::SystemRandom);
    answers.push(directory.redeem(redeem(&unknown, 1)).await.unwrap_err());
    directory.set_user_state(&root(), "ada", None, UserState::Disabled).await.unwrap();
    answers.push(directory.redeem(redeem(&made.secret.0, 1)).await.unwrap_err());
    assert_eq!(invite().await.err().unwrap().reason(), "conflict");
    directory.set_user_state(&root(), "ada", None, UserState::Active).await.unwrap();
    let back = invite().await.unwrap();
    directory.remove_enrolment(&root(), back.enrolment.id).await.unwrap();
    answers.push(directory.redeem(redeem(&back.secret.0, 1)).await.unwrap_err());
    desk.pass_ms(60_000);
    answers.push(directory.redeem(redeem(&made.secret.0, 1)).await.unwrap_err());
    assert!(answers.iter().all(|one| matches!(one, Refusal::LinkRefused)), "{answers:?}");
    assert!(directory.devices_of("ada").await.unwrap().is_empty());
    for (valid_s, name, place) in [
        (Some(59), "x", "/valid_s"),
        (Some(2_592_001), "x", "/valid_s"),
        (None, "", "/device_name"),
    ] {
        let form = NewEnrolment { device_name: name.to_owned(), valid_s };
        let refusal = directory.invite(&root(), "ada", form).await.err().unwrap();
        assert_eq!(places(&refusal), [place]);
    }
}

#[tokio::test]
async fn a_key_that_is_refused_leaves_the_link_as_it_was() {
    let desk = Desk::new("enrol_key").await;
    desk.user("ada", None).await;
    let made = desk.directory.invite(&root(), "ada", invitation(None)).await.unwrap();
    let weak = Redeem { public_key: "A".repeat(43) + "=", ..redeem(&made.secret.0, 1) };
    let refusal = desk.directory.redeem(weak).await.unwrap_err();
    assert_eq!(places(&refusal), ["/public_key"]);
    desk.directory.redeem(redeem(&made.secret.0, 1)).await.unwrap();
}

#[test]
fn of_eight_who_come_at_the_same_time_one_gets_the_device() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let main = runtime();
    for round in 0..10_u64 {
        let (desk, secret) = main.block_on(async {
            let desk = Desk::new("enrol_race").await;
            desk.user("ada", None).await;
            let made = desk.directory.invite(&root(), "ada", invitation(None)).await.unwrap();
            (desk, made.secret.0)
        });
        let gate = std::sync::Barrier::new(8);
        let come = |number: u64| {
            let form = redeem(&secret, number);
            gate.wait();
            runtime().block_on(desk.directory.redeem(form))
        };
        let come = &come;
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (1..=8).map(|number| scope.spawn(move || come(round * 8 + number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for one in lost {
            let refusal = one.unwrap_err();
            assert!(matches!(refusal, Refusal::LinkRefused), "{refusal:?}");
        }
        let devices = main.block_on(desk.directory.devices_of("ada")).unwrap();
        assert_eq!(devices.len(), 1);
    }
}

#[tokio::test]
async fn a_user_has_so_many_open_links_and_tokens_and_no_more() {
    use crate::directory::input::NewToken;
    let desk = Desk::new("enrol_many").await;
    let (d, ada) = (&desk.directory, as_user(&desk.user("ada", None).await));
    let mut made = Vec::new();
    for _ in 0..crate::directory::enrolments::OPEN_MAX {
        made.push(d.invite(&ada, "ada", invitation(None)).await.unwrap());
    }
    let refusal = d.invite(&root(), "ada", invitation(None)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Full(_)), "{refusal:?}");
    // One that is used, taken back or over makes room.
    d.redeem(redeem(&made[0].secret.0, 1)).await.unwrap();
    d.invite(&ada, "ada", invitation(None)).await.unwrap();
    d.invite(&ada, "ada", invitation(None)).await.unwrap_err();
    d.remove_enrolment(&ada, made[1].enrolment.id).await.unwrap();
    d.invite(&ada, "ada", invitation(None)).await.unwrap();
    d.invite(&ada, "ada", invitation(None)).await.unwrap_err();
    desk.pass_ms(86_400_000);
    d.invite(&ada, "ada", invitation(None)).await.unwrap();
    let form =
        || NewToken { name: "t".to_owned(), scopes: vec!["me:read".to_owned()], expires_at: None };
    for _ in 0..tokens::TOKENS_MAX {
        d.create_token(&ada, "ada", form()).await.unwrap();
    }
    let refusal = d.create_token(&ada, "ada", form()).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Full(_)), "{refusal:?}");
    desk.user("bob", None).await;
    d.create_token(&root(), "bob", form()).await.unwrap();
}
