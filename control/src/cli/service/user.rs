//! `ringway user`: who may come in.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::limits::{QuotaArgs, RateArgs};
use super::names::Names;
use super::{Desk, Noun, changes, nothing_to_change, now, version_tag};
use crate::cli::ask::{self, SureArgs};
use crate::cli::client::{Body, path};
use crate::cli::given::{self, When, Wish};
use crate::cli::show::{self, moment, word};
use crate::cli::table::Table;
use crate::cli::{files, print, say};
use crate::failure::{Failure, Status};

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// Make a user
    Add(AddArgs),
    /// List users
    List(ListArgs),
    /// Show a user, what holds for it and where each value comes from
    Show(UserName),
    /// Change a user; what is not named stays, "none" takes it away
    Set(SetArgs),
    /// Remove a user with its devices, tokens and links; its usage stays for the reports
    Rm(RemoveArgs),
    /// Give a user a new password, typed without being shown
    Passwd(PasswordArgs),
    /// Say whether a user has a second factor, or take it away from one who lost it
    Totp(TotpArgs),
    /// Let a user in again
    Enable(UserName),
    /// Keep a user out; its sessions end
    Disable(UserName),
    /// Throw a user out: as disable, and shown as a sanction
    Ban(UserName),
    /// Lift the ban of a user
    Unban(UserName),
    /// Say from when on a user may not come in any more
    Expire(ExpireArgs),
    /// Let a user's devices connect without a sign-in, or end that
    Access(AccessArgs),
    /// Show what a user moved, by device and day
    Usage(UsageArgs),
    /// Print everything that is kept about a user, as JSON
    Export(ExportArgs),
    /// Remove a user and everything that is kept about it; this cannot be undone
    Erase(RemoveArgs),
}

/// A user.
#[derive(Args, Debug)]
pub(crate) struct UserName {
    /// Name or identifier
    user: String,
}

/// What a user may do with the API.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleWord {
    /// Sees everything but secrets
    Viewer,
    /// Also changes users, devices, groups, policies and sessions
    Operator,
    /// Also changes the configuration, roles, pools and tokens
    Administrator,
    /// May see to its own things only
    None,
}

impl RoleWord {
    const fn word(self) -> Option<&'static str> {
        match self {
            Self::Viewer => Some("viewer"),
            Self::Operator => Some("operator"),
            Self::Administrator => Some("administrator"),
            Self::None => None,
        }
    }
}

/// What a user has.
#[derive(Args, Debug)]
pub(crate) struct FieldArgs {
    /// What people call it, at most 128 characters, or "none" for its name
    #[arg(long, value_name = "TEXT", value_parser = given::word)]
    display_name: Option<Wish<String>>,
    /// Group, or "none"
    #[arg(long, value_name = "GROUP", value_parser = given::word)]
    group: Option<Wish<String>>,
    /// Policy, before that of its group, or "none"
    #[arg(long, value_name = "POLICY", value_parser = given::word)]
    policy: Option<Wish<String>>,
    /// What it may do with the API
    #[arg(long, value_name = "ROLE")]
    role: Option<RoleWord>,
    /// From when on it may not come in any more: a date, a time, a distance such as 30d, or "never"
    #[arg(long, value_name = "WHEN", value_parser = given::when_or_never)]
    expires: Option<Wish<When>>,
    #[command(flatten)]
    rate: RateArgs,
    #[command(flatten)]
    quota: QuotaArgs,
}

impl FieldArgs {
    fn patch(&self, quota_is_new: bool) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), value);
            }
        };
        let text = |wish: &Wish<String>| wish.json(|text| json!(text));
        put("display_name", self.display_name.as_ref().map(text));
        put("group", self.group.as_ref().map(text));
        put("policy", self.policy.as_ref().map(text));
        put("role", self.role.map(|role| json!(role.word())));
        let moment = |wish: Wish<When>| wish.json(|when| json!(when.ahead(now())));
        put("expires_at", self.expires.map(moment));
        put("rate", self.rate.json());
        put("quota", self.quota.json(quota_is_new));
        map
    }
}

