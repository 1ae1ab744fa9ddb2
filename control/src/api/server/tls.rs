//! Certificate and key of the HTTPS door.
//!
//! Files of the operator, read again when they change (a certificate is renewed while the gateway
//! runs), or a self-made certificate whose fingerprint the operator compares. TLS 1.2 and 1.3,
//! HTTP/1.1 only. New files that cannot be used are said once, and the old ones stay in use.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use super::holders::{Clients, HoldsKey};
use crate::auth::certificate::{Expiry, Kind};
use crate::failure::{Failure, Status};
use crate::keys;
use crate::store::ids::Timestamp;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Bytes of a file with certificates or a key.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Years that a self-made certificate is valid.
const YEARS: i32 = 2;

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM: its key.
    pub key: PathBuf,
}

/// Certificate and key in use.
pub struct Tls {
    files: TlsFiles,
    clients: Clients,
    in_use: Mutex<InUse>,
}

struct InUse {
    loaded: Loaded,
    /// What the files looked like when they were read, whether or not they could be used.
    seen: Seen,
}

/// What was read, ready for use.
struct Loaded {
    config: Arc<ServerConfig>,
    fingerprint: String,
    /// From when to when the certificate is good.
    life: (Timestamp, Timestamp),
}

/// Inode, size and time of change of both files.
type Seen = [(u64, u64, i64, i64); 2];

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({})", self.files.certificate.display())
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Files that cannot be read, or do not belong together.
    pub fn load(files: TlsFiles, clients: Clients) -> Result<Self, Failure> {
        let seen = look(&files)?;
        let loaded = read(&files, clients)?;
        let in_use = Mutex::new(InUse { loaded, seen });
        Ok(Self { files, clients, in_use })
    }

    /// Reads the self-made certificate in `folder`, or makes it for `names` (host names and
    /// addresses that clients use) in the year `year`.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn self_made(folder: &Path, names: Vec<String>, year: i32) -> Result<Self, Failure> {
        let files = TlsFiles {
            certificate: folder.join("api-certificate.pem"),
            key: folder.join("api-key.pem"),
        };
        if !files.certificate.exists() || !files.key.exists() {
            make(&files, names, year)?;
        }
        Self::load(files, Clients::NotAsked)
    }

    /// SHA-256 of the certificate, as browsers show it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.lock().loaded.fingerprint.clone()
    }

    /// When the certificate ends.
    #[must_use]
    pub fn expiry(&self, now: Timestamp) -> Expiry {
        let name = self.files.certificate.display().to_string();
        Expiry::of(Kind::Api, name, self.lock().loaded.life, now)
    }

    /// For the next connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.lock().loaded.config))
    }

    /// Reads the files again if they look different; true if they are in use now.
    ///
    /// # Errors
    /// New files that cannot be used; the old ones stay, and the error comes once.
    pub fn reload(&self) -> Result<bool, Failure> {
        let seen = look(&self.files)?;
        if self.lock().seen == seen {
            return Ok(false);
        }
        let read = read(&self.files, self.clients);
        let mut in_use = self.lock();
        in_use.seen = seen;
        in_use.loaded = read?;
        Ok(true)
    }

    /// Looks at the files from time to time, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut said = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let tls = Arc::clone(&self);
            let done = tokio::task::spawn_blocking(move || tls.reload()).await;
            match done {
                Ok(Ok(true)) => tracing::info!(
                    fingerprint = self.fingerprint(),
                    "The API uses the new certificate"
                ),
                Ok(Ok(false)) | Err(_) => (),
                Ok(Err(error)) => {
                    // A file that is missing for long would be said every time.
                    let message = Some(error.message);
                    if said != message {
                        tracing::warn!(error = message, "The API keeps its old certificate");
                        said = message;
                    }
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, InUse> {
        // What is inside is replaced whole.
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look(files: &TlsFiles) -> Result<Seen, Failure> {
    let look = |path: &Path| {
        let about = fs::metadata(path)
            .map_err(|error| Failure::file("read the certificate or key", path, &error))?;
        if about.len() > FILE_BYTES_MAX {
            let message = format!("{} is too large for a certificate or key", path.display());
            return Err(Failure::new(Status::Config, message));
        }
        Ok((about.ino(), about.len(), about.mtime(), about.mtime_nsec()))
    };
    Ok([look(&files.certificate)?, look(&files.key)?])
}

fn read(files: &TlsFiles, clients: Clients) -> Result<Loaded, Failure> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| {
        let message = format!("{} cannot be used: {why}", path.display());
        Failure::new(Status::Config, message)
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(&files.certificate, &error))?;
    let Some(first) = chain.first() else {
        return Err(wrong(&files.certificate, &"it has no certificate in PEM form"));
    };
    let fingerprint = Sha256::digest(first);
    let fingerprint: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    let (_, parsed) =
        X509Certificate::from_der(first).map_err(|error| wrong(&files.certificate, &error))?;
    let moment = |time: ASN1Time| Timestamp(time.timestamp().saturating_mul(1000));
    let validity = parsed.validity();
    let life = (moment(validity.not_before), moment(validity.not_after));
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map(|builder| match clients {
            Clients::NotAsked => builder.with_no_client_auth(),
            Clients::Asked => builder.with_client_cert_verifier(Arc::new(HoldsKey(provider))),
        })
        .and_then(|builder| builder.with_single_cert(chain, key));
    let mut config = config.map_err(|error| wrong(&files.certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded { config: Arc::new(config), fingerprint: fingerprint.join(":"), life })
}

fn make(files: &TlsFiles, names: Vec<String>, year: i32) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(Status::State, format!("Cannot make a certificate for the API: {why}"))
    };
    let mut wanted = rcgen::CertificateParams::new(names).map_err(|error| failed(&error))?;
    wanted.distinguished_name.push(rcgen::DnType::CommonName, "Ringway");
    wanted.not_before = rcgen::date_time_ymd(year, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(year + YEARS, 12, 31);
    let key = rcgen::KeyPair::generate().map_err(|error| failed(&error))?;
    let certificate = wanted.self_signed(&key).map_err(|error| failed(&error))?;
    let place = |path: &Path, text: &str| -> io::Result<()> {
        let aside = keys::aside(path);
        keys::write_aside(&aside, text.as_bytes())?;
        fs::rename(&aside, path)?;
        keys::sync_folder(path)
    };
    let key_text = zeroize::Zeroizing::new(key.serialize_pem());
    // The key first: a certificate is only looked for where its key is.
    place(&files.key, &key_text)
        .and_then(|()| place(&files.certificate, &certificate.pem()))
        .map_err(|error| Failure::file("write the certificate", &files.certificate, &error))
}
