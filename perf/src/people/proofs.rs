//! What people prove themselves with, made by the usual tools: an authority and client certificates
//! by `openssl`, access tokens of an issuer, one-time passwords by `oathtool`.
//!
//! The gateway gets the public halves in its state folder. This module must not know what is done
//! with any of it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use crate::api::{Api, Wire};
use crate::process::Launch;

/// Where the API listens for HTTPS.
pub(super) const HTTPS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 91, 1, 1), 8_443);

/// The sections of the configuration that these proofs need.
pub(super) const CONFIG: &str = "\
[api]\nlisten = [\"10.91.1.1:8443\"]\ncertificate_file = \"api.pem\"\nkey_file = \"api.key\"\n\
[sign_in]\ncertificate_authorities = \"ca.pem\"\nrevocation_lists = [\"ca.crl\"]\n\
[[issuer]]\nname = \"id\"\nissuer = \"https://id.example.org\"\naudience = \"ringway\"\n\
algorithms = [\"EdDSA\"]\nkeys = \"keys.json\"\nuser_claim = \"sub\"\n";

/// What `openssl ca` reads.
const AUTHORITY: &str = "\
[ca]\ndefault_ca = own\n[own]\ndir = .\ndatabase = index.txt\ncertificate = ca.pem\n\
private_key = ca.key\nserial = serial\nnew_certs_dir = .\ndefault_md = sha256\n\
default_days = 30\ndefault_crl_days = 30\ncrlnumber = crlnumber\npolicy = any\nunique_subject = no\n\
[any]\ncommonName = supplied\n\
[client]\nextendedKeyUsage = clientAuth\nbasicConstraints = CA:FALSE\n\
[server]\nextendedKeyUsage = serverAuth\nsubjectAltName = DNS:localhost\n";

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// A folder with an authority, an issuer, and what they made.
pub(super) struct Proofs {
    folder: PathBuf,
}

impl Proofs {
    /// Makes the authority, the certificate of the API and the issuer's key in `folder`.
    pub(super) fn make(folder: &Path) -> Result<Self> {
        let proofs = Self { folder: folder.to_owned() };
        fs::write(folder.join("ca.cnf"), AUTHORITY)?;
        fs::write(folder.join("index.txt"), "")?;
        fs::write(folder.join("serial"), "1000\n")?;
        fs::write(folder.join("crlnumber"), "01\n")?;
        let authority = ["req", "-x509", "-days", "30", "-keyout", "ca.key", "-out", "ca.pem"];
        let subject =
            ["-subj", "/CN=Measured CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign"];
        proofs.openssl(&[&authority, &KEY, &subject])?;
        proofs.certify("api", "localhost", "server")?;
        proofs.openssl(&[&["ca", "-config", "ca.cnf", "-gencrl", "-out", "ca.crl"]])?;
        proofs.openssl(&[&["genpkey", "-algorithm", "ed25519", "-out", "issuer.key"]])?;
        let public =
            ["pkey", "-in", "issuer.key", "-pubout", "-outform", "DER", "-out", "issuer.der"];
        proofs.openssl(&[&public])?;
        let der = fs::read(folder.join("issuer.der"))?;
        let key = der.last_chunk::<32>().context("openssl made no Ed25519 key")?;
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "one", "alg": "EdDSA",
            "x": URL_SAFE_NO_PAD.encode(key) });
        fs::write(folder.join("keys.json"), json!({ "keys": [key] }).to_string())?;
        Ok(proofs)
    }

    /// Makes a client certificate for `user`.
    pub(super) fn certificate(&self, user: &str) -> Result<()> {
        self.certify(user, user, "client")
    }

    /// An access token for `user` that lasts an hour.
    pub(super) fn token(&self, user: &str) -> Result<String> {
        let now = SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
        let header = json!({ "alg": "EdDSA", "kid": "one", "typ": "JWT" });
        let claims = json!({ "iss": "https://id.example.org", "aud": "ringway", "sub": user,
            "iat": now, "exp": now + 3_600 });
        let part = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        fs::write(self.folder.join("token.txt"), &text)?;
        let sign = ["pkeyutl", "-sign", "-rawin", "-inkey", "issuer.key", "-in", "token.txt"];
        self.openssl(&[&sign, &["-out", "token.sig"]])?;
        let signature = fs::read(self.folder.join("token.sig"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What TLS needs to present the certificate of `user`.
    pub(super) fn tls(&self, user: &str) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.folder.join("ca.pem"))?)?;
        let own = CertificateDer::from_pem_file(self.folder.join(format!("{user}.pem")))?;
        let key = PrivateKeyDer::from_pem_file(self.folder.join(format!("{user}.key")))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own], key)?;
        // Every sign-in is that of another device, which has no ticket.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn certify(&self, file: &str, name: &str, purpose: &str) -> Result<()> {
        let (key, out) = (format!("{file}.key"), format!("{file}.pem"));
        let (request, subject) = (format!("{file}.csr"), format!("/CN={name}"));
        let ask = ["req", "-new", "-keyout", &key, "-out", &request, "-subj", &subject];
        self.openssl(&[&ask, &KEY])?;
        let sign = ["ca", "-batch", "-notext", "-config", "ca.cnf", "-extensions", purpose];
        self.openssl(&[&sign, &["-in", &request, "-out", &out]])
    }

    fn openssl(&self, arguments: &[&[&str]]) -> Result<()> {
        let line = r#"cd "$1" && shift && exec openssl "$@""#;
        let launch = Launch::new("sh").args(["-c", line, "sh"]).arg(&self.folder);
        launch.args(arguments.concat()).run()?;
        Ok(())
    }
}

/// The one-time password of `secret` (base32) at a step of 30 s.
pub(super) fn one_time(secret: &str, step: u64) -> Result<String> {
    let at = format!("@{}", step * 30);
    let code = Launch::new("oathtool").args(["--totp", "-b", "--now", &at, secret]).run();
    Ok(code.context("oathtool: tools/setup test installs it")?.trim().to_owned())
}

/// The step of this moment.
pub(super) fn step_now() -> Result<u64> {
    Ok(SystemTime::UNIX_EPOCH.elapsed()?.as_secs() / 30)
}

/// The API over HTTPS, asked from this address in a namespace, over a connection of its own.
pub(super) fn https(netns: &str, from: Ipv4Addr, tls: Arc<ClientConfig>) -> Api {
    let netns = PathBuf::from(format!("/run/netns/{netns}"));
    Api::by(move || {
        let stream = dial(&netns, from)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&tls), name).map_err(std::io::Error::other)?;
        Ok(Box::new(StreamOwned::new(tls, stream)) as Box<dyn Wire>)
    })
}

/// On a thread that enters the namespace and ends.
fn dial(netns: &Path, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let netns = fs::File::open(netns)?;
    let dialled = std::thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(stream.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
        connect(stream.as_raw_fd(), &SockaddrIn::from(HTTPS))?;
        Ok(TcpStream::from(stream))
    });
    dialled.join().map_err(|_| std::io::Error::other(anyhow!("The dialling thread panicked")))?
}
