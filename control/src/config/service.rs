//! The checked configuration of what is around the tunnels: store, API, sign-in, metrics.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ringway_proto::allowed_ips::IpNet;

use super::credentials::mask_address;

/// Where records are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreChoice {
    /// Nowhere: only the peers of this file, and no API for users.
    Off,
    /// In a file of one gateway; relative to the state folder.
    Sqlite(PathBuf),
    /// In a server. The address may hold a password.
    Postgresql(String),
}

impl fmt::Debug for StoreChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreChoice({})", self.shown())
    }
}

impl StoreChoice {
    /// As it may be shown: without a password.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Sqlite(file) => format!("sqlite:{}", file.display()),
            Self::Postgresql(url) => mask_address(url).unwrap_or_else(|| url.clone()),
        }
    }
}

/// `[api]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Unix socket; none if it is switched off.
    pub socket: Option<PathBuf>,
    /// Other addresses, without double ones.
    pub listen: Vec<SocketAddr>,
    /// Certificate chain, if there is HTTPS.
    pub certificate_file: Option<PathBuf>,
    /// Its private key, if there is HTTPS.
    pub key_file: Option<PathBuf>,
    /// How others reach it, without a slash at the end.
    pub url: Option<String>,
}

/// `[sign_in]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// PEM file of those who sign client certificates, if any are taken.
    pub certificate_authorities: Option<PathBuf>,
    /// Revocation lists.
    pub revocation_lists: Vec<PathBuf>,
    /// What follows if there is none for a certificate, or an old one.
    pub revocation: Revocation,
    /// Whether responders are asked about certificates.
    pub ocsp: Ocsp,
    /// Whom to ask in place of those whom certificates name.
    pub ocsp_responder: Option<String>,
    /// Where people may sign in from; empty for everywhere.
    pub allow: Vec<IpNet>,
    /// Where they may not.
    pub deny: Vec<IpNet>,
    /// Whether a credential says in which group its user is.
    pub groups_from_credentials: bool,
}

/// What follows when nobody can say whether a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It is refused.
    Strict,
    /// It is taken, and the log says so.
    Warn,
}

/// Whether responders are asked about certificates (OCSP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ocsp {
    /// They are not.
    Off,
    /// A certificate about which they do not say anything is taken, and the log says so.
    Warn,
    /// It is refused.
    Strict,
}

/// `[[issuer]]`: a service whose access tokens are taken.
#[derive(Clone, PartialEq, Eq)]
pub struct Issuer {
    /// What the operator calls it.
    pub name: String,
    /// Its `iss`.
    pub issuer: String,
    /// Its `aud`.
    pub audience: String,
    /// Among [`Self::ALGORITHMS`], at least one.
    pub algorithms: Vec<String>,
    /// A file, already joined with the folder, or an address with `://`.
    pub keys: String,
    /// Which claim names the user.
    pub user_claim: String,
    /// Which claim lists groups.
    pub groups_claim: Option<String>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address of its keys may hold a password.
        write!(f, "Issuer({} {} {:?})", self.name, self.issuer, self.algorithms)
    }
}

impl Issuer {
    /// Signatures that may be taken.
    pub const ALGORITHMS: [&'static str; 5] = ["EdDSA", "ES256", "ES384", "RS256", "PS256"];
}

/// `[metrics]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Sessions with series of their own, at most 10,000.
    pub sessions_max: u32,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object each.
    Json,
}

/// What is kept of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionLog {
    /// Who, when, from where.
    Full,
    /// No address of a client, anywhere.
    NoLog,
}
