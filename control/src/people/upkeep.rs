//! What time does to those who signed in: keys, certificates and lists are looked after, what was
//! revoked ends the access that it gave, and what ends soon is said while there is time.
//!
//! Revocations are looked for at the start, because lists may have changed while no gateway ran,
//! and whenever the lists are new or a responder has named one. What responders (OCSP) said is
//! asked for again as long as it gives access. This must not know how a certificate is judged.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tracing::{info, warn};

use super::asked;
use crate::access::Out;
use crate::api::ApiState;
use crate::api::doors::Board;
use crate::api::server::tls::Tls;
use crate::auth::Gate;
use crate::auth::backend::CertificateId;
use crate::auth::certificate::ocsp::{Note, Question};
use crate::auth::certificate::{Certificates, Expiry, Kind as Ending};
use crate::directory::Directory;
use crate::events::{Hub, Kind};
use crate::service::Service;
use crate::store::Db;
use crate::store::StoreError;
use crate::store::query::AccessCertificate;
use crate::store::records::{DeviceId, Timestamp};

/// How often keys, certificates and lists of those who sign in are looked after. Nothing is read
/// that has not changed.
const PERIOD: Duration = Duration::from_secs(2);

/// Looks after new lists. A sign-in that the old ones judged may be entered after the first look.
const LOOKS: u32 = 2;

/// Between two looks for answers of responders that are over, in [`PERIOD`]s: to find out whether
/// they give access still, all access by certificates is read.
const AGAIN: u32 = 2;

/// Devices that are looked at together.
const ROWS: u32 = 1_000;

/// What is there once the API is served, and how it stands with its doors.
#[derive(Default)]
pub(super) struct Reached {
    pub(super) board: Board,
    pub(super) api: RefCell<Option<ApiState>>,
    tls: RefCell<Option<Arc<Tls>>>,
}

impl Reached {
    /// The API is served.
    pub(super) fn set(&self, api: ApiState, tls: Option<Arc<Tls>>) {
        *self.api.borrow_mut() = Some(api);
        *self.tls.borrow_mut() = tls;
    }
}

/// Who looks after it.
pub(super) struct Upkeep {
    pub(super) gate: Gate,
    pub(super) service: Rc<Service>,
    pub(super) directory: Directory,
    pub(super) hub: Hub,
    pub(super) reached: Rc<Reached>,
}

impl Upkeep {
    /// Runs until dropped.
    pub(super) async fn run(self) {
        let mut looks = LOOKS;
        let mut said = BTreeMap::new();
        let mut until_again = AGAIN;
        let (mut is_restored, mut notes) = (false, Vec::new());
        loop {
            if looks > 0 {
                match self.end_revoked().await {
                    Ok(()) => looks -= 1,
                    Err(why) => warn!("Whose certificate is revoked may still be in: {why}"),
                }
            }
            self.say_what_ends(&mut said);
            tokio::time::sleep(PERIOD).await;
            if self.gate.upkeep().await {
                info!("Certificates or lists of revoked ones have changed");
                looks = LOOKS;
            }
            if self
                .gate
                .certificates()
                .and_then(Certificates::responders)
                .is_some_and(|asking| asking.take_news())
            {
                info!("A responder says that a certificate is revoked");
                looks = LOOKS;
            }
            self.remember(&mut is_restored, &mut notes).await;
            until_again -= 1;
            if until_again == 0 {
                until_again = AGAIN;
                self.ask_again().await;
            }
        }
    }

    /// Keeps what responders are asked about for the next process, and takes over from the last
    /// one.
    async fn remember(&self, is_restored: &mut bool, notes: &mut Vec<Note>) {
        let asking = self.gate.certificates().and_then(Certificates::responders);
        let Some(asking) = asking else { return };
        let store = self.service.store();
        if !*is_restored {
            match asked::restore(store, asking).await {
                Ok(()) => *is_restored = true,
                Err(why) => warn!("Whom responders have to be asked about is not read: {why}"),
            }
        }
        notes.extend(asking.take_notes());
        if let Err(why) = asked::write(store, notes).await {
            warn!("Whom responders have to be asked about is not kept yet: {why}");
        }
    }

    /// Asks responders again about certificates that give access, where their answer is over.
    async fn ask_again(&self) {
        let asking = self.gate.certificates().and_then(Certificates::responders);
        let Some(asking) = asking else { return };
        let now = self.service.now().wall;
        let due = asking.due(now);
        if due.is_empty() {
            return;
        }
        let (live, over): (Vec<Arc<Question>>, Vec<_>) = match self.live(&due).await {
            Ok(live) => due.into_iter().partition(|question| live.contains(&question.id)),
            Err(why) => {
                warn!("Which certificates give access is not known, so all are asked about: {why}");
                (due, Vec::new())
            }
        };
        asking.forget(&over, now);
        asking.ask_again(&live, now);
    }

