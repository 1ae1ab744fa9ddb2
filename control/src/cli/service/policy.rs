//! `ringway policy`: what users may do, under a name.

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::limits::{QuotaArgs, RateArgs, SessionRateArgs};
use super::names::Names;
use super::{Desk, Noun, changes, nothing_to_change, version_tag};
use crate::cli::ask::SureArgs;
use crate::cli::client::{Body, path};
use crate::cli::given::{self, Wish};
use crate::cli::show::{both_rates, moment, quota, seconds, word};
use crate::cli::table::Table;
use crate::failure::{Failure, Status};

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Make a policy; what is not named is as in the policy "default" of a new gateway
    Add(AddArgs),
    /// List policies
    List,
    /// Show a policy
    Show(PolicyName),
    /// Change a policy; what is not named stays, "none" takes it away
    Set(SetArgs),
    /// Remove a policy that nobody has
    Rm(RemoveArgs),
}

/// A policy.
#[derive(Args, Debug)]
pub(crate) struct PolicyName {
    /// Name or identifier
    policy: String,
}

/// What happens to one session more than there may be.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExcessWord {
    /// The new one is refused
    Refuse,
    /// The oldest one ends
    KickOldest,
}

impl ExcessWord {
    const fn word(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::KickOldest => "kick-oldest",
        }
    }
}

/// What a policy says.
#[derive(Args, Debug)]
pub(crate) struct FieldArgs {
    /// What sign-in asks for, in this order: password, totp, token, certificate, or anonymous
    #[arg(long, value_name = "FACTORS", value_delimiter = ',')]
    factors: Option<Vec<String>>,
    #[command(flatten)]
    rate: RateArgs,
    #[command(flatten)]
    session_rate: SessionRateArgs,
    #[command(flatten)]
    quota: QuotaArgs,
    /// How long a sign-in gives access, 1m to 365d, or "never" for without end
    #[arg(long, value_name = "TIME", value_parser = given::seconds)]
    session_timeout: Option<u32>,
    /// After how long without a packet access ends, or "never"
    #[arg(long, value_name = "TIME", value_parser = given::seconds)]
    idle_timeout: Option<u32>,
    /// Most devices of a user
    #[arg(long, value_name = "N")]
    devices_max: Option<u32>,
    /// Most sessions of a user at the same time
    #[arg(long, value_name = "N")]
    sessions_max: Option<u32>,
    /// What happens to one session more
    #[arg(long, value_name = "WHAT")]
    excess: Option<ExcessWord>,
    /// Pool that addresses come from, or "none" for the pool "default"
    #[arg(long, value_name = "POOL", value_parser = given::word)]
    pool: Option<Wish<String>>,
    /// What clients send into the tunnel, separated by commas, or "none" for the configuration's
    #[arg(long, value_name = "PREFIXES", value_parser = given::words)]
    routes: Option<Wish<Vec<String>>>,
    /// DNS servers of clients, separated by commas, or "none" for the configuration's
    #[arg(long, value_name = "ADDRESSES", value_parser = given::words)]
    dns: Option<Wish<Vec<String>>>,
}

impl FieldArgs {
    fn patch(&self, quota_is_new: bool) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), value);
            }
        };
        let number = |number: Option<u32>| number.map(|number| json!(number));
        let list = |wish: &Wish<Vec<String>>| wish.json(|words| json!(words));
        put("factors", self.factors.as_ref().map(|factors| json!(factors)));
        put("user_rate", self.rate.json());
        put("session_rate", self.session_rate.json());
        put("quota", self.quota.json(quota_is_new));
        put("session_timeout_s", number(self.session_timeout));
        put("idle_timeout_s", number(self.idle_timeout));
        put("devices_max", number(self.devices_max));
        put("sessions_max", number(self.sessions_max));
        put("excess", self.excess.map(|excess| json!(excess.word())));
        put("pool", self.pool.as_ref().map(|pool| pool.json(|name| json!(name))));
        put("routes", self.routes.as_ref().map(list));
        put("dns", self.dns.as_ref().map(list));
        map
    }
}

/// `ringway policy add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// 1 to 64 of a-z 0-9 . _ @ -
    name: String,
    #[command(flatten)]
    fields: FieldArgs,
}

/// `ringway policy set`.
#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    /// Name or identifier
    policy: String,
    /// A new name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    fields: FieldArgs,
    /// Only if this is still its version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// `ringway policy rm`.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// Name or identifier
    policy: String,
    /// Only if this is still its version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    sure: SureArgs,
}

