//! The API as a whole, called without a socket.

mod access;
mod document;
mod refusals;
mod resources;
mod signing_in;
