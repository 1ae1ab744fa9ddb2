//! What two processes of a gateway tell each other while one takes over from the other.
//!
//! A message is a byte that says which, and its fields as a record. Parsing takes bytes of anybody.
//! This file must not know when what is said.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ringway_proto::AccountId;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PublicKey};
use ringway_proto::record::{Reader, RecordError};
use zeroize::Zeroizing;

use super::accounts;
use super::wire::WireError;
use crate::manager::Manager;
use crate::plane::{Operation, Secret, VolumeLeft};

/// A greeting, the only thing said in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Of the conversation.
    pub version: u16,
    /// Which program, for the operator.
    pub program: String,
    /// Ephemeral key.
    pub key: PublicKey,
}

/// Which part the gateway plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `ringway run`
    Run,
    /// `ringway wg`
    Wg,
}

/// What the running gateway is like: enough to know whether it can be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its part.
    pub part: Part,
    /// Name of its interface.
    pub interface: String,
    /// Its workers. Receiver indices carry their number.
    pub cores: u16,
    /// Masks the owner in receiver indices.
    pub index_secret: u32,
    /// UDP port.
    pub port: u16,
    /// Mark on what it sends.
    pub mark: u32,
    /// Its clock (`CLOCK_BOOTTIME`), in nanoseconds: the same here, or this is another machine.
    pub clock_ns: u64,
    /// Its privileges, as a mask of effective capabilities.
    pub capabilities: u64,
    /// Who watches it.
    pub manager: Manager,
    /// Its configuration file; empty without one.
    pub config: PathBuf,
    /// Its state folder; empty without one.
    pub state_dir: PathBuf,
    /// Settings that the host was made to agree with, as `[section] key` and value.
    pub settings: Vec<(String, String)>,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The TUN queue of this core.
    Tun(u16),
    /// A UDP socket of this core: IPv4 or not, of the bank of initiations or not.
    Udp {
        /// Whose.
        core: u16,
        /// IPv4.
        v4: bool,
        /// Of the second bank.
        initiations: bool,
    },
    /// The listening socket for counters.
    Stats,
    /// The listening socket of the configuration protocol.
    Uapi,
    /// The listening socket for the next upgrade.
    Upgrade,
    /// The lock of the journal of what was changed on the host.
    Journal,
}

/// How much the old process gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Peers in all pages: those that were ever heard of or spoken to.
    pub peers: u64,
    /// How many of them can send now.
    pub sessions: u64,
    /// Handshake messages that were not worked on, and handshakes of its own that were not
    /// answered.
    pub handshakes_lost: u64,
    /// Packets that waited for a handshake.
    pub packets_lost: u64,
    /// When it stopped carrying packets, by the clock of [`Offer::clock_ns`].
    pub paused_ns: u64,
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Both: the beginning.
    Hello(Hello),
    /// Both: no, and why.
    Refuse {
        /// A sentence for the operator.
        why: String,
    },
    /// Old: this is what I am.
    Offer(Box<Offer>),
    /// New: I can take that over.
    Accept,
    /// Old: these descriptors come with it.
    Descriptors(Vec<Item>),
    /// Old: a piece of the configuration.
    Steps(Vec<Operation>),
    /// Old: that was the configuration.
    StepsEnd,
    /// New: workers stand ready, peers are known.
    Prepared,
    /// Old: sessions of a core. I have stopped carrying packets.
    Page {
        /// Whose.
        core: u16,
        /// As the core wrote it.
        bytes: Zeroizing<Vec<u8>>,
    },
    /// Old: what is left of volumes of accounts. I have stopped carrying packets.
    Volumes(Vec<VolumeLeft>),
    /// Old: that was all.
    PagesEnd(Given),
    /// New: I have it all.
    Ready {
        /// Peers taken over.
        peers: u64,
        /// How many of them can send now.
        sessions: u64,
    },
    /// Old: begin. I shall not, or only far above your counters.
    Commit,
    /// New: I carry packets. Go.
    Running,
}

