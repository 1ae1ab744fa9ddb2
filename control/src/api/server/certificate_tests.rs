//! What is wrong with certificates, in the words of the gateway that reads them and of a client.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName};

use super::*;
use crate::api::server::holders::Clients;
use crate::api::server::tls::Tls;
use crate::scratch::Scratch;

const NOW: Timestamp = Timestamp(1_796_000_000_000);

/// A certificate for these names, from one year to another, of its own authority.
fn made(names: &[&str], years: (i32, i32), authority: bool) -> rcgen::Certificate {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut wanted = CertificateParams::new(names).unwrap();
    wanted.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    if authority {
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    wanted.self_signed(&KeyPair::generate().unwrap()).unwrap()
}

/// What a client says that trusts `trusted` and meets `met` at `host`.
fn met(trusted: &CertificateDer<'_>, met: &CertificateDer<'_>, host: &str) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier.build().unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(NOW.0 as u64));
    match verifier.verify_server_cert(met, &[], &name, &[], now) {
        Ok(_) => None,
        Err(rustls::Error::InvalidCertificate(error)) => Some(refused(&error, host)),
        Err(error) => panic!("{error:?}"),
    }
}

/// Words of libraries that tell an operator nothing.
const INSIDE: [&str; 5] = ["CaUsedAs", "UnknownIssuer", "NotValidFor", "Context", "DnsName"];

#[test]
fn a_client_says_what_is_wrong_with_a_certificate_and_what_to_do() {
    let good = made(&["localhost", "10.0.0.1"], (2026, 2030), false);
    assert_eq!(met(good.der(), good.der(), "localhost"), None);
    assert_eq!(met(good.der(), good.der(), "10.0.0.1"), None);
    let own = |names, years, authority, host: &str| {
        let one = made(names, years, authority);
        met(one.der(), one.der(), host).unwrap()
    };
    let years = (2026, 2030);
    let ca = own(&["localhost"], years, true, "localhost");
    let line = "-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost";
    for part in ["CA:TRUE", "openssl req -x509", line] {
        assert!(ca.contains(part), "lacks {part}: {ca}");
    }
    let ended = own(&["localhost"], (2020, 2021), false, "localhost");
    assert!(ended.contains("ended at 2021-01-01") && ended.contains("renew"), "{ended}");
    let early = own(&["localhost"], (2029, 2030), false, "localhost");
    assert!(early.contains("from 2029-01-01") && early.contains("clocks"), "{early}");
    let wrong = own(&["vpn.example.org", "10.0.0.1"], years, false, "localhost");
    assert!(wrong.contains("for vpn.example.org, 10.0.0.1 and not for localhost"), "{wrong}");
    let nameless = own(&[], years, false, "10.0.0.1");
    assert!(nameless.contains("names no host") && nameless.contains("IP:10.0.0.1"), "{nameless}");
    let other = made(&["localhost"], years, false);
    let unknown = met(good.der(), other.der(), "localhost").unwrap();
    assert!(unknown.contains("--ca"), "{unknown}");
    for said in [ca, ended, early, wrong, nameless, unknown] {
        assert!(!INSIDE.iter().any(|word| said.contains(word)), "{said}");
    }
}

/// Files in a folder, and what reading them comes to.
struct Pair {
    _folder: Scratch,
    files: TlsFiles,
}

impl Pair {
    fn new(name: &str) -> Self {
        let folder = Scratch::new(&format!("pair_{name}"));
        let files =
            TlsFiles { certificate: folder.path().join("c.pem"), key: folder.path().join("k.pem") };
        Self { _folder: folder, files }
    }

    /// Makes both by `openssl` with these arguments more.
    fn openssl(&self, kind: &str, more: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", kind, "-nodes", "-subj", "/CN=x", "-days", "30"]);
        if kind == "ec" {
            command.args(["-pkeyopt", "ec_paramgen_curve:P-256"]);
        }
        command
            .args(more)
            .arg("-keyout")
            .arg(&self.files.key)
            .arg("-out")
            .arg(&self.files.certificate);
        let made = command.output().expect("openssl is missing: run tools/setup test");
        assert!(made.status.success(), "{made:?}");
    }

