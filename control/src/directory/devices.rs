//! Devices: added, changed, listed, removed, and given new keys.
//!
//! A key that was made here is handed out once, together with its preshared key, in a client file;
//! the private half is never stored. A device keeps its addresses until it is removed, whatever
//! becomes of its key.

use ringway_proto::crypto::{PresharedKey, PrivateKey, PublicKey};
use serde::Serialize;
use utoipa::ToSchema;

use super::actor::Actor;
use super::client_files::{ClientText, client_text};
use super::effective::{self, Effective};
use super::find::{self, changed, expect_version, whole};
use super::input::{DevicePatch, NewDevice, RotateKey};
use super::leases::Chosen;
use super::refusal::Refusal;
use super::work::Work;
use super::{Action, Change, Directory};
use crate::keys::{self, SystemRandom};
use crate::store::query::DeviceFilter;
use crate::store::records::{Device, DeviceId, DeviceSecrets, KeyOrigin, Lease, Role, User};
use crate::store::{Db, Page, Rows};

/// A device with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeviceView {
    /// The record.
    pub device: Device,
    /// Its inner addresses.
    pub lease: Option<Lease>,
    /// `directory` for one that is kept here, `file` for a peer of the configuration.
    pub origin: &'static str,
}

/// A device that was added or has a new key, with what to load into it.
#[derive(Debug)]
pub struct AddedDevice {
    /// The device.
    pub view: DeviceView,
    /// Its client file. It holds the private key if that was made here, and is the only place that
    /// does.
    pub file: ClientText,
}

impl Directory {
    /// Adds a device to a user.
    ///
    /// # Errors
    /// A wrong input, a key that is taken, too many devices, a full pool, not the actor's business.
    pub async fn add_device(
        &self,
        actor: &Actor,
        user: &str,
        form: NewDevice,
    ) -> Result<AddedDevice, Refusal> {
        let (name, key) = form.check()?;
        let chosen = Chosen { address4: form.address4, address6: form.address6 };
        if chosen != Chosen::default() && !actor.has(Role::Operator) {
            let message = "Only an operator chooses addresses: leave them out";
            return Err(Refusal::Forbidden(message.to_owned()));
        }
        let (user, pair) = (user.to_owned(), Pair::of(key));
        let made = self.change(actor, move |work| {
            let user = find::user(work.db, &user)?;
            work.actor.may_change_or_is(&user)?;
            add_device(work, &user, &name, &pair, chosen)
        });
        let (view, file) = made.await?;
        Ok(AddedDevice { view, file: file? })
    }

    /// Renames, enables or disables a device.
    ///
    /// # Errors
    /// A wrong input, a name that the user has already, a stale version, not the actor's business.
    pub async fn patch_device(
        &self,
        actor: &Actor,
        user: &str,
        word: &str,
        expected: Option<u64>,
        patch: DevicePatch,
    ) -> Result<Device, Refusal> {
        let (user, word) = (user.to_owned(), word.to_owned());
        self.change(actor, move |work| {
            let (user, before) = own_device(work, &user, &word, expected)?;
            let (name, enabled) = patch.check(&before.name, before.enabled)?;
            if enabled && !before.enabled {
                // Who was locked out by an operator does not let himself in again.
                work.actor.may_change(&user)?;
            }
            let after = Device { name, enabled, ..before.clone() };
            if after == before {
                return Ok(after);
            }
            let stored = work.db.update_device(&after)?;
            work.did(Action::DeviceChanged, stored.id, changed(&before, &stored))?;
            work.note(Change::Device(stored.id));
            Ok(stored)
        })
        .await
    }

    /// Gives a device a new key. It keeps its addresses; the old key ends at once.
    ///
    /// # Errors
    /// A key that is taken, a stale version, not the actor's business.
    pub async fn rotate_key(
        &self,
        actor: &Actor,
        user: &str,
        word: &str,
        expected: Option<u64>,
        form: RotateKey,
    ) -> Result<AddedDevice, Refusal> {
        let (user, word, pair) = (user.to_owned(), word.to_owned(), Pair::of(form.check()?));
        let made = self.change(actor, move |work| {
            let (user, before) = own_device(work, &user, &word, expected)?;
            free_key(work, &pair.public)?;
            let after =
                Device { public_key: pair.public, key_origin: pair.origin(), ..before.clone() };
            let stored = work.db.update_device(&after)?;
            let secrets = DeviceSecrets { preshared: pair.preshared.clone() };
            work.db.set_device_secrets(stored.id, &secrets)?;
            work.did(Action::KeyRotated, stored.id, changed(&before, &stored))?;
            work.note(Change::Device(stored.id));
            let effective = effective::of(work.db, &user)?;
            let lease = work.db.lease_of(stored.id)?;
            Ok(pair.finish(work, stored, lease, &effective))
        });
        let (view, file) = made.await?;
        Ok(AddedDevice { view, file: file? })
    }

