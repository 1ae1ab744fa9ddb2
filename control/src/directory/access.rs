//! Access of devices in time: a sign-in lets a person's devices in until it runs out.
//!
//! Renewal changes no key and no address. How long access lasts is the policy's business, but it
//! does not outlast the credential that it was given for; what happens at its end is the live
//! projection's, which reads `access_until`. By which client certificate a device came in is kept,
//! with those of the authorities in between, so that the revocation of any ends the access. This
//! module must not know how anything is proved.

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::actor::Actor;
use super::effective::{self, kept_out};
use super::find;
use super::refusal::Refusal;
use super::work::Work;
use super::{Action, Change, Directory};
use crate::auth::backend::CertificateId;
use crate::store::Db;
use crate::store::query::AccessCertificate;
use crate::store::records::{Device, DeviceId, Factor, Timestamp, User, UserId};

/// What somebody proved at a sign-in, and what that says about the access it gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proved {
    /// What was proved, in order.
    pub factors: Vec<Factor>,
    /// Seconds of access, instead of what the policy says.
    pub seconds: Option<u32>,
    /// When what was presented ends, and so all access by it.
    pub until: Option<Timestamp>,
    /// The client certificate, if there was one, and above it those of the authorities in between.
    pub certificates: Vec<CertificateId>,
    /// The groups that it names.
    pub groups: Vec<String>,
    /// The print of what the password is stored as, if one was proved.
    pub password_print: Option<[u8; 32]>,
}

impl Proved {
    /// These factors, which say nothing about the access.
    #[must_use]
    pub fn of(factors: Vec<Factor>) -> Self {
        Self { factors, ..Self::default() }
    }
}

/// What a sign-in gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Granted {
    /// Whose access.
    pub user: UserId,
    /// The devices that have it.
    pub devices: Vec<GrantedDevice>,
    /// Since when.
    pub from: Timestamp,
    /// Until when; none for no end.
    pub until: Option<Timestamp>,
}

/// A device that has access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct GrantedDevice {
    /// Which.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
}

impl Directory {
    /// Lets one device of a user in, or all that are enabled, for the time that the user's policy
    /// gives, without a sign-in.
    ///
    /// # Errors
    /// A user who may not come in, no device, a disabled one.
    pub async fn grant_access(
        &self,
        actor: &Actor,
        user: &str,
        device: Option<String>,
    ) -> Result<Granted, Refusal> {
        self.grant(actor, user, device, None).await
    }

    /// As [`Self::grant_access`], for a user who signed in and proved this.
    ///
    /// # Errors
    /// As there; also a policy that asks for more by now, and a credential that has ended.
    pub async fn grant_signed_in(
        &self,
        actor: &Actor,
        user: &str,
        device: Option<String>,
        proved: Proved,
    ) -> Result<Granted, Refusal> {
        self.grant(actor, user, device, Some(proved)).await
    }

    async fn grant(
        &self,
        actor: &Actor,
        user: &str,
        device: Option<String>,
        proved: Option<Proved>,
    ) -> Result<Granted, Refusal> {
        let user = user.to_owned();
        self.change(actor, move |work| {
            let user = find::user(work.db, &user)?;
            work.actor.may_change_or_is(&user)?;
            if let Some(why) = kept_out(&user, work.now) {
                return Err(Refusal::Forbidden(why));
            }
            let devices = enabled(work, &user, device.as_deref())?;
            let until = until(work.db, work.now, &user, proved.as_ref())?;
            let mut granted = Vec::new();
            let certificates: &[CertificateId] =
                proved.as_ref().map_or(&[], |proved| &proved.certificates);
            let certificates: Vec<(&[u8], &[u8])> =
                certificates.iter().map(|one| (&*one.issuer, &*one.serial)).collect();
            for one in devices {
                work.db.set_access(one.id, Some(work.now), until)?;
                work.db.set_access_certificates(one.id, &certificates)?;
                let detail = json!({"user": user.id, "until": until});
                work.did(Action::AccessGranted, one.id, detail)?;
                work.note(Change::Device(one.id));
                granted.push(GrantedDevice { id: one.id, name: one.name });
            }
            if granted.is_empty() {
                let message = "There is no device that could come in: add or enable one first";
                return Err(Refusal::Conflict(message.to_owned()));
            }
            Ok(Granted { user: user.id, devices: granted, from: work.now, until })
        })
        .await
    }