    #[track_caller]
    fn refused(&self) -> (Fault, String) {
        let closed = Tls::at(self.files.clone(), Clients::NotAsked).reload().unwrap_err();
        (closed.fault, closed.why)
    }

    fn place(&self, what: &Path, text: &[u8]) {
        fs::write(what, text).unwrap();
    }
}

const SOUND: [&str; 4] =
    ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"];

#[test]
fn what_openssl_makes_unasked_can_be_used_and_it_is_said_that_clients_refuse_it() {
    let pair = Pair::new("unasked");
    pair.openssl("rsa:2048", &[]);
    let tls = Tls::load(pair.files.clone(), Clients::NotAsked).unwrap();
    let now = tls.expiry(NOW).unwrap().ends.plus_ms(-1_000);
    let remarks = tls.remarks(now);
    assert_eq!(remarks.len(), 2, "{remarks:?}");
    let file = pair.files.certificate.display().to_string();
    let line = "-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:HOST";
    for (remark, part) in remarks.iter().zip(["CA:TRUE", "names no host"]) {
        assert!(remark.starts_with(&file) && remark.contains(part), "{remark}");
        assert!(remark.contains(line), "{remark}");
    }
    // What is done as said is well.
    pair.openssl("ec", &SOUND);
    let tls = Tls::load(pair.files.clone(), Clients::NotAsked).unwrap();
    let ends = tls.expiry(NOW).unwrap().ends;
    assert!(tls.remarks(ends.plus_ms(-1_000)).is_empty());
    assert!(tls.remarks(ends.plus_ms(1_000))[0].contains("has ended"));
    assert!(tls.remarks(Timestamp(0))[0].contains("clock"));
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason_and_what_to_do() {
    let (pair, other) = (Pair::new("wrong"), Pair::new("other"));
    let (certificate, key) = (pair.files.certificate.clone(), pair.files.key.clone());
    let (fault, why) = pair.refused();
    assert_eq!(fault, Fault::CertificateUnreadable);
    assert!(why.starts_with(&certificate.display().to_string()), "{why}");
    other.openssl("ec", &SOUND);
    pair.openssl("ec", &SOUND);
    let own = fs::read(&key).unwrap();
    pair.place(&key, &fs::read(&other.files.key).unwrap());
    let (fault, why) = pair.refused();
    assert_eq!(fault, Fault::CertificateUnusable);
    for part in [&*key.display().to_string(), "does not belong to", "openssl pkey -in", "-pubkey"] {
        assert!(why.contains(part), "lacks {part}: {why}");
    }
    let locked = Command::new("openssl")
        .args(["pkey", "-aes256", "-passout", "pass:secret", "-in"])
        .arg(&other.files.key)
        .output()
        .unwrap();
    let der = Command::new("openssl")
        .args(["pkey", "-outform", "DER", "-in"])
        .arg(&other.files.key)
        .output()
        .unwrap();
    let curve = Command::new("openssl").args(["genpkey", "-algorithm", "ED448"]).output().unwrap();
    for (text, part) in [
        (locked.stdout.as_slice(), "passphrase"),
        (&der.stdout, "PEM form"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "SSH"),
        (&fs::read(&certificate).unwrap(), "a certificate and no key"),
        (b"", "PEM form"),
        (&curve.stdout, "its kind is not taken"),
    ] {
        pair.place(&key, text);
        let (fault, why) = pair.refused();
        assert_eq!(fault, Fault::CertificateUnusable, "{part}");
        assert!(why.starts_with(&key.display().to_string()) && why.contains(part), "{part}: {why}");
        let repeated = text.split(|byte| *byte == b'\n').filter(|line| line.len() > 30);
        for line in repeated.filter_map(|line| std::str::from_utf8(line).ok()) {
            assert!(!why.contains(line), "a line of the key is shown: {why}");
        }
    }
    pair.place(&key, &own);
    let der = Command::new("openssl")
        .args(["x509", "-outform", "DER", "-in"])
        .arg(&certificate)
        .output()
        .unwrap();
    for text in [der.stdout.as_slice(), b"", b"-----BEGIN CERTIFICATE-----\nMIIB"] {
        pair.place(&certificate, text);
        let (fault, why) = pair.refused();
        assert_eq!(fault, Fault::CertificateUnusable);
        assert!(why.contains("openssl x509 -inform der -in"), "{why}");
    }
}
