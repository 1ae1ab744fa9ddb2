//! Signing in: who somebody is, proved by the factors that a policy asks for.
//!
//! Begin with [`gate`]: one attempt through all of it. In front: address lists, bans and rates
//! ([`source`], [`ban`]); then the walk along a policy's factors ([`flow`], [`challenges`]); behind
//! each factor a back end ([`backend`]) with threads of its own ([`lane`]). Back ends:
//! [`password`], [`totp`] with [`hotp`], [`token`], [`certificate`], [`anonymous`]. What the store
//! does for it is the trait [`people`].
//!
//! Nothing here runs on a core or blocks the control thread. It must not know HTTP, TLS or tunnels.

pub mod anonymous;
pub mod backend;
pub mod ban;
mod breaker;
pub mod cache;
pub mod certificate;
pub mod challenges;
pub mod flow;
pub mod gate;
pub mod hotp;
pub mod lane;
#[cfg(test)]
mod memory;
pub mod name;
pub mod password;
pub mod people;
mod people_store;
pub mod queue;
pub mod reason;
pub mod settings;
pub mod source;
pub mod stats;
pub mod token;
pub mod totp;

pub use backend::{Answer, Attributes, BackEnd, Credentials, Prompt, Protocol, Secret};
pub use challenges::Ticket;
pub use gate::{Attempt, Gate, Identity, Outcome};
pub use people::People;
pub(crate) use people_store::recovery_setting;
pub use queue::Priority;
pub use reason::{Reason, Told};
pub use settings::Settings;
pub use source::Source;
pub use stats::{Snapshot, Stats};