    /// Which of these are about certificates that give access or a login now.
    async fn live(&self, due: &[Arc<Question>]) -> Result<BTreeSet<CertificateId>, String> {
        let wanted: BTreeSet<CertificateId> = due.iter().map(|one| one.id.clone()).collect();
        let logins = self.reached.api.borrow().as_ref().map(ApiState::login_certificates);
        let logins = logins.unwrap_or_default().into_iter();
        let mut live: BTreeSet<CertificateId> = logins.filter(|id| wanted.contains(id)).collect();
        let wanted = Arc::new(wanted);
        let mut after = None;
        while live.len() < wanted.len() {
            let (wanted, now) = (Arc::clone(&wanted), self.service.now().steady);
            let page = self.service.store().read(move |db| {
                let rows = db.access_certificates(after, now, ROWS)?;
                let last =
                    rows.last().map(|row| row.device).filter(|_| rows.len() >= ROWS as usize);
                let found = rows.iter().flat_map(way).filter(|id| wanted.contains(id));
                Ok((found.collect::<Vec<_>>(), last))
            });
            let (found, last) = page.await.map_err(|failure| failure.to_string())?;
            live.extend(found);
            if last.is_none() {
                break;
            }
            after = last;
        }
        Ok(live)
    }

    /// Ends whatever access was given by a certificate that is revoked by now.
    pub(super) async fn end_revoked(&self) -> Result<(), String> {
        let Some(certificates) = self.gate.certificates() else { return Ok(()) };
        if let Some(api) = &*self.reached.api.borrow() {
            let revoked = certificates.revoked_now(&api.login_certificates());
            api.end_revoked_logins(&revoked);
        }
        let mut after = None;
        loop {
            let (certificates, now) = (certificates.clone(), self.service.now().steady);
            let page = self.service.store().read(move |db| page(db, &certificates, after, now));
            let (revoked, last) = page.await.map_err(|failure| failure.to_string())?;
            if !revoked.is_empty() {
                self.end(revoked).await?;
            }
            if last.is_none() {
                return Ok(());
            }
            after = last;
        }
    }

    /// Ends the live access first: that must not wait for the store.
    async fn end(&self, revoked: Vec<AccessCertificate>) -> Result<(), String> {
        let why = Out::CertificateRevoked;
        let told: BTreeSet<DeviceId> = revoked
            .iter()
            .map(|one| one.device)
            .filter(|device| self.service.end_access(*device, why))
            .collect();
        let now = self.service.now();
        let ended = self.directory.end_revoked(revoked, now.steady, why.code()).await;
        for device in ended.map_err(|refusal| refusal.to_string())? {
            if !told.contains(&device) {
                let detail = json!({ "reason": why.code(), "device": device });
                self.hub.publish(now.wall, Kind::AccessEnded, device.to_string(), detail);
            }
        }
        Ok(())
    }

    /// Says once a day what is about to end.
    fn say_what_ends(&self, said: &mut BTreeMap<(Ending, String), i64>) {
        let now = self.service.now().wall;
        let ending = ending(&self.gate, &self.reached, now);
        let near: BTreeMap<(Ending, String), i64> = ending
            .into_iter()
            .filter(|one| one.is_near)
            .map(|one| ((one.kind, one.name), one.days_left))
            .collect();
        for ((kind, name), days_left) in &near {
            let key = (*kind, name.clone());
            if said.get(&key) == Some(days_left) {
                continue;
            }
            let what = kind.title();
            if *days_left < 0 {
                warn!("The {what} \"{name}\" has ended: renew it");
            } else {
                warn!("The {what} \"{name}\" ends in {days_left} day(s): renew it");
            }
            let detail = json!({ "kind": kind.word(), "days_left": days_left });
            self.hub.publish(now, Kind::Warning, name.clone(), detail);
        }
        *said = near;
    }
}

/// When each thing ends that people sign in with, or by, the nearest end first.
pub(super) fn ending(gate: &Gate, reached: &Reached, now: Timestamp) -> Vec<Expiry> {
    let mut all = gate.certificates().map(|own| own.expiries(now)).unwrap_or_default();
    all.extend(reached.tls.borrow().as_ref().and_then(|tls| tls.expiry(now)));
    all.sort_by_key(|one| one.ends);
    all
}

/// Of a page of devices those whose certificate is revoked, or one above it, and where the next
/// page begins.
fn page(
    db: &mut Db<'_>,
    certificates: &Certificates,
    after: Option<DeviceId>,
    now: Timestamp,
) -> Result<(Vec<AccessCertificate>, Option<DeviceId>), StoreError> {
    let mut rows = db.access_certificates(after, now, ROWS)?;
    let is_last = rows.len() < ROWS as usize;
    let last = rows.last().map(|row| row.device).filter(|_| !is_last);
    // Many have the same above them: each is looked for once.
    let live: BTreeSet<CertificateId> = rows.iter().flat_map(way).collect();
    let live: Vec<CertificateId> = live.into_iter().collect();
    let revoked: BTreeSet<CertificateId> = certificates.revoked_now(&live).into_iter().collect();
    rows.retain(|row| way(row).any(|one| revoked.contains(&one)));
    Ok((rows, last))
}

/// All certificates by which a device came in.
fn way(row: &AccessCertificate) -> impl Iterator<Item = CertificateId> + '_ {
    let id = |issuer: &[u8], serial: &[u8]| CertificateId {
        issuer: issuer.to_vec(),
        serial: serial.to_vec(),
    };
    let above = row.above.iter().map(move |(issuer, serial)| id(issuer, serial));
    std::iter::once(id(&row.issuer, &row.serial)).chain(above)
}
