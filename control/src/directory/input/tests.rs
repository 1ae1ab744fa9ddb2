//! Names, rates, quotas, times: what is refused, and where.

use proptest::prelude::*;

use super::*;
use crate::directory::refusal::Refusal;
use crate::store::records::{Factor, Policy, PolicyId, Timestamp, UserId};

const NOW: Timestamp = Timestamp(1_000_000);

fn place(result: Result<(), Refusal>) -> Vec<String> {
    match result {
        Ok(()) => Vec::new(),
        Err(Refusal::Invalid(problems)) => problems.into_iter().map(|one| one.pointer).collect(),
        Err(other) => panic!("{other}"),
    }
}

fn named(name: &str) -> Result<String, Refusal> {
    let form = NewUser { name: name.to_owned(), ..NewUser::default() };
    form.check(UserId::fresh(), NOW).map(|(user, _)| user.name)
}

#[test]
fn a_name_is_plain_and_in_lower_case() {
    assert_eq!(named("Ada.L_2@example-1.org").unwrap(), "ada.l_2@example-1.org");
    assert_eq!(named(&"x".repeat(64)).unwrap().len(), 64);
    let (id, long) = (UserId::fresh().to_string(), "x".repeat(65));
    for wrong in [
        "",
        "a b",
        "a/b",
        "a:b",
        "..",
        ".a",
        "-rf",
        "_a",
        "@a",
        "ä",
        "\u{430}da",
        "a\u{200b}b",
        "a\n",
        "ａda",
        "ada\u{301}",
        "İ",
        "a%2f",
        &long,
        &id,
    ] {
        let refusal = named(wrong).unwrap_err();
        assert_eq!(place(Err(refusal)), ["/name"], "{wrong:?}");
    }
    let look_alike = named("\u{430}da").unwrap_err().to_string();
    assert!(look_alike.contains("U+0430"), "{look_alike}");
}

#[test]
fn a_text_for_people_has_no_control_characters() {
    let shown = |text: &str| {
        let form = NewUser {
            name: "ada".to_owned(),
            display_name: Some(text.to_owned()),
            ..NewUser::default()
        };
        place(form.check(UserId::fresh(), NOW).map(|_| ()))
    };
    assert!(shown("Ada Lovelace 🦊 Ωmega").is_empty());
    assert!(shown(&"ä".repeat(128)).is_empty());
    let long = "ä".repeat(129);
    for wrong in ["\u{0}", "a\nb", "\u{202e}ecalevoL", "\u{2066}x", "\u{9b}31m", &long] {
        assert_eq!(shown(wrong), ["/display_name"], "{wrong:?}");
    }
}

fn policy() -> Policy {
    let form = NewPolicy { name: "p".to_owned(), ..NewPolicy::default() };
    form.check(PolicyId::fresh(), NOW).unwrap()
}

#[test]
fn a_policy_that_says_little_is_as_the_first_one() {
    let policy = policy();
    assert_eq!(policy.factors, [Factor::Password]);
    let figures = (policy.session_timeout_s, policy.devices_max, policy.sessions_max);
    assert_eq!(figures, (86_400, 5, 5));
}

#[test]
fn each_wrong_value_of_a_policy_is_named() {
    for (body, expected) in [
        (r#"{"factors": []}"#, vec!["/factors"]),
        (r#"{"factors": ["password", "password"]}"#, vec!["/factors/1"]),
        (r#"{"factors": ["anonymous", "totp"]}"#, vec!["/factors"]),
        (r#"{"factors": ["totp"]}"#, vec!["/factors"]),
        (r#"{"factors": null}"#, vec!["/factors"]),
        (r#"{"session_timeout_s": 59}"#, vec!["/session_timeout_s"]),
        (r#"{"idle_timeout_s": 31536001}"#, vec!["/idle_timeout_s"]),
        (r#"{"devices_max": 0, "sessions_max": 1001}"#, vec!["/devices_max", "/sessions_max"]),
        (r#"{"session_rate": {"up_bps": 1}}"#, vec!["/session_rate/up_bps"]),
        (r#"{"user_rate": {"burst_bytes": 5000}}"#, vec!["/user_rate/burst_bytes"]),
        (r#"{"quota": {"bytes": 1, "period": "day", "action": "notify"}}"#, vec!["/quota/bytes"]),
        (
            r#"{"quota": {"bytes": 1048576, "period": "day", "action": "notify",
                "throttle_bps": 8000}}"#,
            vec!["/quota/throttle_bps"],
        ),
        (r#"{"routes": ["10.0.0.0/8", "10.0.0.0/8"]}"#, vec!["/routes/1"]),
        (r#"{"routes": ["10.0.0.1/8"]}"#, vec!["/routes/0"]),
        (r#"{"routes": ["10.0.0.1"]}"#, vec!["/routes/0"]),
        (r#"{"routes": ["FD00::/8"]}"#, vec!["/routes/0"]),
        (r#"{"dns": ["0.0.0.0", "ff02::1"]}"#, vec!["/dns/0", "/dns/1"]),
        (r#"{"dns": ["9.9.9.9", "9.9.9.9"]}"#, vec!["/dns/1"]),
        (r#"{"name": null}"#, vec!["/name"]),
    ] {
        let patch: PolicyPatch = serde_json::from_str(body).unwrap();
        assert_eq!(place(patch.check(&policy()).map(|_| ())), expected, "{body}");
    }
    let nine: Vec<String> = (1..=9).map(|last| format!("\"10.0.0.{last}\"")).collect();
    let body = format!("{{\"dns\": [{}]}}", nine.join(","));
    let patch: PolicyPatch = serde_json::from_str(&body).unwrap();
    assert_eq!(place(patch.check(&policy()).map(|_| ())), ["/dns"]);
}

#[test]
fn an_unknown_field_is_no_form() {
    assert!(serde_json::from_str::<UserPatch>(r#"{"passwort": "x"}"#).is_err());
    assert!(serde_json::from_str::<NewUser>(r#"{"name": "a", "rate": {"x": 1}}"#).is_err());
    assert!(serde_json::from_str::<NewPool>(r#"{"name": "a", "range4": ["10.0.0.1"]}"#).is_err());
}

#[test]
fn a_secret_is_not_shown() {
    let form: NewUser = serde_json::from_str(r#"{"name": "a", "password": "hunter2"}"#).unwrap();
    assert!(!format!("{form:?}").contains("hunter2"));
}

proptest! {
    #[test]
    fn a_name_that_passes_is_short_plain_and_passes_again(text in "\\PC{0,70}") {
        if let Ok(name) = named(&text) {
            prop_assert!((1..=64).contains(&name.len()));
            let allowed = "abcdefghijklmnopqrstuvwxyz0123456789._@-";
            prop_assert!(name.chars().all(|c| allowed.contains(c)));
            prop_assert_eq!(named(&name).unwrap(), name);
        }
    }

    #[test]
    fn a_rate_passes_exactly_within_its_bounds(bps in prop_oneof![
        any::<u64>(), 7_990_u64..8_010, 399_999_999_990_u64..400_000_000_010
    ]) {
        let form = NewUser {
            name: "ada".to_owned(),
            rate: Some(crate::store::records::Rate { up_bps: Some(bps), ..Default::default() }),
            ..NewUser::default()
        };
        let passes = form.check(UserId::fresh(), NOW).is_ok();
        prop_assert_eq!(passes, (RATE_BPS_MIN..=RATE_BPS_MAX).contains(&bps));
    }
}