/// `ringway user add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// 1 to 64 of a-z 0-9 . _ @ -
    name: String,
    #[command(flatten)]
    fields: FieldArgs,
    /// Give it a first password, typed without being shown
    #[arg(long)]
    password: bool,
    /// Give it a first password from a file, or from standard input with -
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,
}

/// Whether a user may come in.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StateWord {
    /// May come in
    Active,
    /// Is kept out
    Disabled,
    /// Was thrown out
    Banned,
}

impl StateWord {
    const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Banned => "banned",
        }
    }
}

/// `ringway user list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Of this group
    #[arg(long)]
    group: Option<String>,
    /// In this state
    #[arg(long)]
    state: Option<StateWord>,
    /// With this role
    #[arg(long)]
    role: Option<RoleWord>,
    /// Whose name contains this
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Whose time ends before
    #[arg(long, value_name = "WHEN", value_parser = given::when)]
    expires_before: Option<When>,
}

/// `ringway user set`.
#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    /// Name or identifier
    user: String,
    /// A new name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    fields: FieldArgs,
    /// Have no rate of its own: that of its policy holds
    #[arg(long, conflicts_with_all = ["rate_up", "rate_down", "burst"])]
    rate_of_policy: bool,
    /// Only if this is still its version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// `ringway user rm` and `ringway user erase`.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// Name or identifier
    user: String,
    /// Only if this is still its version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    sure: SureArgs,
}

/// `ringway user passwd`.
#[derive(Args, Debug)]
pub(crate) struct PasswordArgs {
    /// Name or identifier
    user: String,
    /// File with the password, or - for standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// `ringway user totp`.
#[derive(Args, Debug)]
pub(crate) struct TotpArgs {
    /// Name or identifier
    user: String,
    /// Take the second factor away
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    sure: SureArgs,
}

/// `ringway user expire`.
#[derive(Args, Debug)]
pub(crate) struct ExpireArgs {
    /// Name or identifier
    user: String,
    /// A date, a time, a distance such as 30d, or "never"
    #[arg(value_parser = given::when_or_never)]
    when: Wish<When>,
}

/// `ringway user access`.
#[derive(Args, Debug)]
pub(crate) struct AccessArgs {
    /// Name or identifier
    user: String,
    /// This device only, not all that are enabled
    #[arg(long, conflicts_with = "end")]
    device: Option<String>,
    /// End the access of all its devices
    #[arg(long)]
    end: bool,
}

/// `ringway user usage`.
#[derive(Args, Debug)]
pub(crate) struct UsageArgs {
    /// Name or identifier
    user: String,
    /// From this day on: a date, or a distance back [default: 30d]
    #[arg(long, value_name = "WHEN", value_parser = given::when)]
    from: Option<When>,
    /// Up to this day [default: today]
    #[arg(long, value_name = "WHEN", value_parser = given::when)]
    to: Option<When>,
}

/// `ringway user export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Name or identifier
    user: String,
    /// Write it to this file, readable by its owner only
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Does it.
pub(crate) fn run(noun: Noun<UserVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        UserVerb::Add(args) => add(&desk, &args),
        UserVerb::List(args) => list(&desk, &args),
        UserVerb::Show(name) => show_user(&desk, &name.user),
        UserVerb::Set(args) => set(&desk, &args),
        UserVerb::Rm(args) => remove(&desk, &args),
        UserVerb::Passwd(args) => set_password(&desk, &args),
        UserVerb::Totp(args) => totp(&desk, &args),
        UserVerb::Enable(name) => state(&desk, &name.user, StateWord::Active),
        UserVerb::Disable(name) => state(&desk, &name.user, StateWord::Disabled),
        UserVerb::Ban(name) => state(&desk, &name.user, StateWord::Banned),
        UserVerb::Unban(name) => unban(&desk, &name.user),
        UserVerb::Expire(args) => expire(&desk, &args),
        UserVerb::Access(args) => access(&desk, &args),
        UserVerb::Usage(args) => usage(&desk, &args),
        UserVerb::Export(args) => export(&desk, &args),
        UserVerb::Erase(args) => erase(&desk, &args),
    }
}