impl Message {
    /// Appends the message.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut out = Out(out);
        out.u8(self.number());
        match self {
            Self::Hello(Hello { version, program, key }) => {
                out.u16(*version);
                out.text(program);
                out.bytes(&key.0);
            }
            Self::Refuse { why } => out.text(why),
            Self::Offer(offer) => offer.write(&mut out),
            Self::Descriptors(items) => items.iter().for_each(|item| out.item(*item)),
            Self::Steps(steps) => steps.iter().for_each(|step| out.step(step)),
            Self::Page { core, bytes } => {
                out.u16(*core);
                out.bytes(bytes);
            }
            Self::Volumes(volumes) => {
                volumes.iter().for_each(|left| accounts::write_left(out.0, left));
            }
            Self::PagesEnd(given) => {
                let Given { peers, sessions, handshakes_lost, packets_lost, paused_ns } = given;
                for number in [peers, sessions, handshakes_lost, packets_lost, paused_ns] {
                    out.u64(*number);
                }
            }
            Self::Ready { peers, sessions } => {
                out.u64(*peers);
                out.u64(*sessions);
            }
            Self::Accept | Self::StepsEnd | Self::Prepared | Self::Commit | Self::Running => {}
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        let message = Self::read(&mut reader)?;
        reader.end().map(|()| message)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(match reader.u8()? {
            1 => Self::Hello(Hello {
                version: reader.u16()?,
                program: text(reader)?,
                key: PublicKey(*reader.array()?),
            }),
            2 => Self::Refuse { why: text(reader)? },
            3 => Self::Offer(Box::new(Offer::read(reader)?)),
            4 => Self::Accept,
            5 => Self::Descriptors(until_end(reader, item)?),
            6 => Self::Steps(steps(reader)?),
            7 => Self::StepsEnd,
            8 => Self::Prepared,
            9 => {
                let core = reader.u16()?;
                let rest = std::mem::replace(reader, Reader::new(&[])).rest();
                Self::Page { core, bytes: Zeroizing::new(rest.to_vec()) }
            }
            10 => Self::PagesEnd(Given {
                peers: reader.u64()?,
                sessions: reader.u64()?,
                handshakes_lost: reader.u64()?,
                packets_lost: reader.u64()?,
                paused_ns: reader.u64()?,
            }),
            11 => Self::Ready { peers: reader.u64()?, sessions: reader.u64()? },
            12 => Self::Commit,
            13 => Self::Running,
            14 => Self::Volumes(until_end(reader, accounts::read_left)?),
            _ => return Err(RecordError::Impossible { field: "message" }),
        })
    }

    const fn number(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Refuse { .. } => 2,
            Self::Offer(_) => 3,
            Self::Accept => 4,
            Self::Descriptors(_) => 5,
            Self::Steps(_) => 6,
            Self::StepsEnd => 7,
            Self::Prepared => 8,
            Self::Page { .. } => 9,
            Self::PagesEnd(_) => 10,
            Self::Ready { .. } => 11,
            Self::Commit => 12,
            Self::Running => 13,
            Self::Volumes(_) => 14,
        }
    }

    /// What was said, in a word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "a greeting",
            Self::Refuse { .. } => "no",
            Self::Offer(_) => "an offer",
            Self::Accept => "yes",
            Self::Descriptors(_) => "descriptors",
            Self::Steps(_) => "configuration",
            Self::StepsEnd => "the end of the configuration",
            Self::Prepared => "that it is prepared",
            Self::Page { .. } => "sessions",
            Self::Volumes(_) => "what is left of volumes",
            Self::PagesEnd(_) => "the end of the sessions",
            Self::Ready { .. } => "that it is ready",
            Self::Commit => "go",
            Self::Running => "that it runs",
        }
    }
}

impl Message {
    /// What is wrong about this message where another one was `wanted`.
    #[must_use]
    pub const fn unexpected(&self, wanted: &'static str) -> WireError {
        WireError::Unexpected { said: self.name(), wanted }
    }
}

impl Offer {
    fn write(&self, out: &mut Out<'_>) {
        out.u8(match self.part {
            Part::Run => 0,
            Part::Wg => 1,
        });
        out.text(&self.interface);
        out.u16(self.cores);
        out.u32(self.index_secret);
        out.u16(self.port);
        out.u32(self.mark);
        out.u64(self.clock_ns);
        out.u64(self.capabilities);
        out.text(&self.manager.socket);
        out.u64(self.manager.watchdog_us);
        out.text(&self.manager.group);
        // Names of files that are no text cannot be handed over; the operator names them instead.
        out.text(self.config.to_str().unwrap_or_default());
        out.text(self.state_dir.to_str().unwrap_or_default());
        for (name, value) in &self.settings {
            out.text(name);
            out.text(value);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            part: if reader.flag("part")? { Part::Wg } else { Part::Run },
            interface: text(reader)?,
            cores: match reader.u16()? {
                0 => return Err(RecordError::Impossible { field: "cores" }),
                cores => cores,
            },
            index_secret: reader.u32()?,
            port: reader.u16()?,
            mark: reader.u32()?,
            clock_ns: reader.u64()?,
            capabilities: reader.u64()?,
            manager: Manager {
                socket: text(reader)?,
                watchdog_us: reader.u64()?,
                group: text(reader)?,
            },
            config: text(reader)?.into(),
            state_dir: text(reader)?.into(),
            settings: until_end(reader, |reader| Ok((text(reader)?, text(reader)?)))?,
        })
    }
}

/// Appends fields. Memory may grow here: the wire's frame has room for every message.
struct Out<'a>(&'a mut Vec<u8>);

