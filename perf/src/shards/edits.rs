//! A thousand edits per second through the configuration socket beside an honest session.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::honest::{Honest, SEED};
use super::{Outcome, Settings, float, must};
use crate::fleet::{Fleet, Grounds, Roster};
use crate::report::Figure;
use crate::uapi::{Conversation, hex};

/// Edits per second.
const PER_S: u32 = 1_000;

/// Share of the rate that must be reached: the machine has other things to do.
const REACHED_MIN: f64 = 0.9;

pub(super) fn run(settings: &Settings) -> Result<Vec<Outcome>> {
    let grounds = settings.grounds()?;
    let period = Duration::from_secs(settings.size.pick(3, 10));
    let others = grounds.strangers(Roster::new(SEED, 200))?;
    let honest = Honest::connect(&grounds, settings)?;
    let own = hex(&honest.public().0);
    let before = grounds.stats.settled()?;
    let ((edits, wall_s), kept) =
        honest.beside(period, || edit(&grounds, &others, &own, period))?;
    let after = grounds.stats.settled()?;

    let per_s = float(edits) / wall_s;
    let refused = after.total("commands_refused") - before.total("commands_refused");
    let mut figures = vec![
        Figure::told("edits per s", per_s),
        Figure::told("commands refused", float(refused)),
        Figure::told("turn p99 µs", float(after.quantile("turn_ns", "p99")) / 1e3),
    ];
    figures.extend(kept.figures());
    let mut invariants = kept.unharmed("beside edits");
    invariants.push(must(
        per_s >= f64::from(PER_S) * REACHED_MIN,
        format!("{per_s:.0} edits per second are done (of {PER_S})"),
    ));
    invariants.push(must(refused == 0, format!("no command is refused ({refused})")));
    Ok(vec![Outcome { variant: settings.variant("1000/s"), figures, invariants }])
}

/// Adds, changes and removes peers in turn, and now and then touches the honest one.
fn edit(grounds: &Grounds, others: &Fleet, own: &str, period: Duration) -> Result<(u64, f64)> {
    let mut socket = grounds.uapi.open()?;
    let (start, mut edits) = (Instant::now(), 0_u64);
    while start.elapsed() < period {
        let due = start.elapsed().as_secs_f64() * f64::from(PER_S);
        if float(edits) >= due {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        one(&mut socket, others, own, edits)?;
        edits += 1;
    }
    Ok((edits, start.elapsed().as_secs_f64()))
}

fn one(socket: &mut Conversation, others: &Fleet, own: &str, edit: u64) -> Result<()> {
    let number = (edit / 4 % u64::from(others.roster().count)) as u32;
    let key = hex(&others.public(number).0);
    let inner = others.roster().inner(number);
    match edit % 4 {
        0 => socket.set(&format!("public_key={key}\nallowed_ip={inner}/32\n")),
        1 => socket.set(&format!(
            "public_key={key}\nupdate_only=true\nreplace_allowed_ips=true\n\
             allowed_ip=10.32.0.0/16\nallowed_ip={inner}/32\n"
        )),
        2 => {
            let seconds = 20 + edit % 3;
            socket.set(&format!(
                "public_key={own}\nupdate_only=true\npersistent_keepalive_interval={seconds}\n"
            ))
        }
        _ => socket.set(&format!("public_key={key}\nupdate_only=true\nremove=true\n")),
    }
}
