//! The routes of the frame itself: what concerns the gateway as a whole.
//!
//! Users, devices and what belongs to them are in `resources`. Each file has its lines of the table
//! of needs beside its handlers; handlers only read, call and show.

#![expect(unused_qualifications, reason = "the macro that documents parameters writes them so")]

mod config;
mod drain;
mod events;
mod health;
mod nodes;
mod reports;
mod session;
mod sessions;
mod setup;
mod status;

use super::Part;

/// All parts of the frame.
pub(super) fn parts() -> Vec<Part> {
    vec![
        status::part(),
        health::part(),
        sessions::part(),
        config::part(),
        nodes::part(),
        reports::part(),
        drain::part(),
        events::part(),
        session::part(),
        setup::part(),
    ]
}