impl Out<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.u8(4);
                self.bytes(&address.octets());
            }
            IpAddr::V6(address) => {
                self.u8(6);
                self.bytes(&address.octets());
            }
        }
    }

    fn socket(&mut self, socket: SocketAddr) {
        self.u16(socket.port());
        self.u32(match socket {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(socket) => socket.scope_id(),
        });
        self.address(socket.ip());
    }

    /// At most 65,535 bytes of it.
    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
        self.u16(text.len() as u16);
        self.bytes(text.as_bytes());
    }

    fn item(&mut self, item: Item) {
        let (kind, core) = match item {
            Item::Tun(core) => (0, core),
            Item::Udp { core, v4, initiations } => {
                (1 + u8::from(!v4) + 2 * u8::from(initiations), core)
            }
            Item::Stats => (5, 0),
            Item::Uapi => (6, 0),
            Item::Upgrade => (7, 0),
            Item::Journal => (8, 0),
        };
        self.u8(kind);
        self.u16(core);
    }

    /// Steps that no gateway gives away (they are requests, not state) are left out.
    fn step(&mut self, step: &Operation) {
        match step {
            Operation::PrivateKey(secret) => {
                self.u8(1);
                self.bytes(&Zeroizing::new(secret.bytes())[..]);
            }
            Operation::Peer(public) => {
                self.u8(2);
                self.bytes(&public.0);
            }
            Operation::Preshared(key) => {
                self.u8(3);
                self.bytes(&key.0);
            }
            Operation::Keepalive(seconds) => {
                self.u8(4);
                self.u16(*seconds);
            }
            Operation::AllowedIp(net) => {
                self.u8(5);
                self.address(net.address());
                self.u8(net.prefix());
            }
            Operation::Endpoint(endpoint) => {
                self.u8(6);
                self.socket(*endpoint);
            }
            Operation::PutAccount(id, account) => {
                self.u8(7);
                self.u32(id.0);
                accounts::write(self.0, account);
            }
            Operation::Account(Some(id)) => {
                self.u8(8);
                self.u32(id.0);
            }
            Operation::Account(None)
            | Operation::RemoveAccount(_)
            | Operation::ListenPort(_)
            | Operation::Fwmark(_)
            | Operation::ReplacePeers
            | Operation::UpdateOnly
            | Operation::Remove
            | Operation::ReplaceAllowedIps
            | Operation::RemoveAllowedIp(_) => {}
        }
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String, RecordError> {
    let len = reader.u16()?.into();
    let text = std::str::from_utf8(reader.bytes(len)?);
    text.map(str::to_owned).map_err(|_| RecordError::Impossible { field: "text" })
}

fn item(reader: &mut Reader<'_>) -> Result<Item, RecordError> {
    let (kind, core) = (reader.u8()?, reader.u16()?);
    Ok(match kind {
        0 => Item::Tun(core),
        1..=4 => Item::Udp { core, v4: kind % 2 == 1, initiations: kind > 2 },
        5 => Item::Stats,
        6 => Item::Uapi,
        7 => Item::Upgrade,
        8 => Item::Journal,
        _ => return Err(RecordError::Impossible { field: "descriptor" }),
    })
}

fn step(reader: &mut Reader<'_>) -> Result<Operation, RecordError> {
    Ok(match reader.u8()? {
        1 => Operation::PrivateKey(Secret::new(*reader.array()?)),
        2 => Operation::Peer(PublicKey(*reader.array()?)),
        3 => Operation::Preshared(PresharedKey(*reader.array()?)),
        4 => Operation::Keepalive(reader.u16()?),
        5 => {
            let (address, len) = (reader.address()?, reader.u8()?);
            let net = IpNet::new(address, len);
            Operation::AllowedIp(net.ok_or(RecordError::Impossible { field: "prefix" })?)
        }
        6 => Operation::Endpoint(reader.socket()?),
        7 => Operation::PutAccount(AccountId(reader.u32()?), Box::new(accounts::read(reader)?)),
        8 => Operation::Account(Some(AccountId(reader.u32()?))),
        _ => return Err(RecordError::Impossible { field: "step" }),
    })
}

/// With room for all of them from the beginning: memory that grows leaves copies of keys behind.
fn steps(reader: &mut Reader<'_>) -> Result<Vec<Operation>, RecordError> {
    let rest = std::mem::replace(reader, Reader::new(&[])).rest();
    let mut ahead = Reader::new(rest);
    let mut count = 0;
    while !ahead.is_empty() {
        step(&mut ahead)?;
        count += 1;
    }
    let mut all = Vec::with_capacity(count);
    *reader = Reader::new(rest);
    while !reader.is_empty() {
        all.push(step(reader)?);
    }
    Ok(all)
}

fn until_end<T>(
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, RecordError>,
) -> Result<Vec<T>, RecordError> {
    let mut all = Vec::new();
    while !reader.is_empty() {
        all.push(read(reader)?);
    }
    Ok(all)
}
