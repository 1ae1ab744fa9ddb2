//! What is wrong with the certificate of the API, in words: which file, why, and what to do.
//!
//! The gateway reads the certificate, and the command line meets it as a client; both say the same
//! about the same mistake. What clients would refuse and the gateway can use is a remark: a browser
//! whose user has agreed, or a program that looks less closely, may get on with it. This module
//! must not know connections.

use std::path::Path;

use rustls::CertificateError;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem;
use x509_parser::prelude::{ASN1Time, GeneralName, X509Certificate};

use super::tls::TlsFiles;
use crate::api::doors::{Closed, Fault};
use crate::store::ids::Timestamp;

/// Formats of keys that are read.
const KEYS: &str = "it has no private key in PEM form (PKCS#8, or RSA or EC of its own kind)";

/// The command that makes a certificate which clients take, for its own authority.
pub(crate) fn command(host: &str, certificate: &str, key: &str) -> String {
    let kind = if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj \
         /CN={host} -addext basicConstraints=critical,CA:FALSE -addext \
         subjectAltName={kind}:{host} -keyout {key} -out {certificate}"
    )
}

/// What there is to say about a certificate that can be used.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// From when to when it is good.
    pub(super) life: (Timestamp, Timestamp),
    is_authority: bool,
    names_nobody: bool,
}

impl About {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let moment = |time: ASN1Time| Timestamp(time.timestamp().saturating_mul(1000));
        let validity = certificate.validity();
        // What does not read is the clients' business too.
        let constraints = certificate.basic_constraints().ok().flatten();
        let names = certificate.subject_alternative_name().ok().flatten();
        let is_name = |name: &GeneralName<'_>| {
            matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))
        };
        Self {
            life: (moment(validity.not_before), moment(validity.not_after)),
            is_authority: constraints.is_some_and(|constraints| constraints.value.ca),
            names_nobody: !names.is_some_and(|names| names.value.general_names.iter().any(is_name)),
        }
    }

    /// What clients will not take about it, each with what to do.
    pub(super) fn remarks(&self, files: &TlsFiles, now: Timestamp) -> Vec<String> {
        let (file, key) = (files.certificate.display(), files.key.display());
        let command = command("HOST", &file.to_string(), &key.to_string());
        let (begins, ends) = self.life;
        let mut remarks = Vec::new();
        if self.is_authority {
            remarks.push(format!(
                "{file} is the certificate of an authority (CA:TRUE), as \"openssl req -x509\" \
                 makes it unasked, and strict clients such as \"ringway --api\" do not take it \
                 from a server: make another one with \"{command}\" (IP:ADDRESS for an address)"
            ));
        }
        if self.names_nobody {
            remarks.push(format!(
                "{file} names no host (subjectAltName), so clients cannot tell that it is this \
                 one's: make another one with \"{command}\" (IP:ADDRESS for an address)"
            ));
        }
        if now < begins {
            remarks.push(format!(
                "{file} is good from {begins} on, and now it is {now}: see whether the clock of \
                 this host is right; until then clients refuse it"
            ));
        }
        if ends < now {
            remarks.push(format!(
                "{file} has ended at {ends}, so clients refuse it: put a new one in its place, \
                 which is read by itself"
            ));
        }
        remarks
    }
}

/// A file that is not there, or cannot be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Closed {
    let why = format!(
        "{} cannot be read ({error}): put it there, readable for the gateway; until then HTTPS is \
         not served, and nothing instead of it",
        path.display()
    );
    Closed { fault: Fault::CertificateUnreadable, why }
}

/// A file that was read and cannot be used.
pub(super) fn unusable(path: &Path, why: &str) -> Closed {
    let why = format!("{} cannot be used: {why}", path.display());
    Closed { fault: Fault::CertificateUnusable, why }
}

/// Why there is no certificate in a file.
pub(super) fn no_certificate(path: &Path, error: Option<&pem::Error>) -> Closed {
    if let Some(pem::Error::Io(error)) = error {
        return unreadable(path, error);
    }
    let broken = error.filter(|error| !matches!(error, pem::Error::NoItemsFound));
    let detail = broken.map_or_else(String::new, |error| format!(" ({error})"));
    let why = format!(
        "it has no whole certificate in PEM form{detail}; one in DER form is rewritten with \
         \"openssl x509 -inform der -in {} -out NEW\"",
        path.display()
    );
    unusable(path, &why)
}

