//! Certificate and key of the HTTPS door.
//!
//! Files of the operator, read again when they change (a certificate is renewed while the gateway
//! runs), or a self-made certificate whose fingerprint the operator compares. TLS 1.2 and 1.3,
//! HTTP/1.1 only. New files that cannot be used are said once, and the old ones stay in use; while
//! there were none yet that can be used, nobody gets in by this door.

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
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::certificate::{self, About};
use super::holders::{Clients, HoldsKey};
use crate::api::doors::{Closed, Fault};
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

#[derive(Default)]
struct InUse {
    /// None until there were files that can be used.
    loaded: Option<Loaded>,
    /// What the files looked like when they were read, whether or not they could be used.
    seen: Option<Seen>,
}

/// What was read, ready for use.
struct Loaded {
    config: Arc<ServerConfig>,
    fingerprint: String,
    about: About,
}

/// Inode, size and time of change of both files.
type Seen = [(u64, u64, i64, i64); 2];

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({})", self.files.certificate.display())
    }
}

impl Tls {
    /// Certificate and key in these files. Nothing is read yet.
    #[must_use]
    pub fn at(files: TlsFiles, clients: Clients) -> Self {
        Self { files, clients, in_use: Mutex::default() }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// Files that cannot be read, or do not belong together.
    pub fn load(files: TlsFiles, clients: Clients) -> Result<Self, Failure> {
        let tls = Self::at(files, clients);
        tls.reload().map_err(|closed| {
            let is_file = closed.fault == Fault::CertificateUnreadable;
            let status = if is_file { Status::State } else { Status::Config };
            Failure::new(status, closed.why)
        })?;
        Ok(tls)
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

    /// SHA-256 of the certificate, as browsers show it; none while there is none.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        self.lock().loaded.as_ref().map(|loaded| loaded.fingerprint.clone())
    }

    /// When the certificate ends; none while there is none.
    #[must_use]
    pub fn expiry(&self, now: Timestamp) -> Option<Expiry> {
        let name = self.files.certificate.display().to_string();
        let life = self.lock().loaded.as_ref()?.about.life;
        Some(Expiry::of(Kind::Api, name, life, now))
    }

    /// What clients will not take about the certificate, each with what to do.
    #[must_use]
    pub fn remarks(&self, now: Timestamp) -> Vec<String> {
        let about = self.lock().loaded.as_ref().map(|loaded| loaded.about.clone());
        about.map(|about| about.remarks(&self.files, now)).unwrap_or_default()
    }

    /// For the next connection; none while there is no certificate.
    #[must_use]
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        let in_use = self.lock();
        in_use.loaded.as_ref().map(|loaded| TlsAcceptor::from(Arc::clone(&loaded.config)))
    }

    /// Reads the files again if they look different, or could not be used so far; true if they are
    /// in use now and were not before.
    ///
    /// # Errors
    /// Files that cannot be used. Old ones stay in use, and then the error comes once.
    pub fn reload(&self) -> Result<bool, Closed> {
        let seen = look(&self.files)?;
        {
            let in_use = self.lock();
            if in_use.loaded.is_some() && in_use.seen == Some(seen) {
                return Ok(false);
            }
        }
        let read = read(&self.files, self.clients);
        let mut in_use = self.lock();
        in_use.seen = Some(seen);
        in_use.loaded = Some(read?);
        Ok(true)
    }

    /// As [`Self::reload`] while there is no certificate, and nothing otherwise; what clients will
    /// not take is said.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn ensure(self: &Arc<Self>) -> Result<(), Closed> {
        if self.lock().loaded.is_some() {
            return Ok(());
        }
        let tls = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || tls.reload()).await;
        let read = read.unwrap_or_else(|failure| {
            Err(certificate::unusable(&self.files.certificate, &failure.to_string()))
        });
        if read? {
            self.say();
        }
        Ok(())
    }

    fn say(&self) {
        let now = Timestamp(jiff::Timestamp::now().as_millisecond());
        for remark in self.remarks(now) {
            tracing::warn!("Clients may not take the certificate of the API: {remark}");
        }
    }

    /// Looks at the files from time to time, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut said = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.lock().loaded.is_none() {
                // Whoever opens the door looks for the first one.
                continue;
            }
            let tls = Arc::clone(&self);
            let done = tokio::task::spawn_blocking(move || tls.reload()).await;
            match done {
                Ok(Ok(true)) => {
                    let fingerprint = self.fingerprint();
                    tracing::info!(fingerprint, "The API uses the new certificate");
                    self.say();
                    said = None;
                }
                Ok(Ok(false)) | Err(_) => (),
                Ok(Err(closed)) => {
                    // A file that is missing for long would be said every time.
                    if said.as_ref() != Some(&closed) {
                        let Closed { fault, why } = &closed;
                        let reason = fault.code();
                        tracing::warn!(reason, "The API keeps its old certificate: {why}");
                        said = Some(closed);
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

fn look(files: &TlsFiles) -> Result<Seen, Closed> {
    let look = |path: &Path| {
        let about = fs::metadata(path).map_err(|error| certificate::unreadable(path, &error))?;
        if about.len() > FILE_BYTES_MAX {
            return Err(certificate::unusable(path, "it is too large for a certificate or key"));
        }
        Ok((about.ino(), about.len(), about.mtime(), about.mtime_nsec()))
    };
    Ok([look(&files.certificate)?, look(&files.key)?])
}

fn read(files: &TlsFiles, clients: Clients) -> Result<Loaded, Closed> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| certificate::no_certificate(&files.certificate, Some(&error)))?;
    let Some(first) = chain.first() else {
        return Err(certificate::no_certificate(&files.certificate, None));
    };
    let fingerprint = Sha256::digest(first);
    let fingerprint: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    let (_, parsed) = X509Certificate::from_der(first)
        .map_err(|error| certificate::unusable(&files.certificate, &error.to_string()))?;
    let about = About::of(&parsed);
    let text = fs::read(&files.key).map_err(|error| certificate::unreadable(&files.key, &error))?;
    let text = Zeroizing::new(text);
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| certificate::no_key(&files.key, &text, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map(|builder| match clients {
            Clients::NotAsked => builder.with_no_client_auth(),
            Clients::Asked => builder.with_client_cert_verifier(Arc::new(HoldsKey(provider))),
        })
        .and_then(|builder| builder.with_single_cert(chain, key));
    let mut config = config.map_err(|error| certificate::unfit(files, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded { config: Arc::new(config), fingerprint: fingerprint.join(":"), about })
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
    let key_text = Zeroizing::new(key.serialize_pem());
    // The key first: a certificate is only looked for where its key is.
    place(&files.key, &key_text)
        .and_then(|()| place(&files.certificate, &certificate.pem()))
        .map_err(|error| Failure::file("write the certificate", &files.certificate, &error))
}
