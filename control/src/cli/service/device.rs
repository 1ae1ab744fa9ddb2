//! `ringway device`: clients with keys of their own, and what to load into them.

use std::io::{self, IsTerminal as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::names::Names;
use super::{Desk, Noun, changes, version_tag};
use crate::cli::args::public_key;
use crate::cli::ask::SureArgs;
use crate::cli::client::{Answer, Body, path};
use crate::cli::show::{moment, word};
use crate::cli::table::Table;
use crate::cli::{files, print, print_json, say};
use crate::failure::{Failure, Status};
use crate::keys;
use crate::peers::qr;
use ringway_proto::crypto::PublicKey;

/// What to do with devices.
#[derive(Debug, Subcommand)]
pub(crate) enum DeviceVerb {
    /// Add a device to a user and print its wg-quick file
    Add(AddArgs),
    /// List the devices of everybody, or of one user
    List(ListArgs),
    /// Show a device and its addresses
    Show(DeviceName),
    /// Let a device connect again
    Enable(DeviceName),
    /// Keep a device out; its session ends
    Disable(DeviceName),
    /// Give a device another name
    Rename(RenameArgs),
    /// Remove a device; its session ends and its addresses become free
    Rm(RemoveArgs),
    /// Give a device a new key and print its new file; it keeps its addresses
    Rotate(RotateArgs),
    /// Print the wg-quick file of a device that made its own key
    Config(FileArgs),
}

/// A device of a user.
#[derive(Args, Debug)]
pub(crate) struct DeviceName {
    /// Name or identifier of the user
    user: String,
    /// Name or identifier of the device
    device: String,
}

impl DeviceName {
    fn path(&self) -> String {
        path(&["users", &self.user, "devices", &self.device])
    }

    fn part(&self, part: &str) -> String {
        path(&["users", &self.user, "devices", &self.device, part])
    }

    fn shown(&self) -> String {
        format!("the device \"{}\" of \"{}\"", self.device, self.user)
    }
}

/// Where a client file goes.
#[derive(Args, Debug)]
pub(crate) struct OutArgs {
    /// Write the file there, readable by its owner only, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw it as a QR code for the camera of a phone, on standard error
    #[arg(long)]
    qr: bool,
}

/// `ringway device add`.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// Name or identifier of the user
    user: String,
    /// What to call the device: 1 to 64 of a-z 0-9 . _ @ -
    name: String,
    /// The key that the device made for itself; without it a pair is made and handed out once
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    public_key: Option<PublicKey>,
    /// A certain IPv4 address of the pool
    #[arg(long, value_name = "ADDRESS")]
    address4: Option<Ipv4Addr>,
    /// A certain IPv6 address of the pool
    #[arg(long, value_name = "ADDRESS")]
    address6: Option<Ipv6Addr>,
    #[command(flatten)]
    out: OutArgs,
}

/// `ringway device list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Of this user
    user: Option<String>,
    /// Those that may connect
    #[arg(long, conflicts_with = "disabled")]
    enabled: bool,
    /// Those that may not
    #[arg(long)]
    disabled: bool,
    /// Whose name contains this
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
}

/// `ringway device rename`.
#[derive(Args, Debug)]
pub(crate) struct RenameArgs {
    #[command(flatten)]
    device: DeviceName,
    /// Its new name
    new_name: String,
}

/// `ringway device rm`.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    device: DeviceName,
    /// Only if this is still its version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    sure: SureArgs,
}

/// `ringway device rotate`.
#[derive(Args, Debug)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    device: DeviceName,
    /// The new key that the device made for itself; without it a pair is made and handed out once
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    public_key: Option<PublicKey>,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    sure: SureArgs,
}

/// `ringway device config`.
#[derive(Args, Debug)]
pub(crate) struct FileArgs {
    #[command(flatten)]
    device: DeviceName,
    #[command(flatten)]
    out: OutArgs,
}

