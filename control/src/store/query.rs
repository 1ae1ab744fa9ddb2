//! How lists are asked for: filters, and pages by key, so that a list that changes meanwhile is
//! neither repeated nor torn. This module must not know SQL.

use std::net::{Ipv4Addr, Ipv6Addr};

use ringway_proto::crypto::PublicKey;

use super::ids::{DeviceId, GroupId, PolicyId, Timestamp, UserId};
use super::records::{
    ConnectionEntry, Device, DeviceSecrets, Lease, OpenSession, Role, User, UserState,
};

/// Most rows of a page.
pub const PAGE_ROWS_MAX: u32 = 1000;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// [`Rows::next`] of the page before; none for the first.
    pub after: Option<String>,
    /// Most rows, 1 to [`PAGE_ROWS_MAX`].
    pub limit: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, limit: 100 }
    }
}

impl Page {
    /// The first rows, as many as a page may have.
    #[must_use]
    pub const fn first() -> Self {
        Self { after: None, limit: PAGE_ROWS_MAX }
    }
}

/// Rows of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// For [`Page::after`] of the next page; none if this was the last.
    pub next: Option<String>,
}

/// Which users; a field that is none does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserFilter {
    /// Of this group.
    pub group: Option<GroupId>,
    /// In this state.
    pub state: Option<UserState>,
    /// With this role.
    pub role: Option<Role>,
    /// Whose name contains this.
    pub name_contains: Option<String>,
    /// Who expire before.
    pub expires_before: Option<Timestamp>,
}

/// Which devices; a field that is none does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Of this user.
    pub user: Option<UserId>,
    /// Enabled, or not.
    pub enabled: Option<bool>,
    /// Whose name contains this.
    pub name_contains: Option<String>,
}

/// Which audit entries; a field that is none does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// By whom.
    pub actor: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// To what.
    pub object: Option<String>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// The latest first.
    pub newest_first: bool,
}

/// Which connection entries; a field that is none does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// Of this user.
    pub user: Option<UserId>,
    /// Of this device.
    pub device: Option<DeviceId>,
    /// `connected` or `disconnected`.
    pub event: Option<String>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// The latest first.
    pub newest_first: bool,
}

/// What happened to a session, for the connection log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionNote {
    /// It began.
    Begun {
        /// As it is kept while it lives.
        open: OpenSession,
        /// For the log.
        entry: ConnectionEntry,
    },
    /// It ended.
    Ended {
        /// Which.
        session: u64,
        /// For the log.
        entry: ConnectionEntry,
        /// Its beginning was never told, so the store does not know it.
        is_alone: bool,
    },
}

/// Sessions of a gateway of which no end is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenSessions {
    /// When the gateway last noted that they live.
    pub noted_at: Option<Timestamp>,
    /// The highest number of a session that it ever told.
    pub last_session: u64,
    /// Them, the oldest first.
    pub sessions: Vec<OpenSession>,
}

/// Addresses of a lease.
pub type Addresses = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// What the live projection needs for one device.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessRow {
    /// Whose it is.
    pub user: User,
    /// Policy of the user's group, if it has one.
    pub group_policy: Option<PolicyId>,
    /// The device.
    pub device: Device,
    /// What is secret about it.
    pub secrets: DeviceSecrets,
    /// Its addresses, once it has some.
    pub lease: Option<Lease>,
}

impl AccessRow {
    /// The policy that holds: the user's own, else its group's, else the one called `default`.
    #[must_use]
    pub const fn policy(&self) -> Option<PolicyId> {
        match self.user.policy {
            Some(own) => Some(own),
            None => self.group_policy,
        }
    }

    /// The device's key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.device.public_key
    }
}

/// A device that has access by a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessCertificate {
    /// Which device.
    pub device: DeviceId,
    /// Since when.
    pub from: Timestamp,
    /// The certificate's issuer, as it is encoded.
    pub issuer: Vec<u8>,
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
    /// Issuer and serial number of each certificate between it and the authority that is trusted.
    pub above: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A record that was written or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Grows with every write, in the order in which writes were kept.
    pub revision: u64,
    /// `user`, `group`, `policy`, `device`, `pool`, `lease` (by device) or `token`.
    pub kind: String,
    /// Which one.
    pub id: String,
}

/// What changed after a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// In the order of revisions; each record once, at its latest.
    pub items: Vec<Change>,
    /// Some of it is not known any more: read everything anew.
    pub lost: bool,
}

/// How much of a slot of a mapped counter page has been entered already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageMark {
    /// Name of the page.
    pub page: String,
    /// Which life of the page.
    pub epoch: u64,
    /// Slot of the page.
    pub slot: u32,
    /// Who had the slot.
    pub tag: u64,
    /// Counters up to here are entered: bytes up and down, packets up and down.
    pub seen: [u64; 4],
}
