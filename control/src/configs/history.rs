//! Which configurations were in force, and who changed them.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Later, redact};
use crate::store::ids::Timestamp;
use crate::store::query::{Page, Rows};
use crate::store::records::ConfigVersion;
use crate::store::{Store, StoreError};

/// What is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Since when.
    pub at: Timestamp,
    /// By whom.
    pub actor: String,
    /// Without secrets.
    pub text: String,
    /// [`super::seal`] of the text as it is.
    pub hash: String,
    /// For the audit log: `config.put`, `config.rollback`, ….
    pub action: &'static str,
}

/// The history of the configuration of one gateway.
pub trait History: Send + Sync {
    /// Enters a version and an audit entry, both or none; gives its number.
    fn append(&self, entry: Entry) -> Later<Result<u64, StoreError>>;

    /// The newest version.
    fn last(&self) -> Later<Result<Option<ConfigVersion>, StoreError>>;

    /// One version.
    fn get(&self, number: u64) -> Later<Result<Option<ConfigVersion>, StoreError>>;

    /// All versions, the newest first.
    fn list(&self, page: Page) -> Later<Result<Rows<ConfigVersion>, StoreError>>;

    /// The key of its hashes, always the same; made when it is asked for the first time.
    fn key(&self) -> Later<Result<Key, StoreError>>;
}

/// A key that hashes of configurations are made with. Without it, whoever sees a hash and all of
/// the text but a password could try passwords until the hash fits.
pub type Key = Zeroizing<[u8; 32]>;

/// Name of the setting that holds the key.
const KEY_SETTING: &str = "configs.key";

/// The history of one gateway in the store.
#[derive(Clone)]
pub struct StoreHistory {
    store: Store,
    gateway: String,
}

impl StoreHistory {
    /// Over `store`, which gateways may share; `gateway` is how this one is called there, always
    /// the same.
    #[must_use]
    pub fn shared(store: Store, gateway: String) -> Arc<dyn History> {
        Arc::new(Self { store, gateway })
    }
}

impl History for StoreHistory {
    fn append(&self, entry: Entry) -> Later<Result<u64, StoreError>> {
        let Self { store, gateway } = self.clone();
        Box::pin(async move {
            let write = store.write(move |db| {
                let newest = Page { after: None, limit: 1 };
                let mut last = db.config_versions(&gateway, &newest)?.items.pop();
                if last.is_none() {
                    db.take_over_configs(&gateway, redact::redact)?;
                    last = db.config_versions(&gateway, &newest)?.items.pop();
                }
                let version = last.map_or(0, |last| last.version) + 1;
                let Entry { at, actor, text, hash, action } = entry.clone();
                let detail =
                    serde_json::json!({ "version": version, "hash": hash, "gateway": gateway });
                db.append_audit(at, &actor, action, &format!("version {version}"), &detail)?;
                db.append_config(&gateway, &ConfigVersion { version, at, actor, text, hash })?;
                Ok(version)
            });
            write.await
        })
    }

    fn last(&self) -> Later<Result<Option<ConfigVersion>, StoreError>> {
        let list = self.list(Page { after: None, limit: 1 });
        Box::pin(async move { Ok(list.await?.items.pop()) })
    }

    fn get(&self, number: u64) -> Later<Result<Option<ConfigVersion>, StoreError>> {
        let Self { store, gateway } = self.clone();
        Box::pin(async move {
            let read = store.read(move |db| match db.config_version(&gateway, number) {
                Ok(version) => Ok(Some(version)),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(other) => Err(other),
            });
            read.await
        })
    }

    fn list(&self, page: Page) -> Later<Result<Rows<ConfigVersion>, StoreError>> {
        let Self { store, gateway } = self.clone();
        Box::pin(async move { store.read(move |db| db.config_versions(&gateway, &page)).await })
    }

    fn key(&self) -> Later<Result<Key, StoreError>> {
        let store = self.store.clone();
        Box::pin(async move {
            if let Some(known) = store.read(|db| db.setting(KEY_SETTING)).await? {
                return read_key(&known);
            }
            let mut new = Key::default();
            getrandom::fill(&mut *new).map_err(|error| StoreError::Unavailable {
                why: format!("the system gives no random numbers ({error})"),
            })?;
            let write = store.write(move |db| {
                // Another gateway may have been faster.
                if let Some(known) = db.setting(KEY_SETTING)? {
                    return read_key(&known);
                }
                db.put_setting(KEY_SETTING, &*new)?;
                Ok(new.clone())
            });
            write.await
        })
    }
}

fn read_key(bytes: &[u8]) -> Result<Key, StoreError> {
    let key = bytes.try_into().map(Zeroizing::new);
    key.map_err(|_| {
        let why = format!("the setting {KEY_SETTING} is no key; remove it, and it is made anew");
        StoreError::Corrupt { why }
    })
}