/// Does it.
pub(crate) fn run(noun: Noun<PolicyVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        PolicyVerb::Add(args) => add(&desk, &args),
        PolicyVerb::List => list(&desk),
        PolicyVerb::Show(name) => show(&desk, &name.policy),
        PolicyVerb::Set(args) => set(&desk, &args),
        PolicyVerb::Rm(args) => remove(&desk, &args),
    }
}

fn add(desk: &Desk, args: &AddArgs) -> Result<Status, Failure> {
    let mut body = args.fields.patch(true);
    body.retain(|_, value| !value.is_null());
    body.insert("name".to_owned(), json!(args.name));
    let answer = desk.send(Method::POST, &path(&["policies"]), Body::Json(body.into()), None)?;
    desk.done(&answer, "/name", &format!("Made the policy \"{}\"", args.name))
}

fn list(desk: &Desk) -> Result<Status, Failure> {
    let policies = desk.list(&path(&["policies"]), &[], |policy| word(policy, "/name"))?;
    let Some(policies) = policies else { return Ok(Status::Done) };
    let pools = Names::of(desk, "pools", &policies, "/pool");
    let mut table = Table::new(&[
        "NAME",
        "FACTORS",
        "USER RATE",
        "QUOTA",
        "ACCESS",
        "IDLE",
        ">DEVICES",
        ">SESSIONS",
        "POOL",
    ]);
    for policy in &policies {
        table.push(vec![
            word(policy, "/name"),
            word(policy, "/factors"),
            both_rates(policy, "/user_rate"),
            quota(policy, "/quota"),
            seconds(policy, "/session_timeout_s", "no end"),
            seconds(policy, "/idle_timeout_s", "never"),
            word(policy, "/devices_max"),
            word(policy, "/sessions_max"),
            pools.at(policy, "/pool"),
        ]);
    }
    desk.table(&table)
}

fn show(desk: &Desk, name: &str) -> Result<Status, Failure> {
    let Some(policy) = desk.one(&path(&["policies", name]), "/name")? else {
        return Ok(Status::Done);
    };
    let pools = Names::of(desk, "pools", [&policy], "/pool");
    desk.facts(&[
        ("Name", word(&policy, "/name")),
        ("Identifier", word(&policy, "/id")),
        ("Sign-in asks for", word(&policy, "/factors")),
        ("Rate of a user", both_rates(&policy, "/user_rate")),
        ("Rate of a session", both_rates(&policy, "/session_rate")),
        ("Quota of a user", quota(&policy, "/quota")),
        ("Access lasts", seconds(&policy, "/session_timeout_s", "without end")),
        ("Idle access lasts", seconds(&policy, "/idle_timeout_s", "without end")),
        ("Devices at most", word(&policy, "/devices_max")),
        ("Sessions at most", word(&policy, "/sessions_max")),
        ("One session more", word(&policy, "/excess")),
        ("Pool", pools.at(&policy, "/pool")),
        ("Routes", word(&policy, "/routes")),
        ("DNS", word(&policy, "/dns")),
        ("Made", moment(&policy, "/created_at")),
        ("Version", word(&policy, "/version")),
    ])
}

fn set(desk: &Desk, args: &SetArgs) -> Result<Status, Failure> {
    let at = path(&["policies", &args.policy]);
    let before = desk.client.get_json(&at)?;
    let mut patch = args.fields.patch(before["quota"].is_null());
    if let Some(name) = &args.name {
        patch.insert("name".to_owned(), json!(name));
    }
    if patch.is_empty() {
        return Err(nothing_to_change("policy set"));
    }
    let tag = version_tag(args.if_version.or_else(|| before["version"].as_u64()));
    let answer = desk.send(Method::PATCH, &at, Body::Json(patch.into()), tag.as_deref())?;
    changes::shown(desk, &before, &answer, &format!("the policy \"{}\"", args.policy))
}

fn remove(desk: &Desk, args: &RemoveArgs) -> Result<Status, Failure> {
    args.sure.confirm(&format!("This removes the policy \"{}\"", args.policy))?;
    let tag = version_tag(args.if_version);
    let at = path(&["policies", &args.policy]);
    let answer = desk.send(Method::DELETE, &at, Body::Empty, tag.as_deref())?;
    desk.done(&answer, "", &format!("Removed the policy \"{}\"", args.policy))
}
