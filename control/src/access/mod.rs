//! Who may be connected now: the live picture of the records, and what follows from time and use.
//!
//! [`Projection`] is a pure state machine. Users and devices as they are in the store, bytes as the
//! cores count them, sessions as they report them and the time go in; steps for the plane, notes
//! for log and events and decisions for the store come out. A device is *in* while it may connect:
//! then it is a peer of the plane, bound to the end of a chain of limits. It is *out* for one
//! [`Out`] reason otherwise. [`crate::service`] joins it with the store, the desk and the clocks.
//!
//! The projection must not know SQL, HTTP, threads or clocks.

pub mod chain;
pub mod clock;
pub mod ledger;
pub mod people;
pub mod projection;
pub mod sessions;

pub use chain::{AccountPlan, Exhausted, Number, Volume};
pub use clock::Moment;
pub use people::{Client, Out, Person, Rules};
pub use projection::{Note, Projection, Stand, Step};
