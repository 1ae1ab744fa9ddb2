use proptest::prelude::*;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use webpki::anchor_from_trusted_cert;

use super::answer::Answer;
use super::judge::judge;
use super::kept::{ANSWERS_MAX, PAUSE_MS};
use super::*;
use crate::authority::Authority;
use crate::scratch::Scratch;

const RSA: &[&str] = &["-newkey", "rsa:2048", "-nodes"];
const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
const P384: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes"];
const ED25519: &[&str] = &["-newkey", "ed25519", "-nodes"];

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

fn der(authority: &Authority, file: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(authority.file(file, "pem")).unwrap()
}

fn question(authority: &Authority, file: &str) -> Arc<Question> {
    let certificate = der(authority, "ca");
    let anchor = anchor_from_trusted_cert(&certificate).unwrap();
    let issuer = Issuer::new(&anchor.subject, &anchor.subject_public_key_info);
    let own = der(authority, file);
    let own = webpki::EndEntityCert::try_from(&own).unwrap();
    let (issuer_name, serial) = (own.issuer().to_vec(), own.serial().to_vec());
    Arc::new(Question {
        id: CertificateId { issuer: issuer_name, serial },
        issuer: Arc::new(issuer),
        responder: "http://127.0.0.1:1".to_owned(),
    })
}

/// An authority with a good and a revoked client, and one that its index does not know.
fn authority(scratch: &Scratch, key: &'static [&'static str]) -> Authority {
    let own = Authority::with_key(scratch.path(), "CA", key);
    for file in ["unknown", "good", "bad"] {
        own.issue(file, "ann");
        if file == "unknown" {
            std::fs::write(scratch.path().join("index.txt"), "").unwrap();
        }
    }
    for (file, section) in [("answers", "answers"), ("checked", "answers_checked")] {
        own.issue_for(file, "Responder", section, &[]);
    }
    own.revoke("bad");
    own
}

#[test]
fn answers_of_openssl_are_believed_whatever_the_keys_and_whoever_may_sign() {
    for (name, key) in [("rsa", RSA), ("p256", P256), ("p384", P384), ("ed25519", ED25519)] {
        let scratch = Scratch::new(&format!("ocsp_{name}"));
        let own = authority(&scratch, key);
        for (file, status) in
            [("good", Status::Good), ("bad", Status::Revoked), ("unknown", Status::Unknown)]
        {
            let question = question(&own, file);
            let encoded = question.encoded().unwrap();
            for (signer, more) in
                [("ca", &[] as &[&str]), ("answers", &["-resp_key_id"]), ("checked", &[])]
            {
                let more = [more, &["-nmin", "60"]].concat();
                let answer = own.answer(&encoded, signer, &more);
                let verdict = judge(&answer, &question, &[], now()).unwrap();
                assert_eq!(verdict.status, status, "{name} {file} {signer}");
                let lasts = verdict.until.since(now());
                assert!((59 * MINUTE_MS..=HOUR_MS).contains(&lasts), "{lasts}");
            }
        }
    }
}

#[test]
fn nobody_else_may_sign() {
    let scratch = Scratch::new("ocsp_signers");
    let own = authority(&scratch, P256);
    own.issue("client", "Responder");
    own.issue_for("server", "Responder", "server", &[]);
    own.issue_for(
        "past",
        "Responder",
        "answers",
        &["-enddate", "20210101000000Z", "-startdate", "20200101000000Z"],
    );
    own.issue_for("stolen", "Responder", "answers_checked", &[]);
    own.issue_for("lasting", "Responder", "answers", &[]);
    // One that an authority below has appointed, and one of a stranger of the same name.
    let below = own.below("below");
    let stranger = Authority::new(&scratch.path().join("stranger"), "CA");
    for (file, other) in [("nephew", &below), ("stranger", &stranger)] {
        other.issue_for(file, "Responder", "answers", &[]);
        for ending in ["pem", "key"] {
            std::fs::copy(other.file(file, ending), own.file(file, ending)).unwrap();
        }
    }
    for file in ["stolen", "lasting"] {
        own.revoke(file);
    }
    own.publish();
    let list = std::fs::read(own.file("ca", "crl")).unwrap();
    let list = rustls::pki_types::CertificateRevocationListDer::from_pem_slice(&list).unwrap();
    let list = webpki::OwnedCertRevocationList::from_der(&list).unwrap();
    let lists = [webpki::CertRevocationList::Owned(list)];
    let question = question(&own, "good");
    let encoded = question.encoded().unwrap();
    for signer in ["client", "server", "past", "stolen", "nephew", "stranger", "good"] {
        let answer = own.answer(&encoded, signer, &["-nmin", "5"]);
        let judged = judge(&answer, &question, &lists, now());
        assert_eq!(judged, Err(Worthless::Signature), "{signer}");
    }
    // Its authority has said that this one is good until it ends, so nobody looks.
    let answer = own.answer(&encoded, "lasting", &["-nmin", "5"]);
    assert!(judge(&answer, &question, &lists, now()).is_ok());
    // Without the certificate nobody knows whose signature it is.
    let answer = own.answer(&encoded, "answers", &["-nmin", "5", "-resp_no_certs"]);
    assert_eq!(judge(&answer, &question, &[], now()), Err(Worthless::Signature));
    let answer = own.answer(&encoded, "ca", &["-nmin", "5", "-badsig"]);
    assert_eq!(judge(&answer, &question, &[], now()), Err(Worthless::Signature));
}

