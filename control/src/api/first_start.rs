//! The first start: how the first administrator comes to be.
//!
//! There is no default password. While nobody is an administrator, the gateway has a one-time
//! secret: kept in a file that only its owner can read, shown on a terminal, and worth only one
//! thing: `POST /api/v1/setup`. It is gone as soon as there is an administrator. Wrong tries are
//! limited, for all sources together, which is enough against 128 random bits and cannot lock
//! anybody out for long.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringway_proto::crypto::Random;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::logins::{hash, hex};
use super::problem::Problem;
use super::rate::{Allowance, Buckets};
use super::reason::Reason;
use crate::failure::Failure;
use crate::keys;
use crate::store::ids::Timestamp;

/// Name of the file in the state folder.
pub const FILE_NAME: &str = "setup-secret";

/// Bytes of the secret: 128 random bits.
const SECRET_BYTES: usize = 16;

/// Tries of all sources together.
const TRIES: Allowance = Allowance { per_second: 1, burst: 10 };

/// What whoever is to become the first administrator must know.
pub struct Invitation {
    secret: Zeroizing<String>,
    file: PathBuf,
}

impl Invitation {
    /// As a sentence: with the secret for a terminal. Whatever else stands behind an output keeps
    /// it, as the journal of a service does, for more eyes than those of the owner: there the
    /// sentence names the file.
    #[must_use]
    pub fn sentence(&self, is_terminal: bool) -> Zeroizing<String> {
        let begin = "Nobody is an administrator yet. Make the first one with \"ringway setup\" or \
                     POST /api/v1/setup and";
        let (secret, file) = (&*self.secret, self.file.display());
        Zeroizing::new(if is_terminal {
            format!("{begin} this one-time secret: {secret} (it is also in {file})")
        } else {
            format!("{begin} the one-time secret in {file}")
        })
    }
}

/// The secret while it is worth something.
#[derive(Debug)]
pub struct FirstStart(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    /// None when there is an administrator.
    secret_hash: Option<[u8; 32]>,
    tries: Buckets<()>,
}

impl FirstStart {
    /// Makes the secret unless there is an administrator, or reads the one that an earlier start
    /// made. The invitation is what the operator should see, once.
    ///
    /// # Errors
    /// A file that cannot be written or read.
    pub fn prepare(
        state_dir: &Path,
        has_administrator: bool,
        random: &mut dyn Random,
    ) -> Result<(Self, Option<Invitation>), Failure> {
        let file = state_dir.join(FILE_NAME);
        if has_administrator {
            remove(&file);
            return Ok((Self::with(file, None), None));
        }
        let secret = match read(&file)? {
            Some(secret) => secret,
            None => {
                let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
                random.fill(&mut *bytes);
                let secret = Zeroizing::new(hex(&*bytes));
                write(&file, &secret)
                    .map_err(|error| Failure::file("write the one-time secret", &file, &error))?;
                secret
            }
        };
        let secret_hash = Some(hash(secret.as_bytes()));
        let invitation = Invitation { secret, file: file.clone() };
        Ok((Self::with(file, secret_hash), Some(invitation)))
    }

    fn with(file: PathBuf, secret_hash: Option<[u8; 32]>) -> Self {
        Self(Mutex::new(Inner { file, secret_hash, tries: Buckets::new(TRIES) }))
    }

    /// Whether the secret is still worth something.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().secret_hash.is_some()
    }

    /// Judges a secret.
    ///
    /// # Errors
    /// 410 when there is an administrator, 429 after too many tries, 401 if it is wrong.
    pub fn check(&self, secret: &str, now: Timestamp) -> Result<(), Problem> {
        let mut inner = self.lock();
        let Some(wanted) = inner.secret_hash else {
            return Err(Problem::new(Reason::Gone, "There is an administrator already: sign in"));
        };
        if let Err(seconds) = inner.tries.take((), 1, now) {
            let detail = "Too many tries with the one-time secret";
            return Err(Problem::new(Reason::TooManyRequests, detail).retry_after(seconds));
        }
        let given = hash(secret.trim().as_bytes());
        if bool::from(given.ct_eq(&wanted)) {
            return Ok(());
        }
        let detail = "It is in the file setup-secret in the state folder, which the gateway's owner \
                      can read";
        Err(Problem::new(Reason::SetupSecretWrong, detail))
    }

    /// There is an administrator now: the secret is worth nothing, and its file goes.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.secret_hash = None;
        remove(&inner.file);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing inside can be left half-made.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &Path) -> Result<Option<Zeroizing<String>>, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => {
            let text = Zeroizing::new(text);
            let secret = Zeroizing::new(text.trim().to_owned());
            let whole = secret.len() == 2 * SECRET_BYTES;
            // Cut off by a crash while it was written: nobody can have seen it.
            Ok(whole.then_some(secret))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file("read the one-time secret", file, &error)),
    }
}

