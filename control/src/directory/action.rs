//! What can be done to records: a closed list, as the audit log writes it.
//!
//! Each has the event by which it is told. Several actions may share an event: whoever listens
//! wants to know that a user changed, the audit log how.

use crate::events::Kind;

macro_rules! actions {
    ($($variant:ident $word:literal $kind:ident,)*) => {
        /// What was done, as `KIND.VERB`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Action { $(#[doc = concat!("`", $word, "`.")] $variant,)* }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it in the audit log.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The event by which it is told.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }
        }
    };
}

actions! {
    UserCreated "user.created" UserCreated,
    UserChanged "user.changed" UserChanged,
    UserRemoved "user.removed" UserRemoved,
    UserErased "audit.erased" UserRemoved,
    UserExported "user.exported" UserChanged,
    PasswordSet "user.password-set" UserChanged,
    TotpSet "user.totp-set" UserChanged,
    TotpRemoved "user.totp-removed" UserChanged,
    QuotaReset "user.quota-reset" QuotaReset,
    GroupCreated "group.created" GroupCreated,
    GroupChanged "group.changed" GroupChanged,
    GroupRemoved "group.removed" GroupRemoved,
    PolicyCreated "policy.created" PolicyCreated,
    PolicyChanged "policy.changed" PolicyChanged,
    PolicyRemoved "policy.removed" PolicyRemoved,
    PoolCreated "pool.created" PoolCreated,
    PoolChanged "pool.changed" PoolChanged,
    PoolRemoved "pool.removed" PoolRemoved,
    DeviceCreated "device.created" DeviceCreated,
    DeviceChanged "device.changed" DeviceChanged,
    DeviceRemoved "device.removed" DeviceRemoved,
    KeyRotated "device.key-rotated" DeviceChanged,
    EnrolmentCreated "enrolment.created" EnrolmentCreated,
    EnrolmentUsed "enrolment.used" EnrolmentUsed,
    EnrolmentRemoved "enrolment.removed" EnrolmentRemoved,
    TokenCreated "token.created" TokenCreated,
    TokenRemoved "token.removed" TokenRemoved,
    AccessGranted "access.granted" AccessGranted,
    AccessEnded "access.ended" AccessEnded,
    BanLifted "ban.lifted" BanLifted,
    BackupMade "store.backup" Warning,
}