/// Does it.
pub(crate) fn run(noun: Noun<DeviceVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        DeviceVerb::Add(args) => add(&desk, &args),
        DeviceVerb::List(args) => list(&desk, &args),
        DeviceVerb::Show(name) => show_device(&desk, &name),
        DeviceVerb::Enable(name) => enable(&desk, &name, true),
        DeviceVerb::Disable(name) => enable(&desk, &name, false),
        DeviceVerb::Rename(args) => change(&desk, &args.device, &json!({ "name": args.new_name })),
        DeviceVerb::Rm(args) => remove(&desk, &args),
        DeviceVerb::Rotate(args) => rotate(&desk, &args),
        DeviceVerb::Config(args) => config(&desk, &args),
    }
}

fn add(desk: &Desk, args: &AddArgs) -> Result<Status, Failure> {
    // A file that cannot be written is found before a key is made that only it would hold.
    args.out.check()?;
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(args.name));
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), json!(value));
        }
    };
    put("public_key", args.public_key.as_ref().map(keys::show_public));
    put("address4", args.address4.map(|address| address.to_string()));
    put("address6", args.address6.map(|address| address.to_string()));
    let at = path(&["users", &args.user, "devices"]);
    let answer = desk.send(Method::POST, &at, Body::Json(body.into()), None)?;
    let said = format!("Added the device \"{}\" to \"{}\"", args.name, args.user);
    hand_out(desk, &answer, &args.out, &said)
}

fn rotate(desk: &Desk, args: &RotateArgs) -> Result<Status, Failure> {
    args.out.check()?;
    let shown = args.device.shown();
    args.sure.confirm(&format!("This ends the present key of {shown} at once"))?;
    let key = args.public_key.as_ref().map(keys::show_public);
    let body = Body::Json(json!({ "public_key": key }));
    let answer = desk.send(Method::POST, &args.device.part("key"), body, None)?;
    hand_out(desk, &answer, &args.out, &format!("Gave {shown} a new key"))
}

/// Prints or writes the client file of an answer. With a private key in it, it is the only copy.
fn hand_out(desk: &Desk, answer: &Answer, out: &OutArgs, said: &str) -> Result<Status, Failure> {
    let made = answer.json()?;
    let text = Zeroizing::new(made["client_file"].as_str().unwrap_or_default().to_owned());
    if desk.show.json && out.out.is_none() {
        desk.raw(answer)?;
    } else if desk.show.quiet && out.out.is_none() {
        print(&format!("{}\n", word(&made, "/device/name")))?;
    } else {
        out.give(&text)?;
    }
    if !desk.show.quiet {
        say(said);
        if made["has_private_key"] == json!(true) {
            say("The private key is in this file and nowhere else: keep it, or rotate it later");
        }
    }
    Ok(Status::Done)
}

impl OutArgs {
    /// Whether the file can be made.
    fn check(&self) -> Result<(), Failure> {
        self.out.as_deref().map_or(Ok(()), files::check_writable)
    }

    /// Prints or writes a client file, and draws it.
    fn give(&self, text: &str) -> Result<(), Failure> {
        match &self.out {
            Some(file) => {
                if let Err(failure) = files::write_private(file, text.as_bytes()) {
                    // It may hold the only copy of a key, so it is not thrown away with the error.
                    print(text)?;
                    return Err(failure);
                }
                say(&format!("Wrote {}", file.display()));
            }
            None => print(text)?,
        }
        if self.qr {
            say(&Zeroizing::new(qr::draw(text, io::stderr().is_terminal())?));
        }
        Ok(())
    }
}

fn list(desk: &Desk, args: &ListArgs) -> Result<Status, Failure> {
    let enabled = match (args.enabled, args.disabled) {
        (false, false) => None,
        (enabled, _) => Some(enabled.to_string()),
    };
    let query = [("user", args.user.clone()), ("enabled", enabled), ("name", args.name.clone())];
    let at = path(&["devices"]);
    if desk.show.json {
        return desk.list(&at, &query, |_| String::new()).map(|_| Status::Done);
    }
    let page = desk.client.pages(&at, &query)?;
    let devices: &[Value] = page["items"].as_array().map_or(&[], Vec::as_slice);
    let users = Names::of(desk, "users", devices, "/device/user");
    if desk.show.quiet {
        // As the other verbs take them.
        let line = |view: &Value| {
            format!("{} {}\n", users.at(view, "/device/user"), word(view, "/device/name"))
        };
        print(&devices.iter().map(line).collect::<String>())?;
        return Ok(Status::Done);
    }
    let mut table = Table::new(&[
        "USER",
        "DEVICE",
        "ENABLED",
        "ADDRESSES",
        "ACCESS UNTIL",
        "LAST SEEN",
        "KEY",
        "PUBLIC KEY",
    ]);
    for view in devices {
        table.push(vec![
            users.at(view, "/device/user"),
            word(view, "/device/name"),
            word(view, "/device/enabled"),
            addresses(view),
            access(view),
            moment(view, "/device/last_seen"),
            word(view, "/device/key_origin"),
            word(view, "/device/public_key"),
        ]);
    }
    desk.table(&table)
}

