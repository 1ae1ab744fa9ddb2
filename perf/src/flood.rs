//! A generator that saturates a gateway: a real initiator that shakes hands once and then encrypts
//! in process.
//!
//! No stock client can fill a fast gateway. This one has no TUN and reads nothing: it seals the
//! same inner packet over and over and hands the kernel a whole GSO train per call, or single
//! datagrams where the merged case is not what is measured. Its socket also counts what a gateway
//! sends to it, without reading it.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use ringway_proto::crypto::{PresharedKey, PrivateKey, PublicKey, Random};
use ringway_proto::limits::{RUN_MAX, UDP_PAYLOAD_MAX};
use ringway_proto::wireguard::{
    Cx, Identity, Indices, Message, PeerConfig, Plain, Tunnel, classify,
};
use ringway_proto::{Instant, Now, ReceiverIndex};

/// Room around the plaintext: 16 bytes of header, 16 of tag.
const HEADER_BYTES: usize = 16;
const OVERHEAD_BYTES: usize = 32;

/// Limit for one answer to an initiation; the initiation is repeated after that.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);

/// Time between two looks at the clock while flooding, in batches; a multiple of the three parts of
/// a mix.
const BATCHES_PER_LOOK: usize = 63;

/// What a flood is made of: one inner packet, sent so many times in a row.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The inner packet.
    pub packet: &'a [u8],
    /// Datagrams per send, which then travel as one train; 1 sends each alone.
    pub batch: usize,
}

impl Part<'_> {
    /// Bytes of a sealed datagram.
    const fn stride(&self) -> usize {
        self.packet.len().next_multiple_of(16) + OVERHEAD_BYTES
    }

    fn batch(&self) -> usize {
        self.batch.clamp(1, RUN_MAX.min(UDP_PAYLOAD_MAX / self.stride()))
    }
}

/// An initiator with a finished handshake.
pub struct Generator {
    socket: UdpSocket,
    tunnel: Tunnel,
    identity: Identity,
    random: SystemRandom,
    indices: Counter,
    epoch: Clock,
}

impl Generator {
    /// Shakes hands with the gateway at `to` from a fresh port. Keys are WireGuard's base64.
    ///
    /// # Errors
    /// When the keys are no keys or the gateway does not answer three times.
    pub fn connect(private: &str, gateway: &str, to: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(to).with_context(|| format!("No route to {to}"))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        let identity = Identity::new(PrivateKey::from_bytes(key(private)?));
        let config = PeerConfig {
            public: PublicKey(key(gateway)?),
            preshared: PresharedKey::default(),
            keepalive_s: 0,
        };
        let tunnel = Tunnel::new(&identity, config);
        let random = SystemRandom::open()?;
        let epoch = Clock::now();
        let mut generator =
            Self { socket, tunnel, identity, random, indices: Counter::default(), epoch };
        generator.shake_hands()?;
        Ok(generator)
    }

