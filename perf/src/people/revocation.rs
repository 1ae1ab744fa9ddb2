//! How soon the last packet comes after somebody was shut out.
//!
//! Many people have a steady flow each way. One after the other is shut out, each by one of several
//! means; the far ends know when the last datagram of each flow came. Both flows begin at their own
//! end, so that the end of one does not end the other.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;

use super::house::{House, SEED, ends_cpu};
use crate::api::Api;
use crate::fleet::far::{FarEnd, Seen, blast};
use crate::fleet::{Fleet, Load, Roster, hurry_this_thread};
use crate::outcomes::{Outcome, Size, float, must};
use crate::report::Figure;
use crate::rr::RoundTrips;
use crate::wait::wait_until;

/// Datagrams per second of each flow: the last one is at most so much older than the end. All flows
/// together must leave the gateway's other threads, which are on the same processor, their time.
const PER_S: u64 = 100;

/// Bytes of an inner packet.
const BYTES: usize = 200;

/// A flow that lives has a datagram in this time: twenty are due.
const SILENT_MAX: Duration = Duration::from_millis(200);

/// Time between two revocations.
const PAUSE: Duration = Duration::from_millis(150);

/// As long as it may take, and again as long, so that a packet too late is seen.
const WATCHED: Duration = Duration::from_secs(2);

/// Traffic before the first.
const LEAD: Duration = Duration::from_millis(500);

/// A core tells of its sessions ten times a second.
const LISTED_LIMIT: Duration = Duration::from_secs(10);

const LIMIT_S: f64 = 1.0;

/// What an operator does to somebody, and its name.
type Means = fn(&Api, &str, u64) -> std::io::Result<serde_json::Value>;

const MEANS: [(&str, Means); 5] = [
    ("user disabled", |api, user, _| {
        let state = json!({ "state": "disabled" });
        api.call("PUT", &format!("/api/v1/users/{user}/state"), Some(&state))
    }),
    ("user banned", |api, user, _| {
        let state = json!({ "state": "banned" });
        api.call("PUT", &format!("/api/v1/users/{user}/state"), Some(&state))
    }),
    ("session killed", |api, _, session| {
        api.call("DELETE", &format!("/api/v1/sessions/{session}?reason=test"), None)
    }),
    ("device disabled", |api, user, _| {
        let enabled = json!({ "enabled": false });
        api.call("PATCH", &format!("/api/v1/users/{user}/devices/device"), Some(&enabled))
    }),
    ("user removed", |api, user, _| api.call("DELETE", &format!("/api/v1/users/{user}"), None)),
];

/// When somebody was shut out.
struct Shut {
    client: u32,
    asked: Instant,
    answered: Instant,
}

pub(super) fn run(size: Size) -> Result<Vec<Outcome>> {
    let house = House::start("", |_| Ok(()))?;
    let each = size.pick(2, 20);
    let roster = Roster::new(SEED, each * MEANS.len() as u32 + 1);
    let mut fleet = house.connected("client", roster)?;
    let far_at = SocketAddrV4::new(Ipv4Addr::new(10, 91, 2, 2), 9_010);
    let far = FarEnd::start_in_a_hurry(&house.line.dst, far_at, ends_cpu())?;
    // The last client stays, to show that flows do not end by themselves.
    let count = roster.count - 1;
    let period = LEAD + PAUSE * count + Duration::from_secs(6) + WATCHED;
    let sessions = sessions(&house, count)?;
    let (shut, over) = std::thread::scope(|scope| {
        let down = scope.spawn(|| send_down(&house, roster, period));
        let operator = scope.spawn(|| shut_out(&house, &sessions, period));
        hurry_this_thread();
        let load = Load {
            clients: 0..roster.count,
            to: far_at,
            size: BYTES,
            batch: 1,
            per_s: Some(PER_S * u64::from(roster.count)),
            echo: false,
            period,
        };
        let driven = fleet.drive(&load);
        let over = Instant::now();
        let panicked = || anyhow!("A thread panicked");
        let shut = operator.join().map_err(|_| panicked())?;
        down.join().map_err(|_| panicked())??;
        driven?;
        anyhow::Ok((shut?, over))
    })?;
    let seen = far.finish()?;
    let stays = [fleet.last_arrival(count), seen.last.get(&count).copied()];
    for last in stays {
        let last = last.context("Whoever stays got nothing")?;
        let silent = over.saturating_duration_since(last);
        ensure!(silent < WATCHED / 2, "The flow of whoever stays ended too");
    }
    let rows = MEANS.iter().zip(0..).map(|((name, _), means)| {
        let of_it = shut.iter().filter(|shut| shut.client % MEANS.len() as u32 == means);
        row(name, &of_it.collect::<Vec<_>>(), &fleet, &seen)
    });
    rows.collect()
}

