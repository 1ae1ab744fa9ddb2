//! The UDP port of the gateway: sockets for all cores, opened together or not at all.
//!
//! Control keeps second descriptors of the sockets it gave away, because a mark can be set through
//! any of them. New sockets are opened before the old ones are given up, so a port that is taken
//! changes nothing. With several cores the kernel is asked to bring datagrams to the core that owns
//! them; where it refuses, cores hand over, and the refusal is kept to be told.

use ringway_ring::UdpGroup;
use ringway_ring::listen::{ListenError, UdpOptions, UdpSockets};
use ringway_ring::steer::Steering;

/// Which port, and the descriptors behind it.
#[derive(Debug)]
pub struct Ports {
    options: UdpOptions,
    cores: u16,
    steering: Option<Steering>,
    /// Second descriptors of the sockets in use; empty while there are none.
    held: Vec<UdpSockets>,
    /// Whether the kernel steers to the sockets in use.
    steered: bool,
    /// Why it does not, if it was asked to.
    refusal: Option<String>,
}

/// Sockets for each core, in order.
pub type Opened = Vec<Box<UdpSockets>>;

impl Ports {
    /// No sockets yet. `options` says how to open them, `steering` which core gets what; it also
    /// keeps what is not data away from a single core's data.
    #[must_use]
    pub fn new(options: UdpOptions, cores: u16, steering: Option<Steering>) -> Self {
        let held = Vec::new();
        Self { options, cores, steering, held, steered: false, refusal: None }
    }

    /// Goes on with sockets of another process, which steered them or not; none if it had none.
    ///
    /// # Errors
    /// [`ListenError::Other`] when there are no descriptors left.
    pub fn adopt(&mut self, sockets: &[UdpSockets]) -> Result<(), ListenError> {
        self.held = sockets.iter().map(second).collect::<Result<_, _>>()?;
        self.steered = self.held.iter().any(UdpSockets::has_initiations);
        Ok(())
    }

    /// The port in use, or the one that will be asked for (0: any).
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.options.port
    }

    /// The mark on everything sent, 0 for none.
    #[must_use]
    pub const fn mark(&self) -> u32 {
        self.options.mark
    }

    /// Whether there are sockets.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the kernel brings datagrams to the core that owns them.
    #[must_use]
    pub const fn is_steered(&self) -> bool {
        self.steered
    }

    /// Why the kernel does not steer, if it was asked to and refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Second descriptors of the sockets of each core, in order; none while there are no sockets.
    #[must_use]
    pub fn held(&self) -> &[UdpSockets] {
        &self.held
    }

    /// Opens sockets on the port last asked for.
    ///
    /// # Errors
    /// [`ListenError`]; nothing is open then.
    pub fn open(&mut self) -> Result<Opened, ListenError> {
        let opened = self.bind(self.options.port);
        if opened.is_err() {
            self.held.clear();
        }
        opened
    }

    /// Changes the port. With open sockets, opens others and returns them, unless the port stays as
    /// it is; without, only notes it.
    ///
    /// # Errors
    /// [`ListenError`]; everything is as before then.
    pub fn change(&mut self, port: u16) -> Result<Option<Opened>, ListenError> {
        if !self.is_open() {
            self.options.port = port;
            return Ok(None);
        }
        if port == self.options.port && port != 0 {
            return Ok(None);
        }
        self.bind(port).map(Some)
    }

    /// Forgets the sockets; the cores close theirs when they are told.
    pub fn close(&mut self) {
        self.held.clear();
    }

    /// Changes the mark, on open sockets at once.
    ///
    /// # Errors
    /// [`ListenError::Mark`] without the privilege.
    pub fn set_mark(&mut self, mark: u32) -> Result<(), ListenError> {
        for sockets in &self.held {
            sockets.set_mark(mark)?;
        }
        self.options.mark = mark;
        Ok(())
    }

    /// Lets sockets merge what they receive, or not, as was asked for: another process that had
    /// them too may have wanted it otherwise.
    pub fn restore_merging(&self) {
        for sockets in &self.held {
            sockets.set_gro(self.options.gro);
        }
    }

    fn bind(&mut self, port: u16) -> Result<Opened, ListenError> {
        let options = UdpOptions { port, ..self.options.clone() };
        let group = UdpGroup::open(&options, self.cores, self.steering.as_ref())?;
        self.held = group.sockets.iter().map(second).collect::<Result<_, _>>()?;
        // The cores share whatever port the first one got.
        self.options.port = group.sockets[0].port();
        self.steered = group.steered;
        self.refusal = group.refusal.map(|error| error.to_string());
        Ok(group.sockets.into_iter().map(Box::new).collect())
    }
}

