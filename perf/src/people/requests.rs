//! What an API request costs those who ask, and those who have traffic meanwhile.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::asking::{Asked, Until, ask};
use super::house::{House, SEED};
use super::traffic::Traffic;
use crate::api::Api;
use crate::fleet::Roster;
use crate::outcomes::{Outcome, Size, float};
use crate::report::Figure;

/// How many ask at a time.
const THREADS: [u64; 2] = [1, 8];

/// What a thread asks in which turn.
type Request = fn(u64, u64) -> (&'static str, String, Option<Value>);

const REQUESTS: [(&str, Request); 5] = [
    ("page of 100 users", |_, _| ("GET", "/api/v1/users?limit=100".to_owned(), None)),
    ("page of 100 sessions", |_, _| ("GET", "/api/v1/sessions?limit=100".to_owned(), None)),
    ("one user", |thread, turn| {
        ("GET", format!("/api/v1/users/client{}", (thread * 37 + turn) % 100), None)
    }),
    ("PATCH of a user", |thread, turn| {
        let rate = json!({ "rate": { "up_bps": 1_000_000_000 + turn } });
        ("PATCH", format!("/api/v1/users/patched{thread}"), Some(rate))
    }),
    ("scrape of the metrics", |_, _| ("GET", "/api/v1/metrics".to_owned(), None)),
];

pub(super) fn run(size: Size) -> Result<Vec<Outcome>> {
    let house = House::start("", |_| Ok(()))?;
    // A page of sessions has a hundred rows; users without a device fill the rest of the table.
    let clients = house.connected("client", Roster::new(SEED, 100))?;
    for thread in 0..THREADS[1] {
        let form = json!({ "name": format!("patched{thread}") });
        house.api.call("POST", "/api/v1/users", Some(&form))?;
    }
    for number in 0..size.pick(100, 1_000) {
        let form = json!({ "name": format!("other{number}") });
        house.api.call("POST", "/api/v1/users", Some(&form))?;
    }
    let mut traffic = Traffic::connect(&house)?;
    let period = Duration::from_millis(size.pick(300, 2_000));
    let (_, alone) = traffic.beside(&house, true, 2 * period, || Ok(()))?;
    let figures = alone.figures();
    let invariants = alone.unharmed("traffic alone");
    let mut rows =
        vec![Outcome { variant: "nothing, beside traffic".to_owned(), figures, invariants }];
    for (name, request) in REQUESTS {
        for threads in THREADS {
            rows.push(idle(&house, name, request, threads, period)?);
            rows.push(beside(&house, &mut traffic, (name, request), threads, period)?);
        }
    }
    drop(clients);
    Ok(rows)
}

fn idle(
    house: &House,
    name: &str,
    request: Request,
    threads: u64,
    period: Duration,
) -> Result<Outcome> {
    let spent = house.cpu_s();
    let asked = asked(house, request, threads, period)?;
    let figures = with_cost(&asked, house.cpu_s() - spent);
    let variant = format!("{name}, {threads} at a time, idle");
    Ok(Outcome { variant, figures, invariants: Vec::new() })
}

fn beside(
    house: &House,
    traffic: &mut Traffic,
    (name, request): (&str, Request),
    threads: u64,
    period: Duration,
) -> Result<Outcome> {
    let talk = period + period / 3;
    let (asked, kept) =
        traffic.beside(house, true, talk, || asked(house, request, threads, period))?;
    let variant = format!("{name}, {threads} at a time, beside traffic");
    let mut figures = asked.figures();
    figures.extend(kept.figures());
    let invariants = kept.unharmed(&variant);
    Ok(Outcome { variant, figures, invariants })
}

fn asked(house: &House, request: Request, threads: u64, period: Duration) -> Result<Asked> {
    let open = |_| Ok(house.dial());
    ask(threads, Until::Passed(period), open, |api: &mut Api, thread, turn| {
        let (method, path, body) = request(thread, turn);
        api.call(method, &path, body.as_ref())?;
        Ok(())
    })
}

fn with_cost(asked: &Asked, cpu_s: f64) -> Vec<Figure> {
    let mut figures = asked.figures();
    let each = cpu_s * 1e3 / float(asked.took.count() as u64);
    figures.push(Figure::lower("gateway CPU-ms each", each));
    figures
}
