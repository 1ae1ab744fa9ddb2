use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Colour {
    Red,
    Blue,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    up: Option<u32>,
    #[serde(default)]
    colours: Vec<Colour>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer {
    name: String,
    #[serde(default)]
    rate: Option<Inner>,
    #[serde(default)]
    nets: Vec<std::net::IpAddr>,
    #[serde(default)]
    range: Option<(u8, u8)>,
}

fn refused(body: &str) -> (Reason, String) {
    let problem = read::<Outer>(body.as_bytes()).unwrap_err();
    let error = problem.errors.first().unwrap();
    (problem.reason, format!("{} {}", error.pointer, error.message))
}

#[test]
fn a_body_is_read() {
    let body = br#" {"name":"a", "rate": {"up": 7, "colours": ["red","blue"]}, "nets":["::1"]} "#;
    let outer: Outer = read(body).unwrap();
    assert_eq!(outer.rate.unwrap().colours, [Colour::Red, Colour::Blue]);
    assert_eq!(outer.nets.len(), 1);
    assert_eq!(read::<Outer>(br#"{"name":"a","rate":null}"#).unwrap().rate, None);
}

#[test]
fn each_wrong_value_is_named_by_its_pointer() {
    for (body, wanted) in [
        (r#"{"rate":{}}"#, "/name is missing"),
        (r#"{"name":7}"#, "/name invalid type: integer `7`, expected a string"),
        (r#"{"name":"a","nam/e":1}"#, "/nam~1e is not known here; known here: name, rate"),
        (r#"{"name":"a","rate":{"up":"fast"}}"#, "/rate/up invalid type: string \"fast\""),
        (r#"{"name":"a","rate":{"up":-1}}"#, "/rate/up invalid value: integer `-1`"),
        (r#"{"name":"a","rate":{"up":4294967296}}"#, "/rate/up invalid value: integer"),
        (r#"{"name":"a","rate":{"up":1.5}}"#, "/rate/up invalid type: floating point"),
        (r#"{"name":"a","rate":{"up":18446744073709551616}}"#, "/rate/up invalid type: floating"),
        (r#"{"name":"a","rate":{"colours":["red","green"]}}"#, "/rate/colours/1 unknown variant"),
        (r#"{"name":"a","rate":{"down":1}}"#, "/rate/down is not known here"),
        (r#"{"name":"a","nets":["::1","x"]}"#, "/nets/1 invalid IP address"),
        (r#"{"name":"a","range":[1,2,3]}"#, "/range/2 is one item too many"),
        (r#"{"name":"a","range":[1]}"#, "/range invalid length 1"),
        (r#"[]"#, " invalid type: list, expected an object"),
        (r#"{"name":"a","rate":[1,[]]}"#, "/rate invalid type: list, expected an object"),
    ] {
        let (reason, said) = refused(body);
        assert_eq!(reason, Reason::Invalid, "{body}");
        assert!(said.starts_with(wanted), "{body}: {said}");
    }
}

#[test]
fn what_is_no_json_is_refused_with_line_and_column() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let (fits, too_deep) = (deep(DEPTH_MAX), deep(DEPTH_MAX + 1));
    assert!(parse(fits.as_bytes()).is_ok());
    let very_deep = "[".repeat(500_000);
    for (body, reason, place) in [
        ("{\n\"name\": }", Reason::BadJson, "2:9"),
        ("", Reason::BadJson, "1:0"),
        ("{\"name\":\"a\"} x", Reason::BadJson, "1:14"),
        ("{\"name\":1e999}", Reason::BadJson, "1:"),
        ("{\"name\":\"a\",\n \"name\":\"b\"}", Reason::DuplicateKey, "2:7"),
        ("{\"n\":{\"a\":1,\"\\u0061\":1}}", Reason::DuplicateKey, "1:"),
        (&too_deep, Reason::TooDeep, "1:1"),
        (&very_deep, Reason::TooDeep, "1:1"),
        ("NaN", Reason::BadJson, "1:"),
        ("'a'", Reason::BadJson, "1:"),
        ("\u{feff}{}", Reason::BadJson, "1:"),
    ] {
        let problem = parse(body.as_bytes()).unwrap_err();
        let shown = &body[..body.len().min(60)];
        assert_eq!(problem.reason, reason, "{shown}");
        assert!(problem.errors[0].pointer.starts_with(place), "{shown}: {:?}", problem.errors);
        assert!(!problem.errors[0].message.contains(" at line "), "{shown}");
    }
    assert_eq!(parse(b"\"\xff\"").unwrap_err().reason, Reason::BadJson);
}

#[test]
fn only_json_without_packing_is_taken() {
    let headers = |pairs: &[(header::HeaderName, &str)]| -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    };
    let json = &["application/json"];
    for taken in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
    ] {
        assert!(expect_type(&headers(&[(header::CONTENT_TYPE, taken)]), json).is_ok(), "{taken}");
    }
    for refused in [
        "text/plain",
        "application/json; charset=utf-16",
        "application/jsonp",
        "",
        "multipart/form-data",
    ] {
        let given = headers(&[(header::CONTENT_TYPE, refused)]);
        let problem = expect_type(&given, json).unwrap_err();
        assert_eq!(problem.reason, Reason::UnsupportedMediaType, "{refused}");
    }
    assert!(expect_type(&headers(&[]), json).is_err());
    let packed = headers(&[(header::CONTENT_TYPE, json[0]), (header::CONTENT_ENCODING, "gzip")]);
    assert!(expect_type(&packed, json).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z~/]{0,4}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_without_duplicates_is_read_as_it_is(value in any_json()) {
        let text = serde_json::to_vec(&value).unwrap();
        prop_assert_eq!(parse(&text).unwrap(), value.clone());
        // Through the deserializer as well.
        prop_assert_eq!(pointer::read::<Value>(&value).unwrap(), value);
    }

    #[test]
    fn no_bytes_whatever_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read::<Outer>(&bytes);
    }
}
