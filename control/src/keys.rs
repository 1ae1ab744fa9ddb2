//! Keys as WireGuard writes them, where they come from and where they are kept.
//!
//! Base64 of 32 bytes in one canonical spelling, randomness from the kernel, and the gateway's
//! private key as a file that is made once, atomically, readable by its owner only. Secret text is
//! erased after use. This module must not know configuration.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringway_proto::crypto::{KEY_BYTES, PresharedKey, PrivateKey, PublicKey, Random};
use zeroize::Zeroizing;

use crate::failure::{Failure, Status};

/// Characters of a key in base64, padding included.
pub const KEY_CHARS: usize = 44;

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 44 characters.
    #[error("a key is 44 characters of base64 ending in \"=\", this has {0}")]
    Length(usize),
    /// 44 characters that are not the canonical base64 of 32 bytes.
    #[error("a key is 44 characters of base64 ending in \"=\", this contains something else")]
    Base64,
    /// All zeros, which means "no key".
    #[error("a key of zeros means no key; make one with \"ringway genkey\"")]
    Zero,
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    /// # Panics
    /// If the kernel gives no randomness at all: no key may be made then, and nothing sensible can
    /// go on.
    fn fill(&mut self, out: &mut [u8]) {
        let filled = getrandom::fill(out);
        assert!(filled.is_ok(), "the kernel gives no randomness: {filled:?}");
    }
}

/// Reads 32 bytes from their base64 spelling.
///
/// # Errors
/// [`KeyError::Length`] and [`KeyError::Base64`].
pub fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyError> {
    if text.len() != KEY_CHARS {
        return Err(KeyError::Length(text.chars().count()));
    }
    // One byte more than a key, as the decoder wants room for what the characters could say.
    let mut bytes = Zeroizing::new([0; KEY_BYTES + 1]);
    let written = STANDARD.decode_slice(text, &mut bytes[..]).map_err(|_| KeyError::Base64)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if written != KEY_BYTES {
        return Err(KeyError::Base64);
    }
    key.copy_from_slice(&bytes[..KEY_BYTES]);
    Ok(key)
}

/// Writes 32 bytes as base64. Erased when dropped, as it may be a secret.
#[must_use]
pub fn encode(bytes: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(bytes))
}

/// Reads a public key.
///
/// # Errors
/// Any [`KeyError`].
pub fn parse_public(text: &str) -> Result<PublicKey, KeyError> {
    let bytes = decode(text)?;
    if *bytes == [0; KEY_BYTES] { Err(KeyError::Zero) } else { Ok(PublicKey(*bytes)) }
}

/// Writes a public key.
#[must_use]
pub fn show_public(key: &PublicKey) -> String {
    STANDARD.encode(key.0)
}

/// Reads a private key.
///
/// # Errors
/// Any [`KeyError`].
pub fn parse_private(text: &str) -> Result<PrivateKey, KeyError> {
    let bytes = decode(text)?;
    if *bytes == [0; KEY_BYTES] { Err(KeyError::Zero) } else { Ok(PrivateKey::from_bytes(*bytes)) }
}

/// Reads a preshared key; zeros mean none.
///
/// # Errors
/// [`KeyError::Length`] and [`KeyError::Base64`].
pub fn parse_preshared(text: &str) -> Result<PresharedKey, KeyError> {
    decode(text).map(|bytes| PresharedKey(*bytes))
}

/// Writes a private key.
#[must_use]
pub fn show_private(key: &PrivateKey) -> Zeroizing<String> {
    encode(&Zeroizing::new(key.to_bytes()))
}

/// Draws a preshared key.
pub fn generate_preshared(random: &mut dyn Random) -> PresharedKey {
    let mut key = PresharedKey::default();
    random.fill(&mut key.0);
    key
}

/// The gateway's private key as found on disk.
#[derive(Debug)]
pub struct KeyFile {
    /// The key.
    pub private: PrivateKey,
    /// Whether it was made just now.
    pub made: bool,
    /// Others than the owner may read it: something to warn about.
    pub exposed: bool,
}

/// Reads a private key from a file: one line of base64.
///
/// # Errors
/// An unreadable file ([`Status::State`]) or one that is no key ([`Status::Config`]).
pub fn read_private(path: &Path) -> Result<KeyFile, Failure> {
    let (text, exposed) = read_secret(path)?;
    let private = parse_private(text.trim()).map_err(|error| not_a_key(path, error))?;
    Ok(KeyFile { private, made: false, exposed })
}

/// Reads a preshared key from a file: one line of base64.
///
/// # Errors
/// As [`read_private`].
pub fn read_preshared(path: &Path) -> Result<PresharedKey, Failure> {
    let (text, _) = read_secret(path)?;
    parse_preshared(text.trim()).map_err(|error| not_a_key(path, error))
}