fn second(sockets: &UdpSockets) -> Result<UdpSockets, ListenError> {
    let other = |source| ListenError::Other { what: "second descriptor", source };
    sockets.try_clone().map_err(other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use nix::sys::socket::getsockopt;
    use nix::sys::socket::sockopt::{Mark, UdpGroSegment};
    use ringway_dataplane::index_table::IndexLayout;

    fn ports(cores: u16) -> Ports {
        Ports::new(UdpOptions::default(), cores, None)
    }

    #[test]
    fn any_port_becomes_a_real_one_and_stays() {
        let mut ports = ports(1);
        assert!(ports.change(0).unwrap().is_none());
        let first = ports.open().unwrap();
        let port = ports.port();
        assert_eq!(first[0].port(), port);
        assert_ne!(port, 0);
        assert!(ports.change(port).unwrap().is_none(), "the same port needs no new sockets");
        ports.close();
        drop(first);
        assert_eq!(ports.open().unwrap()[0].port(), port);
    }

    #[test]
    fn all_cores_share_one_port() {
        let mut ports = ports(3);
        let opened = ports.open().unwrap();
        assert_eq!(opened.len(), 3);
        assert!(opened.iter().all(|sockets| sockets.port() == ports.port()));
    }

    #[test]
    fn datagrams_are_steered_also_to_a_single_core() {
        for cores in [1, 4] {
            let layout = IndexLayout::new(cores, 7);
            let steering = ringway_dataplane::steering::steering(cores, layout);
            let mut ports = Ports::new(UdpOptions::default(), cores, Some(steering));
            let opened = ports.open().unwrap();
            assert_eq!((ports.is_steered(), ports.refusal()), (true, None));
            assert!(opened.iter().all(|sockets| sockets.has_initiations()));
        }
    }

    #[test]
    fn a_port_that_is_taken_changes_nothing() {
        let holder = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let taken = holder.local_addr().unwrap().port();
        let mut ports = ports(1);
        let _opened = ports.open().unwrap();
        let before = ports.port();
        assert!(matches!(ports.change(taken), Err(ListenError::Busy { .. })));
        assert_eq!(ports.port(), before);
        assert!(ports.is_open());
    }

    #[test]
    fn merging_that_another_process_changed_is_as_it_was_before() {
        for gro in [true, false] {
            let mut ports = Ports::new(UdpOptions { gro, ..UdpOptions::default() }, 1, None);
            let opened = ports.open().unwrap();
            let merges = || {
                let [ipv4, _] = opened[0].descriptors();
                getsockopt(&ipv4.unwrap(), UdpGroSegment).unwrap()
            };
            assert_eq!(merges(), gro);
            opened[0].set_gro(!gro);
            assert_eq!(merges(), !gro);
            ports.restore_merging();
            assert_eq!(merges(), gro);
        }
    }

    #[test]
    fn privileged_a_mark_reaches_sockets_that_were_given_away() {
        let mut ports = ports(1);
        let opened = ports.open().unwrap();
        ports.set_mark(7).unwrap();
        let [ipv4, _] = opened[0].descriptors();
        assert_eq!(getsockopt(&ipv4.unwrap(), Mark).unwrap(), 7);
    }
}
