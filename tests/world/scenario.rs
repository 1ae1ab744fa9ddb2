//! What happens in a simulated run, all of it drawn from one number.
//!
//! A run has two parts: a storm, in which links are bad, clocks jump, peers come and go and
//! somebody attacks, and a calm, in which everything has to work again. This module only decides;
//! what is done about it is `simulation`'s.

use std::time::Duration;

use ringway_perf::emulator::LinkConfig;

use crate::client::Seeded;
use crate::cluster::Steering;

const MS: Duration = Duration::from_millis(1);

/// Parts per million.
const PERCENT: u64 = 10_000;

/// One client of the run.
#[derive(Clone, Debug)]
pub struct GuestPlan {
    /// It reaches the gateway over IPv6.
    pub outside_v6: bool,
    /// It has an inner IPv4 address.
    pub inside_v4: bool,
    /// It has an inner IPv6 address.
    pub inside_v6: bool,
    /// Its preshared key, zeros for none.
    pub preshared: [u8; 32],
    /// Seconds between its persistent keepalives.
    pub keepalive_s: u16,
    /// The gateway was told where it is, so that it may begin.
    pub endpoint_known: bool,
    /// Seconds between the gateway's persistent keepalives to it; only where the endpoint is known.
    pub gateway_keepalive_s: u16,
    /// Nobody configured it: nothing it sends may arrive.
    pub stranger: bool,
    /// It never moves, and in the calm it only listens: the gateway has to find it again by itself.
    pub mute: bool,
    /// Until the calm its preshared key is not the gateway's.
    pub wrong_preshared: bool,
    /// What the way to the gateway does.
    pub up: LinkConfig,
    /// What the way back does.
    pub down: LinkConfig,
}

/// Whose clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The gateway's.
    Gateway,
    /// That client's.
    Guest(usize),
}

/// Something that happens once. Numbers are those of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client has another address and port from now on.
    Roam(usize),
    /// A wall clock is stepped by so many seconds.
    WallJump(Host, i64),
    /// A host slept: its clocks jump forward.
    Suspend(Host, Duration),
    /// The gateway forgets the peer, and learns it again after this time.
    Remove(usize, Duration),
    /// The gateway learns the peer (again).
    Add(usize),
    /// Both ends use another preshared key.
    Preshared(usize, u64),
    /// The gateway has another key pair, and the clients know it.
    Identity(u64),
    /// The gateway starts again: the same key, nothing else.
    GatewayRestart,
    /// The client starts again.
    GuestRestart(usize),
    /// Nothing gets through for a while, in either direction.
    Outage(usize, Duration),
    /// The end of an outage.
    Restored(usize),
    /// Another largest inner packet.
    InnerMtu(u16),
    /// So many worthless initiations at once.
    Flood(u16),
}

/// A run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Everything is drawn from this.
    pub seed: u64,
    /// The clients.
    pub guests: Vec<GuestPlan>,
    /// How long the storm lasts.
    pub storm: Duration,
    /// What happens in it, by time.
    pub events: Vec<(Duration, Event)>,
    /// Mean time between two bursts of packets.
    pub burst_gap: Duration,
    /// Mean time between two hostile datagrams, if somebody attacks.
    pub attack_gap: Option<Duration>,
    /// The kernel merges what arrives together, and the TUN hands super-packets over.
    pub offloads: bool,
    /// Nothing bad happens: all that is sent has to arrive.
    pub gentle: bool,
    /// In the storm the gateway has too few buffers of every kind.
    pub scarce: bool,
    /// How many cores the gateway has.
    pub cores: u16,
    /// Which of them gets what arrives.
    pub steering: Steering,
}

