//! Every reason why somebody is not let in: a closed list. Each has a counter, a code in metrics
//! and logs, and a line in `control/manual/refusals.md` (a test compares the two).
//!
//! The true reason is for the operator alone. The client is told [`Told`], which is the same for an
//! unknown user, a wrong password, a missing one and a user who may not come in: the answer must
//! not say who exists. This module must not know how a reason is found.

macro_rules! reasons {
    ($($variant:ident $told:ident $weight:ident $code:literal $doc:literal,)*) => {
        /// Why a sign-in was refused. One byte, `Copy`; counters are arrays indexed by it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $(#[doc = $doc] $variant,)* }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name in metrics, logs and the manual.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What an operator should think when the counter moves.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }

            /// What the client hears.
            #[must_use]
            pub const fn told(self) -> Told {
                match self { $(Self::$variant => Told::$told,)* }
            }

            /// How much it says about whoever tried.
            #[must_use]
            pub const fn weight(self) -> Weight {
                match self { $(Self::$variant => Weight::$weight,)* }
            }
        }
    };
}

/// What the client hears: few texts, so that they say nothing about who exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Told {
    /// One answer for everything about a user and its secrets.
    Wrong,
    /// Too many tries.
    Later,
    /// Not from this address.
    Denied,
    /// Something of ours does not work.
    Unavailable,
    /// The continuation is worth nothing.
    StartAnew,
    /// An access token is worth nothing.
    Token,
    /// TLS brought no certificate.
    NoCertificate,
    /// The certificate does not convince.
    BadCertificate,
    /// The certificate was taken back.
    RevokedCertificate,
}

impl Told {
    /// The text.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Wrong => "user name or credentials are wrong",
            Self::Later => "too many attempts, try again later",
            Self::Denied => "sign-in is not allowed from this address",
            Self::Unavailable => "sign-in is not available at the moment, try again later",
            Self::StartAnew => "sign-in took too long or was used already, start anew",
            Self::Token => "access token is not valid",
            Self::NoCertificate => "no certificate provided",
            Self::BadCertificate => "certificate validation failed",
            Self::RevokedCertificate => "certificate revoked",
        }
    }
}

/// What a refusal means for the ban score of its source, and for the back end that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// Nobody's fault, or counted already.
    None,
    /// A mistake that happens to honest people.
    Mistake,
    /// A guess at a secret.
    Guess,
    /// What no honest client sends.
    Attack,
    /// Our own trouble: says something about the back end and nothing about the client.
    Trouble,
}