    /// Its socket's own address; datagrams from the gateway are counted by that port's drop
    /// counter.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends the parts in turn, each packet sealed anew, as fast as it goes or at `per_s`, for
    /// `period`. Returns how many packets were sent.
    ///
    /// # Errors
    /// When the kernel refuses to send for another reason than a full queue.
    pub fn flood(
        &mut self,
        parts: &[Part<'_>],
        per_s: Option<u64>,
        period: Duration,
    ) -> Result<u64> {
        self.socket.set_write_timeout(Some(ANSWER_LIMIT))?;
        let longest = parts.iter().map(Part::stride).max().unwrap_or_default();
        let mut train = vec![0; longest * RUN_MAX];
        let (start, mut sent) = (Clock::now(), 0);
        while start.elapsed() < period {
            let now = self.now();
            for part in parts.iter().cycle().take(BATCHES_PER_LOOK.max(parts.len())) {
                sent += self.seal_and_send(&mut train, part, now)?;
                if let Some(per_s) = per_s {
                    let due = Duration::from_nanos(sent * 1_000_000_000 / per_s.max(1));
                    std::thread::sleep(due.saturating_sub(start.elapsed()));
                }
            }
        }
        Ok(sent)
    }

    /// Seals a full run in either case, so that both regimes cost the generator the same.
    fn seal_and_send(&mut self, train: &mut [u8], part: &Part<'_>, now: Now) -> Result<u64> {
        let (stride, batch) = (part.stride(), part.batch());
        let count = if batch == 1 { RUN_MAX } else { batch };
        let train = &mut train[..stride * count];
        for datagram in train.chunks_exact_mut(stride) {
            let (text, padding) =
                datagram[HEADER_BYTES..stride - HEADER_BYTES].split_at_mut(part.packet.len());
            text.copy_from_slice(part.packet);
            padding.fill(0);
        }
        let mut slots = train.chunks_exact_mut(stride);
        let mut run: [Plain<'_>; RUN_MAX] =
            std::array::from_fn(|_| Plain { bytes: slots.next().unwrap_or_default() });
        self.tunnel
            .seal_run(&mut run[..count], now)
            .map_err(|reason| anyhow!("Sealing failed: {reason:?}"))?;

        let mut sent = 0;
        for message in train.chunks(stride * batch) {
            sent += self.send(message, stride)? * batch as u64;
        }
        Ok(sent)
    }

    /// Hands one train to the kernel; 0 when that had no room for it.
    fn send(&self, message: &[u8], stride: usize) -> Result<u64> {
        let segment = u16::try_from(stride)?;
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let control = if message.len() > stride { &control[..] } else { &[] };
        let (fd, bytes) = (self.socket.as_raw_fd(), [IoSlice::new(message)]);
        match sendmsg::<()>(fd, &bytes, control, MsgFlags::empty(), None) {
            Ok(_) => Ok(1),
            // A full queue or a sink that closed its port: it is lost, the flood goes on.
            Err(Errno::EAGAIN | Errno::ECONNREFUSED | Errno::ENOBUFS) => Ok(0),
            Err(error) => Err(error).context("Sending"),
        }
    }

    fn shake_hands(&mut self) -> Result<()> {
        for _ in 0..3 {
            self.tunnel.want_handshake(self.now());
            self.transmit()?;
            let mut answer = [0; 256];
            let Ok(length) = self.socket.recv(&mut answer) else {
                self.expire();
                continue;
            };
            let answer = &answer[..length];
            match classify(answer) {
                Ok(Message::Response { .. }) => {
                    let accepted = self.with_cx(|tunnel, cx| tunnel.accept_response(answer, cx));
                    accepted.map_err(|reason| anyhow!("Response refused: {reason:?}"))?;
                    return self.transmit(); // a keepalive, which confirms the key
                }
                Ok(Message::Cookie { .. }) => {
                    let now = self.now();
                    let _ = self.tunnel.accept_cookie(answer, now);
                    self.expire();
                }
                Ok(Message::Initiation | Message::Data { .. }) | Err(_) => {}
            }
        }
        bail!("The gateway did not answer three initiations")
    }

    /// Sends what the tunnel itself wants to send.
    fn transmit(&mut self) -> Result<()> {
        let mut out = [0; 256];
        while let Some(outgoing) = self.with_cx(|tunnel, cx| tunnel.poll_transmit(cx, &mut out)) {
            self.socket.send(&out[..outgoing.len])?;
        }
        Ok(())
    }

    /// Tells the tunnel that its retransmission timer fired, by running its clock ahead.
    fn expire(&mut self) {
        self.epoch = self.epoch.checked_sub(ANSWER_LIMIT).unwrap_or(self.epoch);
        let _ = self.with_cx(|tunnel, cx| tunnel.handle_timeout(cx));
    }

    fn with_cx<T>(&mut self, work: impl FnOnce(&mut Tunnel, &mut Cx<'_>) -> T) -> T {
        let now = self.now();
        let Self { tunnel, identity, random, indices, .. } = self;
        work(tunnel, &mut Cx { identity, now, random, indices })
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: Instant::ZERO + self.epoch.elapsed() + ANSWER_LIMIT, wall }
    }
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("socket", &self.socket).finish_non_exhaustive()
    }
}

fn key(text: &str) -> Result<[u8; 32]> {
    let bytes = BASE64_STANDARD.decode(text.trim()).context("A key is not base64")?;
    bytes.try_into().map_err(|_| anyhow!("A key is not 32 bytes long"))
}

#[derive(Debug, Default)]
struct Counter(u32);

impl Indices for Counter {
    fn allocate(&mut self) -> Option<ReceiverIndex> {
        self.0 += 1;
        Some(ReceiverIndex(self.0))
    }

    fn release(&mut self, _index: ReceiverIndex) {}
}

struct SystemRandom(std::fs::File);

impl SystemRandom {
    fn open() -> Result<Self> {
        Ok(Self(std::fs::File::open("/dev/urandom").context("Opening /dev/urandom")?))
    }
}

impl Random for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) {
        use std::io::Read as _;
        assert!(self.0.read_exact(out).is_ok(), "/dev/urandom always has bytes");
    }
}
