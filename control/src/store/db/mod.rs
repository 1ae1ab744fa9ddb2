//! Typed operations on records (bodies to be written).

use std::net::{Ipv4Addr, Ipv6Addr};

use ringway_proto::crypto::PublicKey;

use super::audit::{AuditBroken, AuditHead};
use super::engine::Engine;
use super::error::StoreError;
use super::query::{
    AccessRow, AuditFilter, Changes, ConnectionFilter, DeviceFilter, Page, Rows, UsageMark,
    UserFilter,
};
use super::records::*;

/// A transaction of the store.
pub struct Db<'a> {
    engine: &'a mut dyn Engine,
}

#[allow(unused_variables, missing_docs, clippy::all)]
impl Db<'_> {
    /// Runs `work`; if it fails, what it did is undone and the transaction goes on. Without this, an
    /// error spoils the whole transaction.
    pub fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        todo!()
    }

    pub fn insert_user(&mut self, user: &User, secrets: &UserSecrets) -> Result<(), StoreError> {
        todo!()
    }

    pub fn update_user(&mut self, user: &User) -> Result<User, StoreError> {
        todo!()
    }

    pub fn user(&mut self, id: UserId) -> Result<User, StoreError> {
        todo!()
    }

    pub fn user_by_name(&mut self, name: &str) -> Result<Option<User>, StoreError> {
        todo!()
    }

    pub fn user_secrets(&mut self, id: UserId) -> Result<UserSecrets, StoreError> {
        todo!()
    }

    pub fn set_user_secrets(
        &mut self,
        id: UserId,
        secrets: &UserSecrets,
    ) -> Result<(), StoreError> {
        todo!()
    }

    pub fn accept_totp_step(&mut self, id: UserId, step: u64) -> Result<bool, StoreError> {
        todo!()
    }

    pub fn remove_user(&mut self, id: UserId) -> Result<(), StoreError> {
        todo!()
    }

    pub fn users(&mut self, filter: &UserFilter, page: &Page) -> Result<Rows<User>, StoreError> {
        todo!()
    }

    pub fn count_users(&mut self) -> Result<u64, StoreError> {
        todo!()
    }

    pub fn insert_group(&mut self, group: &Group) -> Result<(), StoreError> {
        todo!()
    }

    pub fn update_group(&mut self, group: &Group) -> Result<Group, StoreError> {
        todo!()
    }

    pub fn group(&mut self, id: GroupId) -> Result<Group, StoreError> {
        todo!()
    }

    pub fn group_by_name(&mut self, name: &str) -> Result<Option<Group>, StoreError> {
        todo!()
    }

    pub fn groups(&mut self, page: &Page) -> Result<Rows<Group>, StoreError> {
        todo!()
    }

    pub fn remove_group(&mut self, id: GroupId) -> Result<(), StoreError> {
        todo!()
    }

    pub fn insert_policy(&mut self, policy: &Policy) -> Result<(), StoreError> {
        todo!()
    }

    pub fn update_policy(&mut self, policy: &Policy) -> Result<Policy, StoreError> {
        todo!()
    }

    pub fn policy(&mut self, id: PolicyId) -> Result<Policy, StoreError> {
        todo!()
    }

    pub fn policy_by_name(&mut self, name: &str) -> Result<Option<Policy>, StoreError> {
        todo!()
    }

    pub fn policies(&mut self, page: &Page) -> Result<Rows<Policy>, StoreError> {
        todo!()
    }

    pub fn remove_policy(&mut self, id: PolicyId) -> Result<(), StoreError> {
        todo!()
    }

    pub fn insert_pool(&mut self, pool: &Pool) -> Result<(), StoreError> {
        todo!()
    }

    pub fn update_pool(&mut self, pool: &Pool) -> Result<Pool, StoreError> {
        todo!()
    }

    pub fn pool(&mut self, id: PoolId) -> Result<Pool, StoreError> {
        todo!()
    }

    pub fn pool_by_name(&mut self, name: &str) -> Result<Option<Pool>, StoreError> {
        todo!()
    }

    pub fn pools(&mut self, page: &Page) -> Result<Rows<Pool>, StoreError> {
        todo!()
    }

    pub fn remove_pool(&mut self, id: PoolId) -> Result<(), StoreError> {
        todo!()
    }

    pub fn insert_device(
        &mut self,
        device: &Device,
        secrets: &DeviceSecrets,
    ) -> Result<(), StoreError> {
        todo!()
    }

    pub fn update_device(&mut self, device: &Device) -> Result<Device, StoreError> {
        todo!()
    }

    pub fn device(&mut self, id: DeviceId) -> Result<Device, StoreError> {
        todo!()
    }

    pub fn device_by_key(&mut self, key: &PublicKey) -> Result<Option<Device>, StoreError> {
        todo!()
    }

    pub fn device_secrets(&mut self, id: DeviceId) -> Result<DeviceSecrets, StoreError> {
        todo!()
    }

    pub fn set_device_secrets(
        &mut self,
        id: DeviceId,
        secrets: &DeviceSecrets,
    ) -> Result<(), StoreError> {
        todo!()
    }

    pub fn devices_of(&mut self, user: UserId) -> Result<Vec<Device>, StoreError> {
        todo!()
    }

    pub fn devices(
        &mut self,
        filter: &DeviceFilter,
        page: &Page,
    ) -> Result<Rows<Device>, StoreError> {
        todo!()
    }

    pub fn remove_device(&mut self, id: DeviceId) -> Result<(), StoreError> {
        todo!()
    }

    pub fn set_access(
        &mut self,
        id: DeviceId,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        todo!()
    }

    pub fn touch_devices(&mut self, seen: &[(DeviceId, Timestamp)]) -> Result<(), StoreError> {
        todo!()
    }

    pub fn lease_of(&mut self, device: DeviceId) -> Result<Option<Lease>, StoreError> {
        todo!()
    }

    pub fn insert_lease(&mut self, lease: &Lease) -> Result<(), StoreError> {
        todo!()
    }

    pub fn remove_lease(&mut self, device: DeviceId) -> Result<bool, StoreError> {
        todo!()
    }

    pub fn leases(&mut self, pool: PoolId, page: &Page) -> Result<Rows<Lease>, StoreError> {
        todo!()
    }

    pub fn leased(
        &mut self,
        pool: PoolId,
    ) -> Result<Vec<(Option<Ipv4Addr>, Option<Ipv6Addr>)>, StoreError> {
        todo!()
    }

    pub fn insert_token(
        &mut self,
        token: &Token,
        secret_hash: &[u8; 32],
    ) -> Result<(), StoreError> {
        todo!()
    }

    pub fn token(&mut self, id: TokenId) -> Result<Token, StoreError> {
        todo!()
    }

    pub fn token_by_hash(&mut self, secret_hash: &[u8; 32]) -> Result<Option<Token>, StoreError> {
        todo!()
    }

    pub fn tokens(&mut self, user: Option<UserId>, page: &Page) -> Result<Rows<Token>, StoreError> {
        todo!()
    }

    pub fn touch_token(&mut self, id: TokenId, at: Timestamp) -> Result<(), StoreError> {
        todo!()
    }

    pub fn remove_token(&mut self, id: TokenId) -> Result<(), StoreError> {
        todo!()
    }

    pub fn insert_enrolment(
        &mut self,
        enrolment: &Enrolment,
        secret_hash: &[u8; 32],
    ) -> Result<(), StoreError> {
        todo!()
    }

    pub fn enrolment(&mut self, id: EnrolmentId) -> Result<Enrolment, StoreError> {
        todo!()
    }

    pub fn enrolment_by_hash(
        &mut self,
        secret_hash: &[u8; 32],
    ) -> Result<Option<Enrolment>, StoreError> {
        todo!()
    }

    pub fn use_enrolment(
        &mut self,
        id: EnrolmentId,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        todo!()
    }

    pub fn enrolments(
        &mut self,
        user: Option<UserId>,
        page: &Page,
    ) -> Result<Rows<Enrolment>, StoreError> {
        todo!()
    }

    pub fn remove_enrolment(&mut self, id: EnrolmentId) -> Result<(), StoreError> {
        todo!()
    }

    pub fn purge_enrolments(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        todo!()
    }

    pub fn add_usage(&mut self, usage: &[Usage], marks: &[UsageMark]) -> Result<(), StoreError> {
        todo!()
    }

    pub fn usage_marks(&mut self, page: &str) -> Result<Vec<UsageMark>, StoreError> {
        todo!()
    }

    pub fn drop_usage_marks(&mut self, page: &str, epoch: u64) -> Result<(), StoreError> {
        todo!()
    }

    pub fn usage_of(
        &mut self,
        user: UserId,
        from_day: i32,
        to_day: i32,
    ) -> Result<Vec<Usage>, StoreError> {
        todo!()
    }

    pub fn usage_sum(&mut self, user: UserId, from_day: i32) -> Result<u64, StoreError> {
        todo!()
    }

    pub fn usage_sums(&mut self, from_day: i32) -> Result<Vec<(UserId, u64)>, StoreError> {
        todo!()
    }

    pub fn usage_report(
        &mut self,
        from_day: i32,
        to_day: i32,
        limit: u32,
    ) -> Result<Vec<(UserId, u64, u64)>, StoreError> {
        todo!()
    }

    pub fn append_audit(
        &mut self,
        at: Timestamp,
        actor: &str,
        action: &str,
        object: &str,
        detail: &serde_json::Value,
    ) -> Result<AuditEntry, StoreError> {
        todo!()
    }

    pub fn audit(
        &mut self,
        filter: &AuditFilter,
        page: &Page,
    ) -> Result<Rows<AuditEntry>, StoreError> {
        todo!()
    }

    pub fn audit_head(&mut self) -> Result<AuditHead, StoreError> {
        todo!()
    }

    pub fn verify_audit(&mut self) -> Result<Result<u64, AuditBroken>, StoreError> {
        todo!()
    }

    pub fn verify_audit_since(
        &mut self,
        head: &AuditHead,
    ) -> Result<Result<u64, AuditBroken>, StoreError> {
        todo!()
    }

    pub fn append_connections(&mut self, entries: &[ConnectionEntry]) -> Result<(), StoreError> {
        todo!()
    }

    pub fn connections(
        &mut self,
        filter: &ConnectionFilter,
        page: &Page,
    ) -> Result<Rows<ConnectionEntry>, StoreError> {
        todo!()
    }

    pub fn purge_connections(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        todo!()
    }

    pub fn append_config(&mut self, version: &ConfigVersion) -> Result<(), StoreError> {
        todo!()
    }

    pub fn config_version(&mut self, version: u64) -> Result<ConfigVersion, StoreError> {
        todo!()
    }

    pub fn config_versions(&mut self, page: &Page) -> Result<Rows<ConfigVersion>, StoreError> {
        todo!()
    }

    pub fn put_ban(&mut self, ban: &Ban) -> Result<(), StoreError> {
        todo!()
    }

    pub fn bans(&mut self, now: Timestamp) -> Result<Vec<Ban>, StoreError> {
        todo!()
    }

    pub fn remove_ban(&mut self, subject: &str) -> Result<bool, StoreError> {
        todo!()
    }

    pub fn setting(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        todo!()
    }

    pub fn put_setting(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        todo!()
    }

    pub fn revision(&mut self) -> Result<u64, StoreError> {
        todo!()
    }

    pub fn changes_since(&mut self, revision: u64, limit: u32) -> Result<Changes, StoreError> {
        todo!()
    }

    pub fn trim_changes(&mut self, until: u64) -> Result<u64, StoreError> {
        todo!()
    }

    pub fn load_access(
        &mut self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<AccessRow>, StoreError> {
        todo!()
    }

    pub fn access_of_user(&mut self, user: UserId) -> Result<Vec<AccessRow>, StoreError> {
        todo!()
    }

    pub fn access_of_device(&mut self, device: DeviceId) -> Result<Option<AccessRow>, StoreError> {
        todo!()
    }

    pub fn export_user(&mut self, id: UserId) -> Result<serde_json::Value, StoreError> {
        todo!()
    }

    pub fn erase_user(&mut self, id: UserId, at: Timestamp, actor: &str) -> Result<(), StoreError> {
        todo!()
    }
}
