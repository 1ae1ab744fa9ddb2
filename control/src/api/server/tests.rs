//! The server by real sockets, with clients that behave badly.

mod ending;
mod opening;
mod tls;
mod unread;
mod wire;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::time::Duration;

use super::*;
use crate::api::fake::World;

/// How long a test waits for what must happen.
const SOON: Duration = Duration::from_secs(20);

/// A world that is served by all doors.
struct Host {
    world: World,
    server: Option<Server>,
    socket: PathBuf,
    tls: Arc<Tls>,
}

impl Host {
    fn new(name: &str, bounds: Bounds) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let world = runtime.block_on(World::new(&format!("server_{name}")));
        let socket = world.folder.path().join("rw0.api");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let tls = Arc::new(Tls::self_made(world.folder.path(), names, 2026).unwrap());
        let any = "127.0.0.1:0".parse().unwrap();
        let doors = Doors {
            unix: Some(socket.clone()),
            plain: vec![any],
            https: vec![any],
            tls: Some(Arc::clone(&tls)),
        };
        let (server, _) = serve_by(&world, doors, bounds);
        Self { world, server: Some(server), socket, tls }
    }

    fn plain(&self) -> SocketAddr {
        self.server.as_ref().unwrap().addresses()[0]
    }

    fn https(&self) -> SocketAddr {
        self.server.as_ref().unwrap().addresses()[1]
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.plain()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Sends bytes, and reads until the server closes.
    fn tell(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may have refused and closed before all was sent.
        let _ = stream.write_all(bytes);
        drain(&mut stream)
    }

    fn curl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20"]).args(arguments);
        command.output().expect("curl is missing: run tools/setup test")
    }
}

/// Serves a world by these doors.
fn serve_by(world: &World, doors: Doors, bounds: Bounds) -> (Server, Board) {
    let (board, configs) = (Board::default(), Arc::clone(&world.configs));
    let server = start(doors, bounds, world.router.clone(), configs, board.clone());
    (server.unwrap(), board)
}

/// What comes until the end; an end by reset counts as one.
fn drain(stream: &mut TcpStream) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => all.extend(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the server does not close: {error}"),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
