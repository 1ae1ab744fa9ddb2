//! What responders (OCSP) are asked about, across a restart.
//!
//! Access lasts longer than a process, and so must the knowledge whom to ask whether it may go on.
//! What is noted is what the authority says of itself and of the certificate: issuer, serial
//! number, and where its responder is; nothing of a client's address. This must not know how
//! answers are judged.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::auth::certificate::Asking;
use crate::auth::certificate::ocsp::{Note, Question};
use crate::store::{Store, StoreError};

/// What the names of notes begin with.
const PREFIX: &str = "ocsp:";

/// Notes that are read or written together.
const TOGETHER: usize = 500;

/// Has everything that was noted asked about again.
pub(super) async fn restore(store: &Store, asking: Asking<'_>) -> Result<(), StoreError> {
    let mut after = String::new();
    loop {
        let from = after.clone();
        let limit = TOGETHER as u32;
        let page = store.read(move |db| db.settings_after(PREFIX, &from, limit)).await?;
        let is_last = page.len() < TOGETHER;
        for (name, value) in page {
            if let Some(question) = Question::from_kept(&value) {
                asking.restore(question);
            }
            after = name;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Writes notes, the first ones first, and takes away what is written.
pub(super) async fn write(store: &Store, notes: &mut Vec<Note>) -> Result<(), StoreError> {
    while !notes.is_empty() {
        let some: Vec<Note> = notes.iter().take(TOGETHER).cloned().collect();
        let count = some.len();
        let written = store.write(move |db| {
            some.iter().try_for_each(|note| match note {
                Note::Asked(question) => {
                    let value = question.to_kept();
                    db.put_setting(&name(&value), &value)
                }
                Note::Over(question) => db.remove_setting(&name(&question.to_kept())),
            })
        });
        written.await?;
        notes.drain(..count);
    }
    Ok(())
}

fn name(value: &[u8]) -> String {
    let mut name = PREFIX.to_owned();
    for byte in Sha256::digest(value) {
        // A String takes everything.
        let _ = write!(name, "{byte:02x}");
    }
    name
}
