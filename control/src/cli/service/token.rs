//! `ringway token`: secrets by which programs use the API.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, json};
use zeroize::Zeroizing;

use super::names::Names;
use super::{Desk, Noun, now};
use crate::cli::ask::SureArgs;
use crate::cli::client::{Body, path};
use crate::cli::given::{self, When};
use crate::cli::show::{moment, word};
use crate::cli::table::Table;
use crate::cli::{print, say};
use crate::failure::{Failure, Status};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token for a user; its secret is printed once
    Add(AddArgs),
    /// List tokens, without their secrets
    List(ListArgs),
    /// Revoke a token
    Rm(RemoveArgs),
}

/// `ringway token add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// Name or identifier of the user that it stands for
    user: String,
    /// What it is for
    name: String,
    /// What it may be used for, such as users:read,sessions:write, or "*" for all that its user may
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true)]
    scope: Vec<String>,
    /// From when on it is worth nothing: a date, a time, or a distance such as 90d
    #[arg(long, value_name = "WHEN", value_parser = given::when)]
    expires: Option<When>,
}

/// `ringway token list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Of this user
    user: Option<String>,
}

/// `ringway token rm`.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// Identifier
    id: String,
    #[command(flatten)]
    sure: SureArgs,
}

/// Does it.
pub(crate) fn run(noun: Noun<TokenVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        TokenVerb::Add(args) => add(&desk, &args),
        TokenVerb::List(args) => list(&desk, &args),
        TokenVerb::Rm(args) => {
            args.sure.confirm(&format!("This revokes the token {}", args.id))?;
            let at = path(&["tokens", &args.id]);
            let answer = desk.send(Method::DELETE, &at, Body::Empty, None)?;
            desk.done(&answer, "", &format!("The token {} is worth nothing now", args.id))
        }
    }
}

fn add(desk: &Desk, args: &AddArgs) -> Result<Status, Failure> {
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(args.name));
    body.insert("scopes".to_owned(), json!(args.scope));
    if let Some(when) = args.expires {
        body.insert("expires_at".to_owned(), json!(when.ahead(now())));
    }
    let at = path(&["users", &args.user, "tokens"]);
    let answer = desk.send(Method::POST, &at, Body::Json(body.into()), None)?;
    if desk.show.json {
        desk.raw(&answer)?;
        return Ok(Status::Done);
    }
    let made = answer.json()?;
    let secret = made["secret"].as_str().unwrap_or_default();
    print(&Zeroizing::new(format!("{secret}\n")))?;
    if !desk.show.quiet {
        let id = word(&made, "/token/id");
        say(&format!("This is the token {id} of \"{}\". It cannot be shown again", args.user));
    }
    Ok(Status::Done)
}

fn list(desk: &Desk, args: &ListArgs) -> Result<Status, Failure> {
    let query = [("user", args.user.clone())];
    let tokens = desk.list(&path(&["tokens"]), &query, |token| word(token, "/id"))?;
    let Some(tokens) = tokens else { return Ok(Status::Done) };
    let users = Names::of(desk, "users", &tokens, "/user");
    let mut table = Table::new(&["ID", "USER", "NAME", "SCOPES", "EXPIRES", "LAST USED"]);
    for token in &tokens {
        table.push(vec![
            word(token, "/id"),
            users.at(token, "/user"),
            word(token, "/name"),
            word(token, "/scopes"),
            moment(token, "/expires_at"),
            moment(token, "/last_used_at"),
        ]);
    }
    desk.table(&table)
}
