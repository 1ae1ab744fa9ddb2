//! One file, parsed once into checked types.
//!
//! `raw` is what TOML gives, `read` turns it into [`Config`], `contradictions` compares the parts,
//! `explain` prints the effective result, `diff` says what a changed file changes. Whoever has a
//! [`Config`] need not check anything again. This module must not know sockets or a running
//! gateway.

mod contradictions;
pub mod credentials;
mod diff;
mod explain;
mod fast_paths;
pub mod options;
mod problem;
mod raw;
mod read;
mod read_service;
mod service;
#[cfg(test)]
mod tests;
mod types;
pub mod units;
pub mod values;

use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::keys;
use raw::RawFile;

pub use diff::{Changes, NeedsRestart, PeerUpdate, diff, sections_changed};
pub use fast_paths::{FastPath, FastPaths};
use problem::Lines;
pub use problem::{Problem, Problems};
pub use service::{
    Api, ConnectionLog, Issuer, LogFormat, Metrics, Ocsp, Revocation, SignIn, StoreChoice,
};
pub use types::{
    Clients, Config, DriverChoice, Exit, Interface, InterfaceAddress, Limits, Log, LogLevel,
    Memory, NumaChoice, Origin, Overrides, Peer, SandboxChoice, SessionHeaps, SpinChoice, Stats,
    SteeringChoice, WorkerCount, Workers, ZeroCopyChoice,
};

impl Config {
    /// Reads a configuration from its text. `file` is its name in messages; relative paths in it
    /// are relative to `folder`. Files that it refers to are not read.
    ///
    /// # Errors
    /// Everything that is wrong in the text, with places.
    pub fn parse(
        text: &str,
        file: &str,
        folder: &Path,
        overrides: &Overrides,
    ) -> Result<Self, Problems> {
        let raw: Result<RawFile, Problem> =
            toml::from_str(text).map_err(|error| structural(text, &error));
        let read = raw
            .map_err(|problem| vec![problem])
            .and_then(|raw| read::read(text, &raw, folder, overrides));
        read.map_err(|list| Problems { file: file.to_owned(), list })
    }

    /// Reads the file at `path` and the preshared keys that it keeps in other files.
    ///
    /// # Errors
    /// A file that cannot be read, or everything that is wrong in it.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, Failure> {
        let text = Zeroizing::new(
            fs::read_to_string(path)
                .map_err(|error| Failure::file("read the configuration", path, &error))?,
        );
        let mut config =
            Self::parse(&text, &path.display().to_string(), &folder_of(path), overrides)?;
        for peer in &mut config.peers {
            if let Some(file) = &peer.preshared_file {
                peer.preshared = keys::read_preshared(file)?;
            }
        }
        Ok(config)
    }

    /// The warnings as lines for the operator.
    #[must_use]
    pub fn show_warnings(&self, file: &str) -> Vec<String> {
        let warnings = self.warnings.iter();
        warnings.map(|problem| format!("warning: {}", problem.show(file))).collect()
    }
}

/// The folder that relative paths in the file at `path` are relative to.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A problem with the shape of the file: its syntax, an unknown key, a value where a section
/// belongs.
fn structural(text: &str, error: &toml::de::Error) -> Problem {
    let message = error.message().trim();
    let message = match quoted(message, "unknown field `") {
        Some(key) => {
            let known = message.split_once("expected ").map_or("", |(_, known)| known);
            let nearest = nearest(key, known);
            let instead = match nearest {
                Some(known) => format!("write {known}"),
                None => format!("expected {known}"),
            };
            format!("{key} is not known here: {instead}")
        }
        None => format!("this is not valid: {}", message.replace('\n', ", ")),
    };
    match error.span() {
        Some(span) => Problem::at(&Lines::new(text), &span, message),
        None => Problem::general(message),
    }
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.split_once(before)?.1.split('`').next()
}

/// The known word that `word` was probably meant to be: at most a third of its letters differ.
fn nearest<'a>(word: &str, known: &'a str) -> Option<&'a str> {
    let known = known.split('`').skip(1).step_by(2);
    let scored = known.map(|known| (distance(word, known), known));
    let (score, best) = scored.min_by_key(|(score, _)| *score)?;
    (score <= word.len().max(best.len()).div_ceil(3)).then_some(best)
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
