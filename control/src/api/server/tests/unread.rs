//! What cannot be read is refused with a problem, as everything else.

use serde_json::Value;

use super::*;
use crate::api::Reason;

/// The status and the code of an answer, and that it is whole and safe.
#[track_caller]
fn problem(answer: &str) -> (String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    assert!(head.contains("\r\ncontent-type: application/problem+json"), "{head}");
    assert!(head.contains("\r\nx-content-type-options: nosniff"), "{head}");
    assert!(head.contains("\r\nconnection: close") && head.contains("\r\ndate: "), "{head}");
    assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    let status = head.lines().next().unwrap()["HTTP/1.1 ".len()..][..3].to_owned();
    assert_eq!(body["status"].to_string(), status);
    let code = body["type"].as_str().unwrap().trim_start_matches("urn:ringway:problem:");
    (status, code.to_owned())
}

#[test]
fn a_head_that_cannot_be_read_is_answered_with_a_problem_and_counted() {
    let host = Host::new("unread", Bounds::default());
    let large = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    for (bytes, reason) in [
        ("nonsense\r\n\r\n", Reason::BadRequest),
        ("GET / HTTP/9.9\r\n\r\n", Reason::BadRequest),
        ("GET /health HTTP/1.1\r\nHost localhost\r\n\r\n", Reason::BadRequest),
        (&large, Reason::HeadersTooLarge),
        (&many, Reason::HeadersTooLarge),
        (&long, Reason::HeadersTooLarge),
    ] {
        let before = host.world.state.refusals().get(reason);
        let answer = host.tell(bytes.as_bytes());
        let wanted = (reason.status().as_u16().to_string(), reason.code().to_owned());
        assert_eq!(problem(&answer), wanted, "{bytes:.40}");
        assert_eq!(host.world.state.refusals().get(reason), before + 1, "{bytes:.40}");
    }
}

#[test]
fn a_head_that_does_not_come_in_time_is_told_so_and_silence_is_not_answered() {
    let bounds = Bounds { head: Duration::from_millis(300), ..Bounds::default() };
    let host = Host::new("unread_slow", bounds);
    let wanted = ("408".to_owned(), "request-timeout".to_owned());
    assert_eq!(problem(&host.tell(b"GET /health HT")), wanted);
    assert_eq!(drain(&mut host.connect()), "");
}

#[test]
fn curl_shows_the_problem_by_every_door() {
    let host = Host::new("unread_curl", Bounds::default());
    let socket = host.socket.to_str().unwrap().to_owned();
    let large = format!("X-Large: {}", "x".repeat(50_000));
    let (plain, https) =
        (format!("http://{}/", host.plain()), format!("https://{}/", host.https()));
    for more in [
        vec!["--unix-socket", &socket, "http://localhost/"],
        vec![&*plain],
        vec!["--insecure", &*https],
    ] {
        let mut arguments = vec!["-H", &large];
        arguments.extend(more);
        let answer = text(&host.curl(&arguments));
        let body: Value = serde_json::from_str(&answer).unwrap_or_default();
        assert_eq!(body["type"], "urn:ringway:problem:headers-too-large", "{answer}");
    }
}

/// Where a request was read before, the library's own answer stands: it has no body, and follows
/// the one before it whole.
#[test]
fn a_second_request_that_cannot_be_read_spoils_no_answer_to_the_first() {
    let host = Host::new("unread_second", Bounds::default());
    let answer = host.tell(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nnonsense\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let second = answer.rfind("HTTP/1.1 ").unwrap();
    assert!(answer[second..].starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer[..second].ends_with('}'), "{answer}");
}
