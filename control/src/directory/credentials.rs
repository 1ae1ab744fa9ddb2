//! [`Credentials`] over what `auth` knows: the password rules, Argon2id and one-time passwords.
//!
//! Hashing takes tens of milliseconds and happens on tokio's blocking threads; how many hashes are
//! computed at once is the hasher's own bound.

use zeroize::Zeroizing;

use super::input::Secret;
use super::people::{Credentials, Later, TotpOffer};
use crate::auth;
use crate::auth::password::{self, Hasher};
use crate::auth::{hotp, totp};
use crate::store::records::{OtpKind, Timestamp, UserId};

/// Credentials as this gateway checks them itself.
#[derive(Clone, Debug)]
pub struct LocalCredentials {
    hasher: Hasher,
    issuer: String,
}

impl LocalCredentials {
    /// Hashes with `hasher`; `issuer` is what authenticators show beside a user's name.
    #[must_use]
    pub fn new(hasher: Hasher, issuer: impl Into<String>) -> Self {
        Self { hasher, issuer: issuer.into() }
    }
}

impl Credentials for LocalCredentials {
    fn hash_password(&self, user: &str, password: &Secret) -> Later<Result<String, String>> {
        let (hasher, password) = (self.hasher.clone(), auth::Secret::new(password.0.as_str()));
        let judged = password::check(&password, user);
        Box::pin(async move {
            judged.map_err(|broken| format!("This password cannot be chosen: {broken}"))?;
            let hashed = tokio::task::spawn_blocking(move || hasher.hash(&password)).await;
            match hashed {
                Ok(hashed) => hashed.map_err(|error| error.to_string()),
                Err(error) => Err(format!("The password could not be hashed: {error}")),
            }
        })
    }

    fn password_matches(&self, hash: &str, password: &Secret) -> Later<bool> {
        let (hasher, hash) = (self.hasher.clone(), hash.to_owned());
        let password = auth::Secret::new(password.0.as_str());
        Box::pin(async move {
            let checked = tokio::task::spawn_blocking(move || hasher.check(&password, Some(&hash)));
            // Whoever cannot be checked is refused.
            checked.await.is_ok_and(|checked| checked.is_right)
        })
    }

    fn offer_totp(&self, user: &str, kind: OtpKind) -> Result<TotpOffer, String> {
        let made = match kind {
            OtpKind::Time => totp::enrol(&self.issuer, user, totp::Hash::Sha1)?,
            OtpKind::Counter => hotp::enrol(&self.issuer, user)?,
        };
        Ok(TotpOffer { secret: made.secret, text: made.base32, url: made.url })
    }

    fn totp_step(&self, secret: &[u8], code: &str, now: Timestamp) -> Option<u64> {
        totp::confirm(secret, &auth::Secret::new(code), now)
    }

    fn hotp_counter(&self, secret: &[u8], code: &str, first: u64) -> Option<u64> {
        hotp::confirm(secret, &auth::Secret::new(code), first)
    }

    fn recovery_codes(&self, user: UserId) -> Result<Vec<(Secret, [u8; 32])>, String> {
        let codes = totp::recovery_codes(user)?;
        let shown = |code: &auth::Secret| Secret(Zeroizing::new(code.expose().to_owned()));
        Ok(codes.iter().map(|(code, hash)| (shown(code), *hash)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::password::PasswordSettings;

    #[tokio::test]
    async fn a_password_that_passes_the_rules_is_hashed_and_matches_only_itself() {
        let cheap = PasswordSettings { memory_kib: 8, passes: 1, ..PasswordSettings::default() };
        let local = LocalCredentials::new(Hasher::new(cheap).unwrap(), "Ringway");
        let secret = Secret::new("a sentence that only I know");
        let hash = local.hash_password("ada", &secret).await.unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(local.password_matches(&hash, &secret).await);
        assert!(
            !local.password_matches(&hash, &Secret::new("a sentence that only you know")).await
        );
        let weak = local.hash_password("ada", &Secret::new("short")).await.unwrap_err();
        assert!(weak.contains("shorter than 10"), "{weak}");
    }

    #[test]
    fn an_offer_is_confirmed_by_the_code_that_it_gives_now() {
        let cheap = PasswordSettings { memory_kib: 8, passes: 1, ..PasswordSettings::default() };
        let local = LocalCredentials::new(Hasher::new(cheap).unwrap(), "Ringway");
        let offer = local.offer_totp("ada", OtpKind::Time).unwrap();
        assert!(offer.url.starts_with("otpauth://totp/Ringway"), "{}", *offer.url);
        let now = Timestamp(1_796_070_000_000);
        let (algorithm, secret) = (totp_rs::Algorithm::SHA1, offer.secret.to_vec());
        let totp = totp_rs::TOTP::new_unchecked(algorithm, 6, 1, 30, secret, None, String::new());
        let code = |seconds: i64| totp.generate((now.0 / 1000 + seconds) as u64);
        let step = |code: &str| local.totp_step(&offer.secret, code, now);
        assert_eq!(step(&code(0)), Some(now.0 as u64 / 30_000));
        assert_eq!(step(&code(300)), None);
        let offer = local.offer_totp("ada", OtpKind::Counter).unwrap();
        assert!(offer.url.starts_with("otpauth://hotp/Ringway"), "{}", *offer.url);
        let third = totp_rs::TOTP::new_unchecked(
            algorithm,
            6,
            1,
            1,
            offer.secret.to_vec(),
            None,
            String::new(),
        );
        assert_eq!(local.hotp_counter(&offer.secret, &third.generate(2), 0), Some(2));
        assert_eq!(local.hotp_counter(&offer.secret, &third.generate(2), 3), None);
        assert_eq!(local.recovery_codes(UserId::fresh()).unwrap().len(), 10);
    }
}