fn addresses(view: &Value) -> String {
    let both = ["/lease/address4", "/lease/address6"];
    let there = both.iter().map(|at| word(view, at)).filter(|address| address != "-");
    let there: Vec<String> = there.collect();
    if there.is_empty() { "-".to_owned() } else { there.join(",") }
}

fn access(view: &Value) -> String {
    match (view.pointer("/device/access_from"), view.pointer("/device/access_until")) {
        (Some(Value::String(_)), Some(Value::Null)) => "no end".to_owned(),
        _ => moment(view, "/device/access_until"),
    }
}

fn show_device(desk: &Desk, name: &DeviceName) -> Result<Status, Failure> {
    let Some(view) = desk.one(&name.path(), "/device/name")? else { return Ok(Status::Done) };
    let users = Names::of(desk, "users", [&view], "/device/user");
    let pools = Names::of(desk, "pools", [&view], "/lease/pool");
    desk.facts(&[
        ("Name", word(&view, "/device/name")),
        ("Identifier", word(&view, "/device/id")),
        ("User", users.at(&view, "/device/user")),
        ("Enabled", word(&view, "/device/enabled")),
        ("Public key", word(&view, "/device/public_key")),
        ("Key made by", word(&view, "/device/key_origin")),
        ("Addresses", addresses(&view)),
        ("Pool", pools.at(&view, "/lease/pool")),
        ("Addresses chosen", word(&view, "/lease/is_static")),
        ("Access since", moment(&view, "/device/access_from")),
        ("Access until", access(&view)),
        ("Last seen", moment(&view, "/device/last_seen")),
        ("Made", moment(&view, "/device/created_at")),
        ("Origin", word(&view, "/origin")),
        ("Version", word(&view, "/device/version")),
    ])
}

fn enable(desk: &Desk, name: &DeviceName, enabled: bool) -> Result<Status, Failure> {
    let body = Body::Json(json!({ "enabled": enabled }));
    let answer = desk.send(Method::PATCH, &name.path(), body, None)?;
    let how = if enabled { "enabled" } else { "disabled" };
    desk.done(&answer, "/name", &format!("{how}: {}", name.shown()))
}

fn change(desk: &Desk, name: &DeviceName, patch: &Value) -> Result<Status, Failure> {
    let before = desk.client.get_json(&name.path())?["device"].take();
    let tag = version_tag(before["version"].as_u64());
    let body = Body::Json(patch.clone());
    let answer = desk.send(Method::PATCH, &name.path(), body, tag.as_deref())?;
    changes::shown(desk, &before, &answer, &name.shown())
}

fn remove(desk: &Desk, args: &RemoveArgs) -> Result<Status, Failure> {
    let shown = args.device.shown();
    args.sure.confirm(&format!("This removes {shown}; its addresses become free"))?;
    let tag = version_tag(args.if_version);
    let answer = desk.send(Method::DELETE, &args.device.path(), Body::Empty, tag.as_deref())?;
    desk.done(&answer, "", &format!("Removed {shown}"))
}

fn config(desk: &Desk, args: &FileArgs) -> Result<Status, Failure> {
    args.out.check()?;
    let answer = desk.client.get(&args.device.part("file"), &[])?;
    if desk.show.json {
        print_json(&json!({ "client_file": answer.text }).to_string())?;
        return Ok(Status::Done);
    }
    args.out.give(&Zeroizing::new(answer.text))?;
    Ok(Status::Done)
}