/// Why there is no key in a file. Nothing of the file is repeated: it may be a key after all.
pub(super) fn no_key(path: &Path, text: &[u8], error: &pem::Error) -> Closed {
    if let pem::Error::Io(error) = error {
        return unreadable(path, error);
    }
    let has = |what: &[u8]| text.windows(what.len()).any(|part| part == what);
    let rewrite = format!("\"openssl pkey -in {} -out NEW\"", path.display());
    let why = if has(b"ENCRYPTED") {
        format!("it is locked with a passphrase, which nobody types here; {rewrite} unlocks it")
    } else if has(b"BEGIN OPENSSH PRIVATE KEY") {
        "it is a key of SSH; make one with the certificate, by openssl".to_owned()
    } else if has(b"BEGIN CERTIFICATE") {
        "it has a certificate and no key; name the file with the key as key_file".to_owned()
    } else {
        format!("{KEYS}; {rewrite} rewrites one of another form")
    };
    unusable(path, &why)
}

/// Why certificate and key are not used together.
pub(super) fn unfit(files: &TlsFiles, error: &rustls::Error) -> Closed {
    let (certificate, key) = (files.certificate.display(), files.key.display());
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else there is, is a library's")]
    match error {
        rustls::Error::InconsistentKeys(_) => {
            let why = format!(
                "it does not belong to {certificate}, whose key is another one; compare \"openssl \
                 pkey -in {key} -pubout\" and \"openssl x509 -in {certificate} -noout -pubkey\", \
                 and put the two that belong together in place"
            );
            unusable(&files.key, &why)
        }
        rustls::Error::General(_) => unusable(
            &files.key,
            "its kind is not taken; RSA from 2048 bits, the curves P-256, P-384 and P-521, and \
             Ed25519 are",
        ),
        other => unusable(&files.certificate, &format!("{other}; make another one")),
    }
}

/// Why a client does not take the certificate of `host`, and what to do.
pub(crate) fn refused(error: &CertificateError, host: &str) -> String {
    let command = command(host, "CERTIFICATE", "KEY");
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else there is, is a library's")]
    match error {
        CertificateError::Expired => "it has ended: renew it at the gateway".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "it has ended at {}, and here it is {}: renew it at the gateway (certificate_file of \
             [api]), which reads the new one by itself",
            moment(*not_after),
            moment(*time)
        ),
        CertificateError::NotValidYet => {
            "it is not valid yet: see whether the clocks of both hosts are right".to_owned()
        }
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "it is good from {} on, and here it is {}: see whether the clocks of both hosts are \
             right",
            moment(*not_before),
            moment(*time)
        ),
        CertificateError::NotValidForName => {
            format!("it is not for {host}: name the host with --api as the certificate does")
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!(
                "it names no host (subjectAltName): make one for {host} at the gateway with \
                 \"{command}\""
            )
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "it is for {} and not for {host}: name the host with --api as the certificate does, or \
             make one for {host} at the gateway",
            presented.iter().map(|name| shown(name)).collect::<Vec<&str>>().join(", ")
        ),
        CertificateError::UnknownIssuer => {
            "nobody that is trusted here has signed it: name the file of its authority with --ca, \
             or the certificate itself if it is its own"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "its signature is not that of the authority in --ca: name the right file".to_owned()
        }
        CertificateError::Other(other)
            if other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) =>
        {
            format!(
                "it is the certificate of an authority (CA:TRUE), as \"openssl req -x509\" makes \
                 it unasked, and none of a server: make another one at the gateway with \
                 \"{command}\", and name it with --ca"
            )
        }
        other => {
            let why = rustls::Error::InvalidCertificate(other.clone());
            format!("{why}: make another one at the gateway, with \"{command}\" for instance")
        }
    }
}

/// A name as people write it: the library gives `DnsName("host")`.
fn shown(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

fn moment(time: UnixTime) -> Timestamp {
    Timestamp(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000))
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