/// Written aside and renamed, mode 0600 from the beginning.
fn write(file: &Path, secret: &str) -> io::Result<()> {
    let aside = keys::aside(file);
    keys::write_aside(&aside, format!("{secret}\n").as_bytes())?;
    fs::rename(&aside, file)?;
    keys::sync_folder(file)
}

fn remove(file: &Path) {
    match fs::remove_file(file) {
        Ok(()) => (),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        // It is worth nothing any more; that it lies about is untidy, not dangerous.
        Err(error) => tracing::warn!(%error, file = %file.display(), "Cannot remove the secret"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::keys::SystemRandom;
    use crate::scratch::Scratch;

    fn prepare(folder: &Scratch, has: bool) -> (FirstStart, Option<String>) {
        let (first, said) = FirstStart::prepare(folder.path(), has, &mut SystemRandom).unwrap();
        (first, said.map(|said| said.sentence(true).to_string()))
    }

    #[test]
    fn the_secret_is_printed_kept_for_its_owner_and_gone_after_use() {
        let folder = Scratch::new("first_start");
        let file = folder.path().join(FILE_NAME);
        let (first, said) = prepare(&folder, false);
        let secret = fs::read_to_string(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(said.unwrap().contains(secret.trim()));
        // A restart before it was used changes nothing.
        let (again, said) = prepare(&folder, false);
        assert!(said.unwrap().contains(secret.trim()));
        assert_eq!(again.check(&secret, Timestamp(0)), Ok(()));
        first.close();
        assert!(!file.exists() && !first.is_open());
        assert_eq!(first.check(&secret, Timestamp(0)).unwrap_err().reason, Reason::Gone);
    }

    #[test]
    fn what_is_not_a_terminal_learns_where_the_secret_is_but_not_the_secret() {
        let folder = Scratch::new("first_start_journal");
        let file = folder.path().join(FILE_NAME);
        let (_, said) = FirstStart::prepare(folder.path(), false, &mut SystemRandom).unwrap();
        let secret = fs::read_to_string(&file).unwrap();
        let said = said.unwrap().sentence(false);
        assert!(!said.contains(secret.trim()), "{}", *said);
        assert!(said.contains(&*file.to_string_lossy()), "{}", *said);
    }

    #[test]
    fn with_an_administrator_there_is_no_secret_even_if_a_file_was_left() {
        let folder = Scratch::new("first_start_not");
        let (_, said) = prepare(&folder, false);
        assert!(said.is_some());
        let (first, said) = prepare(&folder, true);
        assert_eq!(said, None);
        assert!(!first.is_open() && !folder.path().join(FILE_NAME).exists());
    }

    #[test]
    fn two_first_starts_have_different_secrets_and_a_torn_file_is_made_anew() {
        let folder = Scratch::new("first_start_torn");
        let file = folder.path().join(FILE_NAME);
        prepare(&folder, false);
        let before = fs::read_to_string(&file).unwrap();
        fs::write(&file, &before[..9]).unwrap();
        prepare(&folder, false);
        let after = fs::read_to_string(&file).unwrap();
        assert_eq!(after.len(), before.len());
        assert_ne!(after, before);
    }

    #[test]
    fn wrong_tries_are_limited_and_the_right_one_counts_later() {
        let folder = Scratch::new("first_start_tries");
        let (first, _) = prepare(&folder, false);
        let secret = fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
        for _ in 0..10 {
            let refused = first.check("guess", Timestamp(0)).unwrap_err();
            assert_eq!(refused.reason, Reason::SetupSecretWrong);
        }
        let refused = first.check(&secret, Timestamp(0)).unwrap_err();
        assert_eq!((refused.reason, refused.retry_after_s), (Reason::TooManyRequests, Some(1)));
        assert_eq!(first.check(&secret, Timestamp(1000)), Ok(()));
    }
}
