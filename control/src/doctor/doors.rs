//! Whether the addresses of the API are on this host now.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::Finding;
use crate::config::Config;

const AREA: &str = "api";

/// Looks without taking a port that the gateway may have: any other one will do.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    config.api.listen.iter().map(|address| look(*address)).collect()
}

fn look(address: SocketAddr) -> Finding {
    let name = format!("listen on {address}");
    match TcpListener::bind(SocketAddr::new(address.ip(), 0)) {
        Ok(_) => Finding::ok(AREA, name, "the address is on this host"),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Finding::advice(
            AREA,
            name,
            "the address is not on this host now: the API opens there when it comes, and answers \
             everywhere else meanwhile",
            "give it to an interface, or name another address in listen of [api]",
        ),
        Err(error) => Finding::advice(
            AREA,
            name,
            format!("whether the address is on this host is not known ({error})"),
            "see whether the kernel has this family of addresses",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn an_address_that_is_not_here_is_named_and_one_that_is_taken_is_here() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(look(taken).state, State::Ok);
        let missing = look("192.0.2.1:443".parse().unwrap());
        assert_eq!(missing.state, State::Advice);
        assert!(missing.name.contains("192.0.2.1:443"), "{missing:?}");
        assert!(missing.text.contains("not on this host"), "{missing:?}");
    }
}