    /// Removes a device and gives its addresses back.
    ///
    /// # Errors
    /// No such device, a stale version, not the actor's business; one that is disabled and the
    /// actor's own.
    pub async fn remove_device(
        &self,
        actor: &Actor,
        user: &str,
        word: &str,
        expected: Option<u64>,
    ) -> Result<(), Refusal> {
        let (user, word) = (user.to_owned(), word.to_owned());
        self.change(actor, move |work| {
            let (user, device) = own_device(work, &user, &word, expected)?;
            if !device.enabled {
                // Its owner could add the same key again, and would have let himself in by that.
                work.actor.may_change(&user)?;
            }
            work.release(device.id)?;
            work.db.remove_device(device.id)?;
            work.did(Action::DeviceRemoved, device.id, whole(&device))?;
            work.note(Change::Device(device.id));
            Ok(())
        })
        .await
    }

    /// A user's device by name or identifier.
    ///
    /// # Errors
    /// No such device.
    pub async fn device(&self, user: &str, word: &str) -> Result<DeviceView, Refusal> {
        let (user, word) = (user.to_owned(), word.to_owned());
        self.look(move |db| {
            let user = find::user(db, &user)?;
            let device = find::device_of(db, &user, &word)?;
            view(db, device)
        })
        .await
    }

    /// All devices of a user.
    ///
    /// # Errors
    /// No such user.
    pub async fn devices_of(&self, user: &str) -> Result<Vec<DeviceView>, Refusal> {
        let user = user.to_owned();
        self.look(move |db| {
            let user = find::user(db, &user)?;
            let devices = db.devices_of(user.id)?;
            devices.into_iter().map(|device| view(db, device)).collect()
        })
        .await
    }

    /// Devices of everybody.
    ///
    /// # Errors
    /// A page that makes no sense; a user that does not exist.
    pub async fn devices(
        &self,
        filter: DeviceFilter,
        user: Option<String>,
        page: Page,
    ) -> Result<Rows<DeviceView>, Refusal> {
        self.look(move |db| {
            let mut filter = filter.clone();
            if let Some(word) = &user {
                filter.user = Some(find::user(db, word)?.id);
            }
            let rows = db.devices(&filter, &page)?;
            let items = rows.items.into_iter().map(|device| view(db, device));
            Ok(Rows { items: items.collect::<Result<_, _>>()?, next: rows.next })
        })
        .await
    }

    /// The client file of a device whose key was made on it.
    ///
    /// # Errors
    /// A device whose key was made here: its file was handed out once.
    pub async fn client_file(&self, user: &str, word: &str) -> Result<ClientText, Refusal> {
        let (user, word, here) = (user.to_owned(), word.to_owned(), self.surroundings());
        self.look(move |db| {
            let user = find::user(db, &user)?;
            let device = find::device_of(db, &user, &word)?;
            if device.key_origin == KeyOrigin::Gateway {
                return Err(Refusal::Conflict(format!(
                    "The file of \"{}\" was handed out once, with its private key, which is not \
                     kept: rotate the key to get a new file",
                    device.name
                )));
            }
            let effective = effective::of(db, &user)?;
            let lease = db.lease_of(device.id)?;
            let none = PresharedKey::default();
            client_text(&here, &device.name, None, &none, lease.as_ref(), &effective)
        })
        .await
    }
}

/// The keys of a device.
pub(super) struct Pair {
    private: Option<[u8; 32]>,
    public: PublicKey,
    preshared: PresharedKey,
}

impl Drop for Pair {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.private.zeroize();
    }
}

