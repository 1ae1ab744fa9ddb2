//! The commands that speak to the running gateway through its API: one room per noun.
//!
//! A command is thin, as the API is: it reads what was written, asks the API, and shows the answer
//! as a table, as the API's own JSON (`--json`), or as names for other commands (`--quiet`). What
//! is allowed is the gateway's to say. [`Desk`] is what every command works with.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod ban;
pub(crate) mod changes;
pub(crate) mod config;
pub(crate) mod device;
pub(crate) mod drain;
pub(crate) mod enrol;
pub(crate) mod events;
pub(crate) mod gateway;
pub(crate) mod group;
pub(crate) mod limits;
mod names;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod pool;
pub(crate) mod quota;
pub(crate) mod report;
pub(crate) mod session;
pub(crate) mod token;
pub(crate) mod user;

use std::env;
use std::io::{self, IsTerminal as _};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::client::target::{ConnectArgs, Target};
use super::client::{Answer, Body, Client, Extra};
use super::show;
use super::table::{Table, facts};
use super::{print, say};
use crate::failure::{Failure, Status};
use crate::store::ids::Timestamp;

/// A command with verbs.
#[derive(Args, Debug)]
pub(crate) struct Noun<T: Subcommand> {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: T,
}

/// A command without verbs.
#[derive(Args, Debug)]
pub(crate) struct Verb<T: Args> {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) args: T,
}

/// A command without anything of its own.
#[derive(Args, Debug)]
pub(crate) struct Nothing {}

/// What all of these commands take.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}

/// How an answer is shown.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "How it is shown")]
pub(crate) struct ShowArgs {
    /// Print the API's JSON
    #[arg(long, global = true, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Print names or identifiers only, as other commands take them
    #[arg(long, short = 'q', global = true)]
    pub(crate) quiet: bool,
    /// Print tables whole, wider than the terminal if need be
    #[arg(long, global = true)]
    pub(crate) no_trunc: bool,
}

/// What every command works with.
pub(crate) struct Desk {
    /// The API.
    pub(crate) client: Client,
    /// How answers are shown.
    pub(crate) show: ShowArgs,
}

impl Common {
    /// Finds the gateway. Nothing is sent yet.
    pub(crate) fn desk(&self) -> Result<Desk, Failure> {
        self.desk_at(self.connect.target()?)
    }

    /// The gateway there. Nothing is sent yet.
    pub(crate) fn desk_at(&self, target: Target) -> Result<Desk, Failure> {
        Ok(Desk { client: Client::new(target)?, show: self.show })
    }
}

impl Desk {
    /// Reads a list. It is printed unless people are to read it; then the rows come back.
    pub(crate) fn list(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
        name: impl Fn(&Value) -> String,
    ) -> Result<Option<Vec<Value>>, Failure> {
        let mut page = self.client.pages(path, query)?;
        if self.show.json {
            print(&format!("{page}\n"))?;
            return Ok(None);
        }
        let rows = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        self.names_or_rows(rows, name)
    }

    /// As [`Self::list`], of what the API gives without pages.
    pub(crate) fn short_list(
        &self,
        path: &str,
        pointer: &str,
        name: impl Fn(&Value) -> String,
    ) -> Result<Option<Vec<Value>>, Failure> {
        let answer = self.client.get(path, &[])?;
        if self.show.json {
            self.raw(&answer)?;
            return Ok(None);
        }
        let all = answer.json()?;
        let rows = all.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        self.names_or_rows(rows, name)
    }

    fn names_or_rows(
        &self,
        rows: Vec<Value>,
        name: impl Fn(&Value) -> String,
    ) -> Result<Option<Vec<Value>>, Failure> {
        if !self.show.quiet {
            return Ok(Some(rows));
        }
        let lines: String = rows.iter().map(|row| format!("{}\n", name(row))).collect();
        print(&lines)?;
        Ok(None)
    }

    /// Reads one thing. It is printed unless people are to read it.
    pub(crate) fn one(&self, path: &str, name: &str) -> Result<Option<Value>, Failure> {
        let answer = self.client.get(path, &[])?;
        if self.show.json {
            self.raw(&answer)?;
            return Ok(None);
        }
        let value = answer.json()?;
        if self.show.quiet {
            print(&format!("{}\n", show::word(&value, name)))?;
            return Ok(None);
        }
        Ok(Some(value))
    }

    /// Sends a change.
    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        body: Body,
        if_match: Option<&str>,
    ) -> Result<Answer, Failure> {
        self.client.send(method, path, &Extra { query: &[], if_match }, body)
    }

    /// Says that a change was made; `name` points to what it is called in the answer.
    pub(crate) fn done(&self, answer: &Answer, name: &str, said: &str) -> Result<Status, Failure> {
        if self.show.json {
            self.raw(answer)?;
        } else if self.show.quiet {
            if !answer.text.is_empty() {
                print(&format!("{}\n", show::word(&answer.json()?, name)))?;
            }
        } else {
            say(said);
        }
        Ok(Status::Done)
    }

    /// Prints the answer as it came.
    pub(crate) fn raw(&self, answer: &Answer) -> Result<(), Failure> {
        if answer.text.is_empty() {
            return Ok(());
        }
        print(&format!("{}\n", answer.text.trim_end()))
    }

    /// Prints a table.
    pub(crate) fn table(&self, table: &Table) -> Result<Status, Failure> {
        print(&table.lines(self.width()))?;
        Ok(Status::Done)
    }

    /// Prints facts.
    pub(crate) fn facts(&self, rows: &[(&str, String)]) -> Result<Status, Failure> {
        print(&facts(rows))?;
        Ok(Status::Done)
    }

    /// Columns that a line may have; none for all that it wants.
    pub(crate) fn width(&self) -> Option<usize> {
        if self.show.no_trunc {
            return None;
        }
        let said = env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let asked = || {
            let is_terminal = io::stdout().is_terminal();
            let (columns, _) = is_terminal.then(crossterm::terminal::size)?.ok()?;
            Some(usize::from(columns))
        };
        said.or_else(asked).filter(|width| *width > 0)
    }
}

/// The time on this host.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The version of a record as `If-Match` writes it.
pub(crate) fn version_tag(version: Option<u64>) -> Option<String> {
    version.map(|version| format!("\"{version}\""))
}

/// That nothing to be changed was named.
pub(crate) fn nothing_to_change(command: &str) -> Failure {
    let message = format!("Say what is to change: \"ringway {command} --help\" shows what can");
    Failure::new(Status::Usage, message)
}
