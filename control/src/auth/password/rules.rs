//! Which passwords may be chosen.
//!
//! Length, not composition: rules about digits and signs make people write `Password1!`. Refused is
//! what is guessed first: the user's own name, what is on every list of stolen passwords, and
//! repetition. This module must not know how passwords are stored.

use crate::auth::backend::Secret;

/// Fewest bytes. Eight characters of what people choose are found in a day; ten with this hash are
/// not.
pub const BYTES_MIN: usize = 10;
/// Most bytes: no passphrase is longer, and a hash of more would be a way to keep us busy.
pub const BYTES_MAX: usize = 1024;

/// What is at the front of every list of stolen passwords and is long enough to pass, in lower case
/// and without the digits and signs that people put behind.
const COMMON: &str = "password passwort qwertyuiop qwertzuiop qwerty qwerty123 1234567890 0987654321 \
    0123456789 123456789 12345678910 abcdefghij abc123abc123 letmein letmeinnow welcome welcomehome \
    iloveyou iloveyouso changeme changemenow administrator administrador admin adminadmin rootroot \
    superuser princess sunshine football baseball basketball superman batman trustno1 starwars \
    whatever computer internet samsung monkey dragon master shadow michael jennifer jordan \
    hunter2hunter2 correcthorsebatterystaple asdfghjkl asdfghjklö zxcvbnm 1q2w3e4r5t 1q2w3e4r \
    1qaz2wsx3edc 1qaz2wsx q1w2e3r4t5 zaq12wsx google facebook linkedin default secret topsecret \
    manchester liverpool arsenal chelsea barcelona realmadrid hallohallo hallo schatz ficken \
    sommer winter spring summer autumn january february september october november december \
    wireguard ringway gateway vpnvpn openvpn network test testtest testing guest guestguest temporary";

/// Why a password may not be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleBroken {
    /// Fewer than [`BYTES_MIN`] bytes.
    #[error("it is shorter than {BYTES_MIN} bytes: take a phrase of several words")]
    Short,
    /// More than [`BYTES_MAX`] bytes.
    #[error("it is longer than {BYTES_MAX} bytes")]
    Long,
    /// Has the user's name in it.
    #[error("it contains the user name")]
    Name,
    /// One of those that are guessed first.
    #[error("it is one of the passwords that are guessed first")]
    Common,
    /// Few different characters.
    #[error("it repeats the same few characters")]
    Repetitive,
}

/// Whether `user` may choose `password`.
///
/// # Errors
///
/// The first rule that it breaks.
pub fn check(password: &Secret, user: &str) -> Result<(), RuleBroken> {
    let password = password.expose();
    if password.len() < BYTES_MIN {
        return Err(RuleBroken::Short);
    }
    if password.len() > BYTES_MAX {
        return Err(RuleBroken::Long);
    }
    let lower = zeroize::Zeroizing::new(password.to_lowercase());
    let local = user.split('@').next().unwrap_or(user);
    // A name of one or two letters is in every phrase.
    let names = [user, local].map(str::to_lowercase);
    if names.iter().any(|name| name.len() >= 3 && lower.contains(name.as_str())) {
        return Err(RuleBroken::Name);
    }
    let core = lower.trim_matches(|c: char| !c.is_alphabetic());
    let is_common = COMMON.split_whitespace().any(|word| word == lower.as_str() || word == core);
    if is_common {
        return Err(RuleBroken::Common);
    }
    let mut characters: Vec<char> = lower.chars().collect();
    characters.sort_unstable();
    characters.dedup();
    if characters.len() < 4 {
        return Err(RuleBroken::Repetitive);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(password: &str) -> Result<(), RuleBroken> {
        check(&Secret::new(password), "ann.smith@example.org")
    }

    #[test]
    fn what_is_guessed_first_is_refused() {
        for common in [
            "qwertyuiop",
            "QwertyUiop",
            "password123!",
            "PASSWORD2026",
            "1234567890",
            "hunter2hunter2",
            "administrator",
            "!!football!!",
            "welcome2026",
            "1q2w3e4r5t",
        ] {
            assert_eq!(checked(common), Err(RuleBroken::Common), "{common}");
        }
        for repetitive in ["aaaaaaaaaa", "abababababab", "1111111112", "          "] {
            assert_eq!(checked(repetitive), Err(RuleBroken::Repetitive), "{repetitive}");
        }
    }

    #[test]
    fn the_users_own_name_is_refused_and_a_phrase_is_not() {
        for own in ["ann.smith@example.org", "XXAnn.Smith99", "is ann.smith there"] {
            assert_eq!(checked(own), Err(RuleBroken::Name), "{own}");
        }
        for phrase in ["three small boats", "dritte Straße links", "correct horse battery staple"]
        {
            assert_eq!(checked(phrase), Ok(()), "{phrase}");
        }
        assert_eq!(check(&Secret::new("a banana split"), "an"), Ok(()));
    }

    #[test]
    fn the_length_counts_in_bytes() {
        assert_eq!(checked("abcdefgh1"), Err(RuleBroken::Short));
        assert_eq!(checked("äöüßé"), Ok(()));
        let long = "ab1.".repeat(256);
        assert_eq!(checked(&long), Ok(()));
        assert_eq!(checked(&format!("{long}x")), Err(RuleBroken::Long));
    }
}
