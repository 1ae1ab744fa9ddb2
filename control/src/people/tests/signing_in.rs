//! Who is let in by what, what the others are told, and what a revocation ends.

use super::*;
use crate::access::Stand;
use crate::access::people::Out;
use crate::directory::input::{Patch, PolicyPatch};
use crate::gateway::fake_cores::on_control_thread;

const NONE: (u16, &str, &str) = (401, "certificate-missing", "no certificate provided");
const INVALID: (u16, &str, &str) = (401, "certificate-invalid", "certificate validation failed");
const REVOKED: (u16, &str, &str) = (401, "certificate-revoked", "certificate revoked");
const REFUSED: &str = "sign-in-refused";

#[test]
fn a_certificate_lets_in_and_what_is_wrong_with_one_is_told_in_three_sentences() {
    on_control_thread(async {
        let world = World::new("certificates").await;
        let device = world.user("ann", &[Factor::Certificate]).await;
        let ca = &world.authority;
        for name in ["ann", "taken-back"] {
            ca.issue(name, "ann");
        }
        let times = ["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"];
        ca.issue_for("expired", "ann", "client", &times);
        ca.issue_for("server", "ann", "server", &[]);
        ca.issue("somebody", "nobody-here");
        ca.revoke("taken-back");
        ca.publish();
        let stranger = Authority::new(&world.folder.path().join("stranger"), "Crew CA");
        stranger.issue("stranger", "ann");
        for ending in ["pem", "key"] {
            std::fs::copy(stranger.file("stranger", ending), ca.file("stranger", ending)).unwrap();
        }
        // Each from an address of its own: one that fails so often is kept out.
        let sources = std::cell::Cell::new(0_u8);
        let refused = async |path: &str, certificate: Option<&str>, name: Option<&str>| {
            sources.set(sources.get() + 1);
            let source = format!("127.0.7.{}", sources.get());
            let body = name.map_or_else(|| json!({}), |name| json!({ "name": name }));
            world.curl(path, certificate, &body, &["--interface", &source]).await
        };
        let password = json!("password");
        let asked = (202, &password);
        // The gateway hears of the new list by itself; until then the certificate is good.
        let path = "/api/v1/session";
        let begun = Instant::now();
        while refused(path, Some("taken-back"), None).await.status == 200 {
            assert!(begun.elapsed() < SOON, "the new list is not read");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for path in ["/api/v1/session", "/api/v1/access/sign-in"] {
            for name in [Some("ann"), None] {
                let none = refused(path, None, name).await;
                match name {
                    // A name that nobody has is asked for the same.
                    Some(_) => assert_eq!((none.status, &none.body["factor"]), asked),
                    None => assert_eq!(none.problem(), NONE),
                }
                for wrong in ["stranger", "expired", "server"] {
                    let told = refused(path, Some(wrong), name).await;
                    assert_eq!(told.problem(), INVALID, "{wrong} {name:?}");
                }
                assert_eq!(refused(path, Some("taken-back"), name).await.problem(), REVOKED);
            }
            let foreign = refused(path, Some("somebody"), Some("ann")).await;
            assert_eq!(foreign.problem().1, REFUSED, "a good one of somebody else");
        }
        assert!(!world.is_peer(&device));
        let granted = world.access(Some("ann"), json!({})).await;
        assert_eq!(names(&granted), ["laptop"]);
        until(|| world.is_peer(&device)).await;
        let session = world.post("/api/v1/session", Some("ann"), &json!({ "name": "ann" })).await;
        assert_eq!(session.body["actor"], "user:ann", "{session:?}");
    });
}

#[test]
fn a_revocation_ends_the_access_that_the_certificate_gave_and_no_other() {
    on_control_thread(async {
        let world = World::new("revocation").await;
        let (ann, bob) = (
            world.user("ann", &[Factor::Certificate]).await,
            world.user("bob", &[Factor::Certificate]).await,
        );
        let carl = world.user("carl", &[Factor::Password]).await;
        for name in ["ann", "bob"] {
            world.authority.issue(name, name);
            assert_eq!(names(&world.access(Some(name), json!({})).await), ["laptop"]);
        }
        // A certificate that the policy does not ask for does not carry the access.
        let by_password = json!({ "name": "carl", "password": PASSWORD });
        assert_eq!(names(&world.access(Some("ann"), by_password).await), ["laptop"]);
        until(|| [&ann, &bob, &carl].iter().all(|device| world.is_peer(device))).await;
        let jar = world.folder.path().join("cookies");
        let jar = jar.to_str().unwrap();
        let keep = ["--cookie-jar", jar];
        let login = world.curl("/api/v1/session", Some("ann"), &json!({}), &keep).await;
        let csrf = format!("X-CSRF-Token: {}", login.body["csrf_token"].as_str().unwrap());
        let with_login = ["--cookie", jar, "--header", &csrf];
        let renewed = world.curl("/api/v1/access", None, &json!({}), &with_login).await;
        assert_eq!(names(&renewed), ["laptop"]);
        let hub = world.people.reached.api.borrow().as_ref().unwrap().hub().clone();
        let mut events = hub.listen();
        world.authority.revoke("ann");
        world.authority.publish();
        until(|| !world.is_peer(&ann)).await;
        let why = Stand::Out(Out::CertificateRevoked);
        assert_eq!(world.service().stand(ann.id), Some(why));
        assert!(world.is_peer(&bob) && world.is_peer(&carl));
        let again = world.curl("/api/v1/access", None, &json!({}), &with_login).await;
        assert_eq!(again.problem().1, "unauthenticated", "the login is over too");
        let refused = world.access(Some("ann"), json!({})).await;
        assert_eq!(refused.problem(), REVOKED);
        // Told, entered, and kept for the next process.
        let mut told = Vec::new();
        until(|| {
            while let Some(heard) = events.try_next() {
                let Heard::Event(event) = heard else { continue };
                if event.kind == Kind::AccessEnded {
                    told.push((event.subject.clone(), event.detail["reason"].clone()));
                }
            }
            !told.is_empty()
        })
        .await;
        assert_eq!(told, [("ann/laptop".to_owned(), json!("certificate_revoked"))]);
        let (id, store, begun) = (ann.id, world.directory().store().clone(), Instant::now());
        loop {
            let entered = store.read(move |db| {
                let audit = db.audit(&Default::default(), &Default::default())?;
                Ok((db.device(id)?, audit.items))
            });
            let (device, audit) = entered.await.unwrap();
            let ended = audit.iter().find(|entry| entry.action == "access.ended");
            if let Some(ended) = ended {
                assert_eq!((&*ended.actor, &*ended.object), ("gateway", &*id.to_string()));
                assert_eq!(ended.detail["reason"], "certificate_revoked");
                assert!(device.access_until.is_some_and(|until| until <= now()));
                break;
            }
            assert!(begun.elapsed() < SOON, "nothing is entered");
        }
    });
}

#[test]
fn the_revocation_of_an_authority_ends_what_certificates_below_it_gave() {
    on_control_thread(async {
        let world = World::new("branch").await;
        let (ann, bob) = (
            world.user("ann", &[Factor::Certificate]).await,
            world.user("bob", &[Factor::Certificate]).await,
        );
        world.authority.issue_below(&world.branch, "ann", "ann");
        world.authority.issue("bob", "bob");
        for name in ["ann", "bob"] {
            assert_eq!(names(&world.access(Some(name), json!({})).await), ["laptop"]);
        }
        let jar = world.folder.path().join("cookies");
        let jar = jar.to_str().unwrap();
        let keep = ["--cookie-jar", jar];
        let login = world.curl("/api/v1/session", Some("ann"), &json!({}), &keep).await;
        let csrf = format!("X-CSRF-Token: {}", login.body["csrf_token"].as_str().unwrap());
        until(|| [&ann, &bob].iter().all(|device| world.is_peer(device))).await;
        world.authority.revoke("branch/ca");
        world.authority.publish();
        until(|| !world.is_peer(&ann)).await;
        assert_eq!(world.service().stand(ann.id), Some(Stand::Out(Out::CertificateRevoked)));
        assert!(world.is_peer(&bob), "its certificate is from above");
        let with_login = ["--cookie", jar, "--header", &csrf];
        let again = world.curl("/api/v1/access", None, &json!({}), &with_login).await;
        assert_eq!(again.problem().1, "unauthenticated", "the login is over too");
        assert_eq!(world.access(Some("ann"), json!({})).await.problem(), REVOKED);
    });
}

#[test]
fn a_group_that_a_certificate_names_is_joined_where_the_configuration_says_so() {
    on_control_thread(async {
        let world = World::new("groups").await;
        world.user("ann", &[Factor::Certificate]).await;
        let (directory, root) = (world.directory(), Actor::local(0));
        let form = serde_json::from_value(json!({ "name": "crew" })).unwrap();
        let crew = directory.create_group(&root, form).await.unwrap().id;
        world.authority.issue("ann", "ann/OU=Crew");
        assert_eq!(names(&world.access(Some("ann"), json!({})).await), ["laptop"]);
        assert_eq!(directory.user("ann").await.unwrap().group, None);
        let mut plan = world.people.plan.borrow().clone();
        plan.config.sign_in.groups_from_credentials = true;
        world.people.reloaded(plan);
        assert_eq!(names(&world.access(Some("ann"), json!({})).await), ["laptop"]);
        assert_eq!(directory.user("ann").await.unwrap().group, Some(crew));
    });
}

#[test]
fn a_token_lets_in_for_as_long_as_it_lasts_and_every_wrong_one_is_refused_alike() {
    on_control_thread(async {
        let world = World::new("token").await;
        let device = world.user("ann", &[Factor::Token]).await;
        world.user("bob", &[Factor::Token]).await;
        let body = json!({ "token": world.token("ann", 600) });
        let granted = world.access(None, body).await;
        assert_eq!(names(&granted), ["laptop"]);
        let until_at: Timestamp = granted.body["until"].as_str().unwrap().parse().unwrap();
        let left = until_at.since(now());
        assert!((500_000..=600_000).contains(&left), "no longer than the token: {left}");
        until(|| world.is_peer(&device)).await;
        let named = json!({ "name": "ann", "token": world.token("ann", 600) });
        assert_eq!(world.post("/api/v1/session", None, &named).await.status, 200);
        let cut = world.token("ann", 600);
        let mut sources = 0;
        for body in [
            json!({ "name": "bob", "token": world.token("ann", 600) }),
            json!({ "token": world.token("ann", -600) }),
            json!({ "token": world.token("nobody-here", 600) }),
            json!({ "token": &cut[..cut.len() - 4] }),
            json!({ "name": "ann", "token": "x" }),
            json!({ "name": "ann", "password": PASSWORD, "totp": code() }),
        ] {
            for path in ["/api/v1/session", "/api/v1/access/sign-in"] {
                sources += 1;
                let source = format!("127.0.8.{sources}");
                let answer = world.curl(path, None, &body, &["--interface", &source]).await;
                // Whom a good token names is asked on, for what the default policy wants, though
                // nobody has the name.
                match answer.body["factor"].as_str() {
                    Some(asked) => assert_eq!((asked, &body["name"]), ("password", &json!(null))),
                    None => assert_eq!(answer.problem().1, REFUSED, "{body}"),
                }
            }
        }
    });
}

#[test]
fn factors_are_asked_for_one_after_the_other_with_a_continuation_on_both_routes() {
    on_control_thread(async {
        let world = World::new("challenge").await;
        world.user("ann", &[Factor::Password, Factor::Totp]).await;
        world.user("bob", &[Factor::Certificate, Factor::Totp]).await;
        world.authority.issue("bob", "bob");
        let path = "/api/v1/access/sign-in";
        let asked = world.post(path, None, &json!({ "name": "ann", "password": PASSWORD })).await;
        assert_eq!((asked.status, &asked.body["factor"]), (202, &json!("totp")));
        let go_on = json!({ "continuation": asked.body["continuation"], "totp": code() });
        assert_eq!(names(&world.post(path, None, &go_on).await), ["laptop"]);
        assert_eq!(world.post(path, None, &go_on).await.problem().1, REFUSED, "works once");
        let path = "/api/v1/session";
        let asked = world.post(path, Some("bob"), &json!({})).await;
        assert_eq!((asked.status, &asked.body["factor"]), (202, &json!("totp")));
        let wrong = json!({ "continuation": asked.body["continuation"], "totp": "000000" });
        assert_eq!(world.post(path, None, &wrong).await.problem().1, REFUSED);
        let asked = world.post(path, Some("bob"), &json!({ "name": "bob" })).await;
        let go_on = json!({ "continuation": asked.body["continuation"], "totp": code() });
        let answer = world.post(path, None, &go_on).await;
        assert_eq!(answer.body["actor"], "user:bob", "{answer:?}");
        // Without the certificate the one-time password is not even asked for, and nothing tells
        // that there is a bob.
        for name in ["bob", "nobody-here"] {
            let none = world.post(path, None, &json!({ "name": name, "totp": code() })).await;
            assert_eq!(none.problem().1, REFUSED, "{name}");
        }
    });
}

/// What an authenticator shows that has this secret and counted so far.
fn shown_at(counter: u64, base32: &str) -> String {
    let output = Command::new("oathtool")
        .args(["--hotp", "--counter", &counter.to_string(), "--base32", base32])
        .output()
        .expect("oathtool is there: run tools/setup test");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_authenticator_that_counts_is_enrolled_lets_in_once_a_code_and_is_brought_back_in_step() {
    on_control_thread(async {
        let world = World::new("counter").await;
        world.user("ann", &[Factor::Password]).await;
        let (directory, root) = (world.directory(), Actor::local(0));
        directory.remove_totp(&root, "ann").await.unwrap();
        let jar = world.folder.path().join("cookies");
        let jar = jar.to_str().unwrap();
        let by_password = json!({ "name": "ann", "password": PASSWORD });
        let keep = ["--cookie-jar", jar];
        let login = world.curl("/api/v1/session", None, &by_password, &keep).await;
        let csrf = format!("X-CSRF-Token: {}", login.body["csrf_token"].as_str().unwrap());
        let with_login = ["--cookie", jar, "--header", &csrf];
        let at = "/api/v1/me/totp?kind=counter";
        let offer = world.curl(at, None, &json!({}), &with_login).await.body;
        let secret = offer["text"].as_str().unwrap();
        let proof =
            json!({ "secret": offer["secret"], "code": shown_at(1, secret), "kind": "counter" });
        let put = ["--cookie", jar, "--header", &csrf, "--request", "PUT"];
        let codes = world.curl("/api/v1/me/totp", None, &proof, &put).await;
        assert_eq!(codes.status, 200, "{codes:?}");
        let recovery = codes.body["recovery_codes"][0].as_str().unwrap();
        let factors = Patch::Set(vec![Factor::Password, Factor::Totp]);
        let patch = PolicyPatch { factors, ..PolicyPatch::default() };
        directory.patch_policy(&root, "for-ann", None, patch).await.unwrap();
        let pair = |first| format!("{} {}", shown_at(first, secret), shown_at(first + 1, secret));
        for (code, is_right, why) in [
            (shown_at(1, secret), false, "it confirmed the enrolment"),
            (shown_at(2, secret), true, "the next"),
            (shown_at(2, secret), false, "again"),
            (shown_at(12, secret), true, "pressed nine times for nothing"),
            (shown_at(5, secret), false, "one of those"),
            (shown_at(60, secret), false, "too far ahead for one"),
            (pair(60), true, "two in a row"),
            (pair(60), false, "again"),
            (shown_at(62, secret), true, "in step again"),
            (recovery.to_owned(), true, "a recovery code"),
            (recovery.to_owned(), false, "again"),
        ] {
            let body = json!({ "name": "ann", "password": PASSWORD, "totp": code });
            let answer = world.access(None, body).await;
            let expected = if is_right { 200 } else { 401 };
            assert_eq!(answer.status, expected, "{why}: {answer:?}");
        }
    });
}

#[test]
fn a_policy_that_comes_to_ask_for_a_certificate_holds_for_what_is_under_way() {
    on_control_thread(async {
        let world = World::new("change").await;
        let device = world.user("ann", &[Factor::Password]).await;
        let by_password = json!({ "name": "ann", "password": PASSWORD });
        let jar = world.folder.path().join("cookies");
        let jar = jar.to_str().unwrap();
        let keep = ["--cookie-jar", jar];
        let login = world.curl("/api/v1/session", None, &by_password, &keep).await;
        let csrf = format!("X-CSRF-Token: {}", login.body["csrf_token"].as_str().unwrap());
        let with_login = ["--cookie", jar, "--header", &csrf];
        let granted = world.curl("/api/v1/access", None, &json!({}), &with_login).await;
        assert_eq!(names(&granted), ["laptop"]);
        let ask = async |factors: &[Factor]| {
            let patch =
                PolicyPatch { factors: Patch::Set(factors.to_vec()), ..PolicyPatch::default() };
            let (directory, root) = (world.directory(), Actor::local(0));
            directory.patch_policy(&root, "for-ann", None, patch).await.unwrap();
        };
        ask(&[Factor::Password, Factor::Totp]).await;
        let half = world.access(None, by_password.clone()).await;
        assert_eq!(half.status, 202);
        ask(&[Factor::Certificate]).await;
        let go_on = json!({ "continuation": half.body["continuation"], "totp": code() });
        assert_eq!(world.access(None, go_on).await.problem().1, REFUSED);
        assert_eq!(world.access(None, by_password).await.problem().1, REFUSED);
        let by_login = world.curl("/api/v1/access", None, &json!({}), &with_login).await;
        assert_eq!(by_login.problem().1, "forbidden", "the login has proved too little");
        world.authority.issue("ann", "ann");
        assert_eq!(names(&world.access(Some("ann"), json!({})).await), ["laptop"]);
        assert!(world.is_peer(&device), "what was given stays until its time is over");
    });
}

#[test]
fn worthless_certificates_lock_nobody_out_and_do_not_tell_who_exists() {
    on_control_thread(async {
        let world = World::new("worthless").await;
        world.user("ann", &[Factor::Certificate]).await;
        world.user("off", &[Factor::Certificate]).await;
        let (directory, root) = (world.directory(), Actor::local(0));
        let factors = Patch::Set(vec![Factor::Certificate]);
        let patch = PolicyPatch { factors, ..PolicyPatch::default() };
        directory.patch_policy(&root, "default", None, patch).await.unwrap();
        let off = crate::store::records::UserState::Disabled;
        directory.set_user_state(&root, "off", None, off).await.unwrap();
        world.authority.issue_for("server", "ann", "server", &[]);
        world.authority.issue("ann", "ann");
        for number in 1..=36 {
            let name = ["ann", "off", "nobody-here"][number % 3];
            let (body, source) = (json!({ "name": name }), format!("127.9.{number}.1"));
            let from = ["--interface", &source];
            let path = "/api/v1/access/sign-in";
            let wrong = world.curl(path, Some("server"), &body, &from).await;
            assert_eq!(wrong.problem(), INVALID, "{name}");
            let none = world.curl(path, None, &body, &from).await;
            assert_eq!(none.problem(), NONE, "{name}");
        }
        assert_eq!(names(&world.access(Some("ann"), json!({ "name": "ann" })).await), ["laptop"]);
    });
}
