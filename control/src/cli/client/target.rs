//! Where the API is, and with which credentials it is asked.
//!
//! Without a flag it is the Unix socket that the configuration names, where root and the gateway's
//! own user need no token. A token is read from `--token-file`, `--token` or `$RINGWAY_TOKEN`, in
//! this order; it is never sent over a network in the clear. Nothing here opens a connection.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use crate::cli::args::Where;
use crate::config::Overrides;
use crate::failure::{Failure, Status};
use crate::stats;

/// Longest token that is read from a file, in bytes; ours have a third of it.
const TOKEN_BYTES_MAX: u64 = 256;
/// Longest access token of somebody who signs in, in bytes; the API takes as much.
const PRESENTED_BYTES_MAX: u64 = 8192;
/// Longest file of certificates, in bytes: the roots of a whole system have a quarter of it.
const AUTHORITY_BYTES_MAX: u64 = 1 << 20;

/// Where the API is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Where the gateway is")]
pub(crate) struct ConnectArgs {
    /// Configuration file that names the socket [default: ringway.toml in the state folder]
    #[arg(long, short = 'c', value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// State folder [default: $STATE_DIRECTORY, else /var/lib/ringway]
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
    /// The gateway of this interface, whatever its configuration says
    #[arg(long, value_name = "IFNAME", global = true, value_parser = crate::cli::args::interface)]
    interface: Option<String>,
    /// Unix socket of the API
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// A gateway elsewhere, such as `https://vpn.example.org:8443`; needs a token
    #[arg(long, value_name = "URL", global = true)]
    api: Option<String>,
    /// API token; others on this host can see it: rather use --token-file or $RINGWAY_TOKEN
    #[arg(long, value_name = "TOKEN", global = true)]
    token: Option<String>,
    /// File with an API token
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Certificates (PEM) that the API's must come from [default: those of the system]
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
}

/// Where the API is, and with which credentials it is asked.
pub(crate) struct Target {
    /// The Unix socket; none for an address.
    pub(super) socket: Option<PathBuf>,
    /// `http://localhost` or `https://HOST`.
    pub(super) base: String,
    /// For people.
    pub(super) place: String,
    /// What stands for a user.
    pub(super) token: Option<Zeroizing<String>>,
    /// PEM.
    pub(super) authority: Option<Vec<u8>>,
    /// PEM of a client certificate and its key.
    pub(super) identity: Option<Zeroizing<Vec<u8>>>,
}

impl Target {
    /// The Unix socket at this path, for root and the gateway's own user.
    pub(in crate::cli) fn of_socket(path: &Path) -> Self {
        Self {
            socket: Some(path.to_owned()),
            base: "http://localhost".to_owned(),
            place: path.display().to_string(),
            token: None,
            authority: None,
            identity: None,
        }
    }

    /// Whether nothing leaves this host.
    pub(super) fn is_local(&self) -> bool {
        self.socket.is_some() || self.base.starts_with("http://")
    }
}

