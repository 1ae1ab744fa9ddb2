//! Accounts in the world: what peers on several cores may use together, to the byte.

mod gang;
mod rates;
mod tcp;
mod volumes;
