//! One-time links: whoever has one may add one device to one user, with a key made on the device.
//!
//! The secret of a link is behind the `#`, which browsers do not send, so it is in no server's log;
//! the store has its hash. Whether a link is unknown, used or too old is the same answer.

use super::actor::Actor;
use super::client_files::ClientText;
use super::devices::{DeviceView, Pair, add_device};
use super::effective::kept_out;
use super::find::{self, whole};
use super::input::{NewEnrolment, Redeem, Secret};
use super::leases::Chosen;
use super::refusal::Refusal;
use super::secret::{self, Purpose};
use super::{Action, Change, Directory};
use crate::keys::SystemRandom;
use crate::store::records::{Enrolment, EnrolmentId};
use crate::store::{Page, Rows};
use serde_json::json;

/// Links of one user that could be used at the same time. Nobody has that many devices to add at
/// once.
pub(super) const OPEN_MAX: u64 = 20;

/// An invitation as it is shown once.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The record.
    pub enrolment: Enrolment,
    /// What stands behind `#`.
    pub secret: Secret,
    /// The whole link; none while the configuration does not say where people reach the API.
    pub link: Option<Secret>,
}

/// What came of an invitation.
#[derive(Debug)]
pub struct Redeemed {
    /// The device.
    pub view: DeviceView,
    /// Its client file, without the private key, which never left the device.
    pub file: ClientText,
}

impl Directory {
    /// Makes a one-time link for a user.
    ///
    /// # Errors
    /// A wrong input, a user who may not come in or has twenty links already, not the actor's
    /// business.
    pub async fn invite(
        &self,
        actor: &Actor,
        user: &str,
        form: NewEnrolment,
    ) -> Result<Invitation, Refusal> {
        let (device_name, expires_at) = form.check(self.now())?;
        let secret = secret::make(Purpose::Enrolment, &mut SystemRandom);
        let Some(hash) = secret::hash(Purpose::Enrolment, &secret) else {
            return Err(Refusal::LinkRefused);
        };
        let (user, id) = (user.to_owned(), EnrolmentId::fresh());
        let enrolment = self.change(actor, move |work| {
            let user = find::user(work.db, &user)?;
            work.actor.may_change_or_is(&user)?;
            if let Some(why) = kept_out(&user, work.now) {
                return Err(Refusal::Conflict(format!("{why}: let the user in first")));
            }
            if work.db.count_open_enrolments(user.id, work.now)? >= OPEN_MAX {
                return Err(Refusal::Full(format!(
                    "{} has {OPEN_MAX} links that nobody used yet: take one back, or wait until \
                     one has expired",
                    user.name
                )));
            }
            let enrolment = Enrolment {
                id,
                user: user.id,
                device_name: device_name.clone(),
                expires_at,
                used_by: None,
                created_at: work.now,
            };
            work.db.insert_enrolment(&enrolment, &hash)?;
            work.did(Action::EnrolmentCreated, enrolment.id, whole(&enrolment))?;
            Ok(enrolment)
        });
        let enrolment = enrolment.await?;
        let portal = self.surroundings().portal.clone();
        let link = portal.map(|portal| Secret::new(format!("{portal}/enrol#{}", *secret)));
        Ok(Invitation { enrolment, secret: Secret(secret), link })
    }

    /// Adds the device of whoever has the secret of a link. The link is used up by that.
    ///
    /// # Errors
    /// [`Refusal::LinkRefused`] for a link that is unknown, used or too old; a key that cannot be
    /// taken and a full pool leave the link as it was.
    pub async fn redeem(&self, form: Redeem) -> Result<Redeemed, Refusal> {
        let hash = secret::hash(Purpose::Enrolment, &form.secret.0).ok_or(Refusal::LinkRefused)?;
        let pair = Pair::of(Some(form.check()?));
        // Whoever guesses must not occupy the only writer of a whole fleet.
        let found = self.look(move |db| Ok(db.enrolment_by_hash(&hash)?));
        let now = self.now();
        let open = move |one: &Enrolment| one.used_by.is_none() && one.expires_at > now;
        found.await?.filter(open).ok_or(Refusal::LinkRefused)?;
        let gateway = Actor::gateway();
        let made = self.change(&gateway, move |work| {
            let found = work.db.enrolment_by_hash(&hash)?;
            let enrolment = found.filter(open).ok_or(Refusal::LinkRefused)?;
            let user = work.db.user(enrolment.user)?;
            if kept_out(&user, work.now).is_some() {
                return Err(Refusal::LinkRefused);
            }
            let name = &enrolment.device_name;
            let (view, file) = add_device(work, &user, name, &pair, Chosen::default())?;
            // Only one of several who come at the same time finds it unused.
            if !work.db.use_enrolment(enrolment.id, view.device.id, work.now)? {
                return Err(Refusal::LinkRefused);
            }
            let detail = json!({"user": user.id, "device": view.device.id});
            work.did(Action::EnrolmentUsed, enrolment.id, detail)?;
            Ok((view, file?))
        });
        let (view, file) = made.await?;
        Ok(Redeemed { view, file })
    }

    /// Takes a link back.
    ///
    /// # Errors
    /// No such link, not the actor's business.
    pub async fn remove_enrolment(&self, actor: &Actor, id: EnrolmentId) -> Result<(), Refusal> {
        self.change(actor, move |work| {
            let enrolment = work.db.enrolment(id)?;
            let user = work.db.user(enrolment.user)?;
            work.actor.may_change_or_is(&user)?;
            work.db.remove_enrolment(id)?;
            work.did(Action::EnrolmentRemoved, id, whole(&enrolment))?;
            work.note(Change::User(user.id));
            Ok(())
        })
        .await
    }

    /// Links of a user, or of all.
    ///
    /// # Errors
    /// No such user, or a page that makes no sense.
    pub async fn enrolments(
        &self,
        user: Option<String>,
        page: Page,
    ) -> Result<Rows<Enrolment>, Refusal> {
        self.look(move |db| {
            let user = user.as_deref().map(|word| find::user(db, word)).transpose()?;
            Ok(db.enrolments(user.map(|user| user.id), &page)?)
        })
        .await
    }
}
