//! Very many users with a device each, none of them connected: how long it takes to make them, what
//! they take of memory and disk, and how long a restart takes with them.
//!
//! There is no way to make them in bulk: they are made as any client of the API would, over
//! connections that are kept.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringway_proto::crypto::hash;
use serde_json::json;

use super::asking::{Asked, Until, ask};
use super::house::{House, SEED};
use crate::api::Api;
use crate::fleet::{Fleet, Roster};
use crate::outcomes::{Outcome, Size, float, must};
use crate::report::Figure;

/// Who asks at the same time: half of what the API lets root do at once.
const THREADS: u64 = 16;

/// They are made in so many parts, to see whether more of them make it slower.
const PARTS: u64 = 5;

/// Clients that show that the gateway serves again are numbered from here.
const PROBE: u32 = 200_000;

/// The longest that a restart may take until somebody is served.
const SERVED_LIMIT: Duration = Duration::from_secs(120);

/// Most bytes of memory that a user with a device that may connect may take.
const BYTES_MAX: f64 = 8_192.0;

pub(super) fn run(size: Size) -> Result<Vec<Outcome>> {
    let mut house = House::start("", |_| Ok(()))?;
    let count = size.pick(20_000, 100_000);
    let mut probe = house.connected("probe", Roster { first: PROBE, ..Roster::new(SEED, 1) })?;
    let empty = house.resident()?;
    let store_empty = house.store_bytes()?;
    let mut made = Vec::new();
    for part in 0..PARTS {
        made.push(each(&house, part * count / PARTS..(part + 1) * count / PARTS, make)?);
    }
    let with_devices = house.resident()?;
    let let_in = each(&house, 0..count, let_in)?;
    let with_access = house.resident()?;
    let store = house.store_bytes()?;
    let (stop_s, started) = house.restart()?;
    let (api_s, served_s) = until_served(&house, &mut probe, started)?;
    let after = house.resident()?;

    let made_s = made.iter().map(|part| part.wall.as_secs_f64()).sum::<f64>();
    let of = |part: Option<&Asked>| part.map_or(f64::NAN, Asked::per_s);
    let (first, last) = (of(made.first()), of(made.last()));
    let per = |more: u64, less: u64| (float(more) - float(less)) / float(count);
    let mb = |bytes: u64| float(bytes) / 1e6;
    let figures = vec![
        Figure::lower("s to make them", made_s),
        Figure::higher("users with device per s", float(count) / made_s),
        Figure::told("of the first part", first),
        Figure::told("of the last part", last),
        Figure::lower("s to let them in", let_in.wall.as_secs_f64()),
        Figure::told("MB before", mb(empty)),
        Figure::told("MB with devices", mb(with_devices)),
        Figure::told("MB let in", mb(with_access)),
        Figure::lower("bytes per user with device", per(with_devices, empty)),
        Figure::lower("bytes per user let in", per(with_access, empty)),
        Figure::told("MB after a restart", mb(after)),
        Figure::lower("bytes per user after a restart", per(after, empty)),
        Figure::lower("bytes of store per user", per(store, store_empty)),
        Figure::lower("s to stop", stop_s),
        Figure::lower("s until the API answers", api_s),
        Figure::lower("s until a client is served", served_s),
    ];
    let bytes = per(with_access, empty).max(per(after, empty));
    let says = format!("a user who may connect takes at most {BYTES_MAX} bytes ({bytes:.0})");
    let all = house.api.call("GET", "/api/v1/status", None)?;
    let invariants = vec![
        must(bytes < BYTES_MAX, says),
        must(
            served_s < SERVED_LIMIT.as_secs_f64(),
            format!("a client is served again after {served_s:.1} s, and the API says: {all}"),
        ),
    ];
    let variant = format!("{count} users, made by the API over {THREADS} connections");
    Ok(vec![Outcome { variant, figures, invariants }])
}

fn make(api: &Api, user: u64) -> Result<()> {
    let form = json!({ "name": format!("user{user}") });
    api.call("POST", "/api/v1/users", Some(&form))?;
    let mut key = hash(&[b"ringway people", &user.to_be_bytes()]);
    key[31] &= 0x7f; // a key has 255 bits
    let form = json!({ "name": "device", "public_key": STANDARD.encode(key) });
    api.call("POST", &format!("/api/v1/users/user{user}/devices"), Some(&form))?;
    Ok(())
}

fn let_in(api: &Api, user: u64) -> Result<()> {
    api.call("POST", &format!("/api/v1/users/user{user}/access"), Some(&json!({})))?;
    Ok(())
}

/// Does something for each of these users, over several connections.
fn each(
    house: &House,
    users: Range<u64>,
    work: impl Fn(&Api, u64) -> Result<()> + Sync,
) -> Result<Asked> {
    let share = (users.end - users.start) / THREADS;
    ensure!(share * THREADS == users.end - users.start, "Not all of {users:?} would be made");
    let open = |_| Ok(house.dial());
    ask(THREADS, Until::Asked(share), open, |api, thread, turn| {
        work(api, users.start + thread * share + turn)
    })
}

/// Seconds from the start until the API answers and until a handshake of a client is answered.
fn until_served(house: &House, probe: &mut Fleet, started: Instant) -> Result<(f64, f64)> {
    house.is_served()?;
    let api_s = started.elapsed().as_secs_f64();
    while started.elapsed() < SERVED_LIMIT {
        probe.forget();
        if probe.shake(0..1, 1, Duration::from_millis(100))?.completed == 1 {
            return Ok((api_s, started.elapsed().as_secs_f64()));
        }
    }
    bail!("Nobody was served within {SERVED_LIMIT:?} after a restart: {}", house.said())
}
