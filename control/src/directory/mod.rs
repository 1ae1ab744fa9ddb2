//! The directory: every change of a record goes through here.
//!
//! A change is checked, written in one transaction together with its entry in the audit log, told
//! as an event, and noted for the live projection, which brings it to the cores. Either all of it
//! happens or nothing. Who may do what beyond the API's table of needs is in [`actor`]; what an
//! input must look like in [`input`]; which policy holds for a user in [`effective`]. The directory
//! must not know HTTP, the plane or the cores.

mod access;
pub mod action;
pub mod actor;
pub mod book;
mod client_files;
mod credentials;
mod devices;
pub mod effective;
mod enrolments;
mod find;
mod groups;
pub mod input;
mod joining;
mod leases;
mod ledger;
mod people;
mod policies;
mod pools;
mod privacy;
pub mod quota;
mod quotas;
pub mod refusal;
pub mod secret;
pub mod surroundings;
mod tokens;
mod users;
mod work;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::broadcast;

pub use access::{Granted, GrantedDevice, Proved};
pub use action::Action;
pub use actor::Actor;
pub use client_files::ClientText;
pub use credentials::LocalCredentials;
pub use devices::{AddedDevice, DeviceView};
pub use effective::Effective;
pub use enrolments::{Invitation, Redeemed};
pub use ledger::AuditState;
pub use people::{Credentials, Later, TotpOffer};
pub use pools::keeps_promise;
pub use quota::Standing;
pub use quotas::QuotaRow;
pub use refusal::{FieldProblem, Refusal};
pub use surroundings::Surroundings;
pub use tokens::MadeToken;
pub use users::UserView;

use crate::events::Hub;
use crate::store::Store;
use crate::store::records::{DeviceId, GroupId, PolicyId, PoolId, Timestamp, UserId};
use book::Book;

/// Notes that may wait for a follower that is slow. One that misses some takes everything anew.
const NOTES_MAX: usize = 4096;

/// What changed, for whoever projects records onto the running gateway. A note says where to look,
/// never what is there: a follower reads the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A user, or something about all of its devices.
    User(UserId),
    /// One device: its key, its addresses, its access.
    Device(DeviceId),
    /// A group, and so all its users.
    Group(GroupId),
    /// A policy, and so all for whom it holds.
    Policy(PolicyId),
    /// A pool.
    Pool(PoolId),
    /// Anything: it is not known whether a change was kept, or there is too much to tell.
    All,
}

/// Tells the time; a test gives one of its own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The directory. Clones are the same.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    store: Store,
    hub: Hub,
    clock: Clock,
    credentials: Arc<dyn Credentials>,
    here: RwLock<Arc<Surroundings>>,
    notes: broadcast::Sender<Change>,
    /// Which addresses are probably free. The store decides.
    book: Arc<Mutex<Book>>,
    /// Whoever verifies the audit log.
    audit_turn: tokio::sync::Mutex<()>,
}

impl Directory {
    /// Makes it over an open store.
    #[must_use]
    pub fn new(
        store: Store,
        hub: Hub,
        clock: Clock,
        credentials: Arc<dyn Credentials>,
        here: Surroundings,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            hub,
            clock,
            credentials,
            here: RwLock::new(Arc::new(here)),
            notes: broadcast::Sender::new(NOTES_MAX),
            book: Arc::default(),
            audit_turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Hears of every change from now on. [`broadcast::error::RecvError::Lagged`] means
    /// [`Change::All`].
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.notes.subscribe()
    }

    /// Tells what the configuration says now, after a reload. Whether pools and leases fit to it is
    /// to be asked before: [`Self::check_surroundings`].
    pub fn set_surroundings(&self, here: Surroundings) {
        *self.0.here.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(here);
        // Addresses of peers in the file may have come or gone.
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner).forget_all();
    }

    /// What the configuration says.
    #[must_use]
    pub fn surroundings(&self) -> Arc<Surroundings> {
        Arc::clone(&self.0.here.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    /// The store behind it, for what only reads.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }
}

#[cfg(test)]
pub(crate) mod tests;
