//! `ringway quota`: who used how much of what they may.

use clap::{Args, Subcommand};
use reqwest::Method;

use super::limits::QuotaEndArgs;
use super::{Desk, Noun};
use crate::cli::client::{Body, path};
use crate::cli::given::{self, Volume};
use crate::cli::show::{moment, quota, size, word};
use crate::cli::table::Table;
use crate::failure::{Failure, Status};

/// What to do with quotas.
#[derive(Debug, Subcommand)]
pub(crate) enum QuotaVerb {
    /// List users, each with how it stands with its quota
    List(ListArgs),
    /// Give a user a quota of its own, before that of its policy
    Set(SetArgs),
    /// Take a user's own quota away: that of its policy holds
    Rm(UserName),
    /// Let a user's quota begin anew now
    Reset(UserName),
}

/// `ringway quota list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Those whose quota is used up
    #[arg(long)]
    exceeded: bool,
}

/// `ringway quota set`.
#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    /// Name or identifier of the user
    user: String,
    /// How much may be moved, both ways together: SIZE/day, /week, /month or /total
    #[arg(value_name = "SIZE/PERIOD", value_parser = given::volume)]
    volume: Volume,
    #[command(flatten)]
    end: QuotaEndArgs,
}

/// A user.
#[derive(Args, Debug)]
pub(crate) struct UserName {
    /// Name or identifier of the user
    user: String,
}

/// Does it.
pub(crate) fn run(noun: Noun<QuotaVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        QuotaVerb::List(args) => list(&desk, &args),
        QuotaVerb::Set(args) => {
            let at = path(&["users", &args.user, "quota"]);
            let body = Body::Json(args.end.quota(args.volume));
            let answer = desk.send(Method::PUT, &at, body, None)?;
            let now = quota(&answer.json()?, "/quota");
            desk.done(&answer, "/name", &format!("\"{}\" may move {now}", args.user))
        }
        QuotaVerb::Rm(name) => {
            let at = path(&["users", &name.user, "quota"]);
            let answer = desk.send(Method::DELETE, &at, Body::Empty, None)?;
            let said = format!("\"{}\" has the quota of its policy now", name.user);
            desk.done(&answer, "/name", &said)
        }
        QuotaVerb::Reset(name) => {
            let at = path(&["users", &name.user, "quota", "reset"]);
            let answer = desk.send(Method::POST, &at, Body::Empty, None)?;
            let left = size(&answer.json()?, "/left_bytes");
            let said = format!("The quota of \"{}\" begins anew: {left} are left", name.user);
            desk.done(&answer, "/left_bytes", &said)
        }
    }
}

fn list(desk: &Desk, args: &ListArgs) -> Result<Status, Failure> {
    let rows = desk.list(&path(&["quotas"]), &[], |row| word(row, "/name"))?;
    let Some(rows) = rows else { return Ok(Status::Done) };
    let mut table =
        Table::new(&["USER", "QUOTA", ">USED", ">LEFT", "USED UP", "NOW", "BEGINS ANEW"]);
    for row in &rows {
        let exceeded = row.pointer("/standing/exceeded").and_then(serde_json::Value::as_bool);
        if args.exceeded && exceeded != Some(true) {
            continue;
        }
        table.push(vec![
            word(row, "/name"),
            quota(row, "/standing/quota"),
            size(row, "/standing/used_bytes"),
            size(row, "/standing/left_bytes"),
            word(row, "/standing/exceeded"),
            word(row, "/standing/action"),
            moment(row, "/standing/resets_at"),
        ]);
    }
    desk.table(&table)
}
