use std::process::Command;
use std::time::{Duration, Instant};

use super::super::backend::{Credentials, Protocol};
use super::super::memory::{Memory, person};
use super::super::source::Source;
use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// Appendix B of RFC 6238.
const RFC_SECRET: &[u8] = b"12345678901234567890";

pub(in crate::auth) fn answer(memory: &Memory, name: &str, code: &str, now: Timestamp) -> Answer {
    let request = Request {
        name: name.to_owned(),
        person: memory.person(name).map(Arc::new),
        credentials: Arc::new(Credentials {
            code: Some(Secret::new(code)),
            ..Credentials::default()
        }),
        source: Source::Local(0),
        protocol: Protocol::API,
        state: None,
        now,
        deadline: Instant::now() + Duration::from_secs(60),
    };
    let back_end = OneTimePasswords::new(Arc::new(memory.clone())).unwrap();
    let Work::Waiting(work) = back_end.begin(request) else { panic!("does not wait") };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let Work::Done(answer) = runtime.block_on(work) else { panic!("not done") };
    answer
}

fn ann(secret: &[u8]) -> Memory {
    let memory = Memory::default();
    let mut ann = person("ann");
    ann.secrets.totp_secret = Some(secret.to_vec());
    memory.put(ann);
    memory.put(person("bob"));
    memory
}

fn accepted() -> Answer {
    Answer::Accepted(Proof::default())
}

#[test]
fn codes_are_those_of_the_rfc() {
    // The last six digits of the eight in the table.
    for (seconds, code) in [(59, "287082"), (1_111_111_109, "081804"), (1_111_111_111, "050471")] {
        let now = Timestamp(seconds * 1000);
        assert_eq!(step_of(RFC_SECRET, code, now), Some(seconds as u64 / 30), "{seconds}");
    }
    let long = b"12345678901234567890123456789012";
    assert_eq!(step_of(long, "119246", Timestamp(59_000)), Some(1));
}

#[test]
fn codes_are_those_of_oathtool() {
    for hash in [Hash::Sha1, Hash::Sha256] {
        for seconds in [1_800_000_000, 1_800_000_029, 1_912_345_678] {
            let enrolment = enrol("Ringway", "ann", hash).unwrap();
            let mode = if hash == Hash::Sha1 { "--totp=sha1" } else { "--totp=sha256" };
            let output = Command::new("oathtool")
                .args([mode, "--base32", "--now", &format!("@{seconds}"), &enrolment.base32])
                .output()
                .expect("oathtool is there: run tools/setup test");
            assert!(output.status.success(), "{output:?}");
            let code = Secret::new(String::from_utf8(output.stdout).unwrap().trim());
            let confirmed = confirm(&enrolment.secret, &code, Timestamp(seconds * 1000));
            assert_eq!(confirmed, Some(seconds as u64 / 30));
        }
    }
}

#[test]
fn an_authenticator_reads_the_url() {
    let enrolment = enrol("My: gateway", "ann@example.org", Hash::Sha256).unwrap();
    let url = enrolment.url.as_str();
    assert!(url.starts_with("otpauth://totp/"), "{url}");
    for part in [&format!("secret={}", *enrolment.base32), "algorithm=SHA256", "ann%40example.org"]
    {
        assert!(url.contains(part), "{part} in {url}");
    }
    assert!(TOTP::from_url(url).unwrap().secret == *enrolment.secret, "reads another secret");
    assert_ne!(
        *enrolment.secret,
        *enrol("My: gateway", "ann@example.org", Hash::Sha256).unwrap().secret
    );
}

#[test]
fn a_step_early_or_late_counts_and_two_do_not() {
    let step = NOW.0 as u64 / 30_000;
    for (offset, counts) in [(-2_i64, false), (-1, true), (0, true), (1, true), (2, false)] {
        let code = totp(RFC_SECRET).generate(step.saturating_add_signed(offset) * 30);
        let memory = ann(RFC_SECRET);
        let expected = if counts { accepted() } else { Answer::Refused(Reason::CodeWrong) };
        assert_eq!(answer(&memory, "ann", &code, NOW), expected, "{offset}");
    }
}

#[test]
fn a_code_counts_once_and_makes_older_ones_worthless() {
    let memory = ann(RFC_SECRET);
    let code = |offset: i64| totp(RFC_SECRET).generate((NOW.0 / 1000 + offset * 30) as u64);
    assert_eq!(answer(&memory, "ann", &format!(" {} ", code(0)), NOW), accepted());
    let reused = Answer::Refused(Reason::CodeReused);
    assert_eq!(answer(&memory, "ann", &code(0), NOW), reused);
    assert_eq!(answer(&memory, "ann", &code(-1), NOW), reused);
    assert_eq!(answer(&memory, "ann", &code(1), NOW), accepted());
}

#[test]
fn what_is_no_code_is_refused() {
    let memory = ann(RFC_SECRET);
    for (name, code, reason) in [
        ("ann", "000000", Reason::CodeWrong),
        ("ann", "", Reason::CodeWrong),
        ("ann", "12345", Reason::CodeWrong),
        ("ann", "１２３４５６", Reason::CodeWrong),
        ("bob", "000000", Reason::CodeMissing),
        ("bob", "abcd efgh jkmn pqrs", Reason::CodeMissing),
        ("eve", "000000", Reason::UserUnknown),
        ("eve", "abcd efgh jkmn pqrs", Reason::UserUnknown),
    ] {
        assert_eq!(answer(&memory, name, code, NOW), Answer::Refused(reason), "{name} {code}");
    }
    memory.break_down(true);
    let code = totp(RFC_SECRET).generate(NOW.0 as u64 / 1000);
    assert_eq!(answer(&memory, "ann", &code, NOW), Answer::Refused(Reason::StoreUnavailable));
}

#[test]
fn a_recovery_code_works_once_for_its_user() {
    let memory = ann(RFC_SECRET);
    let id = memory.person("ann").unwrap().id;
    let codes = recovery_codes(id).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let hashes: Vec<[u8; 32]> = codes.iter().map(|(_, hash)| *hash).collect();
    assert_eq!(hashes.len(), 10);
    runtime.block_on(memory.put_recovery_codes(id, hashes)).unwrap();
    for (code, _) in &codes {
        let code = code.expose();
        assert_eq!(code.len(), 19, "{code}");
        assert_eq!(answer(&memory, "bob", code, NOW), Answer::Refused(Reason::CodeMissing));
        assert_eq!(answer(&memory, "ann", &code.to_uppercase(), NOW), accepted());
        assert_eq!(answer(&memory, "ann", code, NOW), Answer::Refused(Reason::CodeWrong));
    }
    assert_ne!(recovery_hash(id, "a"), recovery_hash(UserId::fresh(), "a"));
}
