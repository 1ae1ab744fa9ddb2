//! Reports: what the records, the history and the counters say of a time, added up and written.
//!
//! What is read is bounded, however long the time is; a report that leaves something out says so by
//! naming fewer devices, never by other sums.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::access::sessions::Session as LiveSession;
use crate::api::live::{LiveError, Report, ReportFormat, ReportSpan};
use crate::directory::quota::day_of;
use crate::logs::privacy::Mode;
use crate::reports::usage::{Moved, Session};
use crate::reports::{Period, Report as Made, csv, html, json, performance, usage};
use crate::service::Service;
use crate::stats::snapshot::{Value, reasons, values};
use crate::store::query::{ConnectionFilter, Page};
use crate::store::records::{ConnectionEntry, Timestamp, UserId};
use crate::store::{Db, StoreError};

/// Users whose devices are named; of the others only the sum is known.
const DEVICES_OF_MAX: usize = 100;

/// Users that are added up.
const USERS_MAX: u32 = 1_000_000;

/// Ends of sessions that are read: a gateway with ten a second has them in eleven days. Those that
/// ended after the time are read too, as they may have begun in it.
const SESSIONS_MAX: usize = 10_000_000;

/// Rows read at once.
const ROWS: u32 = 1_000;

pub(super) async fn usage(
    service: Rc<Service>,
    span: ReportSpan,
    format: ReportFormat,
) -> Result<Report, LiveError> {
    let period = period(span)?;
    // A session that ends meanwhile is counted once: here or there.
    let still = service.still_log().await;
    let found = service.store().read(move |db| read_usage(db, period)).await;
    let (moved, mut sessions) = found.map_err(|failure| unavailable(&failure))?;
    service.take_notes(service.now());
    let untold = service.untold_ends().into_iter();
    let untold = untold.filter(|entry| entry.at >= period.from && began(entry) < period.to);
    sessions.extend(untold.map(|entry| ended(service.name_of(entry.user, None), entry)));
    let points = service.desk().history(period.from, period.to);
    let (accepted, refused) = points.iter().fold((0, 0), |(accepted, refused), point| {
        (accepted + point.counted.handshakes, refused + point.counted.refused)
    });
    let live: Vec<LiveSession> = service.with_projection(|known| {
        known.sessions().after(None).filter(|one| one.since < period.to).cloned().collect()
    });
    drop(still);
    sessions.extend(live.iter().map(|one| Session {
        user: service.name_of_session(one),
        from: one.since,
        to: None,
        reason: None,
    }));
    let input = usage::Input {
        moved,
        sessions,
        refused: vec![("handshake_refused", refused)],
        accepted,
        points,
        no_log: service.desk().privacy().mode == Mode::NoLog,
    };
    Ok(written(&usage::report(period, service.now().wall, &input), format))
}

pub(super) fn performance(
    service: &Service,
    span: ReportSpan,
    format: ReportFormat,
) -> Result<Report, LiveError> {
    let period = period(span)?;
    let desk = service.desk();
    let snapshot = desk.snapshot();
    let total = snapshot.total();
    let mut drops = Vec::new();
    for (_, value) in values(&snapshot.layout, &total) {
        if let Value::ByReason(counts) = value {
            drops.extend(reasons(counts).map(|(reason, count)| (reason.name(), count)));
        }
    }
    let stats = desk.service();
    let input = performance::Input {
        points: desk.history(period.from, period.to),
        now: desk.signals(),
        drops,
        cores: snapshot.cores.len(),
        sign_in_s: stats.sign_in.as_ref().and_then(|one| one.latency.mean_s()),
        api_s: stats.api.as_ref().and_then(|one| one.latency.mean_s()),
    };
    Ok(written(&performance::report(period, service.now().wall, &input), format))
}

fn period(span: ReportSpan) -> Result<Period, LiveError> {
    Period::new(span.from, span.to)
        .map_err(|why| LiveError::Invalid("?to".to_owned(), why.to_string()))
}

