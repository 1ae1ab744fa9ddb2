//! What the projection keeps of users and devices: as little as it needs to decide.

use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PublicKey};

use super::clock::Moment;
use crate::store::records::{DeviceId, Excess, GroupId, Quota, Rate, Timestamp, UserId, UserState};

/// A user with its devices and the rules in force for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Its identifier.
    pub id: UserId,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: Option<GroupId>,
    /// Whether it may come in at all.
    pub state: UserState,
    /// From which date on it may not.
    pub expires_at: Option<Timestamp>,
    /// What holds for it.
    pub rules: Rules,
    /// Its devices.
    pub clients: Vec<Client>,
}

/// The rules in force for one user: its own, its policy's, its group's and the default's, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Of each session.
    pub session_rate: Rate,
    /// Of all sessions together.
    pub user_rate: Rate,
    /// How much it may move.
    pub quota: Option<Quota>,
    /// Seconds without a packet after which access ends; 0 for never.
    pub idle_timeout_s: u32,
    /// Most sessions at the same time.
    pub sessions_max: u32,
    /// What happens to one more.
    pub excess: Excess,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its identifier.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// Its key.
    pub public: PublicKey,
    /// Zeros if there is none.
    pub preshared: PresharedKey,
    /// Its inner addresses; without one it cannot be a peer.
    pub addresses: Vec<IpNet>,
    /// Whether an administrator lets it connect.
    pub enabled: bool,
    /// Since when a sign-in gives it access, on the steady clock of whoever wrote it.
    pub access_from: Option<Timestamp>,
    /// Until when; none is no end, if there is a beginning.
    pub access_until: Option<Timestamp>,
}

/// Why a device may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Out {
    /// The user is disabled.
    UserDisabled,
    /// The user is banned.
    UserBanned,
    /// The user's date has passed.
    UserExpired,
    /// The device is switched off.
    DeviceDisabled,
    /// It has no inner address.
    NoAddress,
    /// Nobody signed in with it yet.
    NotSignedIn,
    /// The time that the last sign-in gave is over.
    SessionTimeout,
    /// No packet for too long.
    IdleTimeout,
    /// The quota is used up.
    QuotaExceeded,
    /// The user has as many sessions as it may.
    TooManySessions,
    /// A newer session of the user took its place.
    Displaced,
    /// An administrator ended its session.
    Killed,
    /// The client certificate that gave the access was revoked, or one between it and the authority
    /// that is trusted.
    CertificateRevoked,
    /// The gateway was drained.
    Drained,
    /// The record is gone.
    Removed,
}

impl Out {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::UserDisabled,
        Self::UserBanned,
        Self::UserExpired,
        Self::DeviceDisabled,
        Self::NoAddress,
        Self::NotSignedIn,
        Self::SessionTimeout,
        Self::IdleTimeout,
        Self::QuotaExceeded,
        Self::TooManySessions,
        Self::Displaced,
        Self::Killed,
        Self::CertificateRevoked,
        Self::Drained,
        Self::Removed,
    ];

    /// The code in logs, events, metrics and the API.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::UserDisabled => "user_disabled",
            Self::UserBanned => "user_banned",
            Self::UserExpired => "user_expired",
            Self::DeviceDisabled => "device_disabled",
            Self::NoAddress => "no_address",
            Self::NotSignedIn => "not_signed_in",
            Self::SessionTimeout => "session_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::QuotaExceeded => "quota_exceeded",
            Self::TooManySessions => "too_many_sessions",
            Self::Displaced => "displaced",
            Self::Killed => "killed",
            Self::CertificateRevoked => "certificate_revoked",
            Self::Drained => "drained",
            Self::Removed => "removed",
        }
    }

    /// Whether only another sign-in lets the device in again, so that the store must know.
    #[must_use]
    pub const fn ends_access(self) -> bool {
        matches!(
            self,
            Self::SessionTimeout
                | Self::IdleTimeout
                | Self::Displaced
                | Self::Killed
                | Self::CertificateRevoked
        )
    }
}

impl Person {
    /// Why no device of the user may connect, if so. The quota is the projection's business.
    #[must_use]
    pub fn out(&self, now: Moment) -> Option<Out> {
        match self.state {
            UserState::Disabled => Some(Out::UserDisabled),
            UserState::Banned => Some(Out::UserBanned),
            UserState::Active if self.expires_at.is_some_and(|at| at <= now.wall) => {
                Some(Out::UserExpired)
            }
            UserState::Active => None,
        }
    }
}

impl Client {
    /// Why this device may not connect, if it is not for its user.
    #[must_use]
    pub fn out(&self, now: Moment) -> Option<Out> {
        if !self.enabled {
            return Some(Out::DeviceDisabled);
        }
        if self.addresses.is_empty() {
            return Some(Out::NoAddress);
        }
        if self.access_from.is_none() {
            return Some(Out::NotSignedIn);
        }
        self.access_until.is_some_and(|until| until <= now.steady).then_some(Out::SessionTimeout)
    }
}
