//! TLS to a PostgreSQL server: what the address of the store says of it, and a connector that does
//! it.
//!
//! The words are those of libpq. Where it would encrypt without looking whom it speaks to, we look
//! all the same: a certificate that nobody checks protects from nobody who stands in between. Files
//! are read at every connection, so that they may be replaced while the gateway runs. This module
//! must not know records or statements.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Encrypted;

use super::error::StoreError;

/// How a server is recognised, and how we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Authorities that may have signed its certificate; none means those of this host.
    authorities: Option<PathBuf>,
    /// Our certificate and its key, if the server asks for one.
    identity: Option<(PathBuf, PathBuf)>,
}

/// Takes what it says of TLS out of an address. What is left says whether TLS is to be used at all.
///
/// # Errors
/// [`StoreError::Invalid`]: words that contradict each other, or are not known.
pub(crate) fn take_parameters(text: &str) -> Result<(String, Option<Tls>), StoreError> {
    // A password may have a question mark in it.
    let after_user = text.find('@').unwrap_or(0);
    let Some(query) = text[after_user..].find('?').map(|at| after_user + at) else {
        return Ok((text.to_owned(), None));
    };
    let (mut mode, mut tls, mut rest) = (None, Tls::default(), Vec::new());
    let (mut certificate, mut key) = (None, None);
    for parameter in text[query + 1..].split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            "sslmode" => mode = Some(value),
            "sslrootcert" if value == "system" => tls.authorities = None,
            "sslrootcert" => tls.authorities = Some(file(name, value)?),
            "sslcert" => certificate = Some(file(name, value)?),
            "sslkey" => key = Some(file(name, value)?),
            _ => rest.push(parameter.to_owned()),
        }
    }
    tls.identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(StoreError::invalid("sslcert and sslkey go together: name both or none"));
        }
    };
    let wanted = match mode {
        None | Some("disable" | "prefer") => false,
        Some("require" | "verify-ca" | "verify-full") => true,
        Some(_) => {
            return Err(StoreError::invalid(
                "sslmode is \"verify-full\" (which \"require\" and \"verify-ca\" mean, too) or \
                 \"disable\"",
            ));
        }
    };
    if !wanted && tls != Tls::default() {
        return Err(StoreError::invalid(
            "sslrootcert, sslcert and sslkey are of no use without sslmode=verify-full",
        ));
    }
    rest.push(format!("sslmode={}", if wanted { "require" } else { "disable" }));
    let text = format!("{}?{}", &text[..query], rest.join("&"));
    Ok((text, wanted.then_some(tls)))
}

/// A path in an address; `%20` and its like stand for letters.
fn file(name: &str, value: &str) -> Result<PathBuf, StoreError> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::with_capacity(value.len());
    let mut letters = value.bytes();
    while let Some(letter) = letters.next() {
        let digit = |letter: Option<u8>| char::from(letter?).to_digit(16);
        match letter {
            b'%' => match (digit(letters.next()), digit(letters.next())) {
                (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
                (_, _) => bytes.clear(),
            },
            other => bytes.push(other),
        }
    }
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes));
    if path.is_absolute() {
        return Ok(path);
    }
    Err(StoreError::Invalid { why: format!("the file of {name} is named from / on") })
}

impl Tls {
    /// Reads the files and makes what connects.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: which file cannot be used and why.
    pub(crate) fn connector(&self) -> Result<Connector, StoreError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| StoreError::Unavailable { why: error.to_string() })?
            .with_root_certificates(self.roots()?);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| wrong(key, &why))?;
                let with = builder.with_client_auth_cert(chain, secret);
                with.map_err(|why| wrong(certificate, &why))?
            }
        };
        Ok(Connector(Arc::new(config)))
    }

    fn roots(&self) -> Result<RootCertStore, StoreError> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.authorities else {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let why = "this host knows no authorities: install ca-certificates, or name those \
                           of the store with sslrootcert";
                return Err(StoreError::Unavailable { why: why.to_owned() });
            }
            return Ok(roots);
        };
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|why| wrong(path, &why))?;
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all: Vec<_> = read.map_err(|why| wrong(path, &why))?;
    if all.is_empty() {
        return Err(wrong(path, &"there is no certificate in it"));
    }
    Ok(all)
}

fn wrong(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable { why: format!("{} cannot be used: {why}", path.display()) }
}

/// Makes a connection of TLS for each server that is tried.
#[derive(Clone)]
pub(crate) struct Connector(Arc<ClientConfig>);

/// Makes one, with the server of this name.
pub(crate) struct ToServer {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// A connection on which all is encrypted.
pub(crate) struct Stream<S>(Encrypted<S>);

type Connecting<S> = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Stream<S>;
    type TlsConnect = ToServer;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<ToServer, InvalidDnsNameError> {
        let name = ServerName::try_from(domain)?.to_owned();
        Ok(ToServer { config: Arc::clone(&self.0), name })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for ToServer {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Connecting<S>;

    fn connect(self, stream: S) -> Connecting<S> {
        let connecting = TlsConnector::from(self.config).connect(self.name, stream);
        Box::pin(async move { Ok(Stream(connecting.await?)) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    /// Not bound: the certificate was checked, name and all.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_says_of_tls_is_taken_out_of_it() {
        let plain = "postgresql://r:p?w@db/x";
        assert_eq!(take_parameters(plain).unwrap(), (plain.to_owned(), None));
        let (left, tls) = take_parameters(
            "postgresql://r@db/x?sslmode=verify-full&user=a&sslrootcert=/etc/our%20ca.pem",
        )
        .unwrap();
        assert_eq!(left, "postgresql://r@db/x?user=a&sslmode=require");
        let authorities = Some(PathBuf::from("/etc/our ca.pem"));
        assert_eq!(tls, Some(Tls { authorities, identity: None }));
        for like_it in ["require", "verify-ca", "verify-full&sslrootcert=system"] {
            let (_, tls) =
                take_parameters(&format!("postgresql://db/x?sslmode={like_it}")).unwrap();
            assert_eq!(tls, Some(Tls::default()), "{like_it}");
        }
        let (left, tls) = take_parameters("postgresql://db/x?sslmode=prefer").unwrap();
        assert_eq!((&*left, tls), ("postgresql://db/x?sslmode=disable", None));
    }

    #[test]
    fn words_that_contradict_each_other_or_are_unknown_are_refused() {
        for (wrong, said) in [
            ("sslmode=verify_full", "verify-full"),
            ("sslmode=", "verify-full"),
            ("sslrootcert=/etc/ca.pem", "of no use without sslmode"),
            ("sslmode=disable&sslcert=/a&sslkey=/b", "of no use without sslmode"),
            ("sslmode=require&sslcert=/a", "go together"),
            ("sslmode=require&sslkey=/a", "go together"),
            ("sslmode=require&sslrootcert=ca.pem", "from / on"),
            ("sslmode=require&sslrootcert=", "from / on"),
            ("sslmode=require&sslrootcert=/a%2", "from / on"),
        ] {
            let refused = take_parameters(&format!("postgresql://db/x?{wrong}")).unwrap_err();
            assert!(refused.to_string().contains(said), "{wrong}: {refused}");
        }
    }
}