fn add(desk: &Desk, args: &AddArgs) -> Result<Status, Failure> {
    let mut body = args.fields.patch(true);
    body.retain(|_, value| !value.is_null());
    body.insert("name".to_owned(), json!(args.name));
    if args.password || args.password_file.is_some() {
        let what = format!("Password of {}", args.name);
        let password = ask::secret(&what, args.password_file.as_deref(), true)?;
        body.insert("password".to_owned(), json!(*password));
    }
    let answer = desk.send(Method::POST, &path(&["users"]), Body::Json(body.into()), None)?;
    desk.done(&answer, "/name", &format!("Made the user \"{}\"", args.name))
}

fn list(desk: &Desk, args: &ListArgs) -> Result<Status, Failure> {
    if matches!(args.role, Some(RoleWord::None)) {
        let message = "Users without a role cannot be asked for: leave --role out and look at \
                       the column ROLE";
        return Err(Failure::new(Status::Usage, message));
    }
    let query = [
        ("group", args.group.clone()),
        ("state", args.state.map(|state| state.word().to_owned())),
        ("role", args.role.and_then(RoleWord::word).map(str::to_owned)),
        ("name", args.name.clone()),
        ("expires_before", args.expires_before.map(|when| when.ahead(now()).to_string())),
    ];
    let users = desk.list(&path(&["users"]), &query, |user| word(user, "/name"))?;
    let Some(users) = users else { return Ok(Status::Done) };
    let groups = Names::of(desk, "groups", &users, "/group");
    let policies = Names::of(desk, "policies", &users, "/policy");
    let mut table = Table::new(&[
        "NAME",
        "DISPLAY NAME",
        "STATE",
        "ROLE",
        "GROUP",
        "POLICY",
        "EXPIRES",
        "PASSWORD",
        "TOTP",
    ]);
    for user in &users {
        table.push(vec![
            word(user, "/name"),
            word(user, "/display_name"),
            word(user, "/state"),
            word(user, "/role"),
            groups.at(user, "/group"),
            policies.at(user, "/policy"),
            moment(user, "/expires_at"),
            word(user, "/has_password"),
            word(user, "/has_totp"),
        ]);
    }
    desk.table(&table)
}

fn show_user(desk: &Desk, user: &str) -> Result<Status, Failure> {
    let Some(view) = desk.one(&path(&["users", user]), "/user/name")? else {
        return Ok(Status::Done);
    };
    let groups = Names::of(desk, "groups", [&view], "/user/group");
    let origin = |field: &str| match word(&view, &format!("/effective/origins/{field}")).as_str() {
        show::NOTHING => String::new(),
        origin => format!(" (from {origin})"),
    };
    let holds = |field: &str, value: String| format!("{value}{}", origin(field));
    let at = |field: &str| format!("/effective/{field}");
    let time = |field: &str, zero| holds(field, show::seconds(&view, &at(field), zero));
    let plain = |field: &str| holds(field, word(&view, &at(field)));
    let rates = |field: &str| holds(field, show::both_rates(&view, &at(field)));
    desk.facts(&[
        ("Name", word(&view, "/user/name")),
        ("Identifier", word(&view, "/user/id")),
        ("Display name", word(&view, "/user/display_name")),
        ("State", word(&view, "/user/state")),
        ("Kept out", word(&view, "/kept_out")),
        ("Role", word(&view, "/user/role")),
        ("Group", groups.at(&view, "/user/group")),
        ("Policy", holds("policy", word(&view, "/effective/policy_name"))),
        ("Expires", moment(&view, "/user/expires_at")),
        ("Password", word(&view, "/user/has_password")),
        ("Second factor", second_factor(&view)),
        ("Sign-in asks for", plain("factors")),
        ("Rate of the user", rates("user_rate")),
        ("Rate of a session", rates("session_rate")),
        ("Rate of the group", rates("group_rate")),
        ("Quota", holds("quota", show::quota(&view, "/effective/quota"))),
        ("Quota used", show::size(&view, "/quota/used_bytes")),
        ("Quota left", show::size(&view, "/quota/left_bytes")),
        ("Quota begins anew", moment(&view, "/quota/resets_at")),
        ("Access lasts", time("session_timeout_s", "without end")),
        ("Idle access lasts", time("idle_timeout_s", "without end")),
        ("Devices", format!("{} of {}", word(&view, "/devices"), plain("devices_max"))),
        ("Sessions at most", plain("sessions_max")),
        ("One session more", plain("excess")),
        ("Made", moment(&view, "/user/created_at")),
        ("Version", word(&view, "/user/version")),
    ])
}