impl Scenario {
    /// The run of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Seeded(seed.wrapping_mul(0x9e37_79b9).wrapping_add(7));
        let gentle = random.below(6) == 0;
        let mut guests: Vec<_> =
            (0..1 + random.below(8)).map(|_| guest(gentle, &mut random)).collect();
        let (storm_s, gap) = match random.below(4) {
            0 => (15, 40 * MS),
            1 | 2 => (70, 250 * MS),
            _ => (420, 2_000 * MS),
        };
        let storm = Duration::from_secs(storm_s + random.below(storm_s));
        let count = if gentle { 0 } else { random.below(9) };
        let mut events: Vec<_> =
            (0..count).map(|_| event(storm, guests.len(), &mut random)).collect();
        events.sort_by_key(|(at, _)| *at);
        let attacked = !gentle && random.below(2) == 0;
        for guest in &mut guests {
            // A copy that arrives first from elsewhere moves its endpoint.
            guest.mute &= !attacked;
        }
        let moves = |event: &Event| matches!(event, Event::Roam(who) if guests[*who].mute);
        events.retain(|(_, event)| !moves(event));
        Self {
            seed,
            guests,
            storm,
            events,
            burst_gap: gap,
            attack_gap: attacked.then(|| MS * (50 + random.below(2_000) as u32)),
            offloads: random.below(3) > 0,
            scarce: !gentle && random.below(4) == 0,
            gentle,
            cores: 1,
            steering: Steering::Right,
        }
    }

    /// The run of this seed with a gateway of so many cores. What arrives reaches the core that
    /// owns it, or the same wrong one each time, or any.
    #[must_use]
    pub fn on(seed: u64, cores: u16) -> Self {
        let steering = match seed % 3 {
            0 => Steering::Right,
            1 => Steering::Hash,
            _ => Steering::Random,
        };
        Self { cores, steering, ..Self::new(seed) }
    }

    /// Packets of one flow arrive in the order in which they were sent.
    #[must_use]
    pub fn keeps_order(&self) -> bool {
        let ordered = |link: &LinkConfig| link.reorder == 0 && link.duplicate == 0;
        // Who roams where nothing steers comes to another core, and overtakes itself.
        let roams = self.events.iter().any(|(_, event)| matches!(event, Event::Roam(_)));
        let steered = match self.steering {
            Steering::Right => true,
            Steering::Hash => !roams,
            Steering::Random => self.cores == 1,
        };
        self.attack_gap.is_none()
            && steered
            && self.guests.iter().all(|guest| ordered(&guest.up) && ordered(&guest.down))
    }
}

/// What links do in the calm.
#[must_use]
pub fn calm_link() -> LinkConfig {
    LinkConfig { delay: 20 * MS, ..LinkConfig::default() }
}

/// What a link does in an outage.
#[must_use]
pub fn dead_link() -> LinkConfig {
    LinkConfig { loss: 1_000_000, ..LinkConfig::default() }
}

fn guest(gentle: bool, random: &mut Seeded) -> GuestPlan {
    let inside_v4 = random.below(4) > 0;
    let mut preshared = [0; 32];
    if random.below(2) == 0 {
        preshared[..8].copy_from_slice(&random.draw().to_le_bytes());
    }
    let endpoint_known = gentle || random.below(2) == 0;
    GuestPlan {
        outside_v6: random.below(3) == 0,
        inside_v4,
        inside_v6: !inside_v4 || random.below(2) == 0,
        preshared,
        keepalive_s: pick(&[0, 0, 0, 5, 25], random),
        endpoint_known,
        gateway_keepalive_s: if endpoint_known { pick(&[0, 0, 0, 7, 25], random) } else { 0 },
        stranger: !gentle && random.below(12) == 0,
        mute: endpoint_known && random.below(3) == 0,
        wrong_preshared: !gentle && random.below(12) == 0,
        up: link(gentle, random),
        down: link(gentle, random),
    }
}

fn link(gentle: bool, random: &mut Seeded) -> LinkConfig {
    let delay = MS * (1 + random.below(120) as u32);
    if gentle {
        return LinkConfig { delay, ..LinkConfig::default() };
    }
    let mut chance = |of: u64, most: u64| {
        if random.below(of) == 0 { (random.below(most * PERCENT)) as u32 } else { 0 }
    };
    LinkConfig {
        loss: chance(2, 30),
        duplicate: chance(4, 10),
        reorder: chance(4, 10),
        corrupt: chance(4, 5),
        duplicate_after: MS * random.below(3_000) as u32,
        reorder_by: MS * random.below(200) as u32,
        delay,
        jitter: MS * random.below(50) as u32,
        rate_bps: (random.below(5) == 0).then_some(2_000_000),
        queue_bytes: 64 * 1024,
        mtu_bytes: None,
    }
}

fn event(storm: Duration, guests: usize, random: &mut Seeded) -> (Duration, Event) {
    let at = MS * random.below(storm.as_millis() as u64) as u32;
    let who = random.below(guests as u64) as usize;
    let host = if random.below(2) == 0 { Host::Gateway } else { Host::Guest(who) };
    let span = MS * (100 + random.below(storm.as_millis() as u64 / 2) as u32);
    let event = match random.below(17) {
        0..=2 => Event::Roam(who),
        3 | 4 => Event::WallJump(host, random.below(100_000) as i64 - 50_000),
        5 | 6 => Event::Suspend(host, Duration::from_secs(random.below(900))),
        7 | 8 => Event::Remove(who, span),
        9 => Event::Preshared(who, random.draw()),
        10 => Event::Identity(random.draw()),
        11 | 12 => Event::GatewayRestart,
        13 => Event::GuestRestart(who),
        14 => Event::Outage(who, span),
        15 => Event::Flood(100 + random.below(700) as u16),
        _ => Event::InnerMtu(1_280 + random.below(200) as u16),
    };
    (at, event)
}

fn pick<T: Copy>(choices: &[T], random: &mut Seeded) -> T {
    choices[random.below(choices.len() as u64) as usize]
}
