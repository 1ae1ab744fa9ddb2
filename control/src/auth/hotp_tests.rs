use std::process::Command;

use proptest::prelude::*;

use super::super::backend::{Answer, Proof};
use super::super::memory::{Memory, person};
use super::super::reason::Reason;
use super::super::totp::tests::answer;
use super::*;
use crate::store::records::{OtpKind, Timestamp};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// Appendix D of RFC 4226.
const RFC_SECRET: &[u8] = b"12345678901234567890";
const RFC_CODES: [&str; 10] = [
    "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871",
    "520489",
];

/// Ann has an authenticator that goes by a counter, Tim one that goes by time, Bob none.
fn people() -> Memory {
    let memory = Memory::default();
    for (name, kind) in [("ann", OtpKind::Counter), ("tim", OtpKind::Time)] {
        let mut one = person(name);
        one.secrets.totp_secret = Some(RFC_SECRET.to_vec());
        one.secrets.totp_kind = kind;
        memory.put(one);
    }
    memory.put(person("bob"));
    memory
}

fn code(counter: u64) -> String {
    Codes::of(RFC_SECRET).at(counter).to_string()
}

/// Two in a row, the first of counter `counter`.
fn two(counter: u64) -> String {
    format!("{} {}", code(counter), code(counter + 1))
}

fn taken(memory: &Memory, code: &str) -> bool {
    match answer(memory, "ann", code, NOW) {
        Answer::Accepted(proof) => proof == Proof::default(),
        Answer::Refused(reason) => {
            assert!(matches!(reason, Reason::CodeWrong | Reason::CodeReused), "{reason:?}");
            false
        }
        other @ (Answer::Challenge { .. } | Answer::Pending { .. }) => panic!("{other:?}"),
    }
}

/// How many counters are used up.
fn used(memory: &Memory) -> u64 {
    memory.person("ann").unwrap().secrets.totp_last_step
}