fn set(desk: &Desk, args: &SetArgs) -> Result<Status, Failure> {
    let at = path(&["users", &args.user]);
    let before = desk.client.get_json(&at)?["user"].take();
    let mut patch = args.fields.patch(before["quota"].is_null());
    if let Some(name) = &args.name {
        patch.insert("name".to_owned(), json!(name));
    }
    if args.rate_of_policy {
        patch.insert("rate".to_owned(), Value::Null);
    }
    if patch.is_empty() {
        return Err(nothing_to_change("user set"));
    }
    change(desk, &args.user, &before, patch.into(), args.if_version)
}

/// Sends a patch and shows what it changed.
fn change(
    desk: &Desk,
    user: &str,
    before: &Value,
    patch: Value,
    if_version: Option<u64>,
) -> Result<Status, Failure> {
    let tag = version_tag(if_version.or_else(|| before["version"].as_u64()));
    let at = path(&["users", user]);
    let answer = desk.send(Method::PATCH, &at, Body::Json(patch), tag.as_deref())?;
    changes::shown(desk, before, &answer, &format!("the user \"{user}\""))
}

fn remove(desk: &Desk, args: &RemoveArgs) -> Result<Status, Failure> {
    let user = &args.user;
    args.sure.confirm(&format!("This removes the user \"{user}\" with its devices and tokens"))?;
    let tag = version_tag(args.if_version);
    let at = path(&["users", user]);
    let answer = desk.send(Method::DELETE, &at, Body::Empty, tag.as_deref())?;
    desk.done(&answer, "", &format!("Removed the user \"{user}\""))
}

fn set_password(desk: &Desk, args: &PasswordArgs) -> Result<Status, Failure> {
    let what = format!("New password of {}", args.user);
    let password = ask::secret(&what, args.password_file.as_deref(), true)?;
    let at = path(&["users", &args.user, "password"]);
    let answer = desk.send(Method::PUT, &at, Body::Json(json!({ "new": *password })), None)?;
    desk.done(&answer, "", &format!("\"{}\" has a new password", args.user))
}

fn totp(desk: &Desk, args: &TotpArgs) -> Result<Status, Failure> {
    let user = &args.user;
    if args.remove {
        args.sure.confirm(&format!("This takes the second factor of \"{user}\" away"))?;
        let at = path(&["users", user, "totp"]);
        let answer = desk.send(Method::DELETE, &at, Body::Empty, None)?;
        return desk.done(&answer, "", &format!("\"{user}\" has no second factor any more"));
    }
    let view = desk.client.get_json(&path(&["users", user]))?;
    if desk.show.json {
        let user = &view["user"];
        let shown = json!({ "has_totp": user["has_totp"], "totp_kind": user["totp_kind"] });
        print(&format!("{shown}\n"))?;
        return Ok(Status::Done);
    }
    print(&format!("{}\n", second_factor(&view)))?;
    if !desk.show.quiet && view["user"]["has_totp"] == json!(false) {
        say("A user sets up its own second factor after signing in to the API");
    }
    Ok(Status::Done)
}

/// Whether there is one, and of the rarer kind that it is.
fn second_factor(view: &Value) -> String {
    let has = word(view, "/user/has_totp");
    if view["user"]["totp_kind"] == "counter" { format!("{has}, by a counter") } else { has }
}

fn state(desk: &Desk, user: &str, state: StateWord) -> Result<Status, Failure> {
    let at = path(&["users", user, "state"]);
    let body = Body::Json(json!({ "state": state.word() }));
    let answer = desk.send(Method::PUT, &at, body, None)?;
    desk.done(&answer, "/name", &format!("The user \"{user}\" is {} now", state.word()))
}