reasons! {
    // In front of everything.
    SourceDenied Denied None "source_denied" "The source address is on the deny list, or there is an allow list without it.",
    SourceBanned Later None "source_banned" "The source failed too often and is kept out for a while.",
    SourceTooFast Later None "source_too_fast" "The source tries more often than one source may.",
    SourceQueueFull Later None "source_queue_full" "As many attempts of this source wait already as one source may have.",
    InputOversized Wrong Attack "input_oversized" "A user name or a credential is longer than any may be.",
    UserMissing Wrong Mistake "user_missing" "Neither a user name nor a credential that names a user was presented.",
    // Our own trouble.
    QueueFull Unavailable Trouble "queue_full" "More attempts wait for a back end than its queue holds.",
    BackEndMissing Unavailable Trouble "back_end_missing" "A policy asks for a factor that is not configured.",
    BackEndTimeout Unavailable Trouble "back_end_timeout" "A back end did not answer before the deadline.",
    BackEndDown Unavailable Trouble "back_end_down" "A back end failed too often or hangs, and is left alone until a probe succeeds.",
    BackEndFailed Unavailable Trouble "back_end_failed" "A back end broke while it worked.",
    StoreUnavailable Unavailable Trouble "store_unavailable" "The store did not say who the user is.",
    ChallengesFull Unavailable Trouble "challenges_full" "As many sign-ins are half done as there may be, in all or for one source.",
    // The continuation of a sign-in.
    ChallengeUnknown StartAnew Mistake "challenge_unknown" "The continuation is expired, used already or was never given out.",
    ChallengeForeign StartAnew Attack "challenge_foreign" "The continuation belongs to another source or user.",
    // Users.
    UserUnknown Wrong Guess "user_unknown" "No user has this name.",
    UserDisabled Wrong Guess "user_disabled" "The user is disabled.",
    UserBanned Wrong Guess "user_banned" "The user was thrown out.",
    UserExpired Wrong Guess "user_expired" "The user's time is over.",
    UserLockedOut Wrong Guess "user_locked_out" "The user failed too often and is locked out for a while.",
    UserMismatch Wrong Attack "user_mismatch" "A credential belongs to another user than the one who signs in.",
    CredentialMissing Wrong Mistake "credential_missing" "The factor that is due was not presented.",
    AnonymousOff Wrong Mistake "anonymous_off" "Somebody came without a name, and that is not configured.",
    // Passwords and one-time passwords.
    PasswordMissing Wrong Guess "password_missing" "The user has no password.",
    PasswordWrong Wrong Guess "password_wrong" "The password is wrong, or was changed before the sign-in was over.",
    CodeMissing Wrong Guess "code_missing" "The policy asks for a one-time password and the user has not enrolled one.",
    CodeWrong Wrong Guess "code_wrong" "The one-time password or recovery code is wrong.",
    CodeReused Wrong Guess "code_reused" "The one-time password was used already.",
    // Access tokens.
    TokenOversized Token Attack "token_oversized" "The access token is longer than any may be.",
    TokenMalformed Token Attack "token_malformed" "What was presented is no signed access token.",
    TokenIssuer Token Guess "token_issuer" "Nobody configured the token's issuer.",
    TokenAlgorithm Token Attack "token_algorithm" "The token's algorithm is not one that its issuer is pinned to, or not that of the key.",
    TokenKeyUnknown Token Guess "token_key_unknown" "The issuer has no key with this identifier.",
    TokenKeysStale Unavailable Trouble "token_keys_stale" "The issuer's keys could not be fetched, or not for longer than they may be used.",
    TokenSignature Token Attack "token_signature" "The signature does not verify.",
    TokenExpired Token Mistake "token_expired" "The token's time is over.",
    TokenNotYet Token Mistake "token_not_yet" "The token's time has not come, or it says that it was issued in the future.",
    TokenAudience Token Guess "token_audience" "The token is meant for somebody else.",
    TokenClaims Token Mistake "token_claims" "A claim that is needed is missing or of another kind.",
    // Client certificates.
    CertificateNone NoCertificate Mistake "certificate_none" "The client presented no certificate.",
    CertificateMalformed BadCertificate Attack "certificate_malformed" "What was presented is no certificate.",
    CertificateUntrusted BadCertificate Guess "certificate_untrusted" "No chain leads to a configured authority: another authority, a missing intermediate, or a signature that does not verify.",
    CertificateExpired BadCertificate Mistake "certificate_expired" "A certificate of the chain is expired.",
    CertificateNotYet BadCertificate Mistake "certificate_not_yet" "A certificate of the chain is not valid yet.",
    CertificatePurpose BadCertificate Guess "certificate_purpose" "The certificate is not for clients.",
    CertificateWeak BadCertificate Mistake "certificate_weak" "A key is too small, or an algorithm too old.",
    CertificateStatus BadCertificate Trouble "certificate_status" "Whether it was revoked cannot be told: the revocation list is missing, expired or damaged.",
    OcspSilent BadCertificate Trouble "certificate_ocsp_silent" "The responder (OCSP) did not say whether it was revoked: it is slow, not reached or refuses, or the certificate names none.",
    OcspInvalid BadCertificate Trouble "certificate_ocsp_invalid" "The responder's answer is worth nothing: old, damaged, about another certificate, or signed by somebody who may not.",
    OcspUnknown BadCertificate Mistake "certificate_ocsp_unknown" "The responder knows of no such certificate.",
    CertificateRevoked RevokedCertificate Guess "certificate_revoked" "The certificate was revoked by its authority.",
    CertificateName BadCertificate Mistake "certificate_name" "The certificate does not name a user where it should.",
}

impl Reason {
    /// Whether it is our own trouble rather than the client's.
    #[must_use]
    pub const fn is_trouble(self) -> bool {
        matches!(self.weight(), Weight::Trouble)
    }

    /// Whether it says that a back end does not work, for everybody: one issuer without keys or one
    /// authority without a list is no outage of the others.
    #[must_use]
    pub const fn is_outage(self) -> bool {
        use Reason::{BackEndDown, BackEndFailed, BackEndTimeout, StoreUnavailable};
        matches!(self, BackEndDown | BackEndFailed | BackEndTimeout | StoreUnavailable)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_manual_explains_every_reason_and_no_other() {
        let page = include_str!("../../manual/refusals.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let told: Vec<(&str, &str)> = rows
            .filter_map(|row| Some((row.split('`').next()?, row.split(" | ").nth(1)?)))
            .collect();
        let listed: Vec<(&str, &str)> =
            Reason::ALL.iter().map(|reason| (reason.code(), reason.told().text())).collect();
        assert_eq!(told, listed);
    }

    #[test]
    fn codes_are_unique_and_plain() {
        let codes: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::COUNT);
        let is_plain = |code: &&str| code.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(codes.iter().all(is_plain));
    }

    #[test]
    fn nothing_about_a_user_is_told_apart() {
        use Reason as R;
        for reason in [
            R::UserUnknown,
            R::PasswordWrong,
            R::PasswordMissing,
            R::UserDisabled,
            R::UserBanned,
            R::UserExpired,
            R::UserLockedOut,
            R::CodeMissing,
            R::CodeWrong,
            R::CodeReused,
        ] {
            assert_eq!(reason.told(), Told::Wrong, "{reason:?}");
            assert_eq!(reason.weight(), Weight::Guess, "{reason:?}");
        }
    }
}
