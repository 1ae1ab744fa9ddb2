//! Two tunnels that talk to each other under a clock that the test turns, and what they must do.

mod pair;
mod session;
mod vectors;