#[test]
fn an_answer_is_about_one_certificate_of_one_issuer() {
    let scratch = Scratch::new("ocsp_other");
    let own = authority(&scratch, P256);
    let (good, bad) = (question(&own, "good"), question(&own, "bad"));
    let answer = own.answer(&bad.encoded().unwrap(), "ca", &["-nmin", "5"]);
    assert_eq!(judge(&answer, &good, &[], now()), Err(Worthless::Other));
    let stranger = Authority::new(&scratch.path().join("stranger"), "CA");
    std::fs::copy(own.file("good", "pem"), stranger.file("good", "pem")).unwrap();
    let twin = question(&stranger, "good");
    assert_eq!(twin.id, good.id);
    let answer = own.answer(&good.encoded().unwrap(), "ca", &["-nmin", "5"]);
    assert_eq!(judge(&answer, &twin, &[], now()), Err(Worthless::Other));
    // A responder that is not responsible says so without a signature.
    let refusal = [0x30, 0x03, 0x0a, 0x01, 0x06];
    let refused = Worthless::Unread(ReadError::Refusal(6));
    assert_eq!(judge(&refusal, &good, &[], now()), Err(refused));
}

#[test]
fn an_answer_counts_for_its_time_and_clocks_may_be_minutes_apart() {
    let scratch = Scratch::new("ocsp_times");
    let own = authority(&scratch, P256);
    let question = question(&own, "good");
    let encoded = question.encoded().unwrap();
    let lasting = |more: &[&str]| own.answer(&encoded, "ca", more);
    let (hour, days, undated) =
        (lasting(&["-nmin", "60"]), lasting(&["-ndays", "3"]), lasting(&[]));
    let begun = now();
    let lasts = |answer: &[u8], after_ms: i64| {
        let at = begun.plus_ms(after_ms);
        judge(answer, &question, &[], at).map(|verdict| verdict.until.since(at))
    };
    assert_eq!(lasts(&hour, -6 * MINUTE_MS), Err(Worthless::Time), "not yet");
    assert!(lasts(&hour, -4 * MINUTE_MS).is_ok());
    assert!(lasts(&hour, 59 * MINUTE_MS).is_ok_and(|ms| ms <= MINUTE_MS));
    // Over by less than clocks may differ: used, but not for long.
    assert_eq!(lasts(&hour, 64 * MINUTE_MS), Ok(10_000));
    assert_eq!(lasts(&hour, 66 * MINUTE_MS), Err(Worthless::Time), "expired");
    assert_eq!(lasts(&days, 0), Ok(12 * HOUR_MS), "nothing is kept for days");
    assert_eq!(lasts(&undated, MINUTE_MS), Ok(10_000));
    assert_eq!(lasts(&undated, 11 * MINUTE_MS), Err(Worthless::Time), "somebody kept it");
}

#[test]
fn a_question_is_the_one_that_openssl_asks() {
    let scratch = Scratch::new("ocsp_question");
    let own = authority(&scratch, P256);
    let question = question(&own, "good");
    let done = std::process::Command::new("openssl")
        .args(["ocsp", "-issuer", "ca.pem", "-cert", "good.pem", "-no_nonce", "-reqout", "own.der"])
        .current_dir(scratch.path())
        .status();
    assert!(done.unwrap().success());
    let encoded = question.encoded().unwrap();
    assert_eq!(encoded, std::fs::read(scratch.path().join("own.der")).unwrap());
    let address = question.address(&encoded).unwrap();
    assert!(address.starts_with("http://127.0.0.1:1/ME"), "{address}");
    assert!(!address[19..].contains(['+', '/', '=']), "{address}");
    let responder = format!("http://127.0.0.1:1/{}", "x".repeat(200));
    let long = Question { responder, ..(*question).clone() };
    assert_eq!(long.address(&encoded), None, "too long for an address: it is posted");
}