/// Reads the private key, or makes it if the file does not exist. The file appears whole or not at
/// all, with mode 0600, and an existing one is never overwritten.
///
/// # Errors
/// As [`read_private`], and a folder that cannot be written ([`Status::State`]).
pub fn load_or_make_private(path: &Path, random: &mut dyn Random) -> Result<KeyFile, Failure> {
    match read_private(path) {
        Err(failure) if failure.status == Status::State && !exists(path) => {}
        other => return other,
    }
    let private = PrivateKey::generate(random);
    let text = Zeroizing::new(format!("{}\n", *show_private(&private)));
    match write_new_secret(path, text.as_bytes()) {
        Ok(()) => Ok(KeyFile { private, made: true, exposed: false }),
        // Somebody else made it in the meantime: theirs counts.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_private(path),
        Err(error) => Err(Failure::file("write the private key", path, &error)),
    }
}

/// Writes a file that only its owner can read, which must not exist yet: written aside, made
/// durable, then linked into place.
pub(crate) fn write_new_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = aside(path);
    let result = write_aside(&aside, bytes).and_then(|()| fs::hard_link(&aside, path));
    let removed = fs::remove_file(&aside);
    result.and(removed)?;
    sync_folder(path)
}

/// Writes `bytes` to a new file with mode 0600 and makes it durable.
pub(crate) fn write_aside(aside: &Path, bytes: &[u8]) -> io::Result<()> {
    // A left-over of a process that died with our number is nobody's.
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The name under which a file is written before it takes its place: beside it, hidden, one per
/// process.
pub(crate) fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.new", std::process::id()))
}

/// Makes a rename or link in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::File::open(folder)?.sync_all()
}

fn read_secret(path: &Path) -> Result<(Zeroizing<String>, bool), Failure> {
    let failed = |error: &io::Error| Failure::file("read the key file", path, error);
    let file = fs::File::open(path).map_err(|error| failed(&error))?;
    let exposed = file.metadata().map_err(|error| failed(&error))?.mode() & 0o077 != 0;
    // A key and a line end; anything longer is no key and need not be read.
    let mut text = Zeroizing::new(String::with_capacity(256));
    file.take(256).read_to_string(&mut text).map_err(|error| failed(&error))?;
    Ok((text, exposed))
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn not_a_key(path: &Path, error: KeyError) -> Failure {
    Failure::new(Status::Config, format!("{} is not a key file: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use proptest::prelude::*;

    const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    const PUBLIC: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

    #[test]
    fn a_known_private_key_has_its_known_public_key() {
        let private = parse_private(PRIVATE).unwrap();
        assert_eq!(show_public(&private.public()), PUBLIC);
        assert_eq!(*show_private(&private), PRIVATE);
    }

    #[test]
    fn what_is_not_canonical_base64_of_32_bytes_is_refused() {
        assert_eq!(parse_public("").unwrap_err(), KeyError::Length(0));
        assert_eq!(parse_public(&PUBLIC[..43]).unwrap_err(), KeyError::Length(43));
        assert_eq!(parse_public(&PUBLIC.replace('=', "A")).unwrap_err(), KeyError::Base64);
        assert_eq!(parse_public(&PUBLIC.replace("w=", "x=")).unwrap_err(), KeyError::Base64);
        assert_eq!(parse_public(&PUBLIC.replace('H', "-")).unwrap_err(), KeyError::Base64);
        let zeros = format!("{}=", "A".repeat(43));
        assert_eq!(parse_public(&zeros).unwrap_err(), KeyError::Zero);
        assert!(!parse_preshared(&zeros).unwrap().is_set());
    }

    #[test]
    fn the_private_key_is_made_once_and_read_afterwards() {
        let folder = Scratch::new("key_once");
        let path = folder.path().join("private.key");
        let first = load_or_make_private(&path, &mut SystemRandom).unwrap();
        let second = load_or_make_private(&path, &mut SystemRandom).unwrap();
        assert!(first.made);
        assert!(!second.made);
        assert!(!second.exposed);
        assert_eq!(first.private.public(), second.private.public());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_broken_key_file_is_reported_and_not_replaced() {
        let folder = Scratch::new("key_broken");
        let path = folder.path().join("private.key");
        fs::write(&path, "secret\n").unwrap();
        let failure = load_or_make_private(&path, &mut SystemRandom).unwrap_err();
        assert_eq!(failure.status, Status::Config);
        assert!(failure.message.contains("44 characters"), "{failure}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret\n");
    }

    #[test]
    fn a_key_that_others_may_read_is_noticed() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Scratch::new("key_exposed");
        let path = folder.path().join("private.key");
        fs::write(&path, PRIVATE).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_private(&path).unwrap().exposed);
    }

    proptest! {
        #[test]
        fn any_32_bytes_survive_the_spelling(bytes in any::<[u8; 32]>()) {
            prop_assert_eq!(*decode(&encode(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,60}") {
            let _ = decode(&text);
        }
    }
}
