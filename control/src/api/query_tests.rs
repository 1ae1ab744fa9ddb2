use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: Option<String>,
    limit: Option<u32>,
    #[serde(default)]
    dry_run: bool,
    role: Option<crate::store::records::Role>,
}

#[test]
fn texts_become_what_the_type_asks_for() {
    let wanted: Wanted = read("name=a%20b+c%26&limit=7&dry_run=true&role=viewer").unwrap();
    assert_eq!(wanted.name.as_deref(), Some("a b c&"));
    assert_eq!((wanted.limit, wanted.dry_run), (Some(7), true));
    assert!(wanted.role.is_some());
    assert_eq!(read::<Wanted>("name=5").unwrap().name.as_deref(), Some("5"));
    assert_eq!(read::<Wanted>("").unwrap().limit, None);
}

#[test]
fn what_is_unknown_repeated_or_malformed_is_refused_by_name() {
    let long = format!("name={}", "x".repeat(QUERY_BYTES_MAX));
    for (query, pointer) in [
        ("limit=many", "?limit"),
        ("limit=-1", "?limit"),
        ("limit=", "?limit"),
        ("limit=1&limit=2", "?limit"),
        ("limt=1", "?limt"),
        ("dry_run=yes", "?dry_run"),
        ("role=king", "?role"),
        ("name=%ff", "?name"),
        ("name=%1", "?name"),
        ("name=%+1", "?name"),
        (&long, "?"),
    ] {
        let problem = read::<Wanted>(query).unwrap_err();
        assert_eq!(problem.reason, Reason::BadQuery);
        assert_eq!(problem.errors[0].pointer, pointer, "{query}");
    }
}

proptest! {
    #[test]
    fn whatever_is_encoded_is_decoded(text in "\\PC{0,20}") {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        prop_assert_eq!(decode(&encoded), Some(text));
    }

    #[test]
    fn no_query_whatever_makes_it_panic(query in "[a-z=&%0-9é+]{0,40}") {
        let _ = read::<Wanted>(&query);
    }
}