impl ConnectArgs {
    /// Decides by flags and environment, and reads the files that they name.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        self.at_most_one()?;
        let token = self.token(env::var_os("RINGWAY_TOKEN"))?;
        if self.api.is_some() && token.is_none() {
            let message = "A gateway elsewhere wants a token: give --token-file, or set \
                           $RINGWAY_TOKEN (\"ringway token add\" makes one)";
            return Err(Failure::new(Status::Usage, message));
        }
        self.place(token)
    }

    /// As [`Self::target`], for somebody who signs in: without a token of the API, and with a
    /// client certificate and its key if there are files of them.
    pub(crate) fn target_for_sign_in(
        &self,
        identity: Option<(&PathBuf, &PathBuf)>,
    ) -> Result<Target, Failure> {
        let mut target = self.place(None)?;
        if let Some((certificate, key)) = identity {
            if !target.base.starts_with("https://") {
                let message = "--cert is about HTTPS: it needs --api https://HOST as well";
                return Err(Failure::new(Status::Usage, message));
            }
            let read = |file: &PathBuf| {
                let bytes = read_bounded(file, AUTHORITY_BYTES_MAX).map(Zeroizing::new);
                bytes.map_err(|error| Failure::file("read", file, &error))
            };
            let (key, certificate) = (read(key)?, read(certificate)?);
            target.identity = Some(Zeroizing::new([&key[..], b"\n", &certificate[..]].concat()));
        }
        Ok(target)
    }

    /// The access token (JWT) that somebody who signs in presents.
    pub(crate) fn presented_token(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        if self.token.is_some() {
            let message = "An access token is given with --token-file";
            return Err(Failure::new(Status::Usage, message));
        }
        let Some(file) = &self.token_file else { return Ok(None) };
        let bytes = read_bounded(file, PRESENTED_BYTES_MAX).map(Zeroizing::new);
        let bytes = bytes.map_err(|error| Failure::file("read the token in", file, &error))?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok(Some(Zeroizing::new(text)))
    }

    fn place(&self, token: Option<Zeroizing<String>>) -> Result<Target, Failure> {
        self.at_most_one()?;
        let read = |file: &PathBuf| {
            let text = read_bounded(file, AUTHORITY_BYTES_MAX);
            text.map_err(|error| Failure::file("read the certificates", file, &error))
        };
        let authority = self.ca.as_ref().map(read).transpose()?;
        if let Some(url) = &self.api {
            let base = address(url)?;
            let (socket, place, identity) = (None, base.clone(), None);
            return Ok(Target { socket, base, place, token, authority, identity });
        }
        if authority.is_some() {
            let message = "--ca is about HTTPS: it needs --api https://HOST as well";
            return Err(Failure::new(Status::Usage, message));
        }
        let socket = self.socket_path()?;
        let place = socket.display().to_string();
        let base = "http://localhost".to_owned();
        Ok(Target { socket: Some(socket), base, place, token, authority, identity: None })
    }

    /// The gateway is named once.
    fn at_most_one(&self) -> Result<(), Failure> {
        let named = [
            (self.api.is_some(), "--api"),
            (self.socket.is_some(), "--socket"),
            (self.interface.is_some(), "--interface"),
            (self.config.is_some() || self.state_dir.is_some(), "--config"),
        ];
        let named: Vec<&str> =
            named.iter().filter_map(|(given, flag)| given.then_some(*flag)).collect();
        if named.len() < 2 {
            return Ok(());
        }
        let message = format!("{} name different gateways: leave one", named.join(" and "));
        Err(Failure::new(Status::Usage, message))
    }

    fn socket_path(&self) -> Result<PathBuf, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        if let Some(interface) = &self.interface {
            return Ok(PathBuf::from(stats::FOLDER).join(format!("{interface}.api")));
        }
        let place = Where { config: self.config.clone(), state_dir: self.state_dir.clone() };
        let config = place.places().load(&Overrides::default()).map_err(|failure| {
            let hint = "A gateway that still runs is found with --interface NAME, also to go back \
                        (\"ringway config rollback\")";
            Failure { message: format!("{}\n{hint}", failure.message.trim_end()), ..failure }
        })?;
        config.api.socket.ok_or_else(|| {
            let message = "The configuration switches the API's socket off ([api] socket): say \
                           where the API is with --api, and give a token";
            Failure::new(Status::Config, message)
        })
    }

    fn token(&self, environment: Option<OsString>) -> Result<Option<Zeroizing<String>>, Failure> {
        let text = if let Some(file) = &self.token_file {
            let bytes = read_bounded(file, TOKEN_BYTES_MAX);
            let bytes = bytes.map_err(|error| Failure::file("read the token in", file, &error))?;
            Some(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
        } else if let Some(token) = &self.token {
            Some(Zeroizing::new(token.clone()))
        } else {
            environment.map(|token| Zeroizing::new(token.to_string_lossy().into_owned()))
        };
        let Some(text) = text else { return Ok(None) };
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "The token is empty or has characters that no token has: give it as \
                           \"ringway token add\" showed it";
            return Err(Failure::new(Status::Usage, message));
        }
        Ok(Some(Zeroizing::new(token.to_owned())))
    }
}