impl Pair {
    /// The key that the device made, or a new pair. A preshared key is made only together with a
    /// private key: both travel in the same file.
    pub(super) fn of(given: Option<PublicKey>) -> Self {
        match given {
            Some(public) => Self { private: None, public, preshared: PresharedKey::default() },
            None => {
                let private = PrivateKey::generate(&mut SystemRandom);
                let preshared = keys::generate_preshared(&mut SystemRandom);
                Self { public: private.public(), private: Some(private.to_bytes()), preshared }
            }
        }
    }

    const fn origin(&self) -> KeyOrigin {
        if self.private.is_some() { KeyOrigin::Gateway } else { KeyOrigin::Device }
    }

    /// What the caller gets. That a client file cannot be written (nobody knows where clients reach
    /// the gateway) undoes nothing for a device that made its own key.
    fn finish(
        &self,
        work: &Work<'_, '_>,
        device: Device,
        lease: Option<Lease>,
        effective: &Effective,
    ) -> (DeviceView, Result<ClientText, Refusal>) {
        let private = self.private.map(PrivateKey::from_bytes);
        let file = client_text(
            work.here,
            &device.name,
            private,
            &self.preshared,
            lease.as_ref(),
            effective,
        );
        (DeviceView { device, lease, origin: "directory" }, file)
    }
}

/// Adds a device in a change that may have more to do.
pub(super) fn add_device(
    work: &mut Work<'_, '_>,
    user: &User,
    name: &str,
    pair: &Pair,
    chosen: Chosen,
) -> Result<(DeviceView, Result<ClientText, Refusal>), Refusal> {
    let effective = effective::of(work.db, user)?;
    let count = work.db.devices_of(user.id)?.len();
    if count >= effective.devices_max as usize {
        return Err(Refusal::Full(format!(
            "{} has {count} devices and may have {} (policy \"{}\"): remove one first",
            user.name, effective.devices_max, effective.policy_name
        )));
    }
    free_key(work, &pair.public)?;
    let device = Device {
        id: DeviceId::fresh(),
        user: user.id,
        name: name.to_owned(),
        public_key: pair.public,
        key_origin: pair.origin(),
        enabled: true,
        access_from: None,
        access_until: None,
        last_seen: None,
        created_at: work.now,
        version: 1,
    };
    let secrets = DeviceSecrets { preshared: pair.preshared.clone() };
    work.db.insert_device(&device, &secrets)?;
    let lease = work.lease(device.id, &effective, chosen)?;
    let mut detail = whole(&device);
    if let Some(fields) = detail.as_object_mut() {
        fields.insert("lease".to_owned(), whole(&lease));
    }
    work.did(Action::DeviceCreated, device.id, detail)?;
    work.note(Change::Device(device.id));
    let (view, file) = pair.finish(work, device, Some(lease), &effective);
    if pair.private.is_some() {
        // The private key is nowhere else: without the file the device is good for nothing.
        return Ok((view, Ok(file?)));
    }
    Ok((view, file))
}

/// Refuses a key that is the gateway's own, a peer's of the file, or another device's.
fn free_key(work: &mut Work<'_, '_>, key: &PublicKey) -> Result<(), Refusal> {
    let taken =
        |message: String| Err(Refusal::Taken { pointer: "/public_key".to_owned(), message });
    if *key == work.here.gateway {
        return taken("This is the gateway's own key: give the device's".to_owned());
    }
    if let Some(peer) = work.here.peers.iter().find(|peer| peer.public == *key) {
        let name = peer.name.escape_debug();
        return taken(format!("The peer \"{name}\" of the configuration has this key"));
    }
    if work.db.device_by_key(key)?.is_some() {
        return taken("Another device has this key: let the device make a new one".to_owned());
    }
    Ok(())
}

/// A user's device for a change of it, if it is the actor's business and as the actor saw it.
fn own_device(
    work: &mut Work<'_, '_>,
    user: &str,
    word: &str,
    expected: Option<u64>,
) -> Result<(User, Device), Refusal> {
    let user = find::user(work.db, user)?;
    work.actor.may_change_or_is(&user)?;
    let device = find::device_of(work.db, &user, word)?;
    expect_version("device", device.version, expected)?;
    Ok((user, device))
}

fn view(db: &mut Db<'_>, device: Device) -> Result<DeviceView, Refusal> {
    let lease = db.lease_of(device.id)?;
    Ok(DeviceView { device, lease, origin: "directory" })
}
