//! Inputs of the directory, and what is checked before anything is written.
//!
//! What a caller gives is a form (`New…`) or a merge patch (`…Patch`, RFC 7396: absent keeps,
//! `null` clears). References to other records are words, a name or an identifier, which are
//! resolved in the transaction that writes. Here is only what can be judged without the store.

mod check;
mod forms;
mod net;
mod patch;
mod people;
mod secret;

pub use check::{Checks, NAME_CHARS_MAX, QUOTA_BYTES_MIN, RATE_BPS_MAX, RATE_BPS_MIN};
pub use forms::{GroupPatch, NewGroup, NewPolicy, PolicyPatch};
pub use net::{
    DevicePatch, NewDevice, NewEnrolment, NewPool, NewToken, PoolPatch, Redeem, RotateKey, scopes,
};
pub use patch::Patch;
pub use people::{NewUser, QuotaPatch, RatePatch, UserPatch, UserRefs};
pub use secret::Secret;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
