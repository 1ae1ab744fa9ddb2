//! What clients of the HTTP API send: bodies, queries, configurations that were shown to them.

use ringway_control::api::{json, query};
use ringway_control::configs::{lines, redact};
use ringway_control::store::records::{Quota, Rate};

use super::input::Input;

/// A body that is accepted says the same when it is written and read again; one that is refused
/// says where. Queries likewise, as far as that can be said.
pub(crate) fn a_body_is_read_whole_or_refused_with_a_place(bytes: &[u8]) {
    match json::parse(bytes) {
        Ok(value) => {
            let text = value.to_string();
            // Fractions are rounded when they are read.
            let digits = text.as_bytes().windows(2);
            let fractions =
                digits.filter(|two| two[0].is_ascii_digit() && b".eE".contains(&two[1]));
            if fractions.count() == 0 {
                assert_eq!(json::parse(text.as_bytes()).ok(), Some(value));
            }
        }
        Err(problem) => assert!(problem.errors[0].pointer.contains(':')),
    }
    for problem in [json::read::<Rate>(bytes).err(), json::read::<Quota>(bytes).err()] {
        assert!(problem.is_none_or(|problem| problem.errors.len() == 1));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(problem) = query::read::<Rate>(text)
    {
        assert!(problem.errors[0].pointer.starts_with('?'));
    }
}

/// Keys do not get out, whatever surrounds them, and what was shown is restored to what it was.
pub(crate) fn a_configuration_is_shown_without_keys_and_restored(bytes: &[u8]) {
    const SECRET: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";
    let mut input = Input::new(bytes);
    let kind = input.byte();
    let Ok(text) = std::str::from_utf8(input.take(usize::MAX)) else { return };
    let quote = ["\"", "'", "\"\"\"", "'''"][usize::from(kind % 4)];
    let peer = format!("\n[[peer]]\npublic_key = \"a\"\npreshared_key = {quote}{SECRET}{quote}\n");
    let text = if kind & 4 == 0 { format!("{text}{peer}") } else { format!("{peer}{text}") };
    let shown = redact::redact(&text);
    assert!(!shown.contains(SECRET), "{shown}");
    if let Ok(restored) = redact::restore(&shown, &text) {
        assert_eq!(redact::redact(&restored), shown);
    }
    assert!(lines::diff(&shown, &shown).is_empty());
    assert!(!lines::diff(&shown, &text).is_empty());
}
