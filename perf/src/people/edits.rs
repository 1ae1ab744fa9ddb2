//! As many changes of other people's records as eight operators get through, beside an honest
//! session.

use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::asking::{Until, ask};
use super::house::{House, SEED};
use super::traffic::Traffic;
use crate::api::Api;
use crate::fleet::Roster;
use crate::outcomes::{Outcome, Size, float, must};
use crate::report::Figure;

const EDITORS: u64 = 8;

/// Changes of one round: a user and a device are made and let in, both are changed six times, and
/// the user is removed.
const CHANGES: u64 = 16;

/// The least rate: what the lab asks for too.
const PER_S_MIN: f64 = 50.0;

pub(super) fn run(size: Size) -> Result<Vec<Outcome>> {
    let house = House::start("", |_| Ok(()))?;
    let mut traffic = Traffic::connect(&house)?;
    let keys = house.strangers(Roster::new(SEED, EDITORS as u32))?;
    let period = Duration::from_secs(size.pick(3, 15));
    let (_, alone) = traffic.beside(&house, false, period / 3, || Ok(()))?;
    // What was begun may take a little longer than its period; traffic goes on meanwhile.
    let talk = period + Duration::from_secs(1);
    let spent = house.cpu_s();
    let (rounds, kept) = traffic.beside(&house, false, talk, || {
        let open = |_| Ok(house.dial());
        ask(EDITORS, Until::Passed(period), open, |api, editor, round| {
            let key = STANDARD.encode(keys.public(editor as u32).0);
            edit(api, editor, round, &key)
        })
    })?;
    let cpu_s = house.cpu_s() - spent;
    let edits = rounds.took.count() as u64 * CHANGES;
    let per_s = float(edits) / rounds.wall.as_secs_f64();
    let mut figures = vec![
        Figure::higher("edits per s", per_s),
        Figure::told("ms per edit, one editor", rounds.ms(0.5) / float(CHANGES)),
        Figure::lower("gateway CPU-ms per edit", cpu_s * 1e3 / float(edits)),
    ];
    figures.extend(kept.figures());
    figures.push(Figure::told("trip p99 µs without", alone.p99_us()));
    let mut invariants = kept.unharmed("beside edits");
    let says = format!("{per_s:.0} edits are made in a second (at least {PER_S_MIN})");
    invariants.push(must(per_s > PER_S_MIN, says));
    let verified = house.api.call("GET", "/api/v1/audit/verify", None);
    let whole = verified.as_ref().is_ok_and(|state| state["intact"] == true);
    invariants.push(must(whole, format!("the log of changes is whole: {verified:?}")));
    let variant = format!("{EDITORS} editors, {} s", period.as_secs());
    Ok(vec![Outcome { variant, figures, invariants }])
}

fn edit(api: &Api, editor: u64, round: u64, key: &str) -> Result<()> {
    let user = format!("guest{editor}-{round}");
    let path = format!("/api/v1/users/{user}");
    api.call("POST", "/api/v1/users", Some(&json!({ "name": user })))?;
    let device = json!({ "name": "phone", "public_key": key });
    api.call("POST", &format!("{path}/devices"), Some(&device))?;
    api.call("POST", &format!("{path}/access"), Some(&json!({})))?;
    for step in 1..=6_u64 {
        let rate = json!({ "rate": { "up_bps": step * 1_000_000 } });
        api.call("PATCH", &path, Some(&rate))?;
        let enabled = json!({ "enabled": step % 2 == 0 });
        api.call("PATCH", &format!("{path}/devices/phone"), Some(&enabled))?;
    }
    api.call("DELETE", &path, None)?;
    Ok(())
}
