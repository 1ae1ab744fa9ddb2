//! How people prove who they are: passwords and one-time passwords, set and taken away.
//!
//! What a good password is and how it is hashed is the business of `auth`, which implements
//! [`Credentials`]; hashing is slow on purpose and happens there, off the store's threads.

use zeroize::Zeroizing;

use super::actor::Actor;
use super::find;
use super::input::Secret;
use super::refusal::Refusal;
use super::work::Work;
use super::{Action, Change, Directory};
use crate::auth::{hotp, recovery_setting};
use crate::store::records::{OtpKind, Timestamp, User, UserId, UserSecrets};

/// What a call that takes a while gives back.
pub type Later<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// Passwords and one-time passwords, as `auth` knows them.
pub trait Credentials: Send + Sync {
    /// Judges a password of the user called `user` and hashes it (PHC string). The error says what
    /// is wrong with it, in words for people.
    fn hash_password(&self, user: &str, password: &Secret) -> Later<Result<String, String>>;

    /// Draws recovery codes of `user`: what to show once, and what to keep. The error is for
    /// people.
    fn recovery_codes(&self, user: UserId) -> Result<Vec<(Secret, [u8; 32])>, String>;

    /// Whether `password` is the one of this hash.
    fn password_matches(&self, hash: &str, password: &Secret) -> Later<bool>;

    /// Draws a secret for one-time passwords of the user called `user`. The error is for people.
    fn offer_totp(&self, user: &str, kind: OtpKind) -> Result<TotpOffer, String>;

    /// The time step of `code`, if it is a one-time password of `secret` now.
    fn totp_step(&self, secret: &[u8], code: &str, now: Timestamp) -> Option<u64>;

    /// The counter of `code`, if it is a one-time password of `secret` that goes by a counter which
    /// began with `first` (two codes in a row, for one that is far ahead).
    fn hotp_counter(&self, secret: &[u8], code: &str, first: u64) -> Option<u64>;
}

/// A secret for one-time passwords that a person is to take over.
#[derive(Clone)]
pub struct TotpOffer {
    /// The secret.
    pub secret: Zeroizing<Vec<u8>>,
    /// The same as text (base32).
    pub text: Zeroizing<String>,
    /// `otpauth://…`, for a QR code.
    pub url: Zeroizing<String>,
}

impl Directory {
    /// Gives a user a password. Somebody who changes his own shows the old one, unless there was
    /// none. Ends nothing by itself: what must end hears [`Action::PasswordSet`].
    ///
    /// # Errors
    /// A password that is too weak, a user above the actor, a wrong old password.
    pub async fn set_password(
        &self,
        actor: &Actor,
        word: &str,
        old: Option<Secret>,
        new: Secret,
    ) -> Result<User, Refusal> {
        let user = self.user(word).await?;
        actor.may_change_or_is(&user)?;
        actor.must_be_whole("set a password")?;
        if actor.user == Some(user.id) && user.has_password {
            self.check_old_password(&user, old).await?;
        }
        let hash = self.hash_password(&user.name, &new, "/new").await?;
        self.change(actor, move |work| {
            let stored = work.db.user(user.id)?;
            work.actor.may_change_or_is(&stored)?;
            let change = |secrets: &mut UserSecrets| secrets.password_hash = Some(hash.clone());
            set_secrets(work, &stored, change, Action::PasswordSet)
        })
        .await
    }

    /// Draws a secret for one-time passwords that go by time. It counts only after
    /// [`Self::confirm_totp`], which gets it back: a secret that nobody took over must not lock
    /// anybody out.
    ///
    /// # Errors
    /// No such user, or not the actor's business.
    pub async fn offer_totp(&self, actor: &Actor, word: &str) -> Result<TotpOffer, Refusal> {
        self.offer(actor, word, OtpKind::Time).await
    }

    /// Draws a secret for one-time passwords that go by a counter; see [`Self::confirm_hotp`].
    ///
    /// # Errors
    /// As [`Self::offer_totp`].
    pub async fn offer_hotp(&self, actor: &Actor, word: &str) -> Result<TotpOffer, Refusal> {
        self.offer(actor, word, OtpKind::Counter).await
    }

    async fn offer(&self, actor: &Actor, word: &str, kind: OtpKind) -> Result<TotpOffer, Refusal> {
        let user = self.user(word).await?;
        actor.may_change_or_is(&user)?;
        actor.must_be_whole("set a second factor")?;
        self.0.credentials.offer_totp(&user.name, kind).map_err(Refusal::Conflict)
    }

    /// Takes a secret for one-time passwords into use, proved by a first code, which counts as
    /// used. Gives recovery codes for whoever loses it; they are shown once.
    ///
    /// # Errors
    /// A secret that is too short, a wrong code, not the actor's business, a second factor that is
    /// there already.
    pub async fn confirm_totp(
        &self,
        actor: &Actor,
        word: &str,
        secret: Zeroizing<Vec<u8>>,
        code: &str,
    ) -> Result<Vec<Secret>, Refusal> {
        may_confirm(actor, &secret)?;
        let Some(step) = self.0.credentials.totp_step(&secret, code, self.now()) else {
            let message = "This is not the code that the secret gives now: look at the clock of \
                           the device, and give the next code";
            return Err(Refusal::field("/code", message));
        };
        self.take_second_factor(actor, word, secret, (OtpKind::Time, step)).await
    }

