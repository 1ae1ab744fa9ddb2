//! What can be done to records: a closed list, as the audit log writes it.
//!
//! Each has the event by which it is told. Several actions may share an event: whoever listens
//! wants to know that a user changed, the audit log how. That a device may connect, or a quota is
//! new, is told by whoever sees it happen (`service`), once and whatever brought it about; here the
//! record changed, and nothing else.

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
    UserExported "user.exported" UserExported,
    PasswordSet "user.password-set" UserChanged,
    TotpSet "user.totp-set" UserChanged,
    TotpRemoved "user.totp-removed" UserChanged,
    QuotaReset "user.quota-reset" UserChanged,
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
    AccessGranted "access.granted" DeviceChanged,
    AccessEnded "access.ended" DeviceChanged,
    BanLifted "ban.lifted" BanLifted,
    BackupMade "store.backup" BackupMade,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two would tell the same, once by number and once by name; and what was asked for and done
    /// is nothing to be warned of.
    #[test]
    fn no_action_is_told_as_what_the_service_tells_by_itself_or_as_a_warning() {
        for action in Action::ALL {
            let kind = action.kind();
            let word = kind.word();
            let is_live = ["session.", "access.", "quota."].iter().any(|one| word.starts_with(one));
            assert!(!is_live && kind != Kind::Warning, "{action:?} is told as {word}");
        }
    }
}