    /// Ends the access of one device of a user, or of all.
    ///
    /// # Errors
    /// No such user or device, not the actor's business.
    pub async fn end_access(
        &self,
        actor: &Actor,
        user: &str,
        device: Option<String>,
    ) -> Result<(), Refusal> {
        let user = user.to_owned();
        self.change(actor, move |work| {
            let user = find::user(work.db, &user)?;
            work.actor.may_change_or_is(&user)?;
            let devices = match &device {
                Some(word) => vec![find::device_of(work.db, &user, word)?],
                None => work.db.devices_of(user.id)?,
            };
            for one in devices.into_iter().filter(|one| one.access_from.is_some()) {
                work.db.set_access(one.id, None, None)?;
                work.db.set_access_certificates(one.id, &[])?;
                work.did(Action::AccessEnded, one.id, json!({"user": user.id}))?;
                work.note(Change::Device(one.id));
            }
            Ok(())
        })
        .await
    }

    /// Ends at `until` the access that these have by certificates that were revoked, and says whose
    /// it was; `why` is for the audit log. An access that a later sign-in gave is left alone. No
    /// event is told here: whoever ended the live access tells it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn end_revoked(
        &self,
        revoked: Vec<AccessCertificate>,
        until: Timestamp,
        why: &'static str,
    ) -> Result<Vec<DeviceId>, Refusal> {
        let until = until.min(self.now());
        self.change(&Actor::gateway(), move |work| {
            let mut ended = Vec::new();
            for one in &revoked {
                let Some(row) = work.db.access_of_device(one.device)? else { continue };
                if row.device.access_from != Some(one.from) {
                    continue;
                }
                work.db.set_access(one.device, Some(one.from), Some(until))?;
                work.db.set_access_certificates(one.device, &[])?;
                let serial: String = one.serial.iter().map(|byte| format!("{byte:02x}")).collect();
                let detail = json!({
                    "user": row.user.id,
                    "reason": why,
                    "serial": serial,
                });
                let (action, object) = (Action::AccessEnded.word(), one.device.to_string());
                let actor = &work.actor.name;
                work.db.append_audit(work.now, actor, action, &object, &detail)?;
                work.note(Change::Device(one.device));
                ended.push(one.device);
            }
            Ok(ended)
        })
        .await
    }
}

/// The device of that name, or all that are enabled.
fn enabled(
    work: &mut Work<'_, '_>,
    user: &User,
    word: Option<&str>,
) -> Result<Vec<Device>, Refusal> {
    let Some(word) = word else {
        let all = work.db.devices_of(user.id)?;
        return Ok(all.into_iter().filter(|one| one.enabled).collect());
    };
    let one = find::device_of(work.db, user, word)?;
    if one.enabled {
        return Ok(vec![one]);
    }
    Err(Refusal::Conflict(format!("The device \"{}\" is disabled", one.name)))
}

/// When access that is given now ends; none is no end.
pub(super) fn until(
    db: &mut Db<'_>,
    now: Timestamp,
    user: &User,
    proved: Option<&Proved>,
) -> Result<Option<Timestamp>, Refusal> {
    let rules = effective::of(db, user)?;
    let mut seconds = rules.session_timeout_s;
    let mut end = None;
    if let Some(proved) = proved {
        if let Some(lacks) = rules.factors.iter().find(|one| !proved.factors.contains(one)) {
            let (policy, factor) = (&rules.policy_name, lacks.word());
            let message = format!(
                "The policy \"{policy}\" asks for {factor}, which was not proved at this sign-in: \
                 sign in again"
            );
            return Err(Refusal::Forbidden(message));
        }
        seconds = proved.seconds.unwrap_or(seconds);
        end = proved.until;
    }
    if end.is_some_and(|end| end <= now) {
        let message = "What was presented at the sign-in has ended: sign in again";
        return Err(Refusal::Forbidden(message.to_owned()));
    }
    let by_policy = (seconds > 0).then(|| now.plus_ms(i64::from(seconds) * 1000));
    Ok(match (by_policy, end) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    })
}
