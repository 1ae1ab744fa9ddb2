//! `ringway ban`: who is kept out for a while after too many failures.

use clap::{Args, Subcommand};
use reqwest::Method;

use super::Noun;
use crate::cli::client::{Body, path};
use crate::cli::show::{moment, word};
use crate::cli::table::Table;
use crate::failure::{Failure, Status};

/// What to do with bans.
#[derive(Debug, Subcommand)]
pub(crate) enum BanVerb {
    /// List who is kept out now, and until when
    List,
    /// Let somebody try again
    Lift(SubjectArgs),
}

/// Who is kept out.
#[derive(Args, Debug)]
pub(crate) struct SubjectArgs {
    /// As the list shows it: user:NAME, a prefix, or an address
    subject: String,
}

/// Does it.
pub(crate) fn run(noun: Noun<BanVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        BanVerb::Lift(args) => {
            let at = path(&["bans", &args.subject]);
            let answer = desk.send(Method::DELETE, &at, Body::Empty, None)?;
            desk.done(&answer, "", &format!("{} may try again", args.subject))
        }
        BanVerb::List => {
            let bans = desk.short_list(&path(&["bans"]), "", |ban| word(ban, "/subject"))?;
            let Some(bans) = bans else { return Ok(Status::Done) };
            let mut table = Table::new(&["WHO", "UNTIL", ">POINTS", "WHY"]);
            for ban in &bans {
                table.push(vec![
                    word(ban, "/subject"),
                    moment(ban, "/until"),
                    word(ban, "/score"),
                    word(ban, "/reason"),
                ]);
            }
            desk.table(&table)
        }
    }
}
