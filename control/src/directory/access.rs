//! Access of devices in time: a sign-in lets a person's devices in until it runs out.
//!
//! Renewal changes no key and no address. How long access lasts is the policy's business; what
//! happens at its end is the live projection's, which reads `access_until`.

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::actor::Actor;
use super::effective::{self, kept_out};
use super::find;
use super::refusal::Refusal;
use super::{Action, Change, Directory};
use crate::store::records::{DeviceId, Timestamp, UserId};

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
    /// gives. The caller has made sure that the user signed in.
    ///
    /// # Errors
    /// A user who may not come in, no device, a disabled one.
    pub async fn grant_access(
        &self,
        actor: &Actor,
        user: &str,
        device: Option<String>,
    ) -> Result<Granted, Refusal> {
        let user = user.to_owned();
        self.change(actor, move |work| {
            let user = find::user(work.db, &user)?;
            work.actor.may_change_or_is(&user)?;
            if let Some(why) = kept_out(&user, work.now) {
                return Err(Refusal::Forbidden(why));
            }
            let devices = match &device {
                Some(word) => {
                    let one = find::device_of(work.db, &user, word)?;
                    if !one.enabled {
                        let name = &one.name;
                        return Err(Refusal::Conflict(format!(
                            "The device \"{name}\" is disabled"
                        )));
                    }
                    vec![one]
                }
                None => work.db.devices_of(user.id)?,
            };
            let timeout_s = effective::of(work.db, &user)?.session_timeout_s;
            let until = (timeout_s > 0).then(|| work.now.plus_ms(i64::from(timeout_s) * 1000));
            let mut granted = Vec::new();
            for one in devices.into_iter().filter(|one| one.enabled) {
                work.db.set_access(one.id, Some(work.now), until)?;
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
                work.did(Action::AccessEnded, one.id, json!({"user": user.id}))?;
                work.note(Change::Device(one.id));
            }
            Ok(())
        })
        .await
    }
}
