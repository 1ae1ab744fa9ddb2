//! From the configuration to what each part wants to know.

use std::sync::Arc;

use super::Plan;
use crate::api::server::Doors;
use crate::api::server::holders::Clients;
use crate::api::server::tls::{Tls, TlsFiles};
use crate::auth::certificate::ocsp::{OcspPolicy, OcspSettings};
use crate::auth::certificate::{CertificateSettings, ListPolicy};
use crate::auth::source::Lists;
use crate::auth::token::{Alg, IssuerSettings, KeySource};
use crate::auth::{self};
use crate::config::{Config, ConnectionLog, Issuer, Ocsp, Revocation, StoreChoice};
use crate::directory::Surroundings;
use crate::logs::privacy::{Mode, Privacy};
use crate::service;
use crate::store::records::Rate;
use crate::store::{StoreError, StoreUrl};

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Where the records are.
pub(super) fn store_url(plan: &Plan) -> Result<StoreUrl, StoreError> {
    match &plan.config.store {
        StoreChoice::Sqlite(file) => StoreUrl::file(&plan.state_dir.join(file)),
        StoreChoice::Postgresql(url) => StoreUrl::parse(url),
        StoreChoice::Off => {
            Err(StoreError::Invalid { why: "the store is switched off".to_owned() })
        }
    }
}

/// What the directory has to know.
pub(super) fn surroundings(plan: &Plan) -> Surroundings {
    Surroundings::of(&plan.config, plan.gateway, plan.config.api.url.clone())
}

/// What may change while the service runs.
pub(super) fn of_service(config: &Config) -> service::Settings {
    let limits = &config.limits;
    let rate =
        Rate { up_bps: limits.rate_up_bps, down_bps: limits.rate_down_bps, burst_bytes: None };
    service::Settings { rate }
}

/// What may be kept of clients.
pub(crate) fn privacy(config: &Config) -> Privacy {
    let mode = match config.log.connections {
        ConnectionLog::Full => Mode::Full,
        ConnectionLog::NoLog => Mode::NoLog,
    };
    let days = config.log.retention.as_secs() / DAY_S;
    let retention_days = u32::try_from(days).unwrap_or(u32::MAX).max(1);
    Privacy { mode, retention_days, ..Privacy::default() }
}

/// Whether addresses that are kept out may be stored.
pub(super) fn keeps_addresses(config: &Config) -> bool {
    privacy(config).mode != Mode::NoLog
}

/// How people sign in.
pub(super) fn of_gate(config: &Config) -> Result<auth::Settings, String> {
    let sign_in = &config.sign_in;
    let certificates = sign_in.certificate_authorities.clone().map(|authorities| {
        let list_policy = match sign_in.revocation {
            Revocation::Strict => ListPolicy::Strict,
            Revocation::Warn => ListPolicy::Warn,
        };
        let policy = match sign_in.ocsp {
            Ocsp::Off => OcspPolicy::Off,
            Ocsp::Warn => OcspPolicy::Warn,
            Ocsp::Strict => OcspPolicy::Strict,
        };
        let ocsp = OcspSettings { policy, responder: sign_in.ocsp_responder.clone() };
        let lists = sign_in.revocation_lists.clone();
        CertificateSettings { list_policy, ocsp, ..CertificateSettings::new(authorities, lists) }
    });
    Ok(auth::Settings {
        lists: Lists { allow: sign_in.allow.clone(), deny: sign_in.deny.clone() },
        issuers: config.issuers.iter().map(issuer).collect::<Result<_, String>>()?,
        certificates,
        keeps_addresses: keeps_addresses(config),
        ..auth::Settings::default()
    })
}

fn issuer(issuer: &Issuer) -> Result<IssuerSettings, String> {
    let algorithms = issuer.algorithms.iter().map(|name| algorithm(name));
    let algorithms = algorithms.collect::<Result<Vec<Alg>, String>>()?;
    let first = algorithms.first().copied().ok_or("an issuer without algorithms")?;
    let keys = KeySource::parse(&issuer.keys)?;
    Ok(IssuerSettings {
        algorithms,
        user_claim: issuer.user_claim.clone(),
        groups_claim: issuer.groups_claim.clone(),
        ..IssuerSettings::new(&issuer.issuer, &issuer.audience, first, keys)
    })
}

/// The words are [`Issuer::ALGORITHMS`].
fn algorithm(name: &str) -> Result<Alg, String> {
    match name {
        "EdDSA" => Ok(Alg::EdDsa),
        "ES256" => Ok(Alg::Es256),
        "ES384" => Ok(Alg::Es384),
        "RS256" => Ok(Alg::Rs256),
        "PS256" => Ok(Alg::Ps256),
        other => Err(format!("{other} is no algorithm")),
    }
}

/// By which doors the API is reached: with a certificate all addresses have TLS, also while its
/// files are not there or cannot be used. They are read by whoever opens the doors.
pub(super) fn doors(plan: &Plan) -> Doors {
    let api = &plan.config.api;
    let files = api.certificate_file.clone().zip(api.key_file.clone());
    let clients = match plan.config.sign_in.certificate_authorities {
        Some(_) => Clients::Asked,
        None => Clients::NotAsked,
    };
    let tls = files.map(|(certificate, key)| Tls::at(TlsFiles { certificate, key }, clients));
    let (plain, https) = if tls.is_some() {
        (Vec::new(), api.listen.clone())
    } else {
        (api.listen.clone(), Vec::new())
    };
    Doors { unix: api.socket.clone(), plain, https, tls: tls.map(Arc::new) }
}