fn unban(desk: &Desk, user: &str) -> Result<Status, Failure> {
    let view = desk.client.get_json(&path(&["users", user]))?;
    let now = word(&view, "/user/state");
    if now != "banned" {
        let message = format!(
            "\"{user}\" is not banned but {now}: \"ringway user enable\" lets in who is disabled"
        );
        return Err(Failure::new(Status::Conflict, message));
    }
    state(desk, user, StateWord::Active)
}

fn expire(desk: &Desk, args: &ExpireArgs) -> Result<Status, Failure> {
    let before = desk.client.get_json(&path(&["users", &args.user]))?["user"].take();
    let moment = args.when.json(|when| json!(when.ahead(now())));
    change(desk, &args.user, &before, json!({ "expires_at": moment }), None)
}

fn access(desk: &Desk, args: &AccessArgs) -> Result<Status, Failure> {
    let (user, at) = (&args.user, path(&["users", &args.user, "access"]));
    if args.end {
        let answer = desk.send(Method::DELETE, &at, Body::Empty, None)?;
        return desk.done(&answer, "", &format!("The access of \"{user}\" has ended"));
    }
    let body = Body::Json(json!({ "device": args.device }));
    let answer = desk.send(Method::POST, &at, body, None)?;
    let granted = answer.json()?;
    let until = match moment(&granted, "/until").as_str() {
        show::NOTHING => "without end".to_owned(),
        until => format!("until {until}"),
    };
    desk.done(&answer, "/user", &format!("\"{user}\" has access {until}"))
}

fn usage(desk: &Desk, args: &UsageArgs) -> Result<Status, Failure> {
    let time = |when: Option<When>| when.map(|when| when.back(now()).to_string());
    let query = [("from", time(args.from)), ("to", time(args.to))];
    let answer = desk.client.get(&path(&["users", &args.user, "usage"]), &query)?;
    if desk.show.json {
        desk.raw(&answer)?;
        return Ok(Status::Done);
    }
    let rows = answer.json()?;
    let rows: &[Value] = rows.as_array().map_or(&[], Vec::as_slice);
    let devices = desk.client.get_json(&path(&["users", &args.user, "devices"]));
    let devices = devices.unwrap_or_default();
    let name = |id: &str| {
        let all = devices.as_array().into_iter().flatten();
        let found = all.map(|view| &view["device"]).find(|device| device["id"] == json!(id));
        found.map_or_else(|| id.to_owned(), |device| word(device, "/name"))
    };
    let mut table = Table::new(&["DAY", "DEVICE", ">UP", ">DOWN"]);
    for row in rows {
        let day = row["day"].as_i64().unwrap_or(0).saturating_mul(86_400_000);
        let day = crate::store::ids::Timestamp(day).to_string();
        table.push(vec![
            day.chars().take(10).collect(),
            name(&word(row, "/device")),
            show::size(row, "/up_bytes"),
            show::size(row, "/down_bytes"),
        ]);
    }
    desk.table(&table)
}

fn export(desk: &Desk, args: &ExportArgs) -> Result<Status, Failure> {
    let answer = desk.client.get(&path(&["users", &args.user, "export"]), &[])?;
    match &args.out {
        Some(file) => {
            files::write_private(file, answer.text.as_bytes())?;
            say(&format!("Wrote what is kept about \"{}\" to {}", args.user, file.display()));
        }
        None => desk.raw(&answer)?,
    }
    Ok(Status::Done)
}

fn erase(desk: &Desk, args: &RemoveArgs) -> Result<Status, Failure> {
    let user = &args.user;
    let what = format!(
        "This removes the user \"{user}\" and everything that is kept about it, and cannot be undone"
    );
    args.sure.confirm(&what)?;
    let tag = version_tag(args.if_version);
    let at = path(&["users", user, "erase"]);
    let answer = desk.send(Method::POST, &at, Body::Empty, tag.as_deref())?;
    desk.done(&answer, "", &format!("Nothing is left of the user \"{user}\""))
}