fn written(report: &Made, format: ReportFormat) -> Report {
    let body = match format {
        ReportFormat::Json => json::write(report),
        ReportFormat::Csv => csv::write(report),
        ReportFormat::Html => html::write(report),
    };
    Report { body }
}

fn unavailable(failure: &StoreError) -> LiveError {
    LiveError::Unavailable(failure.to_string())
}

/// What devices moved, and which sessions ended. Usage is kept by day, so days count as a whole.
fn read_usage(db: &mut Db<'_>, period: Period) -> Result<(Vec<Moved>, Vec<Session>), StoreError> {
    let (first, last) = (day_of(period.from), day_of(period.to.plus_ms(-1)));
    let mut names: BTreeMap<UserId, String> = BTreeMap::new();
    let mut moved = Vec::new();
    for (rank, (id, up, down)) in db.usage_report(first, last, USERS_MAX)?.into_iter().enumerate() {
        let user = name_of(db, &mut names, id)?;
        if rank < DEVICES_OF_MAX {
            devices(db, id, &user, (first, last), &mut moved)?;
        } else {
            moved.push(Moved { user, device: String::new(), up_bytes: up, down_bytes: down });
        }
    }
    let mut sessions = Vec::new();
    let filter = ConnectionFilter {
        event: Some("disconnected".to_owned()),
        from: Some(period.from),
        ..ConnectionFilter::default()
    };
    let (mut after, mut read) = (None, 0);
    loop {
        let rows = db.connections(&filter, &Page { after, limit: ROWS })?;
        read += rows.items.len();
        for entry in rows.items.into_iter().filter(|entry| began(entry) < period.to) {
            let user = name_of(db, &mut names, entry.user)?;
            sessions.push(ended(user, entry));
        }
        match rows.next.filter(|_| read < SESSIONS_MAX) {
            Some(next) => after = Some(next),
            None => return Ok((moved, sessions)),
        }
    }
}

fn devices(
    db: &mut Db<'_>,
    id: UserId,
    user: &str,
    (first, last): (i32, i32),
    moved: &mut Vec<Moved>,
) -> Result<(), StoreError> {
    let known = db.devices_of(id)?;
    let mut by_device = BTreeMap::new();
    for row in db.usage_of(id, first, last)? {
        let sum: &mut (u64, u64) = by_device.entry(row.device).or_default();
        *sum = (sum.0.saturating_add(row.up_bytes), sum.1.saturating_add(row.down_bytes));
    }
    for (device, (up_bytes, down_bytes)) in by_device {
        let name = known.iter().find(|one| one.id == device).map(|one| one.name.clone());
        let device = name.unwrap_or_else(|| device.to_string());
        moved.push(Moved { user: user.to_owned(), device, up_bytes, down_bytes });
    }
    Ok(())
}

/// A user that is gone is known by its identifier.
fn name_of(
    db: &mut Db<'_>,
    names: &mut BTreeMap<UserId, String>,
    id: UserId,
) -> Result<String, StoreError> {
    if let Some(name) = names.get(&id) {
        return Ok(name.clone());
    }
    let name = match db.user(id) {
        Ok(user) => user.name,
        Err(StoreError::NotFound { .. }) => id.to_string(),
        Err(failure) => return Err(failure),
    };
    names.insert(id, name.clone());
    Ok(name)
}

/// When a session began that has ended.
fn began(entry: &ConnectionEntry) -> Timestamp {
    let lasted = i64::try_from(entry.duration_s.unwrap_or(0)).unwrap_or(i64::MAX);
    Timestamp(entry.at.0.saturating_sub(lasted.saturating_mul(1000)))
}

fn ended(user: String, entry: ConnectionEntry) -> Session {
    Session { user, from: began(&entry), to: Some(entry.at), reason: entry.reason }
}