/// The identifier of each client's session.
fn sessions(house: &House, count: u32) -> Result<Vec<u64>> {
    let one = |number| {
        let path = format!("/api/v1/sessions?user=client{number}");
        wait_until("a session to be listed", LISTED_LIMIT, || {
            house.api.call("GET", &path, None).ok()?["items"][0]["id"].as_u64()
        })
    };
    (0..count).map(one).collect()
}

fn send_down(house: &House, roster: Roster, period: Duration) -> Result<()> {
    hurry_this_thread();
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 91, 2, 2), 9_012);
    let to: Vec<SocketAddrV4> =
        (0..roster.count).map(|number| SocketAddrV4::new(roster.inner(number), 7_000)).collect();
    let per_s = PER_S * u64::from(roster.count);
    blast(&house.line.dst, from, &to, (BYTES - 28, 1), Some(per_s), period)?;
    Ok(())
}

/// Shuts one after the other out, as an operator with a connection of its own.
fn shut_out(house: &House, sessions: &[u64], period: Duration) -> Result<Vec<Shut>> {
    let (api, begun) = (house.dial(), Instant::now());
    std::thread::sleep(LEAD);
    let mut all = Vec::new();
    for (session, client) in sessions.iter().zip(0..) {
        let (name, means) = MEANS[client as usize % MEANS.len()];
        let asked = Instant::now();
        means(&api, &format!("client{client}"), *session).with_context(|| name.to_owned())?;
        all.push(Shut { client, asked, answered: Instant::now() });
        std::thread::sleep(PAUSE);
    }
    ensure!(begun.elapsed() + WATCHED < period, "The requests took {:?}", begun.elapsed());
    Ok(all)
}

fn row(name: &str, shut: &[&Shut], fleet: &Fleet, seen: &Seen) -> Result<Outcome> {
    let (mut asked, mut answered, mut late) = (Vec::new(), Vec::new(), Vec::new());
    for one in shut {
        let down = fleet.last_arrival(one.client);
        let up = seen.last.get(&one.client).copied();
        // A flow that had ended before would look like one that ends at once.
        let lived = one.asked.checked_sub(SILENT_MAX);
        let silent = [down, up].into_iter().any(|last| last < lived);
        ensure!(!silent, "A flow of client{} ended before it was shut out", one.client);
        let last = down.max(up).context("Both came")?;
        asked.push(last.saturating_duration_since(one.asked));
        late.push(last.saturating_duration_since(one.answered));
        answered.push(one.answered - one.asked);
    }
    let of = |times| RoundTrips::of(times).context("Nobody was shut out");
    let (asked, answered, late) = (of(asked)?, of(answered)?, of(late)?);
    let ms = |trips: &RoundTrips, share| trips.percentile_us(share) / 1e3;
    let most_s = asked.percentile_us(1.0) / 1e6;
    let figures = vec![
        Figure::told("times", float(shut.len() as u64)),
        Figure::lower("from request to last packet: p50 ms", ms(&asked, 0.5)),
        Figure::lower("p99 ms", ms(&asked, 0.99)),
        Figure::lower("max ms", ms(&asked, 1.0)),
        Figure::told("answer after: p50 ms", ms(&answered, 0.5)),
        Figure::told("answer after: max ms", ms(&answered, 1.0)),
        Figure::lower("from answer to last packet (0: none came): max ms", ms(&late, 1.0)),
    ];
    let says = format!("{name}: the last packet comes within {LIMIT_S} s ({most_s:.3} s)");
    let invariants = vec![must(most_s < LIMIT_S, says)];
    Ok(Outcome { variant: name.to_owned(), figures, invariants })
}