#[test]
fn responders_are_asked_by_plain_http_at_an_address_that_is_no_trap() {
    for good in ["http://ocsp.example.org", "http://192.0.2.7:8080/ca", "http://[2001:db8::7]/"] {
        assert!(question::responder(good).is_ok(), "{good}");
    }
    for bad in [
        "https://ocsp.example.org",
        "file:///etc/passwd",
        "ldap://ocsp.example.org",
        "http://user:secret@ocsp.example.org",
        "http://ocsp.example.org/?a=b",
        "http://ocsp.example.org/#a",
        "ocsp.example.org",
        "http://",
        &format!("http://ocsp.example.org/{}", "a".repeat(1024)),
    ] {
        assert!(question::responder(bad).is_err(), "{bad}");
    }
    let scratch = Scratch::new("ocsp_named");
    let own = Authority::new(scratch.path(), "CA");
    for (number, (address, is_asked)) in [
        ("http://ocsp.example.org/ca", true),
        ("http://127.0.0.1:8080", true),
        ("http://169.254.169.254/latest", false),
        ("http://[fe80::1]/", false),
        ("https://ocsp.example.org", false),
    ]
    .into_iter()
    .enumerate()
    {
        own.name_responder(address);
        let file = format!("client{number}");
        own.issue_for(&file, "ann", "asked_client", &[]);
        let named = question::named(&der(&own, &file));
        assert_eq!(named.as_deref(), is_asked.then_some(address));
    }
    own.issue("plain", "ann");
    assert_eq!(question::named(&der(&own, "plain")), None);
}

/// A question about the certificate of this number.
fn made_up(number: u32) -> Arc<Question> {
    Arc::new(Question {
        id: CertificateId { issuer: vec![1], serial: number.to_be_bytes().to_vec() },
        issuer: Arc::new(Issuer::new(&[1], &[2])),
        responder: "http://192.0.2.7".to_owned(),
    })
}

fn said(status: Status, until: i64) -> Result<Verdict, Outcome> {
    Ok(Verdict { status, until: Timestamp(until) })
}

#[test]
fn an_answer_is_kept_until_it_is_over_and_asked_for_again_while_it_is_used() {
    let mut kept = Kept::default();
    let (one, two) = (made_up(1), made_up(2));
    kept.put(&one, said(Status::Good, 5_000), Timestamp(1_000));
    kept.put(&two, said(Status::Good, 9_000), Timestamp(1_000));
    let good = Some(Outcome::Said(Status::Good));
    assert_eq!(kept.get(&one, Timestamp(4_999)), good);
    assert_eq!(kept.get(&one, Timestamp(5_000)), None);
    assert_eq!(kept.get(&one, Timestamp(999)), None, "the clock was set back");
    assert!(kept.due(Timestamp(4_999), 9).is_empty());
    assert_eq!(kept.due(Timestamp(5_000), 9), [Arc::clone(&one)]);
    assert!(kept.due(Timestamp(5_001), 9).is_empty(), "it is being asked for");
    assert_eq!(kept.due(Timestamp(9_000 + PAUSE_MS), 1), [Arc::clone(&two)], "first the oldest");
    // Somebody may have signed in by it and not have access yet.
    kept.forget(&one, Timestamp(30_000));
    assert_eq!(kept.len(), 2);
    kept.forget(&one, Timestamp(200_000));
    assert_eq!(kept.len(), 1);
}

#[test]
fn who_is_revoked_stays_so_while_the_responder_is_silent() {
    let mut kept = Kept::default();
    let (one, two) = (made_up(1), made_up(2));
    let revoked = Outcome::Said(Status::Revoked);
    assert_eq!(kept.meanwhile(&one), Outcome::Silent);
    assert_eq!(kept.put(&one, said(Status::Revoked, 5_000), Timestamp(1_000)), revoked);
    for outcome in [Outcome::Silent, Outcome::Invalid] {
        assert_eq!(kept.put(&one, Err(outcome), Timestamp(6_000)), revoked);
        assert_eq!(kept.put(&two, Err(outcome), Timestamp(6_000)), outcome);
    }
    assert_eq!(kept.meanwhile(&one), revoked);
    let live = [one.id.clone(), two.id.clone()];
    assert_eq!(kept.revoked(&live), [one.id.clone()].into());
    // It was on hold, and its authority has released it.
    kept.put(&one, said(Status::Good, 9_000), Timestamp(7_000));
    assert!(kept.revoked(&live).is_empty());
}

