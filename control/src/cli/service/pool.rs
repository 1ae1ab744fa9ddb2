//! `ringway pool`: inner addresses that devices lease.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Desk, Noun, changes, nothing_to_change, version_tag};
use crate::cli::ask::SureArgs;
use crate::cli::client::{Body, path};
use crate::cli::given::{self, Wish};
use crate::cli::show::{moment, word};
use crate::cli::table::Table;
use crate::failure::{Failure, Status};

/// What to do with pools.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolVerb {
    /// Make a pool
    Add(AddArgs),
    /// List pools
    List,
    /// Show a pool and how much of it is left
    Show(PoolName),
    /// Change a pool; what is not named stays, "none" takes it away
    Set(SetArgs),
    /// Remove a pool that nothing comes from
    Rm(RemoveArgs),
    /// List the addresses that are leased from a pool
    Leases(PoolName),
}

/// A pool.
#[derive(Args, Debug)]
pub(crate) struct PoolName {
    /// Name or identifier
    pool: String,
}

/// What a pool has.
#[derive(Args, Debug)]
pub(crate) struct FieldArgs {
    /// IPv4 prefix inside the interface's, or "none"
    #[arg(long, value_name = "PREFIX", value_parser = given::word)]
    net4: Option<Wish<String>>,
    /// IPv6 prefix inside the interface's, or "none"
    #[arg(long, value_name = "PREFIX", value_parser = given::word)]
    net6: Option<Wish<String>>,
    /// First and last address that may be leased, FIRST-LAST, or "none" for all of the prefix
    #[arg(long, value_name = "FIRST-LAST", value_parser = range)]
    range4: Option<Wish<(String, String)>>,
    /// Draw addresses at random
    #[arg(long, conflicts_with = "in_order")]
    random: bool,
    /// Take addresses in order
    #[arg(long)]
    in_order: bool,
}

impl FieldArgs {
    fn patch(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), value);
            }
        };
        let text = |wish: &Wish<String>| wish.json(|text| json!(text));
        put("net4", self.net4.as_ref().map(text));
        put("net6", self.net6.as_ref().map(text));
        let ends = |wish: &Wish<(String, String)>| wish.json(|(first, last)| json!([first, last]));
        put("range4", self.range4.as_ref().map(ends));
        put("random", (self.random || self.in_order).then(|| json!(self.random)));
        map
    }
}

fn range(text: &str) -> Result<Wish<(String, String)>, String> {
    if text == "none" {
        return Ok(Wish::Clear);
    }
    let (first, last) = text.split_once('-').ok_or_else(|| {
        format!("\"{text}\" is no range: write for example 10.77.8.100-10.77.8.200")
    })?;
    Ok(Wish::Set((first.trim().to_owned(), last.trim().to_owned())))
}

/// `ringway pool add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// 1 to 64 of a-z 0-9 . _ @ -
    name: String,
    #[command(flatten)]
    fields: FieldArgs,
}

/// `ringway pool set`.
#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    /// Name or identifier
    pool: String,
    /// A new name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    fields: FieldArgs,
    /// Only if this is still its version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// `ringway pool rm`.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// Name or identifier
    pool: String,
    /// Only if this is still its version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    sure: SureArgs,
}

/// Does it.
pub(crate) fn run(noun: Noun<PoolVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        PoolVerb::Add(args) => add(&desk, &args),
        PoolVerb::List => list(&desk),
        PoolVerb::Show(name) => show(&desk, &name.pool),
        PoolVerb::Set(args) => set(&desk, &args),
        PoolVerb::Rm(args) => remove(&desk, &args),
        PoolVerb::Leases(name) => leases(&desk, &name.pool),
    }
}

fn add(desk: &Desk, args: &AddArgs) -> Result<Status, Failure> {
    let mut body = args.fields.patch();
    body.insert("name".to_owned(), json!(args.name));
    let answer = desk.send(Method::POST, &path(&["pools"]), Body::Json(body.into()), None)?;
    desk.done(&answer, "/name", &format!("Made the pool \"{}\"", args.name))
}

fn list(desk: &Desk) -> Result<Status, Failure> {
    let pools = desk.list(&path(&["pools"]), &[], |pool| word(pool, "/name"))?;
    let Some(pools) = pools else { return Ok(Status::Done) };
    let mut table = Table::new(&["NAME", "IPV4", "IPV6", "RANGE", "RANDOM"]);
    for pool in &pools {
        table.push(vec![
            word(pool, "/name"),
            word(pool, "/net4"),
            word(pool, "/net6"),
            ends(pool, "/range4"),
            word(pool, "/random"),
        ]);
    }
    desk.table(&table)
}

fn ends(pool: &Value, pointer: &str) -> String {
    match pool.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, last]) => format!("{}-{}", word(first, ""), word(last, "")),
        Some(_) | None => word(pool, pointer),
    }
}

fn show(desk: &Desk, name: &str) -> Result<Status, Failure> {
    let Some(view) = desk.one(&path(&["pools", name]), "/pool/name")? else {
        return Ok(Status::Done);
    };
    desk.facts(&[
        ("Name", word(&view, "/pool/name")),
        ("Identifier", word(&view, "/pool/id")),
        ("IPv4", word(&view, "/pool/net4")),
        ("IPv6", word(&view, "/pool/net6")),
        ("Range", ends(&view, "/pool/range4")),
        ("Drawn at random", word(&view, "/pool/random")),
        ("Room for devices", word(&view, "/free")),
        ("Made", moment(&view, "/pool/created_at")),
        ("Version", word(&view, "/pool/version")),
    ])
}

fn set(desk: &Desk, args: &SetArgs) -> Result<Status, Failure> {
    let mut patch = args.fields.patch();
    if let Some(name) = &args.name {
        patch.insert("name".to_owned(), json!(name));
    }
    if patch.is_empty() {
        return Err(nothing_to_change("pool set"));
    }
    let at = path(&["pools", &args.pool]);
    let before = desk.client.get_json(&at)?["pool"].take();
    let tag = version_tag(args.if_version.or_else(|| before["version"].as_u64()));
    let answer = desk.send(Method::PATCH, &at, Body::Json(patch.into()), tag.as_deref())?;
    changes::shown(desk, &before, &answer, &format!("the pool \"{}\"", args.pool))
}

fn remove(desk: &Desk, args: &RemoveArgs) -> Result<Status, Failure> {
    args.sure.confirm(&format!("This removes the pool \"{}\"", args.pool))?;
    let tag = version_tag(args.if_version);
    let at = path(&["pools", &args.pool]);
    let answer = desk.send(Method::DELETE, &at, Body::Empty, tag.as_deref())?;
    desk.done(&answer, "", &format!("Removed the pool \"{}\"", args.pool))
}

fn leases(desk: &Desk, pool: &str) -> Result<Status, Failure> {
    let at = path(&["pools", pool, "leases"]);
    let Some(leases) = desk.list(&at, &[], |lease| word(lease, "/device"))? else {
        return Ok(Status::Done);
    };
    let mut table = Table::new(&["IPV4", "IPV6", "DEVICE", "CHOSEN", "SINCE"]);
    for lease in &leases {
        table.push(vec![
            word(lease, "/address4"),
            word(lease, "/address6"),
            word(lease, "/device"),
            word(lease, "/is_static"),
            moment(lease, "/created_at"),
        ]);
    }
    desk.table(&table)
}
