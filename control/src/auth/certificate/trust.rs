//! Whom certificates are believed: authorities and revocation lists, read from files and read again
//! when they change.
//!
//! A file that cannot be read or is damaged leaves what was in force in force, and says so: half a
//! revocation list must neither open the door nor shut it for all. The files are the operator's; a
//! list is believed for its issuer's name, and its signature is checked each time a chain is. This
//! module must not know clients.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList, anchor_from_trusted_cert};
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer as _, X509Certificate};

use crate::store::records::Timestamp;

/// Bytes of a file: lists with half a million entries.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Authorities, and lists.
const COUNT_MAX: usize = 256;

/// What is believed.
#[derive(Debug, Default)]
pub(super) struct Trust {
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    pub(super) lists: Vec<CertRevocationList<'static>>,
    /// When each began and when it ends.
    pub(super) lives: Vec<(Kind, String, (Timestamp, Timestamp))>,
    seen: Vec<Mark>,
}

/// What may expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An authority's certificate.
    Authority,
    /// A revocation list: its next update is due then.
    RevocationList,
    /// The certificate of our own HTTPS door.
    Api,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Authority, Self::RevocationList, Self::Api];

    /// The word in metrics and events.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::RevocationList => "revocation_list",
            Self::Api => "api",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Authority => "authority of client certificates",
            Self::RevocationList => "list of revoked certificates of",
            Self::Api => "certificate of the API in",
        }
    }
}

/// How a file looked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    len: u64,
    modified: Option<SystemTime>,
}

impl Trust {
    /// Reads the files.
    pub(super) fn read(authorities: &Path, lists: &[PathBuf]) -> Result<Self, String> {
        let mut trust = Self { seen: look(authorities, lists), ..Self::default() };
        let within = |path: &Path, why: &str| format!("{}: {why}", path.display());
        let bytes = read(authorities)?;
        for der in CertificateDer::pem_slice_iter(&bytes) {
            let der = der.map_err(|error| within(authorities, &error.to_string()))?;
            trust.add_authority(&der).map_err(|why| within(authorities, &why))?;
        }
        if trust.anchors.is_empty() {
            return Err(within(
                authorities,
                "no certificate in it: it must be a PEM file of authorities",
            ));
        }
        for path in lists {
            let bytes = read(path)?;
            let is_pem = bytes.windows(10).any(|window| window == b"-----BEGIN");
            let ders: Vec<CertificateRevocationListDer<'_>> = if is_pem {
                let read = CertificateRevocationListDer::pem_slice_iter(&bytes);
                read.collect::<Result<_, _>>().map_err(|error| within(path, &error.to_string()))?
            } else {
                vec![CertificateRevocationListDer::from(bytes.as_slice())]
            };
            if ders.is_empty() {
                return Err(within(path, "no revocation list in it"));
            }
            for der in ders {
                trust.add_list(&der).map_err(|why| within(path, &why))?;
            }
        }
        if trust.anchors.len() > COUNT_MAX || trust.lists.len() > COUNT_MAX {
            return Err(format!("more than {COUNT_MAX} authorities or revocation lists"));
        }
        Ok(trust)
    }

    /// Whether the files look different from when they were read.
    pub(super) fn is_outdated(&self, authorities: &Path, lists: &[PathBuf]) -> bool {
        look(authorities, lists) != self.seen
    }

    fn add_authority(&mut self, der: &CertificateDer<'_>) -> Result<(), String> {
        let anchor = anchor_from_trusted_cert(der).map_err(|error| error.to_string())?;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let validity = parsed.validity();
        let life = (moment(&validity.not_before), moment(&validity.not_after));
        self.lives.push((Kind::Authority, parsed.subject().to_string(), life));
        self.anchors.push(anchor.to_owned());
        Ok(())
    }

    fn add_list(&mut self, der: &CertificateRevocationListDer<'_>) -> Result<(), String> {
        let list = OwnedCertRevocationList::from_der(der).map_err(|error| error.to_string())?;
        let (_, parsed) =
            CertificateRevocationList::from_der(der).map_err(|error| error.to_string())?;
        let next = parsed.next_update().ok_or("the list does not say when the next one comes")?;
        let life = (moment(&parsed.last_update()), moment(&next));
        self.lives.push((Kind::RevocationList, parsed.issuer().to_string(), life));
        self.lists.push(CertRevocationList::Owned(list));
        Ok(())
    }
}

fn moment(time: &ASN1Time) -> Timestamp {
    Timestamp(time.timestamp().saturating_mul(1000))
}

fn look(authorities: &Path, lists: &[PathBuf]) -> Vec<Mark> {
    let paths = std::iter::once(authorities).chain(lists.iter().map(PathBuf::as_path));
    let mark = |path: &Path| {
        let meta = std::fs::metadata(path).ok();
        Mark {
            len: meta.as_ref().map_or(0, std::fs::Metadata::len),
            modified: meta.and_then(|meta| meta.modified().ok()),
        }
    };
    paths.map(mark).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{} is no regular file", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{} has more than {FILE_BYTES_MAX} bytes", path.display()));
    }
    Ok(bytes)
}