/// Reads a file that may have `bytes_max`.
fn read_bounded(file: &PathBuf, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// A base address without a slash at its end. Without encryption only this host is one.
fn address(url: &str) -> Result<String, Failure> {
    let wrong = |why: &str| {
        let message = format!("--api {url} {why}: write https://HOST or https://HOST:PORT");
        Failure::new(Status::Usage, message)
    };
    let parsed = reqwest::Url::parse(url).map_err(|error| wrong(&format!("is wrong ({error})")))?;
    let bare = matches!(parsed.path(), "" | "/") && parsed.query().is_none();
    if !bare || parsed.fragment().is_some() || !parsed.username().is_empty() {
        return Err(wrong("has more than a host and a port"));
    }
    let host = parsed.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match parsed.scheme() {
        "https" => (),
        "http" if is_here => (),
        "http" => return Err(wrong("would send the token in the clear")),
        _ => return Err(wrong("is neither https nor http")),
    }
    Ok(parsed.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leaves_this_host_encrypted_only() {
        for (url, expected) in [
            ("https://vpn.example.org/", "https://vpn.example.org"),
            ("https://vpn.example.org:8443", "https://vpn.example.org:8443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("http://localhost:1", "http://localhost:1"),
        ] {
            assert_eq!(address(url).unwrap(), expected);
        }
        for (url, part) in [
            ("http://vpn.example.org", "in the clear"),
            ("http://127.0.0.1.example.org", "in the clear"),
            ("ftp://vpn.example.org", "neither https nor http"),
            ("https://vpn.example.org/api/v1", "more than a host"),
            ("https://ada:secret@vpn.example.org", "more than a host"),
            ("vpn.example.org", "is wrong"),
        ] {
            let failure = address(url).err().unwrap();
            assert_eq!(failure.status, Status::Usage);
            assert!(failure.message.contains(part), "{failure}");
        }
    }

    #[test]
    fn a_token_comes_from_the_file_then_the_flag_then_the_environment() {
        let folder = crate::scratch::Scratch::new("cli_token");
        let file = folder.path().join("token");
        fs::write(&file, "rw_file\n").unwrap();
        let from = |token_file: Option<&PathBuf>, flag: Option<&str>, environment: Option<&str>| {
            let args = ConnectArgs {
                token_file: token_file.cloned(),
                token: flag.map(str::to_owned),
                ..ConnectArgs::default()
            };
            args.token(environment.map(OsString::from)).unwrap().map(|token| (*token).clone())
        };
        let (flag, environment) = (Some("rw_flag"), Some("rw_environment"));
        assert_eq!(from(Some(&file), flag, environment).as_deref(), Some("rw_file"));
        assert_eq!(from(None, flag, environment).as_deref(), Some("rw_flag"));
        assert_eq!(from(None, None, environment).as_deref(), Some("rw_environment"));
        assert_eq!(from(None, None, None), None);
        let args = ConnectArgs { token: Some("a b".to_owned()), ..ConnectArgs::default() };
        let failure = args.token(None).unwrap_err();
        assert!(!failure.message.contains("a b"), "{failure}");
        fs::write(&file, "x".repeat(300)).unwrap();
        let args = ConnectArgs { token_file: Some(file), ..ConnectArgs::default() };
        assert!(args.token(None).unwrap_err().message.contains("more than 256 bytes"));
    }

    #[test]
    fn two_gateways_at_once_are_refused() {
        let args = ConnectArgs {
            api: Some("https://a".to_owned()),
            socket: Some("/b".into()),
            ..ConnectArgs::default()
        };
        let failure = args.target().err().unwrap();
        assert_eq!(failure.status, Status::Usage);
        assert!(failure.message.contains("--api and --socket"), "{failure}");
    }
}