#[test]
fn codes_are_those_of_the_rfc() {
    for (counter, expected) in (0..).zip(RFC_CODES) {
        assert_eq!(code(counter), expected, "{counter}");
    }
    // One after the other they are taken, from the first on.
    let memory = people();
    for (counter, code) in (1..).zip(RFC_CODES) {
        assert!(taken(&memory, code));
        assert_eq!(used(&memory), counter);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever secret and counter: oathtool shows what we expect, and beyond the window nothing.
    #[test]
    fn codes_are_those_of_oathtool(
        secret in prop::collection::vec(any::<u8>(), 16..=64),
        first in prop_oneof![0_u64..1000, 0_u64..1 << 32, 0_u64..COUNTER_MAX],
        ahead in 0_u64..AHEAD + 3,
    ) {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let counter = first + ahead;
        let output = Command::new("oathtool")
            .args(["--hotp", "--window", "1", "--counter", &counter.to_string(), &hex])
            .output()
            .expect("oathtool is there: run tools/setup test");
        prop_assert!(output.status.success(), "{:?}", output);
        let shown = String::from_utf8(output.stdout).unwrap();
        let shown: Vec<&str> = shown.lines().collect();
        prop_assert_eq!(shown.len(), 2);
        // By chance an earlier counter has the same code, once in some 100,000 times.
        let by_chance = (first..counter).find(|at| *Codes::of(&secret).at(*at) == *shown[0]);
        let expected = by_chance.or_else(|| (ahead < AHEAD).then_some(counter));
        prop_assert_eq!(confirm(&secret, &Secret::new(shown[0]), first), expected);
        let both = Secret::new(shown.join(" "));
        prop_assert_eq!(confirm(&secret, &both, first), Some(counter + 1));
    }

    /// Whatever is pressed and typed: what is taken is later than all before, and what the window
    /// covers is taken.
    #[test]
    fn a_counter_counts_once_and_none_before_it(typed in prop::collection::vec(0_u64..60, 1..30)) {
        let memory = people();
        let mut next = 0;
        for counter in typed {
            let is_in_window = (next..next + AHEAD).contains(&counter);
            prop_assert_eq!(taken(&memory, &code(counter)), is_in_window, "{} {}", next, counter);
            if is_in_window {
                next = counter + 1;
            }
            prop_assert_eq!(used(&memory), next);
        }
    }
}

#[test]
fn a_code_that_was_used_or_skipped_is_worth_nothing() {
    let memory = people();
    assert!(taken(&memory, &code(3)));
    for counter in 0..=3 {
        assert!(!taken(&memory, &code(counter)), "{counter}");
        assert!(!taken(&memory, &two(counter.saturating_sub(1))), "{counter}");
    }
    assert!(taken(&memory, &code(4)));
}

#[test]
fn presses_for_nothing_are_forgiven_up_to_the_window() {
    let (last, beyond) = (AHEAD - 1, AHEAD);
    assert!(taken(&people(), &code(last)));
    let memory = people();
    assert!(!taken(&memory, &code(beyond)));
    assert_eq!(used(&memory), 0, "what is refused moves nothing");
}

#[test]
fn two_codes_in_a_row_find_a_device_that_is_far_ahead() {
    for first in [0, 5, AHEAD, 57, FAR_AHEAD - 2] {
        let memory = people();
        assert!(taken(&memory, &two(first)), "{first}");
        assert_eq!(used(&memory), first + 2);
        assert!(!taken(&memory, &two(first)), "not twice");
        assert!(taken(&memory, &code(first + 2)), "it is in step again");
    }
    let memory = people();
    for (wrong, why) in [
        (two(FAR_AHEAD - 1), "too far ahead"),
        (format!("{} {}", code(20), code(22)), "not in a row"),
        (format!("{} {}", code(21), code(20)), "backwards"),
        (format!("{}{}", code(20), code(20)), "the same twice"),
        (format!("{} 12345", code(20)), "too short"),
        (format!("{} {}", two(20), code(22)), "three"),
    ] {
        assert!(!taken(&memory, &wrong), "{why}");
        assert_eq!(used(&memory), 0, "{why}");
    }
}

#[test]
fn codes_of_one_kind_are_worth_nothing_for_the_other() {
    let memory = people();
    let step = NOW.0 as u64 / 30_000;
    let by_time = code(step);
    assert_eq!(answer(&memory, "tim", &by_time, NOW), Answer::Accepted(Proof::default()));
    assert_eq!(answer(&memory, "ann", &by_time, NOW), Answer::Refused(Reason::CodeWrong));
    for given in [code(0), two(0), two(step)] {
        assert_eq!(answer(&memory, "tim", &given, NOW), Answer::Refused(Reason::CodeWrong));
        assert_eq!(answer(&memory, "bob", &given, NOW), Answer::Refused(Reason::CodeMissing));
        assert_eq!(answer(&memory, "eve", &given, NOW), Answer::Refused(Reason::UserUnknown));
    }
}

#[test]
fn a_recovery_code_works_for_a_counter_too() {
    let memory = people();
    let id = memory.person("ann").unwrap().id;
    let codes = totp::recovery_codes(id).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let hashes = codes.iter().map(|(_, hash)| *hash).collect();
    let put = super::super::people::People::put_recovery_codes(&memory, id, hashes);
    runtime.block_on(put).unwrap();
    assert!(taken(&memory, codes[0].0.expose()));
    assert!(!taken(&memory, codes[0].0.expose()));
    assert_eq!(used(&memory), 0);
}

#[test]
fn an_authenticator_reads_the_url() {
    let enrolment = enrol("My: gateway", "ann@example.org").unwrap();
    let url = enrolment.url.as_str();
    assert!(url.starts_with("otpauth://hotp/My%20%20gateway:ann%40example.org?"), "{url}");
    let secret = format!("secret={}", *enrolment.base32);
    for part in [&*secret, "issuer=My%20%20gateway"] {
        assert!(url.contains(part), "{part} in {url}");
    }
    assert!(url.ends_with("&counter=0") && !url.contains("period"), "{url}");
    assert_eq!(enrolment.secret.len(), 20);
    let again = enrol("My: gateway", "ann@example.org").unwrap();
    assert_ne!(*enrolment.secret, *again.secret);
}

#[test]
fn a_counter_at_the_end_of_all_does_not_wrap() {
    let codes = Codes::of(RFC_SECRET);
    assert_eq!(codes.find(&codes.at(u64::MAX), u64::MAX - 2), Some(u64::MAX));
    assert_eq!(confirm(RFC_SECRET, &Secret::new(code(COUNTER_MAX)), u64::MAX), Some(COUNTER_MAX));
}
