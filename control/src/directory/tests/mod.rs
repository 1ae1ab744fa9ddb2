//! The directory against a real store in a scratch folder.

mod audit;
mod devices;
mod enrolments;
mod erasing;
mod joining;
mod leases;
mod pools;
mod ranks;
mod rules;
mod scale;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use zeroize::Zeroizing;

use super::input::{NewDevice, NewUser, Secret};
use super::*;
use crate::scratch::Scratch;
use crate::store::records::{OtpKind, Pool, PoolId, Role, User};
use crate::store::{StoreOptions, StoreUrl};

/// A pool, not yet in any store; an empty prefix is none.
pub(in crate::directory) fn pool(name: &str, net4: &str, net6: &str) -> Pool {
    let net = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Pool {
        id: PoolId::fresh(),
        name: name.to_owned(),
        net4: net(net4),
        net6: net(net6),
        range4: None,
        random: false,
        created_at: Timestamp(0),
        version: 1,
    }
}

/// What a small configuration says.
pub(crate) fn surroundings() -> Surroundings {
    let address = |text: &str, prefix| crate::config::InterfaceAddress {
        address: text.parse().unwrap(),
        prefix,
    };
    Surroundings {
        gateway: ringway_proto::crypto::PublicKey([1; 32]),
        addresses: vec![address("10.77.0.1", 16), address("fd00:77::1", 48)],
        pool4: Some("10.77.0.0/24".parse().unwrap()),
        pool6: Some("fd00:77::/64".parse().unwrap()),
        peers_max: 100,
        peers: Vec::new(),
        mtu: 1420,
        endpoint: Some("vpn.example.org:51820".to_owned()),
        allowed_ips: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        dns: vec!["9.9.9.9".parse().unwrap()],
        keepalive_s: 25,
        portal: Some("https://vpn.example.org".to_owned()),
        groups_from_credentials: false,
    }
}

/// The moment at which tests begin.
pub(crate) const START: Timestamp = Timestamp(1_796_070_000_000);

/// A directory in a folder of its own, with the pools of the configuration.
pub(crate) struct Desk {
    pub(crate) directory: Directory,
    /// Milliseconds that went by since [`START`].
    pub(crate) passed_ms: Arc<AtomicI64>,
    pub(crate) hub: Hub,
    _folder: Scratch,
}

impl Desk {
    pub(crate) async fn new(name: &str) -> Self {
        Self::at(name, surroundings()).await
    }

    pub(crate) async fn at(name: &str, here: Surroundings) -> Self {
        let folder = Scratch::new(&format!("directory_{name}"));
        let url = StoreUrl::file(&folder.path().join("ringway.db")).unwrap();
        let options = StoreOptions { durable: false, ..StoreOptions::default() };
        let store = Store::open(&url, &options).await.unwrap();
        let (hub, passed_ms) = (Hub::default(), Arc::new(AtomicI64::new(0)));
        let passed = Arc::clone(&passed_ms);
        let clock: Clock = Arc::new(move || START.plus_ms(passed.load(Ordering::Relaxed)));
        let directory = Directory::new(store, hub.clone(), clock, Arc::new(Plain), here);
        directory.take_configured_pools().await.unwrap();
        Self { directory, passed_ms, hub, _folder: folder }
    }

    pub(crate) fn pass_ms(&self, milliseconds: i64) {
        self.passed_ms.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// A user with a role, or none.
    pub(crate) async fn user(&self, name: &str, role: Option<Role>) -> User {
        let form = NewUser { role, ..new_user(name) };
        self.directory.create_user(&root(), form).await.unwrap()
    }

    /// A device whose key is made here.
    pub(crate) async fn device(&self, user: &str, name: &str) -> AddedDevice {
        self.directory.add_device(&root(), user, new_device(name)).await.unwrap()
    }
}

pub(crate) fn root() -> Actor {
    Actor::local(0)
}

pub(crate) fn as_user(user: &User) -> Actor {
    Actor { role: user.role, ..Actor::oneself(&user.name, user.id) }
}

pub(crate) fn new_user(name: &str) -> NewUser {
    NewUser { name: name.to_owned(), ..NewUser::default() }
}

pub(crate) fn new_device(name: &str) -> NewDevice {
    NewDevice { name: name.to_owned(), ..NewDevice::default() }
}

/// A public key that somebody could have.
pub(crate) fn key(number: u64) -> String {
    let mut bytes = [7; 32];
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    crate::keys::show_public(&ringway_proto::crypto::PrivateKey::from_bytes(bytes).public())
}

/// What is wrong, by place.
#[track_caller]
pub(crate) fn places(refusal: &Refusal) -> Vec<&str> {
    if let Refusal::Invalid(problems) = refusal {
        return problems.iter().map(|one| one.pointer.as_str()).collect();
    }
    let Refusal::Taken { pointer, .. } = refusal else { panic!("{refusal:?} names no place") };
    vec![pointer]
}

/// Credentials without any cryptography: the hash of a password is itself.
pub(crate) struct Plain;

impl Credentials for Plain {
    fn hash_password(&self, user: &str, password: &Secret) -> Later<Result<String, String>> {
        let judged = if password.0.len() < 10 {
            Err("A password has at least 10 bytes".to_owned())
        } else if password.0.contains(user) {
            Err("The name may not be in it".to_owned())
        } else {
            Ok(format!("plain:{}", *password.0))
        };
        Box::pin(async move { judged })
    }

    fn recovery_codes(&self, user: UserId) -> Result<Vec<(Secret, [u8; 32])>, String> {
        let code = "abcd efgh jkmn pqrs";
        Ok(vec![(Secret::new(code), crate::auth::totp::recovery_hash(user, code))])
    }

    fn password_matches(&self, hash: &str, password: &Secret) -> Later<bool> {
        let matches = hash == format!("plain:{}", *password.0);
        Box::pin(async move { matches })
    }

    fn offer_totp(&self, user: &str, kind: OtpKind) -> Result<TotpOffer, String> {
        let kind = if kind == OtpKind::Time { "totp" } else { "hotp" };
        Ok(TotpOffer {
            secret: Zeroizing::new(vec![5; 20]),
            text: Zeroizing::new("AUCQKBIF".to_owned()),
            url: Zeroizing::new(format!("otpauth://{kind}/{user}")),
        })
    }

    fn totp_step(&self, secret: &[u8], code: &str, now: Timestamp) -> Option<u64> {
        (secret == [5; 20] && code == "123456").then_some(now.0 as u64 / 30_000)
    }

    fn hotp_counter(&self, secret: &[u8], code: &str, first: u64) -> Option<u64> {
        (secret == [5; 20] && code == "123456").then_some(first + 2)
    }
}
