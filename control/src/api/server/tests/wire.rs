use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;
use crate::api::server::opening::listening;

const HOST: &str = "Host: localhost\r\n";

fn quick() -> Bounds {
    let soon = Duration::from_millis(300);
    Bounds { head: soon, stall: soon, ..Bounds::default() }
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{HOST}{more}\r\n")
}

#[test]
fn root_on_the_unix_socket_is_an_administrator_and_the_socket_is_not_for_everybody() {
    let host = Host::new("unix", Bounds::default());
    let mode = std::fs::metadata(&host.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let socket = host.socket.to_str().unwrap();
    let answer = host.curl(&["--unix-socket", socket, "http://localhost/api/v1/session"]);
    let uid = rustix::process::getuid().as_raw();
    if uid == 0 {
        let wanted = format!("\"actor\":\"local:{uid}\"");
        assert!(text(&answer).contains(&wanted), "{answer:?}");
        // Another user of the same host is nobody, even if the socket let it in.
        std::fs::set_permissions(&host.socket, std::fs::Permissions::from_mode(0o666)).unwrap();
        let folder = host.world.folder.path();
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let other = Command::new("setpriv")
            .args(["--reuid=65534", "--clear-groups", "curl", "--silent", "--unix-socket"])
            .args([socket, "http://localhost/api/v1/session"])
            .output()
            .expect("setpriv is missing: run tools/setup test");
        assert!(text(&other).contains("unauthenticated"), "{other:?}");
    } else {
        assert!(text(&answer).contains("unauthenticated"), "{answer:?}");
    }
}

#[test]
fn a_client_that_sends_its_head_drop_by_drop_is_cut() {
    let host = Host::new("slow_head", quick());
    let mut stream = host.connect();
    let begun = Instant::now();
    let mut sent = 0;
    // Each drop comes well within the limit; the head as a whole does not.
    while begun.elapsed() < SOON && stream.write_all(b"G").is_ok() {
        sent += 1;
        std::thread::park_timeout(Duration::from_millis(30));
    }
    assert!(sent < 100 && begun.elapsed() < SOON / 2, "{sent} after {:?}", begun.elapsed());
    // One that says nothing at all, and one that stays after its answer.
    assert_eq!(drain(&mut host.connect()), "");
    let mut stays = host.connect();
    stays.write_all(get("/health", "").as_bytes()).unwrap();
    assert!(drain(&mut stays).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_client_that_reads_nothing_is_cut() {
    let host = Host::new("slow_reader", quick());
    let mut stream = host.connect();
    // Answers of 100 KiB each, which nobody takes.
    let ask = get("/api/docs/swagger-ui-bundle.js", "");
    stream.write_all(ask.repeat(40).as_bytes()).unwrap();
    let begun = Instant::now();
    let mut probe = [0; 1];
    // The socket fills, the server gives up, and what it sent ends early.
    while begun.elapsed() < SOON {
        if stream.peek(&mut probe).is_ok() && host.world.state.free_for_strangers() > 0 {
            break;
        }
    }
    std::thread::park_timeout(Duration::from_secs(1));
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        total += count;
    }
    let all = 40 * 1_000_000;
    assert!(total < all, "everything was sent: {total}");
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_comes() {
    let host = Host::new("huge_body", Bounds::default());
    let head = format!(
        "POST /api/v1/session HTTP/1.1\r\n{HOST}Content-Type: application/json\r\n\
         Content-Length: 99999999999\r\n\r\n"
    );
    let answer = host.tell(head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(answer.contains("urn:ringway:problem:body-too-large"));
}

#[test]
fn heads_that_are_too_large_or_have_too_many_headers_are_refused() {
    let host = Host::new("huge_head", Bounds::default());
    for more in [format!("X: {}\r\n", "x".repeat(100_000)), "A: b\r\n".repeat(65)] {
        let answer = host.tell(get("/health", &more).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let long = get(&format!("/{}", "x".repeat(100_000)), "");
    let answer = host.tell(long.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer:.80}");
    // And the server is as well as before.
    assert!(host.tell(get("/health", "Connection: close\r\n").as_bytes()).contains(" 200 "));
}

#[test]
fn requests_in_a_row_are_answered_in_their_order() {
    let host = Host::new("pipeline", Bounds::default());
    let asks = get("/health", "") + &get("/nothing", "") + &get("/health", "Connection: close\r\n");
    let answer = host.tell(asks.as_bytes());
    let statuses: Vec<&str> = answer
        .lines()
        .filter(|line| line.starts_with("HTTP/1.1 "))
        .chain(answer.match_indices("}HTTP/1.1 ").map(|(at, _)| &answer[at + 1..at + 13]))
        .map(|line| &line[9..12])
        .collect();
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{statuses:?}");
    let (first, then) =
        (answer.find("HTTP/1.1 200").unwrap(), answer.find("HTTP/1.1 404").unwrap());
    assert!(first < then && then < answer.rfind("HTTP/1.1 200").unwrap());
}

/// A request hidden in another, in all the ways in which two programs disagree where one ends.
#[test]
fn no_request_is_smuggled_inside_another() {
    let host = Host::new("smuggle", Bounds::default());
    let inner = get("/api/v1/openapi.json", "");
    let length = inner.len();
    let head = |more: &str| {
        format!(
            "POST /api/v1/session HTTP/1.1\r\n{HOST}Content-Type: application/json\r\n{more}\r\n"
        )
    };
    for bytes in [
        head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + &inner,
        head("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n") + "0\r\n\r\n" + &inner,
        head("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n" + &inner,
        head("Transfer-Encoding: xchunked\r\n") + "0\r\n\r\n" + &inner,
        head("Transfer-Encoding: chunked, identity\r\n") + "0\r\n\r\n" + &inner,
        head("Transfer-Encoding : chunked\r\n") + "0\r\n\r\n" + &inner,
        head("Transfer-Encoding:\x0bchunked\r\n") + "0\r\n\r\n" + &inner,
        head(" Transfer-Encoding: chunked\r\n") + "0\r\n\r\n" + &inner,
        head(&format!("Content-Length: 0\r\nContent-Length: {length}\r\n")) + &inner,
        head(&format!("Content-Length: 0, {length}\r\n")) + &inner,
        head(&format!("Content-Length: +{length}\r\n")) + &inner,
        head(&format!("Content-Length: 0x{length:x}\r\n")) + &inner,
        head("Content-Length: -1\r\n") + &inner,
        head("Content-Length: 18446744073709551616\r\n") + &inner,
        "GET /health HTTP/1.1\nHost: localhost\nX: a\r\r\n\r\n".to_owned() + &inner,
    ] {
        let answer = host.tell(bytes.as_bytes());
        assert!(!answer.contains("\"openapi\""), "smuggled by {bytes:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{bytes:?}: {answer}");
        assert!(answer.starts_with("HTTP/1.1 4"), "{bytes:?}: {answer}");
    }
}

#[test]
fn a_source_with_too_many_connections_is_turned_away_and_the_unix_socket_is_not() {
    let host = Host::new("census", Bounds { per_source: 3, ..Bounds::default() });
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut stream = host.connect();
        stream.write_all(get("/health", "").as_bytes()).unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"HTTP/1.1 200");
        held.push(stream);
    }
    assert_eq!(host.tell(get("/health", "").as_bytes()), "");
    let socket = host.socket.to_str().unwrap();
    let answer = host.curl(&["--unix-socket", socket, "http://localhost/health"]);
    assert!(text(&answer).contains("healthy"));
    held.pop();
    // The place comes back when the server has seen the end.
    let begun = Instant::now();
    while !host.tell(get("/health", "Connection: close\r\n").as_bytes()).contains(" 200 ") {
        assert!(begun.elapsed() < SOON);
    }
}

#[test]
fn a_body_that_stops_coming_holds_nobody_up() {
    let host = Host::new("stuck_body", Bounds::default());
    let head = format!(
        "POST /api/v1/session HTTP/1.1\r\n{HOST}Content-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{"
    );
    let mut stuck = host.connect();
    stuck.write_all(head.as_bytes()).unwrap();
    assert!(host.tell(get("/health", "Connection: close\r\n").as_bytes()).contains(" 200 "));
    let answer = drain(&mut stuck);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn an_ipv6_address_opens_nothing_in_ipv4_and_both_may_be_named() {
    let six = listening("[::]:0".parse().unwrap()).unwrap();
    let port = six.local_addr().unwrap().port();
    assert!(TcpStream::connect(("::1", port)).is_ok());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let four = SocketAddr::from(([0, 0, 0, 0], port));
    let _four = listening(four).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(listening(four).is_err(), "a port that is taken");
}
