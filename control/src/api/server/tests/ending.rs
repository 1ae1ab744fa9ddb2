//! How the server ends, with clients that are still there.

use std::io::{BufRead as _, BufReader};
use std::time::Instant;

use serde_json::json;

use super::*;
use crate::api::fake::BEGIN;
use crate::events::Kind;

/// How long the end may take when there is nothing to wait for; much less than [`GRACE`].
const AT_ONCE: Duration = Duration::from_millis(1_500);

/// How long the server takes to end.
fn stop(host: &mut Host) -> Duration {
    let begun = Instant::now();
    host.server.take().unwrap().stop();
    begun.elapsed()
}

fn listeners(host: &Host, wanted: usize) {
    let begun = Instant::now();
    while host.world.state.hub().listeners() < wanted {
        assert!(begun.elapsed() < SOON);
        std::thread::yield_now();
    }
}

#[test]
fn events_come_by_curl_and_end_at_once_with_the_server() {
    let mut host = Host::new("events", Bounds::default());
    let urls = [format!("http://{}", host.plain()), format!("https://{}", host.https())];
    let mut heard = Vec::new();
    for url in urls {
        let mut child = Command::new("curl")
            .args(["--silent", "--insecure", "--no-buffer"])
            .args(["-H", "Authorization: Bearer token-vera", &format!("{url}/api/v1/events")])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        heard.push((child, lines));
    }
    listeners(&host, 2);
    host.world.state.hub().publish(BEGIN, Kind::BanSet, "x", json!({}));
    for (_, lines) in &mut heard {
        assert_eq!(lines.next().unwrap().unwrap(), "id: 1");
        assert_eq!(lines.next().unwrap().unwrap(), "event: ban.set");
    }
    // What happens at the end is told still.
    host.world.state.hub().publish(BEGIN, Kind::DrainEnded, "rw0", json!({}));
    let took = stop(&mut host);
    assert!(took < AT_ONCE, "{took:?}");
    assert!(!host.socket.exists(), "the socket is gone");
    for (mut child, lines) in heard {
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        assert!(rest.contains(&"event: drain.ended".to_owned()), "{rest:?}");
        assert!(child.wait().unwrap().success(), "the stream ends as streams do");
    }
}

#[test]
fn whoever_reads_no_events_and_whoever_asks_nothing_is_not_waited_for() {
    let mut host = Host::new("stuck_events", Bounds::default());
    let mut stuck = host.connect();
    let ask = "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\
               Authorization: Bearer token-vera\r\n\r\n";
    stuck.write_all(ask.as_bytes()).unwrap();
    listeners(&host, 1);
    let begun = Instant::now();
    let mut probe = [0; 1];
    while stuck.peek(&mut probe).is_err() {
        assert!(begun.elapsed() < SOON);
    }
    // More than the sockets hold, so that the server is in the middle of writing.
    let large = "x".repeat(100_000);
    for _ in 0..200 {
        host.world.state.hub().publish(BEGIN, Kind::BanSet, "x", json!({ "large": large }));
    }
    let _silent = host.connect();
    let mut halfway = host.connect();
    halfway.write_all(b"GET /health HT").unwrap();
    let took = stop(&mut host);
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn a_request_under_way_is_answered_although_the_server_ends() {
    let mut host = Host::new("grace", Bounds::default());
    let (address, body) = (host.plain(), "{\"name\":\"vera\"}");
    let head = format!(
        "POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut slow = host.connect();
    slow.write_all(head.as_bytes()).unwrap();
    // It is asked for the body, so it is being answered.
    let mut line = [0; 25];
    slow.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    let server = host.server.take().unwrap();
    let ends = std::thread::spawn(move || server.stop());
    let begun = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(begun.elapsed() < SOON);
    }
    slow.write_all(body.as_bytes()).unwrap();
    let answer = drain(&mut slow);
    assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("urn:ringway"), "{answer}");
    ends.join().unwrap();
    assert!(begun.elapsed() < GRACE + Duration::from_secs(2));
}