#[test]
fn what_is_asked_about_is_noted_for_the_next_process_and_due_there_at_once() {
    let scratch = Scratch::new("ocsp_notes");
    let own = authority(&scratch, P256);
    let (good, bad) = (question(&own, "good"), question(&own, "bad"));
    let mut kept = Kept::default();
    for question in [&good, &bad, &good] {
        kept.put(question, said(Status::Good, 9_000), Timestamp(1_000));
    }
    kept.forget(&bad, Timestamp(100_000));
    let noted = [&good, &bad].map(|question| Note::Asked(Arc::clone(question)));
    let over = Note::Over(Arc::clone(&bad));
    assert_eq!(kept.take_notes(), [&noted[..], &[over]].concat());
    assert!(kept.take_notes().is_empty());
    let text = good.to_kept();
    let again = Question::from_kept(&text).unwrap();
    assert_eq!(again, *good);
    for len in 0..text.len() - 1 {
        // A shorter address may be one.
        let cut = Question::from_kept(&text[..len]);
        assert!(
            cut.is_none_or(|cut| cut.id == good.id && good.responder.starts_with(&cut.responder))
        );
    }
    let mut next = Kept::default();
    next.restore(again);
    assert_eq!(next.get(&good, now()), None, "nothing is known");
    assert_eq!(next.due(now(), 9), [Arc::clone(&good)]);
    assert!(next.take_notes().is_empty(), "it is noted already");
}

#[test]
fn a_silent_responder_is_tried_by_one_at_a_time() {
    let mut kept = Kept::default();
    let (name, other) = ("http://192.0.2.7", "http://192.0.2.8");
    assert!(kept.may_ask(name, Timestamp(0)) && kept.may_ask(name, Timestamp(0)));
    kept.is_silent(name, Timestamp(0));
    assert!(!kept.may_ask(name, Timestamp(PAUSE_MS - 1)));
    assert!(kept.may_ask(other, Timestamp(0)));
    assert!(kept.may_ask(name, Timestamp(PAUSE_MS)));
    assert!(!kept.may_ask(name, Timestamp(PAUSE_MS)), "one is enough to find out");
    assert!(kept.may_ask(name, Timestamp(-1)), "the clock was set back");
    kept.has_answered(name);
    assert!(kept.may_ask(name, Timestamp(PAUSE_MS)) && kept.may_ask(name, Timestamp(PAUSE_MS)));
    for number in 0..1_000 {
        kept.is_silent(&format!("http://192.0.2.{number}"), Timestamp(0));
    }
    assert!(kept.silent_len() <= 256);
}

#[test]
fn answers_are_bounded_in_number_and_what_ends_first_goes_first() {
    let mut kept = Kept::default();
    for number in 0..=ANSWERS_MAX as u32 {
        // The one in the middle ends first.
        let until = if number == 500 { 2 } else { 10_000 + i64::from(number) };
        kept.put(&made_up(number), said(Status::Good, until), Timestamp(1));
    }
    assert_eq!(kept.len(), ANSWERS_MAX);
    assert_eq!(kept.get(&made_up(500), Timestamp(1)), None);
    assert!(kept.get(&made_up(0), Timestamp(1)).is_some());
}

#[test]
fn a_changed_answer_is_not_believed_to_say_anything_else() {
    let scratch = Scratch::new("ocsp_changed");
    let own = authority(&scratch, P256);
    let question = question(&own, "good");
    let answer = own.answer(&question.encoded().unwrap(), "answers", &["-nmin", "5"]);
    let signed = |bytes: &[u8]| Answer::read(bytes).map(|read| read.signed.to_vec());
    let (genuine, at) = (signed(&answer), now());
    let places = (any::<prop::sample::Index>(), 0_u8..8, prop::bool::weighted(0.1));
    proptest!(ProptestConfig::with_cases(512), |((place, bit, is_cut) in places)| {
        let mut changed = answer.clone();
        let place = place.index(changed.len());
        if is_cut { changed.truncate(place) } else { changed[place] ^= 1 << bit }
        if let Ok(verdict) = judge(&changed, &question, &[], at) {
            prop_assert_eq!(signed(&changed), genuine.clone());
            prop_assert_eq!(verdict.status, Status::Good);
        }
    });
}
