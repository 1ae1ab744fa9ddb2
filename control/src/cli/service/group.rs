//! `ringway group`: users with a policy and a rate in common.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::limits::RateArgs;
use super::names::Names;
use super::{Desk, Noun, changes, nothing_to_change, version_tag};
use crate::cli::ask::SureArgs;
use crate::cli::client::{Body, path};
use crate::cli::given::{self, Wish};
use crate::cli::show::{both_rates, moment, word};
use crate::cli::table::Table;
use crate::failure::{Failure, Status};

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupVerb {
    /// Make a group
    Add(AddArgs),
    /// List groups
    List,
    /// Show a group
    Show(GroupName),
    /// Change a group; what is not named stays, "none" takes it away
    Set(SetArgs),
    /// Remove a group that nobody is in
    Rm(RemoveArgs),
}

/// A group.
#[derive(Args, Debug)]
pub(crate) struct GroupName {
    /// Name or identifier
    group: String,
}

/// What a group has.
#[derive(Args, Debug)]
pub(crate) struct FieldArgs {
    /// Policy of its users, or "none" for the default one
    #[arg(long, value_name = "POLICY", value_parser = given::word)]
    policy: Option<Wish<String>>,
    #[command(flatten)]
    rate: RateArgs,
}

impl FieldArgs {
    fn patch(&self) -> Map<String, Value> {
        let mut map = Map::new();
        if let Some(policy) = &self.policy {
            map.insert("policy".to_owned(), policy.json(|name| json!(name)));
        }
        if let Some(rate) = self.rate.json() {
            map.insert("rate".to_owned(), rate);
        }
        map
    }
}

/// `ringway group add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// 1 to 64 of a-z 0-9 . _ @ -
    name: String,
    #[command(flatten)]
    fields: FieldArgs,
}

/// `ringway group set`.
#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    /// Name or identifier
    group: String,
    /// A new name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    fields: FieldArgs,
    /// Only if this is still its version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// `ringway group rm`.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// Name or identifier
    group: String,
    /// Only if this is still its version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    sure: SureArgs,
}

/// Does it.
pub(crate) fn run(noun: Noun<GroupVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        GroupVerb::Add(args) => add(&desk, &args),
        GroupVerb::List => list(&desk),
        GroupVerb::Show(name) => show(&desk, &name.group),
        GroupVerb::Set(args) => set(&desk, &args),
        GroupVerb::Rm(args) => remove(&desk, &args),
    }
}

fn add(desk: &Desk, args: &AddArgs) -> Result<Status, Failure> {
    let mut body = args.fields.patch();
    body.insert("name".to_owned(), json!(args.name));
    let answer = desk.send(Method::POST, &path(&["groups"]), Body::Json(body.into()), None)?;
    desk.done(&answer, "/name", &format!("Made the group \"{}\"", args.name))
}

fn list(desk: &Desk) -> Result<Status, Failure> {
    let groups = desk.list(&path(&["groups"]), &[], |group| word(group, "/name"))?;
    let Some(groups) = groups else { return Ok(Status::Done) };
    let policies = Names::of(desk, "policies", &groups, "/policy");
    let mut table = Table::new(&["NAME", "POLICY", "RATE OF ALL TOGETHER"]);
    for group in &groups {
        let policy = policies.at(group, "/policy");
        table.push(vec![word(group, "/name"), policy, both_rates(group, "/rate")]);
    }
    desk.table(&table)
}

fn show(desk: &Desk, name: &str) -> Result<Status, Failure> {
    let Some(group) = desk.one(&path(&["groups", name]), "/name")? else {
        return Ok(Status::Done);
    };
    let policies = Names::of(desk, "policies", [&group], "/policy");
    desk.facts(&[
        ("Name", word(&group, "/name")),
        ("Identifier", word(&group, "/id")),
        ("Policy", policies.at(&group, "/policy")),
        ("Rate of all together", both_rates(&group, "/rate")),
        ("Made", moment(&group, "/created_at")),
        ("Version", word(&group, "/version")),
    ])
}

fn set(desk: &Desk, args: &SetArgs) -> Result<Status, Failure> {
    let mut patch = args.fields.patch();
    if let Some(name) = &args.name {
        patch.insert("name".to_owned(), json!(name));
    }
    if patch.is_empty() {
        return Err(nothing_to_change("group set"));
    }
    let at = path(&["groups", &args.group]);
    let before = desk.client.get_json(&at)?;
    let tag = version_tag(args.if_version.or_else(|| before["version"].as_u64()));
    let answer = desk.send(Method::PATCH, &at, Body::Json(patch.into()), tag.as_deref())?;
    changes::shown(desk, &before, &answer, &format!("the group \"{}\"", args.group))
}

fn remove(desk: &Desk, args: &RemoveArgs) -> Result<Status, Failure> {
    args.sure.confirm(&format!("This removes the group \"{}\"", args.group))?;
    let tag = version_tag(args.if_version);
    let at = path(&["groups", &args.group]);
    let answer = desk.send(Method::DELETE, &at, Body::Empty, tag.as_deref())?;
    desk.done(&answer, "", &format!("Removed the group \"{}\"", args.group))
}
