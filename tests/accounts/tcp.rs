//! What a TCP flow makes of a token bucket that drops: is the default burst right?
//!
//! One sender with CUBIC (RFC 9438), losses found by what was sent later and arrived (RFC 8985),
//! lost repetitions included, and a timer of 200 ms as Linux has it. Packets leave back to back at
//! 10 Gbit/s; the bucket is asked for each. It is a model: its numbers say what a burst does, not
//! what a network does.

use std::collections::VecDeque;

use ringway_flow::qos::{Bucket, Rate};
use ringway_proto::Instant;

const PACKET: u64 = 1_500;
const WIRE_NS: u64 = PACKET * 8 / 10;
const TIMER_NS: u64 = 200_000_000;
const MS: u64 = 1_000_000;

#[derive(Clone, Copy)]
struct Sent {
    at: u64,
    arrives: bool,
}

/// A sender that always has something to send.
struct Tcp {
    rtt: u64,
    window: f64,
    threshold: f64,
    /// Before the last loss, and when that was.
    most: f64,
    lost_at: u64,
    /// When the last packet leaves the wire.
    wire: u64,
    flying: VecDeque<Sent>,
    heard: u64,
}

impl Tcp {
    fn new(rtt: u64) -> Self {
        Self {
            rtt,
            window: 10.0,
            threshold: f64::MAX,
            most: 0.0,
            lost_at: 0,
            wire: 0,
            flying: VecDeque::new(),
            heard: 0,
        }
    }

    fn send(&mut self, now: u64, bucket: &mut Bucket) -> u64 {
        let mut passed = 0;
        while (self.flying.len() as f64) < self.window.max(1.0) {
            self.wire = self.wire.max(now) + WIRE_NS;
            bucket.refill(Instant::from_nanos(self.wire));
            let arrives = bucket.level() >= PACKET && bucket.take_up_to(PACKET) == PACKET;
            passed += if arrives { PACKET } else { 0 };
            self.flying.push_back(Sent { at: self.wire, arrives });
        }
        passed
    }

    /// When something is next heard, or its absence noticed.
    fn next(&self) -> u64 {
        let answered = self.flying.iter().find(|sent| sent.arrives);
        let timer = self.heard.max(self.flying.front().map_or(0, |sent| sent.at))
            + TIMER_NS.max(2 * self.rtt);
        answered.map_or(timer, |sent| (sent.at + self.rtt).min(timer))
    }

    fn hear(&mut self, now: u64) {
        let Some(place) = self.flying.iter().position(|sent| sent.arrives) else {
            return self.timed_out(now);
        };
        let answered = self.flying[place];
        if answered.at + self.rtt > now {
            return self.timed_out(now);
        }
        self.flying.remove(place);
        self.heard = now;
        self.grow(now);
        // What was sent a quarter of a round trip before this and has not arrived is lost.
        while let Some(first) = self.flying.front() {
            if first.arrives || first.at + self.rtt / 4 > answered.at {
                break;
            }
            let first = *first;
            self.flying.pop_front();
            if first.at >= self.lost_at {
                self.shrink(now);
            }
        }
    }

    fn grow(&mut self, now: u64) {
        if self.window < self.threshold {
            self.window += 1.0;
            return;
        }
        let t = (now + self.rtt - self.lost_at) as f64 / 1e9;
        let k = (self.most * 0.3 / 0.4).cbrt();
        let cubic = self.most + 0.4 * (t - k).powi(3);
        let rounds = (now - self.lost_at) as f64 / self.rtt as f64;
        let friendly = self.most * 0.7 + 3.0 * 0.3 / 1.7 * rounds;
        let target = cubic.max(friendly).min(1.5 * self.window);
        self.window += (target - self.window).max(0.01) / self.window;
    }

    fn shrink(&mut self, now: u64) {
        let fast = if self.window < self.most { 0.85 } else { 1.0 };
        self.most = self.window * fast;
        self.window = (self.window * 0.7).max(2.0);
        self.threshold = self.window;
        self.lost_at = now;
    }

    fn timed_out(&mut self, now: u64) {
        self.most = self.window;
        self.threshold = (self.window * 0.7).max(2.0);
        self.window = 1.0;
        self.lost_at = now;
        self.heard = now;
        self.flying.clear();
    }
}

/// The share of the rate that a flow gets in the long run.
fn share(rate: Rate, rtt: u64) -> f64 {
    const BEGIN: u64 = 5_000 * MS;
    const END: u64 = 25_000 * MS;
    let mut bucket = Bucket::full(rate, Instant::ZERO);
    let mut tcp = Tcp::new(rtt);
    let (mut now, mut passed) = (0, 0);
    while now < END {
        let sent = tcp.send(now, &mut bucket);
        passed += if now >= BEGIN { sent } else { 0 };
        now = tcp.next();
        tcp.hear(now);
    }
    passed as f64 / (rate.bytes_per_second as f64 * (END - BEGIN) as f64 / 1e9)
}

#[test]
fn one_flow_gets_nine_tenths_of_its_rate_with_the_burst_that_nobody_chose() {
    for megabits in [10_u64, 50, 500] {
        for rtt_ms in [1_u64, 10, 40] {
            let share = share(Rate::of(megabits * 125_000), rtt_ms * MS);
            eprintln!("{megabits} Mbit/s, {rtt_ms} ms: {:.1} %", share * 100.0);
            assert!(share >= 0.9, "{megabits} Mbit/s, {rtt_ms} ms: {:.1} %", share * 100.0);
        }
    }
}

#[test]
fn a_burst_of_ten_milliseconds_would_not_do() {
    let rate = Rate { bytes_per_second: 6_250_000, burst: 62_500 };
    let share = share(rate, 40 * MS);
    assert!(share < 0.85, "{:.1} %", share * 100.0);
}
