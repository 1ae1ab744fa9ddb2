//! Each door opens by itself, now or later.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use super::*;
use crate::api::doors::{Closed, Fault, Standing};
use crate::api::server::holders::Clients;
use crate::api::server::tls::TlsFiles;
use crate::scratch::Scratch;

fn world(name: &str) -> World {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(World::new(&format!("opening_{name}")))
}

/// Waits until it stands so with a door.
#[track_caller]
fn until(board: &Board, number: usize, is_so: impl Fn(&Standing) -> bool) {
    let begun = Instant::now();
    while !is_so(&board.doors()[number].standing) {
        assert!(begun.elapsed() < SOON, "{:?}", board.doors());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn is_open(standing: &Standing) -> bool {
    matches!(standing, Standing::Open(_))
}

#[track_caller]
fn closed(board: &Board, number: usize) -> Closed {
    match &board.doors()[number].standing {
        Standing::Closed(closed) => closed.clone(),
        other @ (Standing::Untried | Standing::Open(_)) => panic!("{other:?}"),
    }
}

fn answers(socket: &Path) -> bool {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "20", "--unix-socket"]).arg(socket);
    text(&command.arg("http://localhost/health").output().unwrap()).contains("healthy")
}

/// What can keep a door of TCP closed keeps the Unix socket and the others as open as ever.
#[test]
fn a_door_that_cannot_be_opened_keeps_no_other_one_closed() {
    let world = world("each");
    let socket = world.folder.path().join("rw0.api");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let beyond = ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"].map(|address| address.parse().unwrap());
    let mut plain: Vec<SocketAddr> = beyond.to_vec();
    plain.extend([taken.local_addr().unwrap(), "127.0.0.1:0".parse().unwrap()]);
    let names = vec!["localhost".to_owned()];
    let tls = Arc::new(Tls::self_made(world.folder.path(), names, 2026).unwrap());
    let https = vec!["192.0.2.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let doors = Doors { unix: Some(socket.clone()), plain, https, tls: Some(tls) };
    let (server, board) = serve_by(&world, doors, Bounds::default());
    assert!(answers(&socket));
    for number in [0, 5, 7] {
        until(&board, number, is_open);
    }
    for number in 1..4 {
        let closed = closed(&board, number);
        assert_eq!(closed.fault, Fault::InTheClear, "{closed:?}");
        assert!(closed.why.contains("without TLS"), "{closed:?}");
    }
    let busy = closed(&board, 4);
    assert_eq!(busy.fault, Fault::AddressTaken);
    assert!(busy.why.contains("another port") && busy.why.contains("ss -ltnp"), "{busy:?}");
    let missing = closed(&board, 6);
    assert_eq!(missing.fault, Fault::AddressMissing);
    assert!(missing.why.starts_with("192.0.2.1 is not on this host"), "{missing:?}");
    let trouble = board.trouble().unwrap();
    assert!(trouble.contains("192.0.2.1:0: ") && trouble.contains("another program"), "{trouble}");
    assert_eq!(server.addresses().len(), 2);
    // What becomes free is taken without anybody's help, and nobody else notices.
    let held = TcpStream::connect(server.addresses()[0]).unwrap();
    drop(taken);
    until(&board, 4, is_open);
    assert!(answers(&socket));
    held.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let kept = (&held).read(&mut [0]).unwrap_err();
    assert_eq!(kept.kind(), std::io::ErrorKind::WouldBlock, "it is still connected");
}

#[test]
fn https_opens_when_its_certificate_comes_and_nothing_is_served_instead_before() {
    let world = world("certificate");
    let (other, folder) = (Scratch::new("opening_new"), world.folder.path());
    let made = |name: &str| other.path().join(name);
    Tls::self_made(other.path(), vec!["localhost".to_owned()], 2026).unwrap();
    let files = TlsFiles { certificate: folder.join("c.pem"), key: folder.join("k.pem") };
    let socket = folder.join("rw0.api");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let doors = Doors {
        unix: Some(socket.clone()),
        https: vec![SocketAddr::from(([127, 0, 0, 1], port))],
        tls: Some(Arc::new(Tls::at(files.clone(), Clients::NotAsked))),
        ..Doors::default()
    };
    let (_server, board) = serve_by(&world, doors, Bounds::default());
    assert!(answers(&socket));
    let missing = closed(&board, 1);
    assert_eq!(missing.fault, Fault::CertificateUnreadable);
    assert!(missing.why.contains("c.pem"), "{missing:?}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens in the clear");
    // First one that is torn.
    std::fs::write(&files.key, "").unwrap();
    std::fs::write(&files.certificate, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    let torn = Fault::CertificateUnusable;
    until(&board, 1, |now| matches!(now, Standing::Closed(one) if one.fault == torn));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(answers(&socket));
    std::fs::copy(made("api-key.pem"), &files.key).unwrap();
    std::fs::copy(made("api-certificate.pem"), &files.certificate).unwrap();
    until(&board, 1, is_open);
    let ask = |scheme: &str| {
        let url = format!("{scheme}://localhost:{port}/health");
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "20", "--cacert"]).arg(made("api-certificate.pem"));
        text(&command.arg(url).output().unwrap())
    };
    assert!(ask("https").contains("healthy"));
    assert!(!ask("http").contains("healthy"));
}

#[test]
fn a_second_server_does_not_take_the_socket_of_a_living_one_and_follows_it() {
    let mut host = Host::new("second", Bounds::default());
    let doors = Doors { unix: Some(host.socket.clone()), ..Doors::default() };
    let (_second, board) = serve_by(&host.world, doors, Bounds::default());
    let kept = closed(&board, 0);
    assert_eq!(kept.fault, Fault::SocketTaken);
    assert!(kept.why.contains("in use"), "{kept:?}");
    assert!(UnixStream::connect(&host.socket).is_ok());
    host.server.take().unwrap().stop();
    until(&board, 0, is_open);
    assert!(answers(&host.socket));
}

#[test]
fn a_file_in_the_place_of_the_socket_stays_and_is_said() {
    let world = world("file");
    let file = world.folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let doors = Doors {
        unix: Some(file.clone()),
        plain: vec!["127.0.0.1:0".parse().unwrap()],
        ..Doors::default()
    };
    let (server, board) = serve_by(&world, doors, Bounds::default());
    assert_eq!(closed(&board, 0).fault, Fault::SocketTaken);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert!(TcpStream::connect(server.addresses()[0]).is_ok());
}
