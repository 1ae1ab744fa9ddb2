//! Records to test with, different each time.

use std::sync::atomic::{AtomicU64, Ordering};

use ringway_control::store::Db;
use ringway_control::store::query::SessionNote;
use ringway_control::store::records::*;
use ringway_proto::crypto::{PresharedKey, PublicKey};

static NEXT: AtomicU64 = AtomicU64::new(1);

pub(crate) fn number() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn user(name: &str) -> User {
    User {
        id: UserId::fresh(),
        name: name.to_owned(),
        display_name: format!("The user {name} \u{1f98a}"),
        group: None,
        policy: None,
        role: None,
        state: UserState::Active,
        expires_at: None,
        rate: None,
        quota: None,
        has_password: false,
        has_totp: false,
        totp_kind: None,
        created_at: Timestamp(1_700_000_000_000),
        version: 1,
    }
}

pub(crate) fn group(name: &str) -> Group {
    Group {
        id: GroupId::fresh(),
        name: name.to_owned(),
        policy: None,
        rate: Rate { up_bps: Some(1_000_000), down_bps: None, burst_bytes: Some(9) },
        created_at: Timestamp(5),
        version: 1,
    }
}

pub(crate) fn policy(name: &str) -> Policy {
    Policy {
        id: PolicyId::fresh(),
        name: name.to_owned(),
        factors: vec![Factor::Password, Factor::Totp],
        session_rate: Rate { up_bps: Some(1), down_bps: Some(2), burst_bytes: None },
        user_rate: Rate::default(),
        quota: Some(Quota {
            bytes: u64::MAX,
            period: Period::Week,
            action: QuotaAction::Throttle,
            throttle_bps: Some(64_000),
        }),
        session_timeout_s: 3600,
        idle_timeout_s: 60,
        devices_max: 3,
        sessions_max: 2,
        excess: Excess::KickOldest,
        pool: None,
        routes: vec!["10.0.0.0/8".to_owned()],
        dns: vec!["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
        created_at: Timestamp(6),
        version: 1,
    }
}

pub(crate) fn pool(name: &str) -> Pool {
    Pool {
        id: PoolId::fresh(),
        name: name.to_owned(),
        net4: Some("10.7.0.0/16".to_owned()),
        net6: Some("fd00:7::/64".to_owned()),
        range4: Some(("10.7.1.0".parse().unwrap(), "10.7.2.255".parse().unwrap())),
        random: true,
        created_at: Timestamp(7),
        version: 1,
    }
}

pub(crate) fn key() -> PublicKey {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&number().to_be_bytes());
    PublicKey(key)
}

pub(crate) fn device(user: UserId, name: &str) -> Device {
    Device {
        id: DeviceId::fresh(),
        user,
        name: name.to_owned(),
        public_key: key(),
        key_origin: KeyOrigin::Device,
        enabled: true,
        access_from: None,
        access_until: None,
        last_seen: None,
        created_at: Timestamp(8),
        version: 1,
    }
}

pub(crate) fn secrets(byte: u8) -> DeviceSecrets {
    DeviceSecrets { preshared: PresharedKey([byte; 32]) }
}

pub(crate) fn lease(device: DeviceId, pool: PoolId, number: u32) -> Lease {
    Lease {
        device,
        pool,
        address4: Some((0x0a07_0000 + number).into()),
        address6: Some((0xfd00_0007_u128 << 96 | u128::from(number)).into()),
        is_static: false,
        created_at: Timestamp(9),
    }
}

pub(crate) fn token(user: UserId) -> Token {
    Token {
        id: TokenId::fresh(),
        user,
        name: "ci".to_owned(),
        scopes: vec!["user:read".to_owned(), "device:write".to_owned()],
        expires_at: Some(Timestamp(99)),
        last_used_at: None,
        created_at: Timestamp(10),
    }
}

pub(crate) fn enrolment(user: UserId) -> Enrolment {
    Enrolment {
        id: EnrolmentId::fresh(),
        user,
        device_name: "phone".to_owned(),
        expires_at: Timestamp(1000),
        used_by: None,
        created_at: Timestamp(11),
    }
}

pub(crate) fn usage(user: UserId, device: DeviceId, day: i32, bytes: u64) -> Usage {
    Usage {
        user,
        device,
        day,
        up_bytes: bytes,
        down_bytes: 2 * bytes,
        up_packets: 3,
        down_packets: 4,
    }
}

pub(crate) fn connection(user: UserId, device: DeviceId, at: i64) -> ConnectionEntry {
    ConnectionEntry {
        at: Timestamp(at),
        user,
        device,
        event: "disconnected".to_owned(),
        endpoint: Some("198.51.100.7:4242".to_owned()),
        reason: Some("idle".to_owned()),
        duration_s: Some(17),
        up_bytes: 1,
        down_bytes: 2,
    }
}

/// A session that lives, with as many bytes as its number says.
pub(crate) fn open_session(session: u64, user: UserId, device: DeviceId) -> OpenSession {
    let since = Timestamp(i64::try_from(session).unwrap());
    let endpoint = Some("198.51.100.7".to_owned());
    let (up_bytes, down_bytes) = (session, 2 * session);
    OpenSession { session, user, device, since, endpoint, up_bytes, down_bytes }
}

/// The beginning of such a session.
pub(crate) fn begun(session: u64, user: UserId, device: DeviceId) -> SessionNote {
    let open = open_session(session, user, device);
    let entry = ConnectionEntry {
        event: "connected".to_owned(),
        reason: None,
        duration_s: None,
        ..connection(user, device, open.since.0)
    };
    SessionNote::Begun { open, entry }
}

/// Its end.
pub(crate) fn ended(session: u64, user: UserId, device: DeviceId, is_alone: bool) -> SessionNote {
    let at = i64::try_from(session).unwrap() + 1_000;
    SessionNote::Ended { session, entry: connection(user, device, at), is_alone }
}

/// A user with a device, both kept.
pub(crate) fn with_device(db: &mut Db<'_>, name: &str) -> (User, Device) {
    let user = user(name);
    let device = device(user.id, "laptop");
    db.insert_user(&user, &UserSecrets::default()).unwrap();
    db.insert_device(&device, &DeviceSecrets::default()).unwrap();
    (user, device)
}