    /// Takes a secret for one-time passwords that go by a counter into use, proved by one of the
    /// first codes from counter `first` on, which is 0 for a secret that was drawn here. A device
    /// that somebody else made has its own secret and may be far ahead: two codes in a row find it.
    ///
    /// # Errors
    /// As [`Self::confirm_totp`]; a counter out of range.
    pub async fn confirm_hotp(
        &self,
        actor: &Actor,
        word: &str,
        secret: Zeroizing<Vec<u8>>,
        first: u64,
        code: &str,
    ) -> Result<Vec<Secret>, Refusal> {
        may_confirm(actor, &secret)?;
        if first > hotp::COUNTER_MAX {
            let message = format!("A counter is at most {}", hotp::COUNTER_MAX);
            return Err(Refusal::field("/counter", message));
        }
        let Some(counter) = self.0.credentials.hotp_counter(&secret, code, first) else {
            let message = format!(
                "This is none of the next {} codes of the secret: give two codes in a row, with a \
                 space between, if the device is up to {} ahead",
                hotp::AHEAD,
                hotp::FAR_AHEAD
            );
            return Err(Refusal::field("/code", message));
        };
        // It begins with 0, so what is kept is how many are used up.
        self.take_second_factor(actor, word, secret, (OtpKind::Counter, counter + 1)).await
    }

    async fn take_second_factor(
        &self,
        actor: &Actor,
        word: &str,
        secret: Zeroizing<Vec<u8>>,
        (kind, last): (OtpKind, u64),
    ) -> Result<Vec<Secret>, Refusal> {
        let id = self.user(word).await?.id;
        let codes = self.0.credentials.recovery_codes(id).map_err(Refusal::Conflict)?;
        let (codes, hashes): (Vec<Secret>, Vec<[u8; 32]>) = codes.into_iter().unzip();
        let kept = self.change(actor, move |work| {
            let user = work.db.user(id)?;
            work.actor.may_change_or_is(&user)?;
            if user.has_totp {
                let message = "There is a second factor already: remove it first";
                return Err(Refusal::Conflict(message.to_owned()));
            }
            let change = |secrets: &mut UserSecrets| {
                secrets.totp_secret = Some(secret.to_vec());
                secrets.totp_kind = kind;
                secrets.totp_last_step = last;
            };
            work.db.put_setting(&recovery_setting(id), &hashes.concat())?;
            set_secrets(work, &user, change, Action::TotpSet)
        });
        kept.await?;
        Ok(codes)
    }

    /// Takes the second factor away. Nobody does it for himself, whatever his role: with the
    /// password alone it would be none. Somebody else of the same role or above does it, or root on
    /// the gateway's host.
    ///
    /// # Errors
    /// No such user, not the actor's business, the actor itself.
    pub async fn remove_totp(&self, actor: &Actor, word: &str) -> Result<User, Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let user = find::user(work.db, &word)?;
            work.actor.may_change(&user)?;
            work.actor.must_be_whole("take a second factor away")?;
            if work.actor.user == Some(user.id) {
                let message = "Nobody takes his own second factor away: ask somebody of the same \
                               role or above, or use the Unix socket as root";
                return Err(Refusal::Forbidden(message.to_owned()));
            }
            if !user.has_totp {
                return Err(Refusal::missing("second factor of", &user.name));
            }
            let change = |secrets: &mut UserSecrets| secrets.totp_secret = None;
            work.db.put_setting(&recovery_setting(user.id), &[])?;
            set_secrets(work, &user, change, Action::TotpRemoved)
        })
        .await
    }

    /// Judges and hashes a password that stands at `pointer` of the input.
    pub(super) async fn hash_password(
        &self,
        user: &str,
        password: &Secret,
        pointer: &str,
    ) -> Result<String, Refusal> {
        let hashed = self.0.credentials.hash_password(user, password).await;
        hashed.map_err(|message| Refusal::field(pointer, message))
    }

    async fn check_old_password(&self, user: &User, old: Option<Secret>) -> Result<(), Refusal> {
        let id = user.id;
        let secrets = self.look(move |db| Ok(db.user_secrets(id)?)).await?;
        let Some(old) = old else {
            return Err(Refusal::field("/old", "Give the password that you have now"));
        };
        let matches = match secrets.password_hash {
            Some(hash) => self.0.credentials.password_matches(&hash, &old).await,
            None => true,
        };
        if matches { Ok(()) } else { Err(Refusal::field("/old", "This is not your password")) }
    }
}

/// Whether a second factor may be taken into use, before it is known whose.
fn may_confirm(actor: &Actor, secret: &[u8]) -> Result<(), Refusal> {
    actor.must_be_whole("set a second factor")?;
    if (16..=64).contains(&secret.len()) {
        return Ok(());
    }
    Err(Refusal::field("/secret", "A secret has 16 to 64 bytes: ask for a new one"))
}

/// Changes what is secret about a user, and what the record says about it.
fn set_secrets(
    work: &mut Work<'_, '_>,
    before: &User,
    change: impl FnOnce(&mut UserSecrets),
    action: Action,
) -> Result<User, Refusal> {
    let mut secrets = work.db.user_secrets(before.id)?;
    change(&mut secrets);
    work.db.set_user_secrets(before.id, &secrets)?;
    let stored = work.db.update_user(&User {
        has_password: secrets.password_hash.is_some(),
        has_totp: secrets.totp_secret.is_some(),
        totp_kind: secrets.totp_secret.as_ref().map(|_| secrets.totp_kind),
        ..before.clone()
    })?;
    work.did(action, stored.id, find::changed(before, &stored))?;
    work.note(Change::User(stored.id));
    Ok(stored)
}
