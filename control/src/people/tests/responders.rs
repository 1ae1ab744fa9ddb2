//! What responders (OCSP) do to those who sign in by a certificate, and to nobody else.

use super::*;
use crate::access::Stand;
use crate::access::people::Out;
use crate::authority::Responder;
use crate::gateway::fake_cores::on_control_thread;

/// An answer without a next update counts ten seconds; then it is looked for every few seconds.
const BOUND: Duration = Duration::from_secs(40);

async fn with_responder(name: &str, policy: &str) -> (World, u16) {
    let port = Responder::port();
    let sign_in = format!("ocsp = \"{policy}\"\nocsp_responder = \"http://127.0.0.1:{port}\"\n");
    let world = World::with(name, &sign_in).await;
    world.authority.issue_for("answers", "Responder", "answers", &[]);
    (world, port)
}

#[test]
fn access_ends_when_a_responder_says_that_its_certificate_is_revoked() {
    on_control_thread(async {
        let (world, port) = with_responder("responder_ends", "strict").await;
        let (ann, bob) = (
            world.user("ann", &[Factor::Certificate]).await,
            world.user("bob", &[Factor::Certificate]).await,
        );
        for name in ["ann", "bob"] {
            world.authority.issue(name, name);
        }
        let responder = world.authority.respond(port, "answers", &[]);
        for name in ["ann", "bob"] {
            let answer = world.access(Some(name), json!({})).await;
            assert_eq!(names(&answer), ["laptop"]);
        }
        until(|| [&ann, &bob].iter().all(|device| world.is_peer(device))).await;
        // The list says nothing of it: it is not published again.
        world.authority.revoke("ann");
        drop(responder);
        let _responder = world.authority.respond(port, "answers", &[]);
        let begun = Instant::now();
        while world.is_peer(&ann) {
            assert!(begun.elapsed() < BOUND, "it goes on");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let why = Stand::Out(Out::CertificateRevoked);
        assert_eq!(world.service().stand(ann.id), Some(why));
        assert!(world.is_peer(&bob), "its certificate is good");
        let refused = world.access(Some("ann"), json!({})).await;
        assert_eq!(refused.problem(), (401, "certificate-revoked", "certificate revoked"));
    });
}

#[test]
fn a_certificate_that_gave_access_before_a_restart_is_asked_about_after_it() {
    on_control_thread(async {
        let (mut world, port) = with_responder("responder_restart", "warn").await;
        let (ann, bob) = (
            world.user("ann", &[Factor::Certificate]).await,
            world.user("bob", &[Factor::Certificate]).await,
        );
        for name in ["ann", "bob"] {
            world.authority.issue(name, name);
        }
        let responder = world.authority.respond(port, "answers", &["-nmin", "60"]);
        for name in ["ann", "bob"] {
            assert_eq!(names(&world.access(Some(name), json!({})).await), ["laptop"]);
        }
        let store = world.directory().store().clone();
        let begun = Instant::now();
        while store.read(|db| db.settings_after("ocsp:", "", 9)).await.unwrap().len() < 2 {
            assert!(begun.elapsed() < BOUND, "nothing is noted");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(store);
        world.authority.revoke("ann");
        drop(responder);
        let _responder = world.authority.respond(port, "answers", &["-nmin", "60"]);
        world.restart().await;
        // The answer of before would have counted for an hour.
        let why = Stand::Out(Out::CertificateRevoked);
        let begun = Instant::now();
        while world.service().stand(ann.id) != Some(why) {
            assert!(begun.elapsed() < BOUND, "{:?}", world.service().stand(ann.id));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        until(|| world.is_peer(&bob) && !world.is_peer(&ann)).await;
    });
}

#[test]
fn a_responder_that_hangs_keeps_certificates_out_and_slows_no_password() {
    on_control_thread(async {
        let (world, port) = with_responder("responder_hangs", "strict").await;
        world.user("ann", &[Factor::Certificate]).await;
        world.user("carl", &[Factor::Password]).await;
        world.authority.issue("ann", "ann");
        let responder = world.authority.respond(port, "answers", &[]);
        responder.freeze();
        let by_password = json!({ "name": "carl", "password": PASSWORD });
        let timed = async |certificate: Option<&str>, body: Value| {
            let begun = Instant::now();
            let answer = world.access(certificate, body).await;
            (answer, begun.elapsed())
        };
        let (refused, granted) =
            tokio::join!(timed(Some("ann"), json!({})), timed(None, by_password));
        let invalid = (401, "certificate-invalid", "certificate validation failed");
        assert_eq!(refused.0.problem(), invalid);
        assert_eq!(names(&granted.0), ["laptop"]);
        assert!(refused.1 > Duration::from_millis(2_500), "{:?}", refused.1);
        assert!(granted.1 < refused.1, "{:?} beside {:?}", granted.1, refused.1);
        let (again, took) = timed(Some("ann"), json!({})).await;
        assert_eq!(again.problem(), invalid);
        assert!(took < Duration::from_millis(2_500), "not another deadline: {took:?}");
    });
}
